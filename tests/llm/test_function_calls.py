"""Functions the model calls: registering them, running them, cancelling them."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from antiphon.adapters.schemas.tools_schema import ToolsSchema
from antiphon.errors import ConfigError
from antiphon.frames.codec import decode_value, encode_value
from antiphon.frames.frames import (
    ErrorFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallFromLLM,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    FunctionCallResultProperties,
    FunctionCallsStartedFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    StartInterruptionFrame,
    UserImageRequestFrame,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services.llm_service import FunctionCallParams, LLMService
from antiphon.services.openai.llm import OpenAIAssistantContextAggregator
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time

STARTED = FunctionCallsStartedFrame
PROGRESS = FunctionCallInProgressFrame
RESULT = FunctionCallResultFrame
CANCEL = FunctionCallCancelFrame
CONTEXT = OpenAILLMContextFrame
SHORT = SleepFrame(sleep=0.05)


class ScriptedLLM(LLMService):
    """Calls functions instead of answering; a context frame of ``calls`` runs them all."""

    def __init__(self, *calls: tuple[str, dict[str, Any]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calls = calls
        self.answers = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, OpenAILLMContextFrame):
            await self.push_frame(frame, direction)
            return
        calls, self.calls = self.calls, ()
        self.answers += 1
        await self.run_function_calls(
            [
                FunctionCallFromLLM(name, f"call-{number}", arguments, frame.context)
                for number, (name, arguments) in enumerate(calls)
            ]
        )


@dataclass
class Seen:
    down: Sequence[Frame]
    up: Sequence[Frame]

    def names(self, frames: Sequence[Frame]) -> list[str]:
        return [type(frame).__name__.removeprefix("FunctionCall") for frame in frames]


async def run(llm: LLMService, *frames: Frame, down: list[type], up: list[type]) -> Seen:
    ask = OpenAILLMContextFrame(OpenAILLMContext())
    got_down, got_up = await run_test(
        llm,
        frames_to_send=[ask, SHORT, *frames],
        expected_down_frames=down,
        expected_up_frames=up,
    )
    return Seen(got_down, got_up)


async def test_a_call_is_announced_run_and_answered_in_both_directions() -> None:
    llm = ScriptedLLM(("weather", {"city": "Oslo"}))
    got: list[FunctionCallParams] = []
    announced: list[Any] = []
    properties = FunctionCallResultProperties(run_llm=False)

    async def weather(params: FunctionCallParams) -> None:
        got.append(params)
        await params.result_callback({"t": 3}, properties=properties)

    @llm.event_handler("on_function_calls_started")
    async def on_started(service: LLMService, calls: Sequence[FunctionCallFromLLM]) -> None:
        announced.append((service, [call.function_name for call in calls]))

    llm.register_function("weather", weather)
    kinds = [STARTED, PROGRESS, RESULT]
    seen = await run(llm, down=kinds, up=kinds)

    assert announced == [(llm, ["weather"])]
    (params,) = got
    assert (params.function_name, params.tool_call_id) == ("weather", "call-0")
    assert params.arguments == {"city": "Oslo"}
    assert params.llm is llm
    started = seen.down[0]
    assert isinstance(started, FunctionCallsStartedFrame)
    assert params.context is started.function_calls[0].context
    result = seen.down[2]
    assert isinstance(result, FunctionCallResultFrame)
    assert (result.result, result.properties) == ({"t": 3}, properties)
    # Two frames, one for each direction.
    assert {frame.id for frame in seen.down}.isdisjoint(frame.id for frame in seen.up)


def ordered(log: list[str]) -> Callable[[FunctionCallParams], Any]:
    async def handler(params: FunctionCallParams) -> None:
        log.append(f"+{params.tool_call_id}")
        await asyncio.sleep(params.arguments["secs"])
        log.append(f"-{params.tool_call_id}")
        await params.result_callback("done")

    return handler


@pytest.mark.parametrize(
    ("parallel", "expected"),
    [
        (True, ["+call-0", "+call-1", "-call-1", "-call-0"]),
        (False, ["+call-0", "-call-0", "+call-1", "-call-1"]),
    ],
)
async def test_calls_run_side_by_side_or_in_order(parallel: bool, expected: list[str]) -> None:
    llm = ScriptedLLM(("f", {"secs": 0.2}), ("f", {"secs": 0.1}), run_in_parallel=parallel)
    log: list[str] = []
    llm.register_function("f", ordered(log))
    order = [STARTED, PROGRESS, PROGRESS, RESULT, RESULT]
    if not parallel:
        order = [STARTED, PROGRESS, RESULT, PROGRESS, RESULT]
    await run(llm, SleepFrame(sleep=1), down=order, up=order)
    assert log == expected


async def test_sequential_calls_go_on_after_a_failure_and_in_a_later_answer() -> None:
    llm = ScriptedLLM(("bad", {}), ("f", {"secs": 0}), run_in_parallel=False)
    log: list[str] = []

    async def bad(params: FunctionCallParams) -> None:
        raise ValueError("broken")

    llm.register_function("bad", bad)
    llm.register_function("f", ordered(log))
    both = [PROGRESS, RESULT]
    again = OpenAILLMContextFrame(OpenAILLMContext())

    async def ask_again() -> None:
        await asyncio.sleep(0.3)
        llm.calls = (("f", {"secs": 0}),)
        await llm.queue_frame(again)

    _, seen = await asyncio.gather(
        ask_again(),
        run(
            llm,
            SleepFrame(sleep=1),
            down=[STARTED, PROGRESS, CANCEL, *both, STARTED, *both],
            up=[STARTED, PROGRESS, ErrorFrame, CANCEL, *both, STARTED, *both],
        ),
    )
    error = seen.up[2]
    assert isinstance(error, ErrorFrame)
    assert "bad" in error.error
    assert "broken" in error.error
    assert not error.fatal
    assert log == ["+call-1", "-call-1", "+call-0", "-call-0"]


async def test_a_function_nobody_registered_is_not_run() -> None:
    await run(
        ScriptedLLM(("nobody", {})), down=[STARTED, CANCEL], up=[STARTED, FunctionCallCancelFrame]
    )


async def test_none_catches_every_other_name() -> None:
    llm = ScriptedLLM(("a", {}), ("b", {}))
    log: list[str] = []

    async def own(params: FunctionCallParams) -> None:
        log.append(f"own {params.function_name}")

    async def other(params: FunctionCallParams) -> None:
        log.append(f"other {params.function_name}")

    llm.register_function("a", own)
    assert not llm.has_function("b")
    llm.register_function(None, other)
    assert llm.has_function("a")
    assert llm.has_function("b")

    await run(llm, down=[STARTED, PROGRESS, PROGRESS], up=[STARTED, PROGRESS, PROGRESS])
    assert log == ["own a", "other b"]

    llm.unregister_function(None)
    llm.unregister_function("a")
    llm.unregister_function("never there")
    assert not llm.has_function("a")


async def test_a_direct_function_gets_its_arguments() -> None:
    llm = ScriptedLLM(("greet", {"name": "Ada"}))
    log: list[Any] = []

    async def greet(params: FunctionCallParams, name: str, loud: bool = False) -> None:
        """Greet."""
        log.append((params.llm, name, loud))
        await params.result_callback(f"hello {name}")

    assert ToolsSchema(standard_tools=[greet]).standard_tools[0].name == "greet"
    llm.register_direct_function(greet)
    assert llm.has_function("greet")

    kinds = [STARTED, PROGRESS, RESULT]
    await run(llm, down=kinds, up=kinds)

    assert log == [(llm, "Ada", False)]
    llm.unregister_direct_function(greet)
    assert not llm.has_function("greet")


async def test_the_old_six_argument_form_still_works() -> None:
    llm = ScriptedLLM(("old", {"a": 1}))
    log: list[Any] = []

    async def old(
        name: str, call_id: str, arguments: Any, service: Any, context: Any, callback: Any
    ) -> None:
        log.append((name, call_id, arguments, service, type(context)))
        await callback("ok")

    async def start(name: str, service: Any, context: Any) -> None:
        log.append(("start", name, service, type(context)))

    with pytest.warns(DeprecationWarning, match="deprecated") as caught:
        llm.register_function("old", old, start)
    assert len(caught) == 2

    kinds = [STARTED, PROGRESS, RESULT]
    await run(llm, down=kinds, up=kinds)
    assert log == [
        ("start", "old", llm, OpenAILLMContext),
        ("old", "call-0", {"a": 1}, llm, OpenAILLMContext),
    ]


async def test_a_plain_function_is_a_handler_too() -> None:
    llm = ScriptedLLM(("f", {}))
    log: list[str] = []
    llm.register_function("f", lambda params: log.append(params.function_name))
    await run(llm, down=[STARTED, PROGRESS], up=[STARTED, PROGRESS])
    assert log == ["f"]


def test_registering_brings_every_handler_into_one_form() -> None:
    # What is relayed to where the service runs takes exactly one FunctionCallParams.
    llm = ScriptedLLM()

    async def direct(params: FunctionCallParams, x: int) -> None:
        """Do."""

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        llm.register_function("six", lambda a, b, c, d, e, f: None)
    llm.register_direct_function(direct)

    journal = llm._journal
    assert journal is not None
    assert [call.method for call in journal] == ["_register", "_register"]
    assert [call.args[0] for call in journal] == ["six", "direct"]


@pytest.mark.parametrize("parallel", [True, False])
async def test_an_interruption_cancels_what_may_be_cancelled(parallel: bool) -> None:
    llm = ScriptedLLM(("stop", {}), ("keep", {"secs": 0.5}), run_in_parallel=parallel)
    cancelled = asyncio.Event()
    log: list[str] = []

    async def stop(params: FunctionCallParams) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    llm.register_function("stop", stop)
    llm.register_function("keep", ordered(log), cancel_on_interruption=False)

    seen = await run(
        llm,
        StartInterruptionFrame(),
        SleepFrame(sleep=1),
        # In order, the next call begins at once when the one before it was cancelled.
        down=[STARTED, PROGRESS, PROGRESS, CANCEL, StartInterruptionFrame, RESULT],
        up=[STARTED, PROGRESS, PROGRESS, RESULT],
    )

    assert cancelled.is_set()
    assert log == ["+call-1", "-call-1"]
    cancel = next(frame for frame in seen.down if isinstance(frame, CANCEL))
    assert (cancel.function_name, cancel.tool_call_id) == ("stop", "call-0")


async def test_an_interruption_drops_waiting_calls() -> None:
    llm = ScriptedLLM(("f", {"secs": 3600}), ("f", {"secs": 0}), run_in_parallel=False)
    llm.register_function("f", ordered([]))
    await run(
        llm,
        StartInterruptionFrame(),
        SHORT,
        down=[STARTED, PROGRESS, CANCEL, CANCEL, StartInterruptionFrame],
        up=[STARTED, PROGRESS],
    )


async def test_a_handler_that_resists_does_not_hold_up_the_interruption() -> None:
    llm = ScriptedLLM(("f", {}))
    release = asyncio.Event()
    stubborn: list[asyncio.Task[Any] | None] = []

    async def resist(params: FunctionCallParams) -> None:
        stubborn.append(asyncio.current_task())
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    llm.register_function("f", resist)
    await run(
        llm,
        StartInterruptionFrame(),
        SleepFrame(sleep=5),
        down=[STARTED, PROGRESS, CANCEL, StartInterruptionFrame],
        up=[STARTED, PROGRESS],
    )
    release.set()
    (task,) = stubborn
    assert task is not None
    await asyncio.wait({task})


async def test_calls_still_running_end_with_the_pipeline() -> None:
    llm = ScriptedLLM(("f", {}))
    ended = asyncio.Event()

    async def forever(params: FunctionCallParams) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    llm.register_function("f", forever)
    await run(llm, down=[STARTED, PROGRESS], up=[STARTED, PROGRESS])
    assert ended.is_set()


async def test_a_call_and_its_answer_go_round_through_the_aggregator() -> None:
    llm = ScriptedLLM(("f", {"secs": 0}), ("f", {"secs": 0.1}), ("nobody", {}))
    llm.register_function("f", ordered([]))
    context = OpenAILLMContext()
    aggregator = OpenAIAssistantContextAggregator(context)

    await run_test(
        Pipeline([llm, aggregator]),
        frames_to_send=[OpenAILLMContextFrame(context), SleepFrame(sleep=1)],
    )

    # Answered once, after the last result; the call nobody could run does not stand in the way.
    assert llm.answers == 2
    assert not aggregator.has_function_calls_in_progress
    assert [m["content"] for m in context.messages if m["role"] == "tool"] == ['"done"'] * 2


async def test_an_answer_is_marked_also_when_it_fails() -> None:
    class Failing(LLMService):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, OpenAILLMContextFrame):
                await self._answer(self._fail)
            else:
                await self.push_frame(frame, direction)

        async def _fail(self) -> None:
            raise ValueError("broken")

    await run(
        Failing(),
        down=[LLMFullResponseStartFrame, LLMFullResponseEndFrame],
        up=[ErrorFrame],
    )


async def test_asking_for_a_picture() -> None:
    llm = ScriptedLLM(("look", {}))

    async def look(params: FunctionCallParams) -> None:
        await params.llm.request_image_frame(
            "user-1",
            function_name=params.function_name,
            tool_call_id=params.tool_call_id,
            text_content="what is it?",
        )

    llm.register_function("look", look)
    seen = await run(llm, down=[STARTED, PROGRESS], up=[STARTED, PROGRESS, UserImageRequestFrame])
    request = seen.up[2]
    assert isinstance(request, UserImageRequestFrame)
    assert (request.user_id, request.context) == ("user-1", "what is it?")
    assert (request.function_name, request.tool_call_id) == ("look", "call-0")


def test_params_travel_with_references() -> None:
    # A service, a context and a callback are references; here plain values stand for them.
    params: Any = FunctionCallParams(
        function_name="f",
        tool_call_id="1",
        arguments={"a": [1, 2]},
        llm=None,  # type: ignore[arg-type]
        context=OpenAILLMContext([{"role": "user", "content": "x"}]),
        result_callback=None,  # type: ignore[arg-type]
    )
    again = decode_value(encode_value(params))
    assert isinstance(again, FunctionCallParams)
    assert again.arguments == {"a": [1, 2]}
    assert again.context.id == params.context.id


async def test_a_handler_with_another_signature_is_refused_at_once() -> None:
    llm = ScriptedLLM()

    async def two(a: Any, b: Any) -> None: ...

    async def none() -> None: ...

    for wrong in (two, none, "name", None):
        with pytest.raises(TypeError, match="one argument"):
            llm.register_function("f", wrong)
    assert not llm.has_function("f")

    async def fine(params: FunctionCallParams, extra: int = 0, **more: Any) -> None: ...

    llm.register_function("f", fine)
    with pytest.raises(TypeError, match="two must be callable"):
        llm.register_function("g", fine, two)
    assert not llm.has_function("g")


async def test_a_handler_that_takes_too_long_is_cancelled_and_the_model_is_told() -> None:
    llm = ScriptedLLM(("slow", {}), function_call_timeout_secs=0.5)
    ended: list[bool] = []

    async def slow(params: FunctionCallParams) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    llm.register_function("slow", slow)
    seen = await run(
        llm,
        SleepFrame(sleep=1),
        down=[STARTED, PROGRESS, RESULT],
        up=[STARTED, PROGRESS, ErrorFrame, RESULT],
    )
    assert ended == [True]
    result, error = seen.down[2], seen.up[2]
    assert isinstance(result, FunctionCallResultFrame)
    assert result.result == {"error": "slow took too long"}
    assert isinstance(error, ErrorFrame)
    assert error.error == "function call slow took longer than 0.5 s"
    with pytest.raises(ConfigError, match="above 0"):
        ScriptedLLM(function_call_timeout_secs=0)


async def test_a_timeout_of_the_handlers_own_is_a_failure_like_others() -> None:
    llm = ScriptedLLM(("slow", {}), function_call_timeout_secs=3)

    async def slow(params: FunctionCallParams) -> None:
        raise TimeoutError("the weather is late")

    llm.register_function("slow", slow)
    seen = await run(
        llm, down=[STARTED, PROGRESS, CANCEL], up=[STARTED, PROGRESS, ErrorFrame, CANCEL]
    )
    error = seen.up[2]
    assert isinstance(error, ErrorFrame)
    assert "the weather is late" in error.error
