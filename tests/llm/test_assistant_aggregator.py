"""The assistant's half: what the bot said, and function calls in the conversation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from antiphon.frames.frames import (
    BotStoppedSpeakingFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallFromLLM,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    FunctionCallResultProperties,
    FunctionCallsStartedFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMMessagesAppendFrame,
    LLMMessagesFrame,
    LLMMessagesUpdateFrame,
    OpenAILLMContextAssistantTimestampFrame,
    StartInterruptionFrame,
    TextFrame,
    TTSTextFrame,
    UserImageRawFrame,
    UserImageRequestFrame,
)
from antiphon.processors.aggregators.llm_response import (
    LLMAssistantAggregatorParams,
    LLMAssistantContextAggregator,
    LLMAssistantResponseAggregator,
)
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.services.openai.llm import OpenAIAssistantContextAggregator
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time

START = LLMFullResponseStartFrame
END = LLMFullResponseEndFrame
CONTEXT = OpenAILLMContextFrame
FLUSH = [OpenAILLMContextFrame, OpenAILLMContextAssistantTimestampFrame]
SHORT = SleepFrame(sleep=0.05)


def words(*texts: str) -> list[Frame]:
    return [TTSTextFrame(text=text) for text in texts]


def started(*ids: str) -> FunctionCallsStartedFrame:
    return FunctionCallsStartedFrame(
        [FunctionCallFromLLM("f", tool_call_id, {"a": 1}, None) for tool_call_id in ids]
    )


def in_progress(tool_call_id: str = "1", *, cancel: bool = True) -> FunctionCallInProgressFrame:
    return FunctionCallInProgressFrame("f", tool_call_id, {"a": 1}, cancel)


def result(
    tool_call_id: str = "1",
    value: Any = "fine",
    *,
    run_llm: bool | None = None,
    properties: FunctionCallResultProperties | None = None,
) -> FunctionCallResultFrame:
    return FunctionCallResultFrame(
        "f", tool_call_id, {"a": 1}, value, run_llm=run_llm, properties=properties
    )


async def check(
    frames: Sequence[Frame],
    *,
    down: list[type] | None = None,
    up: list[type] | None = None,
    params: LLMAssistantAggregatorParams | None = None,
) -> OpenAILLMContext:
    context = OpenAILLMContext()
    await run_test(
        OpenAIAssistantContextAggregator(context, params=params),
        frames_to_send=frames,
        expected_down_frames=down or [],
        expected_up_frames=up or [],
    )
    return context


def contents(context: OpenAILLMContext) -> list[Any]:
    return [message.get("content") for message in context.messages]


async def test_an_empty_response_does_nothing() -> None:
    assert (await check([START(), END()])).messages == []


async def test_words_are_joined_and_text_outside_is_swallowed() -> None:
    context = await check(
        [*words("before"), START(), *words("Hello", "there."), END(), *words("after")], down=FLUSH
    )
    assert context.messages == [{"role": "assistant", "content": "Hello there."}]


async def test_text_with_its_own_spaces_is_kept() -> None:
    context = await check(
        [START(), *words("Hel", "lo ", "there. "), END()],
        down=FLUSH,
        params=LLMAssistantAggregatorParams(expect_stripped_words=False),
    )
    assert contents(context) == ["Hello there."]


async def test_blank_text_is_no_message_but_a_flush() -> None:
    assert (await check([START(), *words(" "), END()], down=FLUSH)).messages == []


async def test_each_response_is_a_message() -> None:
    context = await check(
        [START(), *words("one"), END(), START(), *words("two"), END()], down=[*FLUSH, *FLUSH]
    )
    assert contents(context) == ["one", "two"]


async def test_the_end_of_speech_flushes_before_it_goes_on() -> None:
    context = await check(
        [START(), *words("one"), SHORT, BotStoppedSpeakingFrame(), SHORT, *words("two"), END()],
        down=[*FLUSH, BotStoppedSpeakingFrame, *FLUSH],
    )
    assert contents(context) == ["one", "two"]


async def test_an_interruption_keeps_what_was_said() -> None:
    context = await check(
        [
            START(),
            *words("one"),
            SHORT,
            StartInterruptionFrame(),
            SHORT,
            *words("late"),
            END(),
            START(),
            *words("two"),
            END(),
        ],
        down=[*FLUSH, StartInterruptionFrame, *FLUSH],
    )
    assert contents(context) == ["one", "two"]


async def test_context_frames_run_the_model_upstream() -> None:
    context = await check(
        [
            LLMMessagesAppendFrame([{"role": "user", "content": "a"}], run_llm=True),
            LLMMessagesUpdateFrame([{"role": "user", "content": "b"}]),
        ],
        up=[CONTEXT],
    )
    assert contents(context) == ["b"]


async def test_a_call_and_its_result_are_two_messages() -> None:
    context = await check(
        [started("1"), SHORT, in_progress(), SHORT, result(value={"t": 75}), SHORT], up=[CONTEXT]
    )
    assert context.messages == [
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "1",
                    "function": {"name": "f", "arguments": json.dumps({"a": 1})},
                    "type": "function",
                }
            ],
        },
        {"role": "tool", "content": json.dumps({"t": 75}), "tool_call_id": "1"},
    ]


async def test_a_call_in_progress_says_so() -> None:
    aggregator = OpenAIAssistantContextAggregator(OpenAILLMContext())
    before = aggregator.has_function_calls_in_progress
    await run_test(aggregator, frames_to_send=[in_progress(), SHORT])
    assert (before, aggregator.has_function_calls_in_progress) == (False, True)
    assert contents(aggregator.context) == [None, "IN_PROGRESS"]


@pytest.mark.parametrize("value", [None, {}, "", []])
async def test_no_result_completes_the_call_without_an_answer(value: Any) -> None:
    context = await check([in_progress(), SHORT, result(value=value), SHORT])
    assert contents(context) == [None, "COMPLETED"]


@pytest.mark.parametrize(
    ("frame_says", "properties", "runs"),
    [
        (None, None, True),
        (False, None, False),
        (False, FunctionCallResultProperties(run_llm=True), True),
        (True, FunctionCallResultProperties(run_llm=False), False),
        (False, FunctionCallResultProperties(), False),
        (None, FunctionCallResultProperties(), True),
    ],
)
async def test_who_says_whether_the_model_answers(
    frame_says: bool | None, properties: FunctionCallResultProperties | None, runs: bool
) -> None:
    await check(
        [in_progress(), SHORT, result(run_llm=frame_says, properties=properties), SHORT],
        up=[CONTEXT] if runs else [],
    )


async def test_the_model_answers_when_the_last_call_is_done() -> None:
    context = await check(
        [
            started("1", "2"),
            SHORT,
            in_progress("1"),
            SHORT,
            result("1"),
            SHORT,
            in_progress("2"),
            SHORT,
            result("2"),
            SHORT,
        ],
        up=[CONTEXT],
    )
    assert contents(context) == [None, '"fine"', None, '"fine"']


async def test_an_unknown_result_is_ignored() -> None:
    context = await check([result("9"), SHORT, FunctionCallCancelFrame("f", "9"), SHORT])
    assert context.messages == []


@pytest.mark.parametrize("cancellable", [True, False])
async def test_only_cancellable_calls_are_cancelled(cancellable: bool) -> None:
    context = await check(
        [
            in_progress(cancel=cancellable),
            SHORT,
            FunctionCallCancelFrame("f", "1"),
            SHORT,
            result(),
            SHORT,
        ],
        up=[] if cancellable else [CONTEXT],
    )
    assert contents(context) == [None, "CANCELLED" if cancellable else '"fine"']


async def test_a_call_cancelled_before_it_began_no_longer_counts() -> None:
    context = await check(
        [
            started("1", "2"),
            SHORT,
            FunctionCallCancelFrame("f", "2"),
            SHORT,
            in_progress("1"),
            SHORT,
            result("1"),
            SHORT,
        ],
        up=[CONTEXT],
    )
    assert contents(context) == [None, '"fine"']


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_the_callback_runs_after_the_context_was_updated(asynchronous: bool) -> None:
    context = OpenAILLMContext()
    seen: list[Any] = []

    async def later() -> None:
        await asyncio.sleep(0.5)
        seen.extend(contents(context))

    callback: Any = later if asynchronous else lambda: seen.extend(contents(context))
    await run_test(
        OpenAIAssistantContextAggregator(context),
        frames_to_send=[
            in_progress(),
            SHORT,
            result(properties=FunctionCallResultProperties(on_context_updated=callback)),
        ],
    )
    # A slow callback may end after the pipeline, for a while.
    assert seen == [None, '"fine"']


async def test_a_callback_that_never_ends_is_cancelled() -> None:
    ended = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    await run_test(
        LLMAssistantContextAggregator(OpenAILLMContext()),
        frames_to_send=[
            in_progress(),
            SHORT,
            result(properties=FunctionCallResultProperties(on_context_updated=forever)),
            SHORT,
        ],
    )
    assert ended.is_set()


async def test_a_requested_picture_completes_its_call() -> None:
    picture = UserImageRawFrame(image=bytes(12), size=(2, 2), format="RGB", user_id="u")
    picture.request = UserImageRequestFrame("u", "what?", function_name="f", tool_call_id="1")
    unasked = UserImageRawFrame(image=bytes(12), size=(2, 2), format="RGB", user_id="u")

    context = await check(
        [picture, SHORT, unasked, in_progress(), SHORT, picture, SHORT],
        down=[UserImageRawFrame],
        up=[CONTEXT],
    )

    assert contents(context)[1] == "COMPLETED"
    assert contents(context)[2][0] == {"type": "text", "text": "what?"}


async def test_the_older_aggregator_pushes_messages() -> None:
    messages: list[Any] = [{"role": "system", "content": "s"}]
    down, _ = await run_test(
        LLMAssistantResponseAggregator(messages),
        frames_to_send=[START(), *words("Hi"), END(), START(), END()],
        expected_down_frames=[LLMMessagesFrame],
    )
    assert isinstance(down[0], LLMMessagesFrame)
    assert down[0].messages is messages
    assert messages[-1] == {"role": "assistant", "content": "Hi"}


async def test_every_kind_of_text_is_consumed() -> None:
    await check([TextFrame(text="x"), *words("y")])


def test_the_old_keyword_still_works() -> None:
    with pytest.warns(DeprecationWarning, match="LLMAssistantAggregatorParams"):
        aggregator = LLMAssistantContextAggregator(OpenAILLMContext(), expect_stripped_words=False)
    assert not aggregator._params.expect_stripped_words
