"""How a TLS connection is written: bursts, what the socket does not take, and the end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from antiphon_actors.channels import Identity, Limits, TlsCredentials
from antiphon_actors.channels.credentials import TlsContexts
from antiphon_actors.channels.testing import until
from antiphon_actors.channels.tls_wire import TlsWire
from antiphon_actors.channels.wire import Wire

IDENTITY = Identity("test", "node", "one")
HIGH_BYTES = 32 << 10


class Owner:
    """Keeps what a wire says."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.paused = 0
        self.resumed = 0
        self.ended: list[Exception | None] = []

    def wire_bytes(self, data: bytes | memoryview) -> None:
        self.heard += data

    def wire_paused(self) -> None:
        self.paused += 1

    def wire_resumed(self) -> None:
        self.resumed += 1

    def wire_ended(self, error: Exception | None) -> None:
        self.ended.append(error)


class End:
    """One end of a connection."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self.owner = Owner()
        self.connection = connection
        self.wire = TlsWire("tls://x:1", connection, IDENTITY, Limits(write_high_bytes=HIGH_BYTES))
        self.sizes: list[int] = []

    def begin(self) -> None:
        def accept(wire: Wire) -> Owner:
            return self.owner

        self.wire.begin(accept)

    def count_sends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        send = self.wire._send

        def counted(data: bytes) -> None:
            self.sizes.append(len(data))
            send(data)

        monkeypatch.setattr(self.wire, "_send", counted)


def shaken(credentials: TlsCredentials) -> list[ssl.SSLSocket]:
    """Two ends of a connection whose handshake is over."""
    contexts = TlsContexts(credentials)
    far, near = socket.socketpair()
    ends = []
    for sock, context, server_side in (
        (far, contexts.server(), True),
        (near, contexts.client(), False),
    ):
        sock.setblocking(False)
        # A small buffer, so that the kernel soon takes no more.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 10)
        ends.append(
            context.wrap_socket(sock, server_side=server_side, do_handshake_on_connect=False)
        )
    waiting = list(ends)
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    return ends


@pytest.fixture
async def ends(credentials: TlsCredentials) -> AsyncIterator[list[End]]:
    made = [End(connection) for connection in shaken(credentials)]
    for end in made:
        end.begin()
    yield made
    for end in made:
        end.wire.abort()
    await asyncio.sleep(0)


async def test_a_lone_record_leaves_at_once_and_a_burst_together(
    ends: list[End], monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = ends
    # However slow the machine is, what follows a write belongs to its burst.
    monkeypatch.setattr("antiphon_actors.channels.tls_wire._BURST_NS", 10**12)
    near.count_sends(monkeypatch)
    near.wire._written_ns = -(10**15)
    near.wire.write(b"lone")
    near.wire.write(b"first")
    assert near.sizes == [4, 5]
    for number in range(10, 30):
        near.wire.write(b"%d" % number)
    near.wire.writelines([b"x", b"y"])
    assert near.sizes == [4, 5]
    await until(lambda: far.owner.heard.endswith(b"2829xy"))
    assert near.sizes == [4, 5, 42]


async def test_a_burst_waits_for_no_more_than_one_tls_record_and_keeps_its_order(
    ends: list[End], monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = ends
    near.count_sends(monkeypatch)
    chunks = [bytes([number]) * 6000 for number in range(10)]
    near.wire.writelines(chunks)
    assert max(near.sizes) <= 16 << 10
    near.wire.writelines([b"head", b"L" * 40_000])
    assert near.sizes[-2:] == [4, 40_000]
    expected = b"".join(chunks) + b"head" + b"L" * 40_000
    await until(lambda: len(far.owner.heard) == len(expected))
    assert far.owner.heard == expected


async def test_a_full_socket_pauses_the_link_and_loses_nothing(ends: list[End]) -> None:
    near, far = ends
    far.wire.pause_reading()
    sent = bytearray()
    for number in range(100):
        piece = bytes([number]) * 5000
        near.wire.write(piece)
        sent += piece
    near.wire.write(b"L" * 100_000)
    sent += b"L" * 100_000
    await asyncio.sleep(0)
    assert near.owner.paused == 1
    assert near.owner.resumed == 0
    far.wire.resume_reading()
    await until(lambda: len(far.owner.heard) == len(sent))
    assert far.owner.heard == sent
    await until(lambda: near.owner.resumed == 1)
    assert near.owner.paused == 1
    assert near.wire._backlog_bytes == 0


async def test_closing_writes_the_rest_first(ends: list[End]) -> None:
    near, far = ends
    far.wire.pause_reading()
    near.wire.write(b"x" * 200_000)
    near.wire.close()
    near.wire.close()
    far.wire.write(b"too late")
    await asyncio.sleep(0)
    assert not near.owner.ended
    far.wire.resume_reading()
    await until(lambda: far.owner.ended == [None] and near.owner.ended == [None])
    assert len(far.owner.heard) == 200_000
    assert near.owner.heard == b""


async def test_aborting_writes_nothing_more(ends: list[End]) -> None:
    near, far = ends
    far.wire.write(b"hello")
    await until(lambda: near.owner.heard == b"hello")
    far.wire.pause_reading()
    near.wire.write(b"x" * 500_000)
    near.wire.abort()
    assert not near.owner.ended  # never while the link is still at it
    await until(lambda: near.owner.ended == [None])
    near.wire.write(b"ignored")
    far.wire.resume_reading()
    await until(lambda: len(far.owner.ended) == 1)
    assert len(far.owner.heard) < 500_000


async def test_a_close_that_nobody_answers_ends_all_the_same(
    credentials: TlsCredentials,
) -> None:
    silent, connection = shaken(credentials)
    near = End(connection)
    near.wire._close_secs = 0.01
    near.begin()
    near.wire.close()
    await until(lambda: near.owner.ended == [None])
    silent.close()
