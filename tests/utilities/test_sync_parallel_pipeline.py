"""Branches whose answers to one frame leave together."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.frames.frames import (
    Frame,
    StartInterruptionFrame,
    TextFrame,
    TTSStartedFrame,
    TTSTextFrame,
    UserStartedSpeakingFrame,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.sync_parallel_pipeline import SyncParallelPipeline
from antiphon.processors.filters.identity_filter import IdentityFilter
from antiphon.processors.filters.null_filter import NullFilter
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.virtual_time


class Answer(FrameProcessor):
    """Answers to each text after a while, upstream as well if asked to."""

    def __init__(self, tag: str, secs: float, *, upstream: bool = False) -> None:
        super().__init__()
        self._tag = tag
        self._secs = secs
        self._upstream = upstream

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if type(frame) is TextFrame:
            await asyncio.sleep(self._secs)
            await self.push_frame(TTSTextFrame(f"{frame.text}{self._tag}"))
            if self._upstream:
                await self.push_frame(TTSStartedFrame(), FrameDirection.UPSTREAM)
        await self.push_frame(frame, direction)


def texts(frames: object) -> list[str]:
    assert isinstance(frames, list)
    return [frame.text for frame in frames if isinstance(frame, TextFrame)]


async def test_answers_to_one_frame_come_before_those_to_the_next() -> None:
    down, _ = await run_test(
        SyncParallelPipeline([Answer("A", 1.0)], [Answer("B", 0.1)]),
        frames_to_send=[TextFrame("1"), TextFrame("2")],
        expected_down_frames=[TTSTextFrame, TextFrame, TTSTextFrame] * 2,
    )
    assert texts(down) == ["1B", "1", "1A", "2B", "2", "2A"]


async def test_a_frame_that_all_pass_leaves_once_and_system_frames_do_not_wait() -> None:
    await run_test(
        SyncParallelPipeline([Answer("A", 1.0)], [IdentityFilter()], [NullFilter()]),
        frames_to_send=[TextFrame("1"), SleepFrame(0.1), UserStartedSpeakingFrame(), SleepFrame(2)],
        expected_down_frames=[UserStartedSpeakingFrame, TextFrame, TTSTextFrame],
    )


async def test_what_goes_upstream_leaves_too() -> None:
    await run_test(
        SyncParallelPipeline([Answer("A", 0.1, upstream=True)], [NullFilter()]),
        frames_to_send=[TextFrame("1")],
        expected_down_frames=[TTSTextFrame, TextFrame],
        expected_up_frames=[TTSStartedFrame],
    )


async def test_upstream_frames_pass() -> None:
    class Back(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            await self.push_frame(frame, direction)
            if isinstance(frame, TextFrame):
                await self.push_frame(TTSStartedFrame(), FrameDirection.UPSTREAM)

    await run_test(
        Pipeline([SyncParallelPipeline([IdentityFilter()], [IdentityFilter()]), Back()]),
        frames_to_send=[TextFrame("1")],
        expected_down_frames=[TextFrame],
        expected_up_frames=[TTSStartedFrame],
    )


async def test_an_interruption_ends_the_wait() -> None:
    down, _ = await run_test(
        SyncParallelPipeline([Answer("A", 5.0)], [Answer("B", 0.1)]),
        frames_to_send=[
            TextFrame("1"),
            SleepFrame(1),
            StartInterruptionFrame(),
            SleepFrame(1),
            TextFrame("2"),
        ],
        expected_down_frames=[StartInterruptionFrame, TTSTextFrame, TextFrame, TTSTextFrame],
    )
    assert texts(down) == ["2B", "2", "2A"]


async def test_it_needs_branches_that_are_lists() -> None:
    with pytest.raises(Exception, match="at least one"):
        SyncParallelPipeline()
