"""Where the frames of a processor wait, and the two lanes that take them out.

Frames arrive in one order. System frames are processed as they come; data and control frames go to
the *ordered* lane, so a system frame overtakes those that have not begun and runs beside the one
that has. A data or control frame never overtakes a system frame that arrived before it.

Each lane has a task. A frame for an idle lane does not wait for that task's next turn: its
processing begins at once, inside the neighbour's push, and only if it suspends does the lane's task
carry it on (`antiphon.processors.lane`). Turns of the event loop are what a hop costs otherwise.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol

from loguru import logger

from antiphon.frames.frames import Frame, InputAudioRawFrame, SystemFrame
from antiphon.processors.lane import NOT_BEGUN, FrameCallback, Handoff, Item, Lane, foreign
from antiphon.processors.statistics import ProcessorStatistics
from antiphon.utils.asyncio.current_task import DONE
from antiphon.utils.asyncio.receipts import Receipt

if TYPE_CHECKING:
    from antiphon.processors.frame_processor import FrameDirection, FrameProcessor

HIGH_WATER = 10_000
"""Waiting frames of one processor above which a warning is logged (once per crossing)."""

AUDIO_WATER = 20_000
"""Waiting frames of one processor above which old input audio among them is dropped.

Nearly seven minutes of 20 ms: a recording may be fed much faster than it was spoken.
"""

AUDIO_KEPT = 10_000
"""Frames of input audio that are kept then, the newest."""

MAX_NESTED_STEPS = 48
"""Hops begun inside one another before one goes through its lane's task: bounds the stack."""

_nested = 0


class Inbox(Protocol):
    """Takes the frames meant for one processor."""

    def put_nowait(
        self, frame: Frame, direction: FrameDirection, callback: FrameCallback | None = None
    ) -> Awaitable[None] | None:
        """Takes a frame.

        Returns:
            What has to be awaited, now, before the frame is taken: the way to the processor may be
            full. None if it has been taken.
        """


class LocalInbox:
    """The inbox of a processor that runs in this process.

    The number of waiting frames is bounded by what feeds the pipeline: transports pace audio, and
    links between processes give credit frame by frame. Input audio comes whether or not it is
    taken; of what a stuck processor has not taken, the oldest is dropped. Nothing else ever is.
    """

    def __init__(self, owner: FrameProcessor) -> None:
        """Makes an inbox whose tasks do not run yet."""
        self._owner = owner
        self._arrived: deque[Item] = deque()
        self._ordered: deque[Item] = deque()
        self._system_lane = Lane(owner)
        self._ordered_lane = Lane(owner)
        self._paused = False
        self._resumed = asyncio.Event()
        self._closed = False
        self._stepping = False
        self._calm = False
        self._over_high_water = False
        self._shed_at = AUDIO_WATER
        self._shedding = False
        self._hop = owner.statistics.hop
        self._loop: asyncio.AbstractEventLoop

    # -- taking frames -------------------------------------------------------------------------

    def put_nowait(
        self,
        frame: Frame,
        direction: FrameDirection,
        callback: FrameCallback | None = None,
        receipt: Receipt | None = None,
        sent_ns: int | None = None,
    ) -> None:
        """Takes a frame, in the order of the calls, and never waits.

        Args:
            frame: The frame.
            direction: Where it is going.
            callback: Awaited after process_frame() has returned.
            receipt: Told once the frame was processed or dropped.
            sent_ns: CLOCK_MONOTONIC of the push; now if left out.
        """
        if self._stepping or callback is not None or _nested >= MAX_NESTED_STEPS:
            lane = None
        elif self._calm:
            lane = self._system_lane if isinstance(frame, SystemFrame) else self._ordered_lane
        else:
            lane = self._idle_lane(frame)
        if lane is None:
            self._queue(Item(frame, direction, callback, receipt, sent_ns or monotonic_ns()))
            return
        if sent_ns is None:
            self._hop.at_once += 1
        else:
            self._hop.record(monotonic_ns() - sent_ns)
        self._step(lane, frame, direction, receipt)

    def _idle_lane(self, frame: Frame) -> Lane | None:
        """The lane that may begin with a frame at once, although not all is calm here."""
        if self._closed or self._arrived or self._system_lane.current is not None:
            return None
        if isinstance(frame, SystemFrame):
            lane = self._system_lane
        elif self._ordered or self._paused or self._ordered_lane.current is not None:
            return None
        else:
            lane = self._ordered_lane
        return lane if lane.stepper is not None else None

    def _step(
        self,
        lane: Lane,
        frame: Frame,
        direction: FrameDirection,
        receipt: Receipt | None,
    ) -> None:
        """Begins to process a frame at once, as the task of an idle lane."""
        global _nested
        coroutine = self._owner.process_frame(frame, direction)
        _nested += 1
        # Until the step is over, what arrives is queued: an interruption, say, must find the frame
        # in progress in its task.
        self._stepping = True
        lane.doing.receipt = receipt
        try:
            waits_for = lane.stepper.step(coroutine)  # type: ignore[union-attr]
        except (asyncio.CancelledError, Exception) as error:  # noqa: BLE001 - an ErrorFrame
            failure = error if isinstance(error, Exception) else foreign(error)
            report = self._owner._report_failure(failure, frame, direction)
            self._hand_over(lane, Handoff(report, NOT_BEGUN, frame, direction, receipt))
        else:
            if waits_for is not DONE:
                self._hand_over(lane, Handoff(coroutine, waits_for, frame, direction, receipt))
            elif receipt is not None:
                lane.doing.receipt = None
                receipt.done()
        finally:
            self._stepping = False
            _nested -= 1

    def _hand_over(self, lane: Lane, handoff: Handoff) -> None:
        """Leaves the rest of a step to the lane's task."""
        self._calm = False
        lane.current = handoff.frame
        lane.handoff = handoff
        lane.wake.set()

    def _look_around(self) -> None:
        """Notes whether a frame that arrives now can begin at once, whichever it is."""
        if not self._arrived:
            self._shed_at = AUDIO_WATER
            self._shedding = False
        self._calm = (
            not self._arrived
            and not self._ordered
            and not self._paused
            and not self._closed
            and self._system_lane.current is None
            and self._ordered_lane.current is None
            and self._system_lane.stepper is not None
            and self._ordered_lane.stepper is not None
        )

    def _queue(self, item: Item) -> None:
        if self._closed:
            if item.receipt is not None:
                item.receipt.done()
            return
        self._calm = False
        if (
            self._arrived
            or self._system_lane.current is not None
            or isinstance(item.frame, SystemFrame)
        ):
            self._arrived.append(item)
            self._system_lane.wake.set()
        else:
            # Nothing it would have to wait for: straight to its own lane.
            self._ordered.append(item)
            self._ordered_lane.wake.set()
        waiting = len(self._arrived) + len(self._ordered)
        if waiting > self._shed_at:
            self._shed_audio()
        if waiting > HIGH_WATER:
            if not self._over_high_water:
                self._over_high_water = True
                logger.warning(
                    "many frames wait for a processor", processor=self._owner.name, frames=waiting
                )
        elif self._over_high_water and waiting < HIGH_WATER // 2:
            self._over_high_water = False

    def _shed_audio(self) -> None:
        """Drops all input audio that waits but the newest."""
        arrived = self._arrived
        excess = sum(isinstance(item.frame, InputAudioRawFrame) for item in arrived) - AUDIO_KEPT
        dropped: list[Item] = []
        if excess > 0:
            kept: list[Item] = []
            for item in arrived:
                old = len(dropped) < excess and isinstance(item.frame, InputAudioRawFrame)
                (dropped if old else kept).append(item)
            arrived.clear()
            arrived.extend(kept)
        # Looked at again when as much has come as may go: a look costs a walk through all that waits.
        waiting = len(arrived) + len(self._ordered)
        self._shed_at = max(AUDIO_WATER, waiting + AUDIO_WATER - AUDIO_KEPT)
        if not dropped:
            return
        self._owner.statistics.audio_dropped += len(dropped)
        if not self._shedding:
            self._shedding = True
            logger.warning(
                "input audio dropped, the processor takes none", processor=self._owner.name
            )
        for item in dropped:
            if item.receipt is not None:
                item.receipt.done()

    @property
    def waiting(self) -> int:
        """Frames that have not begun to be processed."""
        return len(self._arrived) + len(self._ordered)

    # -- life ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Starts taking system frames; data and control frames wait for start()."""
        self._closed = False
        self._loop = self._owner.get_event_loop()
        if self._system_lane.task is None:
            self._system_lane.start(self._run_arrived(), "input")

    def start(self) -> None:
        """Starts working off data and control frames."""
        if self._ordered_lane.task is None:
            self._ordered_lane.start(self._run_ordered(), "process")

    async def refuse(self) -> None:
        """Takes nothing more and ends the frame in progress (the processor is cancelled)."""
        self._closed = True
        self._calm = False
        await self._ordered_lane.end()
        self._drop(self._ordered, keep_survivors=False)

    async def suspend(self) -> None:
        """Ends both tasks; what waits goes on waiting."""
        self._calm = False
        await self._ordered_lane.end()
        await self._system_lane.end()

    async def close(self) -> None:
        """Ends both tasks; what waits is dropped."""
        self._closed = True
        await self.suspend()
        self.resume()
        self._drop(self._arrived, keep_survivors=False)
        self._drop(self._ordered, keep_survivors=False)

    async def interrupt(self) -> None:
        """Drops the data and control frames that wait and ends the one in progress.

        Frames that survive an interruption stay, in their order; one of them that is in progress
        goes on. Un-pauses. System frames are not touched.
        """
        started = self._ordered_lane.task is not None
        current = self._ordered_lane.current
        # An idle task has nothing to be cancelled.
        if current is not None and not current.survives_interruption:
            self._calm = False
            await self._ordered_lane.end()
        self._drop(self._ordered, keep_survivors=True)
        self.resume()
        if started and not self._closed:
            self.start()

    def pause(self) -> None:
        """Holds back the data and control frames that have not begun."""
        self._paused = True
        self._calm = False
        self._resumed.clear()

    def resume(self) -> None:
        """Ends a pause."""
        self._paused = False
        self._resumed.set()

    # -- the two tasks -------------------------------------------------------------------------

    async def _run_arrived(self) -> None:
        lane = self._system_lane
        while not lane.given_up:
            if lane.handoff is not None:
                await lane.carry_on()
            elif not self._arrived:
                self._look_around()
                await lane.work()
                continue
            else:
                item = self._arrived.popleft()
                if not isinstance(item.frame, SystemFrame):
                    self._ordered.append(item)
                    self._ordered_lane.wake.set()
                    continue
                await lane.process(item)
            self._owner.reset_watchdog()

    async def _run_ordered(self) -> None:
        lane = self._ordered_lane
        while not lane.given_up:
            if lane.handoff is not None:
                await lane.carry_on()
            elif self._paused:
                self._owner.task_manager.task_suspend_watchdog()
                await self._resumed.wait()
            elif not self._ordered:
                self._look_around()
                await lane.work()
                continue
            else:
                await lane.process(self._ordered.popleft())
            self._owner.reset_watchdog()

    def _drop(self, lane: deque[Item], *, keep_survivors: bool) -> None:
        kept: list[Item] = []
        while lane:
            item = lane.popleft()
            if keep_survivors and item.frame.survives_interruption:
                kept.append(item)
                continue
            self._owner.statistics.frames_dropped += 1
            if item.receipt is not None:
                item.receipt.done()
        lane.extend(kept)


class _Nobody:
    """Owns no frames."""

    def __init__(self) -> None:
        self.statistics = ProcessorStatistics()


def _closed_inbox() -> LocalInbox:
    owner: Any = _Nobody()
    inbox = LocalInbox(owner)
    inbox._closed = True
    return inbox


CLOSED_INBOX = _closed_inbox()
"""The inbox of every processor that has been cleaned up: drops what it is given.

A processor and an inbox of its own refer to one another; with this one it is freed with its last
reference, and does not wait for a garbage collection.
"""
