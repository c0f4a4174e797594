"""Checkpoints in the memory of one process: for tests, and for programs that run sessions themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from antiphon_actors.checkpoints.store import KEPT_SECS, CheckpointStore


class MemoryStore(CheckpointStore):
    """Keeps checkpoints in this process, with which they are lost."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Makes an empty store.

        Args:
            clock: Tells the time, in seconds.
        """
        self._clock = clock
        self._values: dict[str, tuple[float, bytes]] = {}

    async def aclose(self) -> None:
        """Keeps everything: another user of the object may want it."""

    async def _put(self, key: str, value: bytes) -> None:
        # In the order in which they expire.
        self._values.pop(key, None)
        self._values[key] = self._clock() + KEPT_SECS, bytes(value)
        self._expire()

    async def _get(self, key: str) -> bytes | None:
        self._expire()
        return self._values[key][1] if key in self._values else None

    async def _delete(self, key: str) -> None:
        self._values.pop(key, None)

    async def _list(self, prefix: str) -> Sequence[str]:
        self._expire()
        return [key for key in self._values if key.startswith(prefix)]

    def _expire(self) -> None:
        now = self._clock()
        while self._values:
            key = next(iter(self._values))
            if self._values[key][0] > now:
                return
            del self._values[key]
