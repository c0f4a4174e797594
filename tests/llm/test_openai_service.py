"""The OpenAI service against a local server."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.adapters.schemas.tools_schema import ToolsSchema
from antiphon.errors import ConfigError, ServiceError
from antiphon.frames.frames import (
    ErrorFrame,
    Frame,
    FunctionCallResultProperties,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMMessagesFrame,
    LLMTextFrame,
    LLMUpdateSettingsFrame,
    MetricsFrame,
    StartInterruptionFrame,
    VisionImageRawFrame,
)
from antiphon.metrics.metrics import LLMUsageMetricsData, TTFBMetricsData
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.services.llm_service import FunctionCallParams
from antiphon.services.openai._tool_calls import ToolCallCollector
from antiphon.services.openai.llm import OpenAILLMService


def _load(name: str) -> Any:
    # Tests are no package: a helper module beside them is loaded by its path.
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"llm_tests_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


server = _load("chat_server")
chunk, call = server.chunk, server.call

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 3,
    "total_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 4},
}


class Watch(FrameProcessor):
    """Keeps the frames of one direction, and lets a test wait for them."""

    def __init__(self, direction: FrameDirection) -> None:
        super().__init__()
        self.direction = direction
        self.frames: list[Frame] = []
        self._news = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is self.direction:
            self.frames.append(frame)
            self._news.set()
        await self.push_frame(frame, direction)

    async def seen(self, kind: type[Frame], count: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.count(kind) < count:
                self._news.clear()
                await self._news.wait()

    def count(self, kind: type[Frame]) -> int:
        return sum(isinstance(frame, kind) for frame in self.frames)

    @property
    def texts(self) -> list[str]:
        return [frame.text for frame in self.frames if isinstance(frame, LLMTextFrame)]

    def errors(self) -> list[str]:
        return [frame.error for frame in self.frames if isinstance(frame, ErrorFrame)]


class Rig:
    """A service in a running pipeline, connected with a scripted server."""

    def __init__(self, chat: Any, after: Callable[[OpenAILLMService], Any], **kwargs: Any) -> None:
        kwargs.setdefault("api_key", "test-key")
        self.llm = OpenAILLMService(model="m", base_url=chat.url, **kwargs)
        self.chat = chat
        self.up = Watch(FrameDirection.UPSTREAM)
        self.down = Watch(FrameDirection.DOWNSTREAM)
        processors: list[FrameProcessor] = [self.up, self.llm, self.down]
        processors += [extra for extra in [after(self.llm)] if extra is not None]
        self.task = PipelineTask(
            Pipeline(processors),
            params=PipelineParams(enable_metrics=True, enable_usage_metrics=True),
        )

    async def ask(self, messages: list[Any] | None = None, tools: Any = None) -> None:
        context = OpenAILLMContext(messages or HELLO, tools or [])
        await self.task.queue_frame(OpenAILLMContextFrame(context))


async def converse(
    scripts: list[Any],
    story: Callable[[Rig], Awaitable[None]],
    after: Callable[[OpenAILLMService], Any] = lambda _: None,
    **kwargs: Any,
) -> Rig:
    async with server.ChatServer(*scripts).running() as chat:
        rig = Rig(chat, after, **kwargs)

        async def act() -> None:
            try:
                async with asyncio.timeout(20):
                    await story(rig)
            finally:
                await rig.task.stop_when_done()

        await asyncio.gather(PipelineRunner(handle_sigint=False).run(rig.task), act())
        return rig


async def test_an_answer_is_streamed_and_accounted_for() -> None:
    partial = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
    script = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}, usage=partial),
        chunk({"content": "lo."}),
        chunk(usage=USAGE),
    ]

    async def story(rig: Rig) -> None:
        await rig.ask()
        await rig.down.seen(LLMFullResponseEndFrame)

    rig = await converse(
        [script],
        story,
        params=OpenAILLMService.InputParams(temperature=0.5, max_tokens=9, extra={"user": "u1"}),
        default_headers={"x-extra": "yes"},
    )

    assert rig.down.texts == ["Hel", "lo."]
    assert rig.down.count(LLMFullResponseStartFrame) == 1
    assert rig.chat.requests == [
        {
            "model": "m",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": HELLO,
            "temperature": 0.5,
            "max_tokens": 9,
            "user": "u1",
        }
    ]
    assert rig.chat.headers[0]["authorization"] == "Bearer test-key"
    assert rig.chat.headers[0]["x-extra"] == "yes"

    data = [
        item
        for frame in rig.down.frames
        if isinstance(frame, MetricsFrame)
        for item in frame.data
        if item.processor == rig.llm.name
    ]
    (usage,) = (item.value for item in data if isinstance(item, LLMUsageMetricsData))
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 3, 10)
    assert usage.cache_read_input_tokens == 4
    assert any(isinstance(item, TTFBMetricsData) and item.value > 0 for item in data)
    assert {item.model for item in data if isinstance(item, LLMUsageMetricsData)} == {"m"}


async def test_a_function_call_makes_the_round_trip() -> None:
    asked = [
        chunk({"content": "Let me see. "}),
        chunk(call(0, id="a", function={"name": "weather", "arguments": ""}, type="function")),
        chunk(call(1, id="b", function={"name": "nothing", "arguments": ""}, type="function")),
        chunk(call(0, function={"arguments": '{"city": '})),
        chunk(call(0, function={"arguments": '"Oslo"}'})),
    ]
    answered = [chunk({"content": "Three degrees."})]
    messages: list[Any] = [{"role": "user", "content": "Weather in Oslo?"}]
    schema = FunctionSchema("weather", "tells", {"city": {"type": "string"}}, ["city"])
    context = OpenAILLMContext(messages, ToolsSchema([schema]), "auto")
    updated = asyncio.Event()

    async def weather(params: FunctionCallParams) -> None:
        async def on_context_updated() -> None:
            updated.set()

        await params.result_callback(
            {"t": 3, "city": params.arguments["city"]},
            properties=FunctionCallResultProperties(on_context_updated=on_context_updated),
        )

    def after(llm: OpenAILLMService) -> FrameProcessor:
        llm.register_function("weather", weather)
        return llm.create_context_aggregator(context).assistant()

    async def story(rig: Rig) -> None:
        await rig.task.queue_frame(OpenAILLMContextFrame(context))
        # The assistant's half sends the result upstream, where the service answers it.
        await rig.down.seen(LLMFullResponseEndFrame, 2)
        await updated.wait()

    rig = await converse([asked, answered], story, after)

    first, second = rig.chat.requests
    assert first["tool_choice"] == "auto"
    assert first["tools"] == [{"type": "function", "function": schema.to_default_dict()}]
    (call_message,) = (m for m in second["messages"] if "tool_calls" in m)
    (result_message,) = (m for m in second["messages"] if m["role"] == "tool")
    assert call_message["tool_calls"][0]["id"] == "a"
    assert json.loads(call_message["tool_calls"][0]["function"]["arguments"]) == {"city": "Oslo"}
    assert json.loads(result_message["content"]) == {"t": 3, "city": "Oslo"}
    assert rig.down.texts == ["Let me see. ", "Three degrees."]
    assert "nothing" not in json.dumps(messages)


async def test_an_interruption_closes_the_stream() -> None:
    held = asyncio.Event()

    async def story(rig: Rig) -> None:
        await rig.ask()
        await rig.down.seen(LLMTextFrame)
        await rig.task.queue_frame(StartInterruptionFrame())
        await rig.down.seen(LLMFullResponseEndFrame)
        await rig.chat.gone.wait()
        await rig.ask()
        await rig.down.seen(LLMFullResponseEndFrame, 2)

    first = [chunk({"content": "Long"}), held, chunk({"content": " story"})]
    rig = await converse([first, [chunk({"content": "New."})]], story)
    assert rig.down.texts == ["Long", "New."]
    assert rig.up.errors() == []


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_timeout_is_an_event_and_ends_the_answer(streaming: bool) -> None:
    held = asyncio.Event()
    timed_out = asyncio.Event()

    class Impatient(OpenAILLMService):
        def create_client(self, *args: Any, **kwargs: Any) -> Any:
            return super().create_client(*args, **kwargs).with_options(timeout=0.2, max_retries=0)

    async with server.ChatServer(
        [*([chunk({"content": "x"})] * streaming), held]
    ).running() as chat:
        llm = Impatient(model="m", api_key="k", base_url=chat.url)
        down, up = Watch(FrameDirection.DOWNSTREAM), Watch(FrameDirection.UPSTREAM)
        task = PipelineTask(Pipeline([up, llm, down]))

        @llm.event_handler("on_completion_timeout")
        async def on_timeout(service: OpenAILLMService) -> None:
            assert service is llm
            timed_out.set()

        async def story() -> None:
            await task.queue_frame(OpenAILLMContextFrame(OpenAILLMContext(HELLO)))
            await down.seen(LLMFullResponseEndFrame)
            await timed_out.wait()
            await task.stop_when_done()

        await asyncio.gather(PipelineRunner(handle_sigint=False).run(task), story())
    assert up.errors() == []
    assert down.texts == ["x"] * streaming


async def test_a_slow_beginning_may_be_tried_again() -> None:
    async def story(rig: Rig) -> None:
        await rig.ask()
        await rig.down.seen(LLMFullResponseEndFrame)

    slow, quick = [asyncio.Event()], [chunk({"content": "x"})]
    rig = await converse([slow, quick], story, retry_on_timeout=True, retry_timeout_secs=0.1)
    assert rig.down.texts == ["x"]
    assert len(rig.chat.requests) == 2


async def test_a_refusal_is_an_error_and_the_bot_goes_on() -> None:
    refusal = web.json_response({"error": {"message": "no such model"}}, status=404)

    async def story(rig: Rig) -> None:
        await rig.ask()
        await rig.up.seen(ErrorFrame)
        await rig.ask()
        await rig.down.seen(LLMFullResponseEndFrame, 2)

    rig = await converse([refusal, [chunk({"content": "Hi."})]], story)
    (error,) = rig.up.errors()
    assert "404" in error
    assert rig.down.texts == ["Hi."]


async def test_settings_messages_and_pictures() -> None:
    async def story(rig: Rig) -> None:
        await rig.task.queue_frame(
            LLMUpdateSettingsFrame(settings={"model": "other", "temperature": 0.1, "what": 1})
        )
        with pytest.warns(DeprecationWarning, match="LLMMessagesFrame"):
            messages = LLMMessagesFrame(messages=HELLO)
        await rig.task.queue_frame(messages)
        await rig.down.seen(LLMFullResponseEndFrame, 1)
        await rig.task.queue_frame(
            VisionImageRawFrame(image=bytes(12), size=(2, 2), format="RGB", text="what?")
        )
        await rig.down.seen(LLMFullResponseEndFrame, 2)

    rig = await converse([[chunk({"content": "a"})], [chunk({"content": "b"})]], story)
    first, second = rig.chat.requests
    assert (first["model"], first["temperature"], first["messages"]) == ("other", 0.1, HELLO)
    assert second["messages"][0]["content"][0]["text"] == "what?"
    assert rig.down.texts == ["a", "b"]


def test_construction_is_cheap_and_checks_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    service = OpenAILLMService()
    assert service.model_name == "gpt-4.1"
    assert service.can_generate_metrics()
    assert service._made_client is None
    with pytest.raises(ConfigError, match="api_key"):
        _ = service._client
    with pytest.raises(ValueError, match="less than or equal to 2"):
        OpenAILLMService.InputParams(temperature=3)


async def test_without_a_key_the_pipeline_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    up = Watch(FrameDirection.UPSTREAM)
    task = PipelineTask(Pipeline([up, OpenAILLMService()]))
    async with asyncio.timeout(20):
        await PipelineRunner(handle_sigint=False).run(task)
    (error,) = up.errors()
    assert "api_key" in error


class _Delta:
    def __init__(self, index: int | None, id: str | None, name: str | None, arguments: str | None):
        self.index, self.id = index, id
        self.function = type("Function", (), {"name": name, "arguments": arguments})()


def test_calls_without_an_index_are_kept_apart() -> None:
    calls = ToolCallCollector()
    calls.add([_Delta(None, "a", "f", "{}"), _Delta(None, "b", "g", "{}")])
    assert [(c.function_name, c.tool_call_id) for c in calls.finish(None)] == [
        ("f", "a"),
        ("g", "b"),
    ]


@pytest.mark.parametrize("arguments", ["{", "[1]"])
def test_arguments_that_are_no_object_are_an_error(arguments: str) -> None:
    calls = ToolCallCollector()
    calls.add([_Delta(0, "a", "f", arguments)])
    with pytest.raises(ServiceError, match="f"):
        calls.finish(None)


async def test_a_conversation_is_answered_beside_the_pipeline() -> None:
    answers: list[str | None] = []

    async def story(rig: Rig) -> None:
        context = OpenAILLMContext(HELLO)
        answers.append(await rig.llm.run_inference(context))
        answers.append(await rig.llm.run_inference(context))
        with pytest.raises(ServiceError, match="chat completion failed") as caught:
            await rig.llm.run_inference(context)
        assert caught.value.status == 400

    scripts = [
        [chunk({"content": "Hel"}), chunk({"content": "lo."}), chunk(usage=USAGE)],
        [chunk({"content": None})],
        web.Response(status=400, text="no"),
    ]
    rig = await converse(scripts, story)
    assert answers == ["Hello.", None]
    assert [request["messages"] for request in rig.chat.requests] == [HELLO] * 3
    assert rig.down.texts == []
