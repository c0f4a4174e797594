"""A queue that a watched task may wait for."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Generic, TypeVar

from antiphon.utils.asyncio.task_manager import BaseTaskManager

_T = TypeVar("_T")


class WatchdogQueue(asyncio.Queue[_T], Generic[_T]):
    """An ``asyncio.Queue``; waiting for an item does not alarm the watchdog of the waiting task.

    From ``get()`` to ``task_done()`` the watchdog counts.
    """

    # Stands in the queue for a cancellation.
    _cancelled: ClassVar[Any] = object()

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
        """Takes an item, waiting for one if there is none.

        Raises:
            asyncio.CancelledError: When it comes to where cancel() was called.
        """
        self._manager.task_suspend_watchdog()
        try:
            item = await super().get()
        finally:
            self._manager.task_reset_watchdog()
        if item is self._cancelled:
            super().task_done()
            raise asyncio.CancelledError
        return item

    def task_done(self) -> None:
        """Says that an item has been worked off."""
        self._manager.task_reset_watchdog()
        super().task_done()

    def cancel(self) -> None:
        """Ends one get() with a CancelledError, after the items that are already queued.

        Raises:
            asyncio.QueueFull: If the queue is bounded and full.
        """
        self.put_nowait(self._cancelled)
