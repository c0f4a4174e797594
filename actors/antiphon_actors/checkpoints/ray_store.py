"""Checkpoints in the store of Ray's control service: there with every cluster, gone with it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

from loguru import logger
from ray.exceptions import RayError

from antiphon_actors.checkpoints.store import KEPT_SECS, CheckpointStore
from antiphon_actors.errors import CheckpointStoreError
from antiphon_actors.ray_internal import ClusterKeys

NAMESPACE = "antiphon-checkpoints"

SWEEP_SECS = 3600.0
"""How often each process that stores something looks for what has expired."""

_VALUE, _TIME = "v:", "t:"


class RayStore(CheckpointStore):
    """Keeps checkpoints in the cluster.

    Ray's store does not forget by itself. So beside each value is the time until which it is kept, and
    whoever stores something removes, now and then, what has expired.
    """

    def __init__(
        self, keys: ClusterKeys | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Makes a store; this process must be connected to Ray when it is used.

        Args:
            keys: The cluster's store.
            clock: Tells the time, Unix time in seconds.
        """
        self._keys = keys or ClusterKeys(NAMESPACE)
        self._clock = clock
        # Until when our values are kept, as the store knows it; one for each session here.
        self._kept_until: dict[str, float] = {}
        self._next_sweep = clock() + random.uniform(0.0, SWEEP_SECS)
        self._sweep: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        """Ends a look for what has expired."""
        sweep, self._sweep = self._sweep, None
        if sweep is not None:
            sweep.cancel()
            await asyncio.wait({sweep})

    async def sweep(self) -> int:
        """Removes what has expired.

        Returns:
            How many values that were.

        Raises:
            CheckpointStoreError: The cluster does not answer.
        """
        expired = 0
        try:
            for stamp in await self._keys.list(_TIME):
                kept_until = await self._keys.get(stamp)
                if kept_until is not None and float(kept_until) <= self._clock():
                    await self._delete(stamp.removeprefix(_TIME))
                    expired += 1
        except RayError as error:
            raise _translated(error) from error
        return expired

    async def _put(self, key: str, value: bytes) -> None:
        now = self._clock()
        try:
            if self._kept_until.get(key, 0.0) < now + KEPT_SECS * 3 / 4:
                # First the time: a value without one would stay for ever.
                await self._keys.put(_TIME + key, str(now + KEPT_SECS).encode())
                self._kept_until[key] = now + KEPT_SECS
            await self._keys.put(_VALUE + key, value)
        except RayError as error:
            raise _translated(error) from error
        if now >= self._next_sweep and self._sweep is None:
            self._next_sweep = now + SWEEP_SECS
            self._sweep = asyncio.get_running_loop().create_task(self._sweep_once())

    async def _get(self, key: str) -> bytes | None:
        try:
            return await self._keys.get(_VALUE + key)
        except RayError as error:
            raise _translated(error) from error

    async def _delete(self, key: str) -> None:
        self._kept_until.pop(key, None)
        try:
            await self._keys.delete(_VALUE + key)
            await self._keys.delete(_TIME + key)
        except RayError as error:
            raise _translated(error) from error

    async def _list(self, prefix: str) -> Sequence[str]:
        try:
            found = await self._keys.list(_VALUE + prefix)
        except RayError as error:
            raise _translated(error) from error
        return [key.removeprefix(_VALUE) for key in found]

    async def _sweep_once(self) -> None:
        try:
            if expired := await self.sweep():
                logger.info("expired checkpoints removed", count=expired)
        except (CheckpointStoreError, ValueError) as error:
            logger.warning("expired checkpoints not removed", error=str(error))
        finally:
            self._sweep = None


def _translated(error: RayError) -> CheckpointStoreError:
    return CheckpointStoreError(f"Ray's store does not answer: {error}")
