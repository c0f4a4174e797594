"""The order in which records leave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from antiphon_actors.channels.limits import DEFAULT_LIMITS
from antiphon_actors.channels.outbox import Outbox


class _Wire:
    """Keeps what is written."""

    gathers_writes = False
    unsent_bytes = 0

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, chunks: Iterable[bytes]) -> None:
        self.written += b"".join(chunks)


class _Source:
    """Has something to say, once, when it is asked for an acknowledgement."""

    def __init__(self, outbox: Outbox, acknowledgement: bytes) -> None:
        self._outbox = outbox
        self._acknowledgement = acknowledgement
        self._says = [b"says "]

    def take_ack(self) -> bytes:
        while self._says:
            self._outbox.express(self._says.pop())
        return self._acknowledgement


async def _written(acknowledgement: bytes) -> bytes:
    wire: Any = _Wire()
    outbox = Outbox(wire, DEFAULT_LIMITS, lambda: None)
    outbox.express(b"first ")
    outbox.ack_due(_Source(outbox, acknowledgement))
    await asyncio.sleep(0)  # the turn ends
    outbox.express(b"last")
    await asyncio.sleep(0)
    outbox.close()
    written: bytes = wire.written
    return written


async def test_what_is_said_when_an_acknowledgement_is_asked_for_leaves_at_once() -> None:
    assert await _written(b"") == b"first says last"


async def test_and_before_the_acknowledgement() -> None:
    assert await _written(b"ack ") == b"first says ack last"
