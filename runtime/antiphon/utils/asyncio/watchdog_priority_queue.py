"""A priority queue that a watched task may wait for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from antiphon.utils.asyncio.watchdog_queue import WatchdogQueue

if TYPE_CHECKING:
    from _typeshed import SupportsDunderGT, SupportsDunderLT

_T = TypeVar("_T", bound="SupportsDunderLT[Any] | SupportsDunderGT[Any]")


class _First:
    """Comes before everything else."""

    def __lt__(self, other: object) -> bool:
        return True

    def __gt__(self, other: object) -> bool:
        return False


class WatchdogPriorityQueue(WatchdogQueue[_T], asyncio.PriorityQueue[_T], Generic[_T]):
    """An ``asyncio.PriorityQueue``; waiting for an item does not alarm the waiting task's watchdog.

    As ``WatchdogQueue``, but ``get()`` takes the item that sorts first, and a cancellation comes
    before everything that is queued.
    """

    _cancelled: ClassVar[Any] = _First()
