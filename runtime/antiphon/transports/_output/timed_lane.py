"""Frames that are pushed on when the pipeline's clock reaches their presentation time."""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING

from antiphon.frames.frames import Frame

if TYPE_CHECKING:
    from antiphon.transports.base_output import BaseOutputTransport

# Waiting frames; put() waits when there are as many. Words of one answer, with their times.
_QUEUE_FRAMES = 10_000


class TimedLane:
    """Holds frames until their time; those with the same time keep their order."""

    def __init__(self, transport: BaseOutputTransport) -> None:
        """Makes a lane that is not running.

        Args:
            transport: Pushes the frames on.
        """
        self._transport = transport
        self._waiting: list[tuple[int, int, Frame]] = []
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._count = 0
        self._ending = False
        self._ended = asyncio.Event()
        self._current: Frame | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to push frames on."""
        if self._task is None:
            self._task = self._transport.create_task(self._run(), "clock")

    async def put(self, frame: Frame) -> None:
        """Takes a frame with a presentation time; waits while there are too many."""
        while len(self._waiting) >= _QUEUE_FRAMES:
            self._room.clear()
            await self._room.wait()
        self._count += 1
        heapq.heappush(self._waiting, (frame.pts or 0, self._count, frame))
        self._changed.set()

    async def finish(self) -> None:
        """Waits until every frame has been pushed on, and ends."""
        if self._task is None:
            return
        self._ending = True
        self._changed.set()
        await self._ended.wait()
        await self.abort()

    async def abort(self) -> None:
        """Ends at once."""
        task, self._task = self._task, None
        self._ended.set()
        if task is not None:
            await self._transport.cancel_task(task)

    async def interrupt(self) -> None:
        """Drops what waits, other than frames that survive an interruption."""
        running = self._task is not None and not self._ended.is_set()
        if running and (self._current is None or not self._current.survives_interruption):
            task, self._task = self._task, None
            if task is not None:
                await self._transport.cancel_task(task)
        kept = [entry for entry in self._waiting if entry[2].survives_interruption]
        self._transport.statistics.frames_dropped += len(self._waiting) - len(kept)
        self._waiting = kept
        heapq.heapify(self._waiting)
        self._room.set()
        if running:
            self.start()

    async def _run(self) -> None:
        clock = self._transport.get_clock()
        while True:
            if not self._waiting:
                if self._ending:
                    self._ended.set()
                    return
                await self._wait_for_change(None)
                continue
            wait_ns = self._waiting[0][0] - clock.get_time()
            if wait_ns > 0:
                # A frame that is due earlier may come meanwhile.
                await self._wait_for_change(wait_ns / 1e9)
                continue
            self._current = heapq.heappop(self._waiting)[2]
            self._room.set()
            try:
                await self._transport.push_frame(self._current)
            finally:
                self._current = None
            self._transport.reset_watchdog()

    async def _wait_for_change(self, timeout_secs: float | None) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout_secs):
                await self._changed.wait()
        except TimeoutError:
            return
