"""A priority queue that a watched task may wait for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from antiphon.utils.asyncio.task_manager import BaseTaskManager

if TYPE_CHECKING:
    from _typeshed import SupportsDunderGT, SupportsDunderLT

_T = TypeVar("_T", bound="SupportsDunderLT[Any] | SupportsDunderGT[Any]")


class _First:
    """Comes before everything else."""

    def __lt__(self, other: object) -> bool:
        return True

    def __gt__(self, other: object) -> bool:
        return False


_CANCELLED: Any = _First()


class WatchdogPriorityQueue(asyncio.PriorityQueue[_T], Generic[_T]):
    """An ``asyncio.PriorityQueue``; waiting for an item does not alarm the waiting task's watchdog.

    From ``get()`` to ``task_done()`` the watchdog counts.
    """

    def __init__(self, manager: BaseTaskManager, *, maxsize: int = 0, timeout: float = 2.0) -> None:
        """Makes an empty queue.

        Args:
            manager: Owner of the tasks that wait.
            maxsize: Items the queue holds at most; 0 for no bound.
            timeout: Accepted for compatibility, in seconds: the watchdog rests during the wait, so
                nothing has to be reset periodically.
        """
        super().__init__(maxsize)
        self._manager = manager

    async def get(self) -> _T:
        """Takes the item that sorts first, waiting for one if there is none.

        Raises:
            asyncio.CancelledError: If cancel() was called.
        """
        self._manager.task_suspend_watchdog()
        try:
            item = await super().get()
        finally:
            self._manager.task_reset_watchdog()
        if item is _CANCELLED:
            super().task_done()
            raise asyncio.CancelledError
        return item

    def task_done(self) -> None:
        """Says that an item has been worked off."""
        self._manager.task_reset_watchdog()
        super().task_done()

    def cancel(self) -> None:
        """Ends one get() with a CancelledError, before everything that is queued.

        Raises:
            asyncio.QueueFull: If the queue is bounded and full.
        """
        self.put_nowait(_CANCELLED)
