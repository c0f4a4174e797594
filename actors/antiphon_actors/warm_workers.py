"""Keeps blank worker processes started, in which actors begin to run at once."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Protocol

KEEP_ALIVE_SECS = 600
"""How long Ray keeps one that nobody uses."""

_INTERVAL_SECS = 1.0


class _Prestarter(Protocol):
    """Starts them (``antiphon_actors.ray_internal.WorkerPrestarter``)."""

    @property
    def refused(self) -> str:
        """Why it cannot; empty while it can."""

    async def start(self, count: int) -> bool:
        """Asks for some; whether they will be started."""

    async def aclose(self) -> None:
        """Ends it."""


class WarmWorkers:
    """A number of blank workers, replaced as they are used.

    Args:
        count: How many.
        prestarter: Starts them.
        interval_secs: Pause between two looks.
    """

    def __init__(
        self, count: int, prestarter: _Prestarter, *, interval_secs: float = _INTERVAL_SECS
    ) -> None:
        self._count = count
        self._prestarter = prestarter
        self._interval_secs = interval_secs
        self._missing = count

    @property
    def missing(self) -> int:
        """How many have to be started."""
        return self._missing

    @property
    def refused(self) -> str:
        """Why there are none; empty while they can be started."""
        return self._prestarter.refused

    def used_one(self) -> None:
        """An actor has been started, in one of them if there was any."""
        self._missing = min(self._missing + 1, self._count)

    async def keep(self, busy: Callable[[], bool]) -> None:
        """Replaces what was used, a few a second so that starts do not crowd out sessions.

        Args:
            busy: Whether actors are being started: these come first, as each process being started
                slows the others down.
        """
        renew_at = time.monotonic() + KEEP_ALIVE_SECS
        at_once = max(os.cpu_count() or 1, 1)
        while not self._prestarter.refused:
            if time.monotonic() >= renew_at:
                renew_at = time.monotonic() + KEEP_ALIVE_SECS
                self._missing = self._count
            count = 0 if busy() else min(self._missing, at_once)
            if count > 0 and await self._prestarter.start(count):
                self._missing -= count
            await asyncio.sleep(self._interval_secs)

    async def aclose(self) -> None:
        """Ends the connection over which they are asked for."""
        await self._prestarter.aclose()
