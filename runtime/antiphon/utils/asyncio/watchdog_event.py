"""An event that a watched task may wait for."""

from __future__ import annotations

import asyncio
from typing import Literal

from antiphon.utils.asyncio.task_manager import BaseTaskManager


class WatchdogEvent(asyncio.Event):
    """An ``asyncio.Event``; waiting for it does not alarm the watchdog of the waiting task."""

    def __init__(self, manager: BaseTaskManager, *, timeout: float = 2.0) -> None:
        """Makes an event that is not set.

        Args:
            manager: Owner of the tasks that wait.
            timeout: Accepted for compatibility, in seconds: the watchdog rests during the wait, so
                nothing has to be reset periodically.
        """
        super().__init__()
        self._manager = manager

    async def wait(self) -> Literal[True]:
        """Waits until the event is set."""
        if self.is_set():
            return True
        self._manager.task_suspend_watchdog()
        try:
            return await super().wait()
        finally:
            self._manager.task_reset_watchdog()
