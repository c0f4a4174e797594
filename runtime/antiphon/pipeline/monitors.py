"""What a task keeps an eye on: activity and heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from loguru import logger

from antiphon.clocks.base_clock import BaseClock
from antiphon.frames.frames import Frame, HeartbeatFrame, StartFrame
from antiphon.utils.asyncio.task_manager import BaseTaskManager

HEARTBEAT_SECONDS = 1.0
"""Seconds between two heartbeats."""

HEARTBEAT_MONITOR_SECONDS = HEARTBEAT_SECONDS * 10
"""Seconds without a heartbeat at the end of the pipeline before a warning."""


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
    ) -> None:
        """Makes a monitor.

        Args:
            push: Lets a frame in at the beginning of the pipeline.
            clock: The pipeline's clock.
            period_secs: Seconds between two heartbeats.
            name: Name of the task, for logs.
        """
        self._push = push
        self._clock = clock
        self._period_secs = period_secs
        self._name = name
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
