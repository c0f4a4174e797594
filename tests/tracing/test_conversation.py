"""A conversation becomes one trace, wherever its services run."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from opentelemetry.trace import StatusCode
from tests.session.conftest import Actors
from tests.tracing.conftest import Spans

from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.adapters.schemas.tools_schema import ToolsSchema
from antiphon.audio.vad.vad_analyzer import VADParams
from antiphon.frames.frames import EndFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.testing import (
    FakeLLMService,
    FakeSTTService,
    FakeTransport,
    FakeTTSService,
    FakeVADAnalyzer,
)
from antiphon.testing.virtual_time import VirtualClock
from antiphon.transports.base_transport import TransportParams
from antiphon.utils.tracing.conversation_context_provider import get_conversation_id
from antiphon.utils.tracing.service_span import MAX_TEXT_CHARS, ServiceSpan
from antiphon.utils.tracing.turn_context_provider import get_current_turn_context

Run = Callable[[PipelineTask], Coroutine[Any, Any, object]]


class Bot:
    """A bot of fakes that is asked two questions."""

    def __init__(self, responses: list[Any], **task: Any) -> None:
        params = TransportParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            vad_analyzer=FakeVADAnalyzer(params=VADParams(min_volume=0.0)),
        )
        self.transport = FakeTransport(params)
        self.llm = FakeLLMService(responses)
        tools = ToolsSchema([FunctionSchema("lookup", "Looks up", {"of": {"type": "string"}}, [])])
        self.context = OpenAILLMContext([{"role": "system", "content": "Be kind."}], tools=tools)
        aggregator = self.llm.create_context_aggregator(self.context)
        self.tts = FakeTTSService()
        self.tts.set_voice("anna")
        self.task = PipelineTask(
            Pipeline(
                [
                    self.transport.input(),
                    FakeSTTService(["Who are you?", "And then?"]),
                    aggregator.user(),
                    self.llm,
                    self.tts,
                    self.transport.output(),
                    aggregator.assistant(),
                ]
            ),
            params=PipelineParams(enable_metrics=True, enable_usage_metrics=True),
            **{
                "enable_tracing": True,
                "conversation_id": "customer-123",
                "additional_span_attributes": {"session.id": "abc-123"},
                **task,
            },
        )

    async def talk(self, run: Run, *, pause_secs: float = 4.0) -> None:
        async def user() -> None:
            await self.transport.make_noise(1.0)
            await self.transport.stay_silent(pause_secs)
            await self.transport.make_noise(1.0)
            await self.transport.stay_silent(4.0)
            await self.task.queue_frame(EndFrame())

        await asyncio.gather(run(self.task), user())


async def locally(task: PipelineTask) -> None:
    await PipelineRunner(handle_sigint=False).run(task)


def check_two_turns(spans: Spans) -> None:
    conversation = spans.one("conversation")
    assert conversation.parent is None
    assert dict(conversation.attributes or {}) == {
        "conversation.id": "customer-123",
        "conversation.type": "voice",
        "session.id": "abc-123",
    }
    first, second = spans.named("turn")
    assert spans.children(conversation) == ["turn", "turn"]
    assert sorted(spans.children(first)) == ["llm", "stt", "tts"]
    assert sorted(spans.children(second)) == ["llm", "stt", "tts"]
    assert len({span.context.trace_id for span in spans.all() if span.context}) == 1

    attributes = first.attributes or {}
    assert attributes["turn.number"] == 1
    assert attributes["turn.type"] == "conversation"
    assert attributes["turn.was_interrupted"] is False
    assert isinstance(attributes["turn.duration_seconds"], float)
    assert attributes["conversation.id"] == "customer-123"

    stt, _ = spans.named("stt")
    assert stt.attributes is not None
    assert stt.attributes["gen_ai.system"] == "fake"
    assert stt.attributes["transcript"] == "Who are you?"
    assert stt.attributes["is_final"] is True
    assert stt.attributes["vad_enabled"] is True

    llm, _ = spans.named("llm")
    assert llm.attributes is not None
    assert llm.attributes["gen_ai.system"] == "fake"
    assert llm.attributes["gen_ai.request.model"] == "fake"
    assert llm.attributes["gen_ai.operation.name"] == "chat"
    assert llm.attributes["stream"] is True
    assert json.loads(str(llm.attributes["input"]))[-1]["content"] == "Who are you?"
    assert llm.attributes["output"] == "I am a bot."
    assert llm.attributes["system"] == "Be kind."
    assert llm.attributes["tools.count"] == 1
    assert llm.attributes["tools.names"] == "lookup"
    assert "lookup" in str(llm.attributes["tools"])
    assert llm.attributes["gen_ai.usage.output_tokens"] == 4
    assert isinstance(llm.attributes["gen_ai.usage.input_tokens"], int)
    assert isinstance(llm.attributes["metrics.ttfb"], float)

    tts, _ = spans.named("tts")
    assert tts.attributes is not None
    assert tts.attributes["text"] == "I am a bot."
    assert tts.attributes["metrics.character_count"] == len("I am a bot.")
    assert tts.attributes["voice_id"] == "anna"
    assert tts.attributes["gen_ai.request.model"] == "fake"
    assert isinstance(tts.attributes["metrics.ttfb"], float)


@pytest.mark.virtual_time
async def test_conversation_turns_and_services(spans: Spans) -> None:
    bot = Bot(["I am a bot.", "Nothing."], clock=VirtualClock())
    await bot.talk(locally)
    check_two_turns(spans)
    first, second = spans.named("turn")
    for turn in (first, second):
        assert turn.start_time is not None
        assert turn.end_time is not None
        assert turn.start_time < turn.end_time


@pytest.mark.virtual_time
async def test_services_in_other_processes_are_in_the_same_trace(
    spans: Spans, actors: Actors
) -> None:
    bot = Bot(["I am a bot.", "Nothing."])
    await bot.talk(actors.run)
    assert len(actors.hosts) == 3
    check_two_turns(spans)


@pytest.mark.virtual_time
async def test_an_interrupted_turn_says_so(spans: Spans) -> None:
    bot = Bot(["I will say something very long. " * 5, "Yes."], clock=VirtualClock())
    await bot.talk(locally, pause_secs=3.0)
    first, second = spans.named("turn")
    assert (first.attributes or {})["turn.was_interrupted"] is True
    assert second.attributes is not None


@pytest.mark.virtual_time
async def test_ids_are_made_up_and_code_of_the_bot_finds_its_turn(spans: Spans) -> None:
    bot = Bot(["I am a bot.", "Nothing."], clock=VirtualClock(), conversation_id=None)
    found: list[Any] = []

    @bot.transport.event_handler("on_client_connected")
    async def connected(*_: Any) -> None:
        await asyncio.sleep(0.1)
        found.extend((get_conversation_id(), get_current_turn_context()))

    await bot.talk(locally)
    conversation_id, turn = found
    assert (spans.one("conversation").attributes or {})["conversation.id"] == conversation_id
    assert turn is not None
    assert get_conversation_id() is None
    assert get_current_turn_context() is None


@pytest.mark.virtual_time
async def test_conversations_in_one_process_are_traces_of_their_own(spans: Spans) -> None:
    bots = [
        Bot(["I am a bot.", "Nothing."], clock=VirtualClock(), conversation_id=name)
        for name in ("a", "b")
    ]
    found: list[str | None] = []

    async def look_up(name: str, *_: Any) -> None:
        await asyncio.sleep(0.1)
        assert get_conversation_id() == name
        found.append(name)

    for bot, name in zip(bots, "ab", strict=True):
        bot.transport.add_event_handler("on_client_connected", functools.partial(look_up, name))
    await asyncio.gather(*(bot.talk(locally) for bot in bots))
    assert sorted(str(name) for name in found) == ["a", "b"]
    for conversation in spans.named("conversation"):
        assert spans.children(conversation) == ["turn", "turn"]
    traces = [span.context.trace_id for span in spans.all() if span.context]
    assert [traces.count(trace) for trace in set(traces)] == [9, 9]


@pytest.mark.parametrize(
    "plain",
    [[], ["tts", 1, 2, {}], ["tts", 1, 2, [], ""], ["tts", "1", 2, {}, ""], [1, 1, 2, {}, ""]],
)
def test_a_malformed_span_is_refused(plain: list[Any]) -> None:
    with pytest.raises(ValueError, match="malformed"):
        ServiceSpan.from_plain(plain)


def test_what_a_span_cannot_hold_is_text_or_cut() -> None:
    span = ServiceSpan("tts", 1)
    span.set_attributes({"a": None, "b": [1], "c": "x" * 200_000, "d": 1.5})
    assert span.attributes == {"b": "[1]", "c": "x" * MAX_TEXT_CHARS, "d": 1.5}
    assert ServiceSpan.from_plain(span.to_plain()) == span


@pytest.mark.virtual_time
async def test_nothing_is_traced_unless_asked_for(spans: Spans) -> None:
    bot = Bot(["I am a bot.", "Nothing."], clock=VirtualClock(), enable_tracing=False)
    await bot.talk(locally)
    assert spans.all() == ()
    assert bot.task.turn_trace_observer is None


@pytest.mark.virtual_time
async def test_a_failing_service_is_an_error_in_the_trace(spans: Spans) -> None:
    from antiphon.testing import FakeFailure

    bot = Bot([[FakeFailure("out of order")], "Nothing."], clock=VirtualClock())
    await bot.talk(locally)
    failed = spans.named("llm")[0]
    assert failed.status.status_code is StatusCode.ERROR
    assert "out of order" in str(failed.status.description)
