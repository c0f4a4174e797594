"""An iteration that a watched task may wait for."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from typing import Generic, TypeVar

from antiphon.utils.asyncio.task_manager import BaseTaskManager

_T = TypeVar("_T")


class WatchdogAsyncIterator(Generic[_T]):
    """Iterates over something; waiting for its next item does not alarm the task's watchdog.

    Between two items the watchdog counts.
    """

    def __init__(
        self,
        async_iterable: AsyncIterable[_T] | Awaitable[AsyncIterable[_T]],
        *,
        manager: BaseTaskManager,
        timeout: float = 2.0,
    ) -> None:
        """Wraps an iterable.

        Args:
            async_iterable: What to iterate over, or an awaitable that gives it.
            manager: Owner of the task that iterates.
            timeout: Accepted for compatibility, in seconds: the watchdog rests during the wait, so
                nothing has to be reset periodically.
        """
        self._iterable = async_iterable
        self._manager = manager
        self._iterator: AsyncIterator[_T] | None = None

    def __aiter__(self) -> WatchdogAsyncIterator[_T]:
        return self

    async def __anext__(self) -> _T:
        self._manager.task_suspend_watchdog()
        try:
            if self._iterator is None:
                iterable = self._iterable
                if inspect.isawaitable(iterable):
                    iterable = await iterable
                assert isinstance(iterable, AsyncIterable)
                self._iterator = aiter(iterable)
            return await anext(self._iterator)
        finally:
            self._manager.task_reset_watchdog()
