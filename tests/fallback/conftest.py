"""A pipeline around a chain, and what goes in and comes out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from antiphon.frames.frames import EndFrame, ErrorFrame, Frame, MetricsFrame
from antiphon.metrics.metrics import ServiceSwitchMetricsData
from antiphon.observers.base_observer import BaseObserver
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.services.fallback.chain import FallbackChain
from antiphon.testing.virtual_time import VirtualClock

Step = Frame | float | Callable[[], Awaitable[object]]

_RUN_SECS = 600.0

_EVENTS = (
    "on_service_switched",
    "on_service_failed",
    "on_service_recovered",
    "on_all_services_failed",
)


class End(FrameProcessor):
    """Keeps what passes, with the time, and lets a test wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.down: list[Frame] = []
        self.up: list[Frame] = []
        self.times: list[float] = []
        self._news = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        (self.down if direction is FrameDirection.DOWNSTREAM else self.up).append(frame)
        self.times.append(asyncio.get_running_loop().time())
        self._news.set()
        await self.push_frame(frame, direction)

    def of(self, *kinds: type[Frame]) -> list[Any]:
        """The frames of some classes that came downstream."""
        return [frame for frame in self.down if isinstance(frame, kinds)]

    def texts(self, kind: type[Frame]) -> list[str]:
        return [frame.text for frame in self.of(kind)]

    async def seen(self, kind: type[Frame], count: int = 1) -> None:
        """Waits until so many frames of a class have come downstream."""
        async with asyncio.timeout(_RUN_SECS):
            while len(self.of(kind)) < count:
                self._news.clear()
                await self._news.wait()


class Line:
    """A pipeline with a chain in it.

    Attributes:
        start: Before the chain.
        end: Behind it.
        events: The chain's events, in order: name and arguments.
    """

    def __init__(
        self,
        chain: FrameProcessor,
        *,
        params: PipelineParams | None = None,
        observers: Sequence[BaseObserver] = (),
    ) -> None:
        self.chain = chain
        self.start, self.end = End(), End()
        self.events: list[tuple[Any, ...]] = []
        self.task = PipelineTask(
            Pipeline([self.start, chain, self.end]),
            params=params or PipelineParams(),
            observers=list(observers),
            clock=VirtualClock(),
        )
        for name in _EVENTS if isinstance(chain, FallbackChain) else ():
            self._follow(name)

    def _follow(self, name: str) -> None:
        async def note(chain: object, *details: object) -> None:
            assert chain is self.chain
            self.events.append((name.removeprefix("on_service_").removeprefix("on_"), *details))

        self.chain.add_event_handler(name, note)

    async def run(self, *steps: Step, end: bool = True) -> Line:
        """Runs the pipeline: queues frames, waits seconds, awaits what functions return; ends."""
        running = asyncio.create_task(PipelineRunner(handle_sigint=False).run(self.task))
        try:
            async with asyncio.timeout(_RUN_SECS):
                for step in steps:
                    if isinstance(step, Frame):
                        await self.task.queue_frame(step)
                    elif callable(step):
                        await step()
                    else:
                        await asyncio.sleep(step)
                if end:
                    await self.task.queue_frame(EndFrame())
                await running
        finally:
            running.cancel()
            await asyncio.wait({running})
        return self

    @property
    def errors(self) -> list[str]:
        """The errors that left the chain upstream."""
        return [frame.error for frame in self.start.up if isinstance(frame, ErrorFrame)]

    @property
    def switches(self) -> list[tuple[str, str, str]]:
        return [(event[1], event[2], event[3]) for event in self.events if event[0] == "switched"]

    @property
    def switch_metrics(self) -> list[ServiceSwitchMetricsData]:
        return [
            data
            for frame in self.end.of(MetricsFrame)
            for data in frame.data
            if isinstance(data, ServiceSwitchMetricsData)
        ]
