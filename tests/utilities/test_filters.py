"""What the filters let through."""

from __future__ import annotations

import pytest

import antiphon.processors.filters as filters
from antiphon.frames.frames import (
    Frame,
    LLMTextFrame,
    StopFrame,
    TextFrame,
    TranscriptionFrame,
    TTSStartedFrame,
    UserStartedSpeakingFrame,
)
from antiphon.processors.filters import (
    FrameFilter,
    FunctionFilter,
    IdentityFilter,
    NullFilter,
    WakeNotifierFilter,
)
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.sync.base_notifier import BaseNotifier
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time

USER = UserStartedSpeakingFrame


async def passed(processor: FrameProcessor, frames: list[Frame], expected: list[type]) -> None:
    await run_test(processor, frames_to_send=frames, expected_down_frames=expected)


async def test_identity_passes_everything() -> None:
    await passed(IdentityFilter(), [USER(), SleepFrame(), TextFrame("a")], [USER, TextFrame])


async def test_null_passes_only_what_the_pipeline_needs() -> None:
    await passed(NullFilter(), [TextFrame("a"), TTSStartedFrame(), SleepFrame(), USER()], [USER])


@pytest.mark.leaks("tasks", reason="a StopFrame leaves the processors set up")
async def test_a_stop_frame_passes_every_filter() -> None:
    async def nothing(frame: Frame) -> bool:
        return False

    for processor in (NullFilter(), FrameFilter(types=()), FunctionFilter(filter=nothing)):
        await run_test(
            processor,
            frames_to_send=[StopFrame()],
            expected_down_frames=[StopFrame],
            send_end_frame=False,
        )


async def test_frame_filter_passes_classes_and_their_subclasses() -> None:
    await passed(
        FrameFilter(types=(TextFrame,)),
        [TextFrame("a"), LLMTextFrame("b"), TTSStartedFrame(), SleepFrame(), USER()],
        [TextFrame, LLMTextFrame, USER],
    )


async def test_function_filter_asks_for_every_frame_but_keeps_the_pipeline_going() -> None:
    asked: list[str] = []

    async def long_text(frame: Frame) -> bool:
        asked.append(type(frame).__name__)
        return isinstance(frame, TextFrame) and len(frame.text) > 3

    await passed(
        FunctionFilter(filter=long_text),
        [TextFrame("no"), TextFrame("long"), SleepFrame(), USER()],
        [TextFrame, USER],
    )
    assert asked == [
        "StartFrame",
        "TextFrame",
        "TextFrame",
        "UserStartedSpeakingFrame",
        "EndFrame",
    ]


async def test_function_filter_filters_one_direction() -> None:
    async def nothing(frame: Frame) -> bool:
        return False

    upstream = FunctionFilter(filter=nothing, direction=FrameDirection.UPSTREAM)
    await passed(upstream, [TextFrame("a")], [TextFrame])
    await passed(FunctionFilter(nothing), [TextFrame("a")], [])


class CountingNotifier(BaseNotifier):
    def __init__(self) -> None:
        self.count = 0

    async def notify(self) -> None:
        self.count += 1

    async def wait(self) -> None:
        raise AssertionError("nobody waits here")


async def test_wake_notifier_notifies_and_passes_everything() -> None:
    async def addressed(frame: Frame) -> bool:
        return isinstance(frame, TranscriptionFrame) and "hey bot" in frame.text

    notifier = CountingNotifier()
    heard = TranscriptionFrame
    await passed(
        WakeNotifierFilter(notifier, types=(TranscriptionFrame,), filter=addressed),
        [heard("hi", "u", "t"), heard("hey bot", "u", "t"), TextFrame("hey bot")],
        [heard, heard, TextFrame],
    )
    assert notifier.count == 1


def test_the_package_offers_every_filter() -> None:
    for name in filters.__all__:
        assert getattr(filters, name).__name__ == name
    with pytest.raises(AttributeError):
        filters.no_such_filter  # noqa: B018
