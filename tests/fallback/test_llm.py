"""Chains of language models."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.fallback.conftest import Line

from antiphon.errors import ConfigError, ServiceError
from antiphon.frames.frames import (
    Frame,
    FunctionCallFromLLM,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    FunctionCallsStartedFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMMessagesFrame,
    LLMTextFrame,
    LLMUpdateSettingsFrame,
    StartInterruptionFrame,
    TextFrame,
)
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services.fallback import FallbackLLMService
from antiphon.services.fallback.llm import CONTINUE_PROMPT
from antiphon.services.llm_service import FunctionCallParams, LLMService
from antiphon.testing import FakeDelay, FakeFailure, FakeLLMService, FakeToolCall
from antiphon.testing.fake_llm import FakeResponse

pytestmark = pytest.mark.virtual_time

HANG = FakeDelay(3600.0)
DOWN = FakeFailure("down")
ANSWER = [LLMFullResponseStartFrame, LLMTextFrame, LLMTextFrame, LLMFullResponseEndFrame]


def ask(text: str = "Hello?") -> OpenAILLMContextFrame:
    return OpenAILLMContextFrame(OpenAILLMContext([{"role": "user", "content": text}]))


def models(*scripts: list[FakeResponse], **kwargs: Any) -> FallbackLLMService:
    made = [FakeLLMService(script, name=f"model{i}") for i, script in enumerate(scripts)]
    return FallbackLLMService(made, **kwargs)


def said(line: Line) -> str:
    return "".join(line.end.texts(LLMTextFrame))


def kinds(line: Line) -> list[type[Frame]]:
    wanted = (LLMFullResponseStartFrame, LLMTextFrame, LLMFullResponseEndFrame, TextFrame)
    return [type(frame) for frame in line.end.of(*wanted)]


def requests(chain: FallbackLLMService, member: int) -> list[list[Any]]:
    service = chain.services[member]
    assert isinstance(service, FakeLLMService)
    return service.requests


async def test_the_preferred_one_answers() -> None:
    chain = models(["Hello there."], ["I am the other."])
    line = await Line(chain).run(ask(), TextFrame("behind"))
    assert kinds(line) == [*ANSWER, TextFrame]
    assert said(line) == "Hello there."
    assert line.events == []
    assert line.errors == []
    assert requests(chain, 1) == []


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ([DOWN], "down"),
        ([FakeFailure("down", is_reported=True)], "down"),
        ([HANG], "no answer in time"),
        ([FakeDelay(6.0), "too", "late"], "no answer in time"),
    ],
)
async def test_the_next_one_answers_as_if_it_were_the_first(first: list[Any], reason: str) -> None:
    chain = models([first], ["Hello there."])
    line = await Line(chain).run(ask(), TextFrame("behind"))
    assert kinds(line) == [*ANSWER, TextFrame]
    assert said(line) == "Hello there."
    assert line.events == [
        ("failed", "model0", reason),
        ("switched", "model0", "model1", reason),
    ]
    assert line.errors == []
    assert requests(chain, 0) == requests(chain, 1)


async def test_an_empty_answer_is_an_answer() -> None:
    chain = models([[]], ["Not asked."])
    line = await Line(chain).run(ask())
    assert kinds(line) == [LLMFullResponseStartFrame, LLMFullResponseEndFrame]
    assert line.events == []


async def test_all_fail() -> None:
    chain = models([[DOWN], "Back again."], [[HANG], [DOWN]])
    line = await Line(chain).run(ask(), TextFrame("behind"), 6.0, ask())
    start, end = LLMFullResponseStartFrame, LLMFullResponseEndFrame
    assert kinds(line) == [start, end, TextFrame, start, LLMTextFrame, LLMTextFrame, end]
    (error,) = line.errors
    assert error == "no service could answer: model0: down; model1: no answer in time"
    reasons = {"model0": "down", "model1": "no answer in time"}
    assert ("all_services_failed", reasons) in line.events
    # The next request finds the first one well.
    assert said(line) == "Back again."
    assert line.events[-1] == ("recovered", "model0")


@pytest.mark.parametrize("failure", [DOWN, HANG])
@pytest.mark.parametrize(
    "second",
    [
        "is cold and dark.",
        "weather in Oslo is cold and dark.",
        "The weather in Oslo is cold and dark.",
        "Oslo is cold and dark.",
    ],
)
async def test_a_broken_answer_is_continued_without_repetition(failure: Any, second: str) -> None:
    chain = models([["The", " weather", " in", " Oslo", failure]], [second])
    question = ask("How is the weather?")
    line = await Line(chain).run(question)
    assert said(line) == "The weather in Oslo is cold and dark."
    assert [type(frame) for frame in line.end.of(LLMFullResponseStartFrame)] == [
        LLMFullResponseStartFrame
    ]
    # The conversation itself is left alone.
    assert question.context.messages == [{"role": "user", "content": "How is the weather?"}]
    assert requests(chain, 1) == [
        [
            {"role": "user", "content": "How is the weather?"},
            {"role": "assistant", "content": "The weather in Oslo"},
            {"role": "user", "content": CONTINUE_PROMPT},
        ]
    ]


async def test_a_broken_answer_may_be_left_at_that() -> None:
    chain = models([["Half", " of", DOWN]], ["Not asked."], continue_prompt=None)
    line = await Line(chain).run(ask())
    assert said(line) == "Half of"
    assert kinds(line) == ANSWER
    assert line.errors == ["no service could answer: model0: down"]
    assert line.switches == [("model0", "model1", "recovered")]
    assert requests(chain, 1) == []


async def test_a_third_one_continues_what_two_have_begun() -> None:
    chain = models([["One,", DOWN]], [["One,", " two,", HANG]], ["two, three."])
    line = await Line(chain).run(ask())
    assert said(line) == "One, two, three."
    assert requests(chain, 2)[0][1] == {"role": "assistant", "content": "One, two,"}


async def test_what_a_member_says_too_late_is_not_heard() -> None:
    class Stubborn(FakeLLMService):
        """Answers although it was told to stop."""

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, OpenAILLMContextFrame):
                self.create_task(self._late(), "late")
            else:
                await super().process_frame(frame, direction)

        async def _late(self) -> None:
            await asyncio.sleep(5.5)
            await self.push_frame(LLMTextFrame("Late."))
            await self.run_function_calls(
                [FunctionCallFromLLM("late", "1", {}, OpenAILLMContext())]
            )

    chain = FallbackLLMService(
        [Stubborn(), FakeLLMService([[FakeDelay(1.0), "In", " time."]], name="second")]
    )
    called: list[str] = []

    async def late(params: FunctionCallParams) -> None:
        called.append(params.function_name)

    chain.register_function("late", late)
    line = await Line(chain).run(ask(), 8.0)
    assert said(line) == "In time."
    assert called == []
    assert line.end.of(FunctionCallsStartedFrame) == []


async def test_an_interruption_ends_the_attempt_and_blames_nobody() -> None:
    chain = models([[HANG], "Yes?"], ["Not asked."])
    line = await Line(chain).run(ask(), 1.0, StartInterruptionFrame(), ask())
    assert said(line) == "Yes?"
    assert line.events == []
    start, end = LLMFullResponseStartFrame, LLMFullResponseEndFrame
    assert kinds(line) == [start, end, start, LLMTextFrame, end]


async def test_an_interruption_while_failing_over() -> None:
    chain = models([[HANG]], [["Half", HANG], "Anew."])
    line = await Line(chain).run(ask(), 6.0, StartInterruptionFrame(), ask())
    assert said(line) == "HalfAnew."
    assert line.switches == [("model0", "model1", "no answer in time")]
    # The continuation of the first answer is not that of the second.
    assert requests(chain, 1)[1] == [{"role": "user", "content": "Hello?"}]


async def test_the_preferred_one_is_probed_beside_and_returned_to() -> None:
    chain = models(
        [[DOWN], [DOWN], "Probed.", "I am back."],
        ["One.", "Two.", "Three.", "Four.", "Five."],
        probe_after_secs=10.0,
    )
    line = await Line(chain).run(
        ask("1"),
        1.0,
        ask("2"),  # too early for a probe
        20.0,
        ask("3"),  # a probe, that fails
        10.0,
        ask("4"),  # too early: the pause has doubled
        20.0,
        ask("5"),  # a probe that passes, beside the last answer of the other
        1.0,
        ask("6"),
    )
    assert said(line) == "One.Two.Three.Four.Five.I am back."
    assert line.switches == [
        ("model0", "model1", "down"),
        ("model1", "model0", "recovered"),
    ]
    assert len(requests(chain, 0)) == 4


async def test_a_probe_calls_no_functions_and_stops_with_its_first_word() -> None:
    chain = models(
        [[DOWN], ["Probed", HANG], [FakeToolCall("work")], "Done."],
        ["One.", "Two."],
    )
    called: list[str] = []

    async def work(params: FunctionCallParams) -> None:
        called.append(params.tool_call_id)
        await params.result_callback("done")

    chain.register_function("work", work)
    line = await Line(chain).run(ask(), 20.0, ask(), 1.0, ask())
    assert said(line) == "One.Two."
    assert called == ["fake_call_1"]


# -- functions -------------------------------------------------------------------------------------


async def test_functions_are_registered_once_and_run_once() -> None:
    chain = models([[DOWN]], [["Let me see.", FakeToolCall("time", {"zone": "CET"})]])
    calls: list[Any] = []
    started: list[Any] = []

    async def time(params: FunctionCallParams) -> None:
        calls.append((params.arguments, params.llm is chain, params.context is question.context))
        await params.result_callback("noon")

    chain.register_function("time", time)
    chain.add_event_handler("on_function_calls_started", lambda *found: started.append(found))
    question = ask()
    line = await Line(chain).run(question, 1.0)
    assert calls == [({"zone": "CET"}, True, True)]
    assert [(service is chain, len(found)) for service, found in started] == [(True, 1)]
    for kind in (FunctionCallsStartedFrame, FunctionCallInProgressFrame, FunctionCallResultFrame):
        assert len(line.end.of(kind)) == 1
        assert sum(isinstance(frame, kind) for frame in line.start.up) == 1


async def test_after_a_function_call_nobody_else_goes_on() -> None:
    class CallsAndFails(FakeLLMService):
        async def _respond(self, context: OpenAILLMContext) -> None:
            await self.run_function_calls([FunctionCallFromLLM("f", "1", {}, context)])
            raise ServiceError("lost behind the call")

    other = FakeLLMService([[FakeToolCall("f")]], name="other")
    chain = FallbackLLMService([CallsAndFails(name="first"), other])
    called: list[str] = []

    async def f(params: FunctionCallParams) -> None:
        called.append(params.tool_call_id)

    chain.register_function("f", f)
    line = await Line(chain).run(ask(), 1.0)
    assert called == ["1"]
    assert other.requests == []
    assert line.errors == ["no service could answer: first: lost behind the call"]


async def test_a_running_function_survives_the_member_that_called_it() -> None:
    chain = models([[FakeToolCall("slow")], [HANG]], ["Here."])
    done = asyncio.Event()

    async def slow(params: FunctionCallParams) -> None:
        await asyncio.sleep(7.0)
        await params.result_callback("result")
        done.set()

    chain.register_function("slow", slow, cancel_on_interruption=True)
    # The second request hangs, and the member is stopped while its function runs.
    line = await Line(chain).run(ask(), 1.0, ask(), done.wait)
    assert said(line) == "Here."
    assert len(line.end.of(FunctionCallResultFrame)) == 1


async def test_functions_of_a_member_are_refused() -> None:
    member = FakeLLMService([], name="mine")

    async def f(params: FunctionCallParams) -> None:
        """Nothing."""

    member.register_function("f", f)
    with pytest.raises(ConfigError, match="mine has functions of its own"):
        FallbackLLMService([member])


async def test_a_chain_may_be_a_member() -> None:
    inner = models([[DOWN]], [["Hm.", FakeToolCall("f")], "Yes."])
    outer = FallbackLLMService([FakeLLMService([[DOWN], [DOWN]], name="first"), inner])
    called: list[bool] = []

    async def f(params: FunctionCallParams) -> None:
        called.append(params.llm is outer)
        await params.result_callback("x", properties=None)

    outer.register_function("f", f)
    line = await Line(outer).run(ask(), 1.0, ask())
    assert said(line) == "Hm.Yes."
    assert called == [True]


# -- what a language model service has -------------------------------------------------------------


async def test_messages_frames_are_answered_too() -> None:
    with pytest.warns(DeprecationWarning, match="LLMMessagesFrame"):
        frame = LLMMessagesFrame([{"role": "user", "content": "Hi"}])
    line = await Line(models([["Half", DOWN]], ["Half done."])).run(frame)
    assert said(line) == "Half done."


async def test_inference_beside_the_pipeline() -> None:
    context = OpenAILLMContext([{"role": "user", "content": "Sum it up."}])
    chain = models([[DOWN], "First."], [[HANG], "Second."], ["Third."])
    assert await chain.run_inference(context) == "Third."
    assert await chain.run_inference(context) == "First."
    with pytest.raises(ServiceError, match=r"model0: .*; model1: down"):
        await models([], [[DOWN]]).run_inference(context)


async def test_the_conversation_is_that_of_the_preferred_one() -> None:
    chain = models(["a"], ["b"])
    context = OpenAILLMContext()
    pair = chain.create_context_aggregator(context)
    assert pair.user().context is pair.assistant().context is context
    assert chain.get_llm_adapter() is chain.services[0].get_llm_adapter()
    assert context.get_llm_adapter() is chain.get_llm_adapter()
    assert isinstance(chain, LLMService)


async def test_names_that_a_vendor_has_given_are_for_the_preferred_one() -> None:
    class Tuned(FakeLLMService):
        def __init__(self, script: list[FakeResponse], **kwargs: Any) -> None:
            super().__init__(script, **kwargs)
            self._settings = {"temperature": 0.5}

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, LLMUpdateSettingsFrame):
                await self._update_settings(frame.settings)
            else:
                await super().process_frame(frame, direction)

    first, second = Tuned(["a"]), Tuned(["b"])
    chain = FallbackLLMService([first, second])
    frame = LLMUpdateSettingsFrame(model="large", temperature=0.9)
    await Line(chain).run(frame, ask())
    assert first._settings == second._settings == {"temperature": 0.9}
    assert (first.model_name, second.model_name) == ("large", "fake")
    assert chain.model_name == "large"


async def test_settings_reach_a_member_that_hung_when_they_changed() -> None:
    class Tuned(FakeLLMService):
        """Takes settings like any service: after what it is doing."""

        seen: list[Any]

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, LLMUpdateSettingsFrame):
                self.seen.append(dict(frame.settings))
            else:
                await super().process_frame(frame, direction)

    first = Tuned([[HANG], "Probed.", "Back."])
    first.seen = []
    chain = FallbackLLMService([first, FakeLLMService(["One.", "Two."])])
    line = Line(chain)
    await line.run(ask(), 6.0, LLMUpdateSettingsFrame(seed=1), 20.0, ask(), 1.0, ask())
    assert said(line) == "One.Two.Back."
    assert {"seed": 1} in first.seen
