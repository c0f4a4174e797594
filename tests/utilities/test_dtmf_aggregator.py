"""Words out of key presses."""

from __future__ import annotations

import pytest

from antiphon.frames.frames import (
    BotInterruptionFrame,
    CancelFrame,
    Frame,
    InputDTMFFrame,
    KeypadEntry,
    StartInterruptionFrame,
    TextFrame,
    TranscriptionFrame,
)
from antiphon.processors.aggregators.dtmf_aggregator import DTMFAggregator
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time

KEY, HEARD = InputDTMFFrame, TranscriptionFrame


def keys(text: str) -> list[Frame]:
    return [InputDTMFFrame(button=KeypadEntry(key)) for key in text]


async def texts(
    frames: list[Frame], expected: list[type], aggregator: DTMFAggregator | None = None
) -> list[str]:
    down, _ = await run_test(
        aggregator or DTMFAggregator(), frames_to_send=frames, expected_down_frames=expected
    )
    heard = [frame for frame in down if isinstance(frame, TranscriptionFrame)]
    assert all(frame.user_id == "" for frame in heard)
    return [frame.text for frame in heard]


async def test_the_termination_digit_ends_a_sequence() -> None:
    assert await texts(keys("123#"), [KEY] * 4 + [HEARD]) == ["DTMF: 123#"]


async def test_quiet_ends_a_sequence() -> None:
    frames = [*keys("*"), SleepFrame(1.9), *keys("0"), SleepFrame(2.1), *keys("7"), SleepFrame(2.1)]
    expected = [KEY, KEY, HEARD, KEY, HEARD]
    assert await texts(frames, expected) == ["DTMF: *0", "DTMF: 7"]


async def test_the_end_of_the_pipeline_ends_a_sequence() -> None:
    assert await texts(keys("99"), [KEY, KEY, HEARD]) == ["DTMF: 99"]


async def test_a_cancelled_pipeline_still_gets_it() -> None:
    await run_test(
        DTMFAggregator(),
        frames_to_send=[*keys("9"), SleepFrame(), CancelFrame()],
        expected_down_frames=[KEY, HEARD, CancelFrame],
        send_end_frame=False,
    )


async def test_settings() -> None:
    menu = DTMFAggregator(timeout=5.0, termination_digit=KeypadEntry.STAR, prefix="Menu: ")
    frames = [*keys("1"), SleepFrame(4.0), *keys("#*"), SleepFrame(), TextFrame("x")]
    assert await texts(frames, [KEY, KEY, KEY, HEARD, TextFrame], menu) == ["Menu: 1#*"]


async def test_each_sequence_interrupts_the_bot_once() -> None:
    await run_test(
        DTMFAggregator(),
        frames_to_send=[*keys("12#"), SleepFrame(), *keys("3")],
        expected_up_frames=[BotInterruptionFrame, BotInterruptionFrame],
    )


async def test_the_user_interrupting_ends_a_sequence_but_its_own_interruption_does_not() -> None:
    frames = [*keys("5"), SleepFrame(0.1), StartInterruptionFrame(), SleepFrame(0.1), *keys("6")]
    frames += [SleepFrame(0.1), StartInterruptionFrame(), SleepFrame(0.1), TextFrame("x")]
    interruption = StartInterruptionFrame
    expected = [KEY, interruption, KEY, interruption, HEARD, TextFrame]
    assert await texts(frames, expected) == ["DTMF: 56"]


async def test_an_unknown_key_is_ignored() -> None:
    odd = InputDTMFFrame(button="A")  # type: ignore[arg-type]
    assert await texts([odd, *keys("1#")], [KEY] * 3 + [HEARD]) == ["DTMF: 1#"]
