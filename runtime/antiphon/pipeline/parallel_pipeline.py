"""Branches side by side."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any

from antiphon.frames.frames import CancelFrame, EndFrame, Frame, StartFrame, StopFrame
from antiphon.pipeline.base_pipeline import BasePipeline, clean_up_all, with_metrics
from antiphon.pipeline.pipeline import Pipeline, PipelineSink, PipelineSource
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup

_REMEMBERED_IDS = 65_536
"""Frames that are told apart: far more than may be inside the branches at one time."""

_Lifecycle = (StartFrame, EndFrame, StopFrame, CancelFrame)


class ParallelPipeline(BasePipeline):
    """Gives every frame to every branch and merges what comes out.

    A frame that several branches pass on leaves once, from the first of them. The frames that
    begin and end a pipeline leave when all branches have passed them, and what the branches emit
    before they have all started waits for that.
    """

    def __init__(self, *args: list[FrameProcessor] | Any) -> None:
        """Makes one branch of each list.

        Args:
            *args: Lists of processors.

        Raises:
            Exception: Without any list.
        """
        super().__init__()
        if not args:
            raise Exception(f"{self}: needs at least one list of processors")
        self._args = args
        self._branches = [
            Pipeline(
                processors,
                source=PipelineSource(self._leave_branch, name=f"{self}::Source{number}"),
                sink=PipelineSink(self._leave_branch, name=f"{self}::Sink{number}"),
            )
            for number, processors in enumerate(args)
            if isinstance(processors, list)  # setup() refuses anything else
        ]
        for branch in self._branches:
            branch.set_parent(self)
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._awaited: dict[int, int] = {}
        self._passed: dict[int, asyncio.Event] = {}
        self._begun = False
        # Bounded by what the branches emit while they start.
        self._early: deque[Frame] = deque()

    @property
    def processors(self) -> Sequence[FrameProcessor]:
        """The branches."""
        return self._branches

    def processors_with_metrics(self) -> list[FrameProcessor]:
        """The processors in here, at any depth, that report metrics."""
        return with_metrics(self._branches)

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Sets up every branch.

        Raises:
            TypeError: If an argument of the constructor was not a list.
        """
        for processors in self._args:
            if not isinstance(processors, list):
                raise TypeError(f"{self}: branch {processors!r} is not a list of processors")
        await super().setup(setup)
        for branch in self._branches:
            await branch.setup(setup)

    async def cleanup(self) -> None:
        """Cleans up every branch."""
        await super().cleanup()
        await clean_up_all(self._branches)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Gives the frame to every branch; an EndFrame is done when all branches have ended."""
        await super().process_frame(frame, direction)
        passed: asyncio.Event | None = None
        if direction is FrameDirection.DOWNSTREAM and isinstance(frame, _Lifecycle):
            if isinstance(frame, StartFrame):
                self._begun = False
                self._early.clear()
            self._awaited[frame.id] = len(self._branches)
            passed = self._passed[frame.id] = asyncio.Event()
        try:
            for branch in self._branches:
                await branch.queue_frame(frame, direction)
            if passed is not None and isinstance(frame, (EndFrame, StopFrame)):
                await passed.wait()
        finally:
            if isinstance(frame, (EndFrame, StopFrame)):
                self._awaited.pop(frame.id, None)
                self._passed.pop(frame.id, None)

    async def _leave_branch(self, frame: Frame, direction: FrameDirection) -> None:
        """Takes a frame that leaves a branch at either end."""
        if direction is FrameDirection.DOWNSTREAM and frame.id in self._awaited:
            self._awaited[frame.id] -= 1
            if self._awaited[frame.id] == 0:
                del self._awaited[frame.id]
                passed = self._passed.pop(frame.id)
                await self.push_frame(frame, direction)
                passed.set()
                if isinstance(frame, StartFrame):
                    await self._begin()
        elif not self._begun and direction is FrameDirection.DOWNSTREAM:
            # Upstream everybody has started: an error of a branch that cannot start must get out.
            self._early.append(frame)
        else:
            await self._emit_once(frame, direction)

    async def _begin(self) -> None:
        while self._early:  # the branches may emit more during the loop
            await self._emit_once(self._early.popleft(), FrameDirection.DOWNSTREAM)
        self._begun = True

    async def _emit_once(self, frame: Frame, direction: FrameDirection) -> None:
        if frame.id in self._seen:
            return
        self._seen[frame.id] = None
        if len(self._seen) > _REMEMBERED_IDS:
            self._seen.popitem(last=False)
        await self.push_frame(frame, direction)
