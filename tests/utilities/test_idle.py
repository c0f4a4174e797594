"""Noticing that nobody speaks, or that no frames come."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.frames.frames import (
    BotSpeakingFrame,
    ErrorFrame,
    Frame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    StartInterruptionFrame,
    TextFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.processors.idle_frame_processor import IdleFrameProcessor
from antiphon.processors.user_idle_processor import UserIdleProcessor
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time

USER_ON, USER_OFF = UserStartedSpeakingFrame, UserStoppedSpeakingFrame


async def retries(frames: list[Frame], *, limit: int = 99) -> list[int]:
    counts: list[int] = []

    async def on_idle(processor: UserIdleProcessor, retry_count: int) -> bool:
        assert processor.retry_count == retry_count
        counts.append(retry_count)
        return retry_count < limit

    await run_test(UserIdleProcessor(callback=on_idle, timeout=1.0), frames_to_send=frames)
    return counts


async def test_nothing_before_somebody_speaks() -> None:
    assert await retries([TextFrame("a"), SleepFrame(5)]) == []


async def test_again_and_again_until_the_user_speaks() -> None:
    quiet = SleepFrame(2.5)
    assert await retries([BotSpeakingFrame(), quiet]) == [1, 2]
    assert await retries([USER_ON(), quiet, USER_OFF(), quiet, USER_ON(), USER_OFF(), quiet]) == [
        *(1, 2),
        *(1, 2),
    ]


async def test_the_bot_speaking_begins_the_watch_anew() -> None:
    speaking: list[Frame] = [BotSpeakingFrame(), SleepFrame(0.8)]
    assert await retries([*speaking * 4, SleepFrame(0.4)]) == [1]


async def test_it_rests_during_function_calls() -> None:
    first = FunctionCallInProgressFrame("f", "1", {}, False)
    second = FunctionCallInProgressFrame("f", "2", {}, True)
    frames: list[Frame] = [BotSpeakingFrame(), first, second, SleepFrame(3)]
    frames += [FunctionCallResultFrame("f", "2", {}, 1), SleepFrame(3)]
    assert await retries(frames) == []
    frames += [FunctionCallResultFrame("f", "1", {}, 1), SleepFrame(1.5)]
    assert await retries(frames) == [1]


async def test_an_interruption_ends_the_calls_it_cancels() -> None:
    call = FunctionCallInProgressFrame("f", "1", {}, True)
    frames: list[Frame] = [
        BotSpeakingFrame(),
        call,
        SleepFrame(3),
        StartInterruptionFrame(),
        SleepFrame(1.5),
    ]
    assert await retries(frames) == [1]


async def test_false_ends_the_watch() -> None:
    frames: list[Frame] = [BotSpeakingFrame(), SleepFrame(5), USER_ON(), USER_OFF(), SleepFrame(5)]
    assert await retries(frames, limit=2) == [1, 2]


async def test_a_callback_of_one_parameter_is_called_for_ever_and_may_push() -> None:
    async def on_idle(processor: UserIdleProcessor) -> None:
        await processor.push_frame(TTSSpeakFrame("Are you there?"))

    await run_test(
        UserIdleProcessor(callback=on_idle, timeout=1.0),
        frames_to_send=[BotSpeakingFrame(), SleepFrame(3.5)],
        expected_down_frames=[BotSpeakingFrame, TTSSpeakFrame, TTSSpeakFrame, TTSSpeakFrame],
    )


async def test_a_callback_that_fails_is_an_error_and_is_called_again() -> None:
    async def on_idle(processor: UserIdleProcessor) -> None:
        raise RuntimeError("no")

    await run_test(
        UserIdleProcessor(callback=on_idle, timeout=1.0),
        frames_to_send=[BotSpeakingFrame(), SleepFrame(2.5)],
        expected_up_frames=[ErrorFrame, ErrorFrame],
    )


def test_a_callback_of_no_use_is_refused() -> None:
    async def on_idle() -> None:
        raise AssertionError

    callback: Any = on_idle
    with pytest.raises(TypeError, match="retry count"):
        UserIdleProcessor(callback=callback, timeout=1.0)


async def idle_times(frames: list[Frame], types: list[type[Frame]] | None = None) -> int:
    times = 0

    async def on_idle(_: IdleFrameProcessor) -> None:
        nonlocal times
        times += 1

    await run_test(
        IdleFrameProcessor(callback=on_idle, timeout=1.0, types=types), frames_to_send=frames
    )
    return times


async def test_any_frame_counts_unless_classes_are_given() -> None:
    frames: list[Frame] = [SleepFrame(0.8), TTSStartedFrame(), SleepFrame(0.8), TextFrame("a")]
    assert await idle_times([*frames, SleepFrame(2.5)]) == 2
    assert await idle_times(frames, [TextFrame]) == 1
