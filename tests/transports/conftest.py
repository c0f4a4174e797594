"""A pipeline around a transport, with everything that passes it written down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import pytest

from antiphon.audio.interruptions.base_interruption_strategy import BaseInterruptionStrategy
from antiphon.frames.frames import EndFrame, Frame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.testing.virtual_time import VirtualClock


class Capture(FrameProcessor):
    """Notes each frame with its direction and the time, and passes it on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, FrameDirection, Frame]] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.seen.append((asyncio.get_running_loop().time(), direction, frame))
        await self.push_frame(frame, direction)

    def frames(self, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> list[Frame]:
        return [frame for _, way, frame in self.seen if way is direction]

    def names(self, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> list[str]:
        return [type(frame).__name__.removesuffix("Frame") for frame in self.frames(direction)]

    def of(self, kind: type[Frame]) -> list[tuple[float, Frame]]:
        """The frames of a class with the times they passed, both directions."""
        return [(at, frame) for at, _, frame in self.seen if isinstance(frame, kind)]


class Bench:
    """Processors between two captures, in a running task."""

    def __init__(
        self,
        processors: Sequence[FrameProcessor],
        *,
        allow_interruptions: bool = True,
        strategies: Sequence[BaseInterruptionStrategy] = (),
        **params: Any,
    ) -> None:
        self.above = Capture()
        self.below = Capture()
        self._pipeline = Pipeline([self.above, *processors, self.below])
        self._params = PipelineParams(
            allow_interruptions=allow_interruptions,
            interruption_strategies=list(strategies),
            **params,
        )
        self.renew()

    def renew(self) -> None:
        """Puts the same pipeline into a new task."""
        self.task = PipelineTask(
            self._pipeline,
            params=self._params,
            clock=VirtualClock(),
            cancel_on_idle_timeout=False,
        )

    async def run(self, script: Callable[[Bench], Awaitable[None]], *, end: bool = True) -> None:
        """Runs the pipeline; the script starts when it is up, and an EndFrame follows it."""

        async def play() -> None:
            await asyncio.sleep(0.01)
            await script(self)
            if end:
                await self.task.queue_frame(EndFrame())

        await asyncio.gather(PipelineRunner(handle_sigint=False).run(self.task), play())

    async def down(self, *frames: Frame) -> None:
        """Sends frames downstream, each processed before the next."""
        for frame in frames:
            await self.task.queue_frame(frame)
            await asyncio.sleep(0.001)

    async def up(self, *frames: Frame) -> None:
        """Sends frames upstream from below, each processed before the next."""
        for frame in frames:
            await self.below.push_frame(frame, FrameDirection.UPSTREAM)
            await asyncio.sleep(0.001)


class MakeBench(Protocol):
    def __call__(self, *processors: FrameProcessor, **options: Any) -> Bench: ...


@pytest.fixture
def bench() -> MakeBench:
    def make(*processors: FrameProcessor, **options: Any) -> Bench:
        return Bench(processors, **options)

    return make
