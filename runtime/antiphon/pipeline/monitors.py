"""What a task keeps an eye on: activity, heartbeats, and where frames are held up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from loguru import logger

from antiphon.clocks.base_clock import BaseClock
from antiphon.frames.frames import Frame, HeartbeatFrame, MetricsFrame, StartFrame
from antiphon.metrics.metrics import StallMetricsData
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.pipeline.base_pipeline import BasePipeline
from antiphon.processors.frame_processor import FrameProcessor
from antiphon.utils.asyncio.task_manager import BaseTaskManager

HEARTBEAT_SECONDS = 1.0
"""Seconds between two heartbeats."""

HEARTBEAT_MONITOR_SECONDS = HEARTBEAT_SECONDS * 10
"""Seconds without a heartbeat at the end of the pipeline before a warning."""

_STALLS_KEPT = 64
_HEARTBEATS_FOLLOWED = 64


class IdleMonitor:
    """Notices that for some time no frame has shown activity.

    A timer that each activity frame moves on. After a report the time begins anew.
    """

    def __init__(
        self,
        timeout_secs: float | None,
        activity: tuple[type[Frame], ...],
        report: Callable[[], Awaitable[None]],
    ) -> None:
        """Makes a monitor.

        Args:
            timeout_secs: Seconds without activity before a report; None for never.
            activity: The frames that show activity, beside the StartFrame.
            report: Called for each report.
        """
        self._timeout_secs = timeout_secs
        self._activity: tuple[type[Frame], ...] = (StartFrame, *activity)
        self._report = report
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._last = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to count."""
        if self._timeout_secs is None:
            return
        self._loop = loop
        self._last = loop.time()
        self._timer = loop.call_later(self._timeout_secs, self._due)

    def saw(self, frame: Frame) -> None:
        """Takes note of a frame at the end of the pipeline."""
        if self._loop is not None and isinstance(frame, self._activity):
            self._last = self._loop.time()

    def stop(self) -> None:
        """Ends the counting."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None

    def _due(self) -> None:
        if self._loop is None or self._timeout_secs is None:
            return
        left = self._last + self._timeout_secs - self._loop.time()
        if left <= 0:
            self._last = self._loop.time()
            left = self._timeout_secs
            self._reporting = self._loop.create_task(self._tell(), name="idle report")
        self._timer = self._loop.call_later(left, self._due)

    async def _tell(self) -> None:
        await self._report()


class HeartbeatMonitor:
    """Sends heartbeats through the pipeline and warns when they do not arrive."""

    def __init__(
        self,
        push: Callable[[Frame], Awaitable[None]],
        clock: BaseClock,
        period_secs: float,
        name: str,
        stalls: StallObserver | None = None,
    ) -> None:
        """Makes a monitor.

        Args:
            push: Lets a frame in at the beginning of the pipeline.
            clock: The pipeline's clock.
            period_secs: Seconds between two heartbeats.
            name: Name of the task, for logs.
            stalls: Knows where heartbeats are.
        """
        self._push = push
        self._clock = clock
        self._period_secs = period_secs
        self._name = name
        self._stalls = stalls
        self._tasks: list[asyncio.Task[None]] = []
        self._arrival = asyncio.Event()

    def start(self, task_manager: BaseTaskManager) -> None:
        """Sends the first heartbeat now and one each period."""
        # They do nothing but wait, which no watchdog may hold against them.
        self._tasks = [
            task_manager.create_task(coroutine, name, enable_watchdog_timers=False)
            for coroutine, name in (
                (self._beat(), f"{self._name}::heartbeats"),
                (self._watch(), f"{self._name}::heartbeat monitor"),
            )
        ]

    def arrived(self, frame: HeartbeatFrame) -> None:
        """Takes note of a heartbeat at the end of the pipeline."""
        self._arrival.set()
        logger.trace(
            "heartbeat crossed the pipeline",
            task=self._name,
            seconds=(self._clock.get_time() - frame.timestamp) / 1e9,
        )

    def stop(self) -> None:
        """Ends both tasks."""
        for task in self._tasks:
            task.cancel()

    async def _beat(self) -> None:
        while True:
            await self._push(HeartbeatFrame(timestamp=self._clock.get_time()))
            await asyncio.sleep(self._period_secs)

    async def _watch(self) -> None:
        while True:
            self._arrival.clear()
            try:
                async with asyncio.timeout(HEARTBEAT_MONITOR_SECONDS):
                    await self._arrival.wait()
            except TimeoutError:
                logger.warning(
                    "heartbeat frame not received",
                    task=self._name,
                    seconds=HEARTBEAT_MONITOR_SECONDS,
                )
                for processor, secs in self._held_up():
                    await self._push(
                        MetricsFrame([StallMetricsData(processor=processor, value=secs)])
                    )

    def _held_up(self) -> list[tuple[str, float]]:
        return [] if self._stalls is None else self._stalls.held_up(self._clock.get_time())


class StallObserver(BaseObserver):
    """Knows which processor holds a heartbeat, and tells of every stall once it is measured.

    A stall is measured by the heartbeats' monitor or by the watchdog of a processor's task, in
    whichever process that runs, and comes as a ``StallMetricsData``.
    """

    def __init__(
        self,
        report: Callable[[StallMetricsData], Awaitable[None]],
        is_end: Callable[[FrameProcessor], bool],
    ) -> None:
        """Makes an observer.

        Args:
            report: Told of each stall.
            is_end: Whether a processor is the end of the pipeline.
        """
        super().__init__()
        self._is_end = is_end
        self._report = report
        # For each heartbeat under way, oldest first: who has got it and not passed it on, and when.
        self._heartbeats: dict[int, dict[FrameProcessor, int]] = {}
        self._arrived = 0
        self._reported: deque[int] = deque(maxlen=_STALLS_KEPT)

    async def on_push_frame(self, data: FramePushed) -> None:
        """Follows heartbeats, and looks for stalls among the metrics."""
        frame = data.frame
        if isinstance(frame, HeartbeatFrame):
            self._follow(frame, data)
        elif isinstance(frame, MetricsFrame) and frame.id not in self._reported:
            for metrics in frame.data:
                if isinstance(metrics, StallMetricsData):
                    self._reported.append(frame.id)
                    await self._report(metrics)

    def held_up(self, now_ns: int) -> list[tuple[str, float]]:
        """The processors that hold the oldest heartbeat, and for how many seconds."""
        oldest = next(iter(self._heartbeats.values()), {})
        return [(processor.name, (now_ns - since) / 1e9) for processor, since in oldest.items()]

    def _follow(self, frame: HeartbeatFrame, data: FramePushed) -> None:
        if frame.id <= self._arrived or (
            frame.id not in self._heartbeats and len(self._heartbeats) >= _HEARTBEATS_FOLLOWED
        ):
            return
        destination = data.destination
        if self._is_end(destination):
            # Those before it were dropped by an interruption; a slower branch no longer counts.
            self._arrived = max(self._arrived, frame.id)
            for known in [known for known in self._heartbeats if known <= frame.id]:
                del self._heartbeats[known]
            return
        holders = self._heartbeats.setdefault(frame.id, {})
        holders.pop(data.source, None)
        if destination._next is not None and not isinstance(destination, BasePipeline):
            holders[destination] = data.timestamp


def report_watchdog(processors: Iterable[FrameProcessor], task: str, secs: float) -> None:
    """Lets the processor that a task belongs to tell that the task shows no life.

    Args:
        processors: The processors of this process.
        task: Name of the task: ``<processor>::<name>``.
        secs: For how long.
    """
    for processor in processors:
        if task.startswith(f"{processor.name}::"):
            data = StallMetricsData(processor=processor.name, value=secs, task=task)
            processor.create_task(processor.push_frame(MetricsFrame([data])), "stall")
            return
