"""Functions of the bot that processors elsewhere call: each call is carried out once.

A processor's successor does again what its predecessor had not finished, and with it calls the bot's
functions again. A call that was begun goes on although its caller is lost; the successor gets its result.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from antiphon.utils.asyncio.receipts import current_receipt
from antiphon_actors.channels import ChannelClosed
from antiphon_actors.channels.rpc import LINK_LOST

Key = tuple[int, int, int]
"""What caused the call (0: unknown), the function's number, and which of several such calls."""

_KEPT = 512


def _refuse(call: Coroutine[Any, Any, bytes]) -> asyncio.Task[bytes]:
    call.close()
    raise ChannelClosed("the session is over")


class CallCounter:
    """Numbers the calls that one process makes of the bot's functions."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[int, int], int] = OrderedDict()

    def key(self, function: int) -> Key:
        """The key of a call that the running code makes now."""
        receipt = current_receipt()
        cause = receipt.origin if receipt is not None else 0
        if not cause:
            return 0, function, 0
        count = self._counts.pop((cause, function), 0)
        self._counts[cause, function] = count + 1
        if len(self._counts) > _KEPT:
            self._counts.popitem(last=False)
        return cause, function, count


class Invocations:
    """The calls that are carried out here, and the results of the last ones."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, bytes]], asyncio.Task[bytes]]) -> None:
        """Starts with none.

        Args:
            spawn: Starts a call; it ends with the session at the latest.
        """
        self._spawn = spawn
        self._calls: OrderedDict[Key, asyncio.Task[bytes]] = OrderedDict()

    async def run(self, key: Key, call: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """Carries out a call, or waits for the one that was begun under this key.

        When cancelled because its caller has given up, the call is cancelled; when its caller is lost,
        it goes on.
        """
        task = self._calls.get(key) if key[0] else None
        if task is None:
            task = self._spawn(call())
            if key[0]:
                self._calls[key] = task
                if len(self._calls) > _KEPT:
                    self._calls.popitem(last=False)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if error.args != (LINK_LOST,):
                task.cancel()
            raise

    def clear(self) -> None:
        """Forgets all results."""
        self._calls.clear()
        self._spawn = _refuse
