"""One of the two lanes of an inbox: what is in progress in it, and its task.

A frame for an idle lane does not wait for the task's next turn: its processing begins at once, inside
the neighbour's push (`LocalInbox` runs that first step), and only if it suspends does the lane's
task carry it on.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from antiphon.frames.frames import Frame
from antiphon.utils.asyncio.current_task import Stepper
from antiphon.utils.asyncio.receipts import Receipt, Work, in_progress
from antiphon.utils.asyncio.task_manager import TaskManager

if TYPE_CHECKING:
    from antiphon.processors.frame_processor import FrameDirection, FrameProcessor

FrameCallback = Callable[["FrameProcessor", Frame, "FrameDirection"], Awaitable[None]]

CANCEL_DEADLINE_SECS = 2.0
"""How long a frame in progress may resist its cancellation before it is given up."""


class Item(NamedTuple):
    """A waiting frame.

    Attributes:
        frame: The frame.
        direction: Where it is going.
        callback: Run after process_frame() has returned.
        receipt: Told, once, when the frame was processed or dropped.
        sent_ns: CLOCK_MONOTONIC when the neighbour pushed it.
    """

    frame: Frame
    direction: FrameDirection
    callback: FrameCallback | None
    receipt: Receipt | None
    sent_ns: int


NOT_BEGUN: Any = object()


class Handoff(NamedTuple):
    """A frame whose processing was begun by hand, for the lane's task to finish.

    Attributes:
        coroutine: The processing.
        waits_for: What it suspended on.
        frame: The frame.
        direction: Where it is going.
        receipt: Told when it has been processed or cancelled.
    """

    coroutine: Coroutine[Any, Any, None]
    waits_for: Any
    frame: Frame
    direction: FrameDirection
    receipt: Receipt | None


class _CarryOn:
    """Awaits a coroutine that was begun by hand and has suspended."""

    __slots__ = ("_cancelled", "_coroutine", "_waits_for")

    def __init__(
        self, coroutine: Coroutine[Any, Any, None], waits_for: Any, *, cancelled: bool
    ) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._cancelled = cancelled

    def __await__(self) -> Generator[Any, Any, None]:
        coroutine, waits_for = self._coroutine, self._waits_for
        error: BaseException | None = None
        value: Any = None
        if self._cancelled and not (asyncio.isfuture(waits_for) and waits_for.cancel()):
            error = asyncio.CancelledError()
        elif waits_for is not NOT_BEGUN:
            try:
                value = yield waits_for
            except BaseException as raised:  # noqa: BLE001 - the coroutine's to handle
                error = raised
        while True:
            try:
                if error is not None:
                    raised_, error = error, None
                    waits_for = coroutine.throw(raised_)
                else:
                    waits_for = coroutine.send(value)
            except StopIteration:
                return
            try:
                value = yield waits_for
            except BaseException as raised:  # noqa: BLE001 - the coroutine's to handle
                error = raised


class Lane:
    """One of the two lanes: what is in progress in it, and its task."""

    __slots__ = ("current", "doing", "handoff", "owner", "stepper", "task", "wake")

    def __init__(self, owner: FrameProcessor) -> None:
        self.owner = owner
        self.wake = asyncio.Event()
        self.current: Frame | None = None
        # Has the receipt of the frame in progress, also while a step runs that does not suspend.
        # Contexts refer to it, which may live longer than this lane.
        self.doing = Work(None)
        self.handoff: Handoff | None = None
        # Runs steps as the task; None while there is no task to take one over.
        self.stepper: Stepper | None = None
        self.task: asyncio.Task[None] | None = None

    def start(self, body: Coroutine[Any, Any, None], name: str) -> None:
        """Starts the lane's task."""
        manager = self.owner.task_manager
        # Steps need the task's context, so that a frame has one from beginning to end.
        context = contextvars.copy_context() if isinstance(manager, TaskManager) else None
        if context is not None:
            context.run(in_progress.set, self.doing)
        self.task = self.owner.create_task(body, name, context=context)
        if context is not None:
            self.stepper = Stepper(context, self.owner.get_event_loop(), self.task)

    async def end(self) -> None:
        """Ends the lane's task and the frame in progress."""
        task = self.task
        if task is None or task is asyncio.current_task():
            return
        self.task = self.stepper = None
        await self.owner.cancel_task(task, CANCEL_DEADLINE_SECS)
        if self.handoff is not None:  # the task was cancelled before it came to it
            rest = self.owner.create_task(self.carry_on(cancelled=True), "cancelled frame")
            await self.owner.wait_for_task(rest, CANCEL_DEADLINE_SECS)
        self.current = self.doing.receipt = None

    @property
    def given_up(self) -> bool:
        """Whether the running task is no longer the lane's: its cancellation did not end it."""
        return self.task is not asyncio.current_task()

    async def work(self) -> None:
        """Waits for something to do, in the lane's task.

        A frame may cancel its task between suspending and being carried on (a time limit that runs
        out at once): that cancellation is the frame's, and the lane goes on.
        """
        self.wake.clear()
        manager = self.owner.task_manager
        # No watchdog may hold it against the task that there is nothing to do.
        manager.task_suspend_watchdog()
        try:
            await self.wake.wait()
        except asyncio.CancelledError:
            if self.handoff is None:
                raise
            await self.carry_on(cancelled=True)
            if _is_cancelled():
                raise
        manager.task_reset_watchdog()

    async def carry_on(self, *, cancelled: bool = False) -> None:
        """Finishes what a step has begun."""
        assert self.handoff is not None
        coroutine, waits_for, frame, direction, receipt = self.handoff
        self.handoff = None
        try:
            await _CarryOn(coroutine, waits_for, cancelled=cancelled)
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            if not cancelled:
                await self.owner._report_failure(foreign(error), frame, direction)
        except Exception as error:  # noqa: BLE001 - becomes an ErrorFrame
            await self.owner._report_failure(error, frame, direction)
        finally:
            self._over(receipt)

    async def process(self, item: Item) -> None:
        """Processes a frame that has waited."""
        owner = self.owner
        owner.statistics.hop.record(time.monotonic_ns() - item.sent_ns)
        self.current = item.frame
        self.doing.receipt = item.receipt
        try:
            await owner.process_frame(item.frame, item.direction)
            if item.callback is not None:
                await item.callback(owner, item.frame, item.direction)
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            await owner._report_failure(foreign(error), item.frame, item.direction)
        except Exception as error:  # noqa: BLE001 - becomes an ErrorFrame
            await owner._report_failure(error, item.frame, item.direction)
        finally:
            self._over(item.receipt)

    def _over(self, receipt: Receipt | None) -> None:
        # While `current` is set, a frame that this lets in waits for its turn: no step can begin
        # inside the context this task is running in.
        if receipt is not None:
            receipt.done()
        if not self.given_up:
            self.current = self.doing.receipt = None


def _is_cancelled() -> bool:
    """Whether somebody has asked the running task to end."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def foreign(error: asyncio.CancelledError) -> Exception:
    """The failure of a frame that waited for something which was cancelled."""
    failure = RuntimeError("something that process_frame() waited for was cancelled")
    failure.__cause__ = error
    return failure.with_traceback(error.__traceback__)
