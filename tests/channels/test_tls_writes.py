"""How the records of a link over TLS are put together for the network."""

from __future__ import annotations

import asyncio
from time import monotonic_ns

import pytest

from antiphon_actors.channels import Limits, TlsCredentials
from antiphon_actors.channels.testing import Node
from antiphon_actors.channels.tls import TlsWire


class RecordingTransport(asyncio.Transport):
    """Stands for a TLS connection of which only the writes matter."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.ended = ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


@pytest.fixture
async def written(
    credentials: TlsCredentials, monkeypatch: pytest.MonkeyPatch
) -> tuple[TlsWire, RecordingTransport]:
    # However slow the machine is, what follows a write belongs to its burst.
    monkeypatch.setattr("antiphon_actors.channels.tls._BURST_NS", 10**12)
    wire = TlsWire("tls://x:1", lambda wire: Node("x").hub._accept(wire), credentials, Limits())
    wire._transport = transport = RecordingTransport()
    return wire, transport


async def test_a_lone_record_leaves_at_once_and_a_burst_together(
    written: tuple[TlsWire, RecordingTransport],
) -> None:
    wire, transport = written
    wire._written_ns = -(10**15)
    wire.write(b"lone")
    assert transport.written == [b"lone"]
    for number in range(20):
        wire.write(b"%d," % number)
    wire.writelines([b"x", b"y"])
    assert transport.written == [b"lone"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(transport.written) == 2
    assert transport.written[1] == b"".join(b"%d," % number for number in range(20)) + b"xy"


async def test_a_burst_waits_for_no_more_than_one_tls_record_and_keeps_its_order(
    written: tuple[TlsWire, RecordingTransport],
) -> None:
    wire, transport = written
    wire._written_ns = monotonic_ns()
    chunks = [bytes([number]) * 6000 for number in range(10)]
    for chunk in chunks:
        wire.write(chunk)
        assert wire._gathered_bytes <= 16 << 10
    large = b"L" * 40_000
    wire.writelines([b"head", large])
    assert large in transport.written
    assert b"".join(transport.written) == b"".join(chunks) + b"head" + large
    assert max(map(len, transport.written[:-1])) <= 16 << 10


async def test_closing_writes_the_rest_and_aborting_does_not(
    written: tuple[TlsWire, RecordingTransport],
) -> None:
    wire, transport = written
    wire._written_ns = monotonic_ns()
    wire.write(b"rest")
    wire.close()
    assert (transport.written, transport.ended) == ([b"rest"], "closed")
    wire.write(b"more")
    wire.abort()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (transport.written, transport.ended) == ([b"rest"], "aborted")
