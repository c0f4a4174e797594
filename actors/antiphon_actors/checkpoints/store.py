"""What every store of checkpoints does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from antiphon.runner import checkpoint
from antiphon_actors.errors import CheckpointStoreError

MAX_VALUE_BYTES = checkpoint.MAX_BYTES + 1024
MAX_KEY_CHARS = 200

KEPT_SECS = 24 * 3600.0
"""How long a value is kept after it was last put, if nobody deletes it."""


class CheckpointStore(ABC):
    """Keeps values by key; an async context manager.

    Nothing is opened before the first call. All calls may be made at once. A call that fails, or that is
    cancelled, may have had its effect. A value that nobody deletes goes by itself after ``KEPT_SECS``, or
    somewhat later.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def put(self, key: str, value: bytes) -> None:
        """Sets the value of a key; who gets it later gets this one or a newer one.

        Args:
            key: Up to ``MAX_KEY_CHARS`` printable ASCII characters without spaces.
            value: Up to ``MAX_VALUE_BYTES``.

        Raises:
            CheckpointStoreError: It could not be stored; if it never can be, not retryable.
        """
        if len(value) > MAX_VALUE_BYTES:
            raise CheckpointStoreError(
                f"a value of {len(value)} bytes is larger than the allowed {MAX_VALUE_BYTES}",
                retryable=False,
            )
        await self._put(_checked(key), value)

    async def get(self, key: str) -> bytes | None:
        """The value of a key; None if there is none.

        Raises:
            CheckpointStoreError: The store does not answer.
        """
        return await self._get(_checked(key))

    async def delete(self, key: str) -> None:
        """Removes a key; one that is not there is ignored.

        Raises:
            CheckpointStoreError: The store does not answer.
        """
        await self._delete(_checked(key))

    async def list(self, prefix: str = "") -> Sequence[str]:
        """The keys that begin with a text, in no order; for people and for cleaning up.

        Raises:
            CheckpointStoreError: The store does not answer.
        """
        return await self._list(_checked(prefix) if prefix else "")

    @abstractmethod
    async def aclose(self) -> None:
        """Frees what the store holds here; the values stay."""

    @abstractmethod
    async def _put(self, key: str, value: bytes) -> None: ...

    @abstractmethod
    async def _get(self, key: str) -> bytes | None: ...

    @abstractmethod
    async def _delete(self, key: str) -> None: ...

    @abstractmethod
    async def _list(self, prefix: str) -> Sequence[str]: ...


def _checked(key: str) -> str:
    if (
        not 0 < len(key) <= MAX_KEY_CHARS
        or not key.isascii()
        or not key.isprintable()
        or " " in key
    ):
        raise CheckpointStoreError(
            f"a key has 1 to {MAX_KEY_CHARS} printable ASCII characters without spaces",
            retryable=False,
        )
    return key
