"""Listening only after being addressed."""

from __future__ import annotations

import pytest

from antiphon.frames.frames import Frame, InterimTranscriptionFrame, TextFrame, TranscriptionFrame
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.processors.filters.wake_check_filter import WakeCheckFilter
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time


def said(text: str, who: str = "ann") -> TranscriptionFrame:
    return TranscriptionFrame(text, who, "now")


async def heard(frames: list[Frame], phrases: list[str] | None = None) -> list[tuple[str, str]]:
    processor = WakeCheckFilter(phrases or ["hey bot", "ok computer"], keepalive_timeout=3)
    out: list[tuple[str, str]] = []

    class Watch(BaseObserver):
        async def on_push_frame(self, data: FramePushed) -> None:
            if data.source is processor and isinstance(data.frame, TranscriptionFrame):
                out.append((data.frame.user_id, data.frame.text))

    await run_test(processor, frames_to_send=frames, observers=[Watch()])
    return out


async def test_nothing_is_heard_before_the_phrase() -> None:
    frames: list[Frame] = [said("hello"), said("Well, hey bot, how are you"), said("and you")]
    assert await heard(frames) == [("ann", "hey bot, how are you"), ("ann", "and you")]


async def test_a_phrase_may_come_in_pieces_and_with_punctuation() -> None:
    assert await heard([said("good morning. Hey"), said("bot.")]) == [("ann", "Hey bot.")]
    assert await heard([said("OK, Computer!")]) == [("ann", "OK, Computer!")]
    assert await heard([said("they botched it")]) == []


async def test_each_participant_has_to_say_it() -> None:
    frames: list[Frame] = [said("hey bot"), said("me too", "bob"), said("yes")]
    assert await heard(frames) == [("ann", "hey bot"), ("ann", "yes")]


async def test_it_falls_asleep_again() -> None:
    frames: list[Frame] = [said("hey bot"), SleepFrame(2), said("a"), SleepFrame(2), said("b")]
    frames += [SleepFrame(3.1), said("c"), said("hey bot, d")]
    assert [text for _, text in await heard(frames)] == ["hey bot", "a", "b", "hey bot, d"]


async def test_other_frames_pass() -> None:
    await run_test(
        WakeCheckFilter(["hey bot"]),
        frames_to_send=[TextFrame("a"), InterimTranscriptionFrame("b", "u", "t"), said("c")],
        expected_down_frames=[TextFrame, InterimTranscriptionFrame],
    )


async def test_the_frame_that_others_hold_stays_as_it_is() -> None:
    frame = said("well, hey bot")
    down, _ = await run_test(
        WakeCheckFilter(["hey bot"]),
        frames_to_send=[frame],
        expected_down_frames=[TranscriptionFrame],
    )
    assert frame.text == "well, hey bot"
    assert down[0].id == frame.id


async def test_signs_in_a_phrase_are_no_pattern() -> None:
    assert await heard([said("hey b.t")], ["hey b.t"]) == [("ann", "hey b.t")]
    assert await heard([said("hey bot")], ["hey b.t"]) == []
    with pytest.raises(ValueError, match="no words"):
        WakeCheckFilter([" "])
