"""An awaitable that a watched task may wait for."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Generic, TypeVar

from antiphon.utils.asyncio.task_manager import BaseTaskManager

_T = TypeVar("_T")


class WatchdogCoroutine(Generic[_T]):
    """Awaits something once, when called, without alarming the watchdog of the calling task."""

    def __init__(
        self, coroutine: Awaitable[_T], *, manager: BaseTaskManager, timeout: float = 2.0
    ) -> None:
        """Wraps an awaitable.

        Args:
            coroutine: What to wait for.
            manager: Owner of the task that waits.
            timeout: Accepted for compatibility, in seconds: the watchdog rests during the wait, so
                nothing has to be reset periodically.
        """
        self._coroutine = coroutine
        self._manager = manager

    async def __call__(self) -> _T:
        """Waits for the result."""
        self._manager.task_suspend_watchdog()
        try:
            return await self._coroutine
        finally:
            self._manager.task_reset_watchdog()


async def watchdog_coroutine(
    coroutine: Awaitable[_T], *, manager: BaseTaskManager, timeout: float = 2.0
) -> _T:
    """Awaits something without alarming the watchdog of the running task.

    Args:
        coroutine: What to wait for.
        manager: Owner of the running task.
        timeout: Accepted for compatibility, in seconds.
    """
    return await WatchdogCoroutine(coroutine, manager=manager, timeout=timeout)()
