"""Branches side by side whose answers to one frame leave together."""

from __future__ import annotations

import asyncio
from typing import Any

from antiphon.frames.frames import EndFrame, Frame, StopFrame, SystemFrame
from antiphon.pipeline.base_pipeline import BasePipeline
from antiphon.pipeline.parallel_pipeline import ParallelPipeline
from antiphon.processors.frame_processor import FrameDirection
from antiphon.processors.passing import SyncFrame

__all__ = ["SyncFrame", "SyncParallelPipeline"]


class _Round:
    """One frame on its way through all branches, and what they emit meanwhile."""

    def __init__(self, branches: int) -> None:
        self.sync = SyncFrame()
        self.done = asyncio.Event()
        self._waiting = branches
        # Bounded by what the branches make of one frame.
        self.upstream: list[Frame] = []
        self.downstream: list[Frame] = []

    def branch_done(self) -> None:
        self._waiting -= 1
        if self._waiting <= 0:
            self.done.set()

    def add(self, frame: Frame, direction: FrameDirection) -> None:
        (self.upstream if direction is FrameDirection.UPSTREAM else self.downstream).append(frame)


class SyncParallelPipeline(ParallelPipeline):
    """Gives every frame to every branch, and waits for all of them before the next.

    What the branches emit for a data or control frame leaves when all have dealt with it: first
    what goes upstream, then what goes downstream, each frame once. A picture and the words that
    belong to it, made by two branches, so come out together. System frames do not wait.
    """

    def __init__(self, *args: list[Any] | Any) -> None:
        """Makes one branch of each list.

        Args:
            *args: Lists of processors.

        Raises:
            Exception: Without any list.
        """
        super().__init__(*args)
        self._round: _Round | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Gives the frame to every branch and lets out what they made of it."""
        if isinstance(frame, (SystemFrame, EndFrame, StopFrame)):
            await super().process_frame(frame, direction)
            return
        await BasePipeline.process_frame(self, frame, direction)
        current = self._round = _Round(len(self._branches))
        try:
            for branch in self._branches:
                await branch.queue_frame(frame, direction)
                await branch.queue_frame(current.sync, direction)
            # A branch may take as long as it needs. An interruption or the end of the session
            # ends the wait; the task's idle detection sees a branch that never answers.
            await current.done.wait()
        finally:
            self._round = None
        for emitted in current.upstream:
            await self._emit_once(emitted, FrameDirection.UPSTREAM)
        for emitted in current.downstream:
            await self._emit_once(emitted, FrameDirection.DOWNSTREAM)

    async def _leave_branch(self, frame: Frame, direction: FrameDirection) -> None:
        current = self._round
        if isinstance(frame, SyncFrame):
            # One of an earlier round was overtaken by an interruption.
            if current is not None and frame.id == current.sync.id:
                current.branch_done()
        elif current is not None and not isinstance(frame, (SystemFrame, EndFrame, StopFrame)):
            current.add(frame, direction)
        else:
            await super()._leave_branch(frame, direction)
