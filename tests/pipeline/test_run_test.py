"""The helper bots test their processors with."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.frames.frames import EndFrame, Frame, StartFrame, TextFrame, UserStartedSpeakingFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time


class Passing(FrameProcessor):
    def __init__(self, secs: float = 0.0) -> None:
        super().__init__()
        self._secs = secs

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame) and self._secs:
            await asyncio.sleep(self._secs)
        await self.push_frame(frame, direction)


async def test_what_came_out_is_returned() -> None:
    text = TextFrame("a")
    down, up = await run_test(
        Pipeline([Passing(), Passing()]),
        frames_to_send=[text],
        expected_down_frames=[TextFrame],
        expected_up_frames=[],
    )
    assert list(down) == [text]
    assert list(up) == []


async def test_what_is_not_asked_for_is_not_looked_at() -> None:
    down, up = await run_test(Passing(), frames_to_send=[TextFrame("a")])
    assert (list(down), list(up)) == ([], [])


async def test_the_start_frame_on_request() -> None:
    metadata = {"a": 1}
    down, _ = await run_test(
        Passing(),
        frames_to_send=[],
        expected_down_frames=[StartFrame],
        ignore_start=False,
        start_metadata=metadata,
    )
    assert down[0].metadata == metadata


async def test_an_end_frame_of_ones_own() -> None:
    await run_test(
        Passing(),
        frames_to_send=[TextFrame("a"), EndFrame()],
        expected_down_frames=[TextFrame, EndFrame],
        send_end_frame=False,
    )


async def test_a_sleep_between_frames_keeps_a_system_frame_behind() -> None:
    frames = [TextFrame("a"), UserStartedSpeakingFrame()]
    await run_test(
        Passing(0.05),
        frames_to_send=frames,
        expected_down_frames=[UserStartedSpeakingFrame, TextFrame],
    )
    before = asyncio.get_running_loop().time()
    await run_test(
        Passing(0.05),
        frames_to_send=[frames[0], SleepFrame(), frames[1], SleepFrame(sleep=2.0)],
        expected_down_frames=[TextFrame, UserStartedSpeakingFrame],
    )
    assert asyncio.get_running_loop().time() - before >= 2.1


@pytest.mark.parametrize("expected", [[], [UserStartedSpeakingFrame], [TextFrame, TextFrame]])
async def test_other_frames_than_expected_fail_the_test(expected: list[type]) -> None:
    with pytest.raises(AssertionError, match="downstream"):
        await run_test(Passing(), frames_to_send=[TextFrame("a")], expected_down_frames=expected)
    with pytest.raises(AssertionError, match="upstream"):
        await run_test(Passing(), frames_to_send=[], expected_up_frames=[TextFrame])
