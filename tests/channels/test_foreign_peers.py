"""Peers of other builds and peers in trouble, over every transport, spoken to byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgpack
import pytest
from loguru import logger
from tests.channels.conftest import read_records

from antiphon_actors.channels import ChannelBroken, ChannelBusy, Limits, Link, TlsCredentials
from antiphon_actors.channels.framing import Kind, Record, pack_data_head, pack_record
from antiphon_actors.channels.handshake import MAGIC, VERSION
from antiphon_actors.channels.inproc import InprocTransport
from antiphon_actors.channels.limits import DEFAULT_LIMITS
from antiphon_actors.channels.testing import WAIT_SECS, Node, linked, until
from antiphon_actors.channels.tls import TlsTransport
from antiphon_actors.channels.unix import UnixTransport
from antiphon_actors.channels.uris import parse_uri
from antiphon_actors.channels.wire import Transport, Wire

FACTS: dict[str, object] = {"name": "foreign", "pid": 1, "id": b"\xff" * 16}


class Foreigner:
    """The far end of a connection, with nothing of ours above the wire (a `WireOwner`)."""

    def __init__(self) -> None:
        self.wire: Wire
        self.records: list[Record] = []
        self.ended = False
        self._rest = b""

    def meet(self, wire: Wire) -> Foreigner:
        self.wire = wire
        return self

    def wire_bytes(self, data: bytes | memoryview) -> None:
        records, self._rest = read_records(self._rest + data)
        self.records += records

    def wire_paused(self) -> None: ...

    def wire_resumed(self) -> None: ...

    def wire_ended(self, error: Exception | None) -> None:
        self.ended = True

    def say(self, *records: bytes) -> None:
        self.wire.write(b"".join(records))

    def heard(self, kind: Kind) -> list[Record]:
        return [record for record in self.records if record[0] == kind]

    async def hears(self, kind: Kind, count: int = 1) -> Record:
        """Waits for records of a kind and returns the last of them."""
        await until(lambda: len(self.heard(kind)) >= count or self.ended)
        assert len(self.heard(kind)) >= count, self.records
        return self.heard(kind)[count - 1]

    def half_close(self) -> None:
        """Says no more, as far as the transport knows such a thing; still listens."""
        transport = getattr(self.wire, "_transport", None)
        if transport is None:
            self.wire.close()
            return
        number = os.dup(transport.get_extra_info("socket").fileno())
        with socket.socket(fileno=number) as end:
            end.shutdown(socket.SHUT_WR)


@asynccontextmanager
async def foreigner(uri: str) -> AsyncIterator[Foreigner]:
    """Dials a hub; over `tls://` with the certificate that the hubs of the test have."""
    address = parse_uri(uri)
    transports: dict[str, Transport] = {"unix": UnixTransport(), "inproc": InprocTransport()}
    if Node.default_credentials is not None:
        transports["tls"] = TlsTransport(Node.default_credentials)
    peer = Foreigner()
    await transports[address.scheme].dial(address, peer.meet, DEFAULT_LIMITS)
    try:
        yield peer
    finally:
        peer.wire.abort()
        await until(lambda: peer.ended)


@asynccontextmanager
async def visited(
    uri: str, limits: Limits = DEFAULT_LIMITS
) -> AsyncIterator[tuple[Node, Foreigner]]:
    """A hub, a link of its own that has to live through it all, and a foreigner at its door."""
    node, friend = Node("victim", limits), Node("friend")
    logger.disable("antiphon_actors.channels")
    try:
        async with node.hub, friend.hub:
            bound = await node.hub.listen(uri)
            link = await friend.hub.connect(bound, deadline_secs=WAIT_SECS)
            stream = await link.open_stream(b"friend")
            async with foreigner(bound) as peer:
                yield node, peer
            await stream.send(b"still here")
            async with asyncio.timeout(WAIT_SECS):
                await stream.drain()
    finally:
        logger.enable("antiphon_actors.channels")


def hello(
    lowest: int = VERSION,
    highest: int = VERSION,
    *more: object,
    facts: dict[str, object] | None = None,
    limits: dict[str, object] | None = None,
) -> bytes:
    stated = FACTS | (facts or {})
    return pack_record(Kind.HELLO, MAGIC, lowest, highest, stated, limits or {}, *more)


def data(seq: int, payload: bytes, kind: Kind = Kind.DATA, stream: int = 1) -> bytes:
    return pack_data_head(kind, stream, seq, 1, len(payload)) + payload


OPEN = pack_record(Kind.OPEN, 1, b"key")


# Versions.


async def test_the_oldest_build_of_this_version_is_understood(uri: str) -> None:
    """It states nothing but what the first build had to, and no limits at all."""
    async with visited(uri) as (node, peer):
        peer.say(hello(), OPEN)
        await peer.hears(Kind.READY)
        await peer.hears(Kind.OPENED)
        peer.say(data(1, b"ordered"), data(1, b"urgent", Kind.URGENT))
        await until(lambda: len(node.receivers[b"key"].deliveries) == 2)
        assert (await peer.hears(Kind.ACK))[1] == 1
        # And is sent nothing that it would not know.
        theirs = (await peer.hears(Kind.HELLO))[2:4]
        assert theirs[0] <= VERSION <= theirs[1]
        link = next(link for link in node.hub.links if link.peer.name == "foreign")
        opening = asyncio.ensure_future(link.open_stream(b"back"))
        stream_id = (await peer.hears(Kind.OPEN))[1]
        peer.say(pack_record(Kind.OPENED, stream_id))
        stream = await opening
        large = bytes(700_000)
        await stream.send(large)
        _, _, seq, _, payload = (await peer.hears(Kind.DATA))[:5]
        assert (seq, payload) == (1, large)
        peer.say(pack_record(Kind.ACK, stream_id, 1, 0))
        await stream.drain()


async def test_a_newer_build_may_say_more_than_is_known_here(uri: str) -> None:
    """Every record is longer, HELLO states unknown facts and limits, and a higher version."""
    async with visited(uri) as (node, peer):
        later = hello(
            VERSION, VERSION + 7, {"new": [1]}, facts={"colour": "blue"}, limits={"window_hours": 3}
        )
        peer.say(later, pack_record(Kind.OPEN, 1, b"key", 0, 0, {"priority": 9}))
        await peer.hears(Kind.OPENED)
        link = next(link for link in node.hub.links if link.peer.name == "foreign")
        assert link.peer.version == VERSION
        peer.say(
            pack_record(Kind.DATA, 1, 1, 5, b"one", 7, 0, "more"),
            pack_record(Kind.URGENT, 1, 1, 5, b"two", 0, 0, [1, 2, 3]),
            pack_record(Kind.PING, 5, "more"),
            pack_record(Kind.NOTIFY, "method", b"body", 1.5),
            pack_record(Kind.END, 1, "reason"),
        )
        await peer.hears(Kind.PONG)
        await peer.hears(Kind.ENDED)
        assert node.receivers[b"key"].payloads() == [b"one", b"two"]
        assert node.notifications == [("method", b"body")]
        peer.say(pack_record(Kind.CLOSE, "a code of the future", "reason", 3))
        await asyncio.wait_for(link.closed.wait(), WAIT_SECS)
        assert isinstance(link.close_reason, ChannelBroken)


@pytest.mark.parametrize(("lowest", "highest"), [(VERSION + 1, VERSION + 4), (0, 0), (-3, 0)])
async def test_no_common_version_is_said_to_the_peer(uri: str, lowest: int, highest: int) -> None:
    async with visited(uri) as (node, peer):
        peer.say(hello(lowest, highest))
        _, code, reason = (await peer.hears(Kind.CLOSE))[:3]
        assert code == "handshake"
        assert "no common protocol version" in reason
        await until(lambda: peer.ended)
        assert node.hub.statistics().handshakes_failed == 1


async def test_a_record_of_a_later_version_is_a_violation(uri: str) -> None:
    """Kinds are added with a version, so nobody who agreed on this one may send them."""
    async with visited(uri) as (node, peer):
        peer.say(hello(), OPEN)
        await peer.hears(Kind.OPENED)
        body = msgpack.packb([99, 1, b"x"])
        peer.say(len(body).to_bytes(4, "little") + body)
        assert (await peer.hears(Kind.CLOSE))[1] == "violation"
        await until(lambda: node.receivers[b"key"].ended)
        assert node.hub.statistics().violations == 1


# Garbage.


@pytest.mark.parametrize(
    "begin",
    [b"", hello(), hello() + OPEN + data(1, b"x")],
    ids=["at first", "after hello", "after a frame"],
)
@pytest.mark.parametrize(
    "garbage",
    [b"\xff" * 64, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x05\0\0\0\x91\xc1abc"],
    ids=["ones", "http", "no messagepack"],
)
async def test_garbage_ends_the_link_and_nothing_else(
    uri: str, begin: bytes, garbage: bytes
) -> None:
    async with visited(uri) as (node, peer):
        peer.say(begin, garbage)
        await peer.hears(Kind.CLOSE)
        await until(lambda: peer.ended)
        statistics = node.hub.statistics()
        assert statistics.violations + statistics.handshakes_failed == 1
        assert len(statistics.links) == 1


async def test_records_in_single_bytes(uri: str) -> None:
    async with visited(uri) as (node, peer):
        said = hello() + OPEN + data(1, b"ordered") + data(1, b"urgent", Kind.URGENT)
        for number in range(len(said)):
            peer.say(said[number : number + 1])
            await asyncio.sleep(0)
        await until(lambda: b"key" in node.receivers)
        await node.receivers[b"key"].received(2)
        assert node.receivers[b"key"].payloads() == [b"ordered", b"urgent"]


# Ends that are not goodbyes.


@pytest.mark.parametrize("rest", [b"", data(2, b"second")[:20]], ids=["whole", "broken off"])
async def test_a_half_closed_peer_is_a_lost_one(uri: str, rest: bytes) -> None:
    """What arrived whole counts, the beginning of a record does not."""
    async with visited(uri) as (node, peer):
        peer.say(hello(), OPEN, data(1, b"first"), rest)
        await peer.hears(Kind.OPENED)
        receiver = node.receivers[b"key"]
        await receiver.received(1)
        peer.half_close()
        await until(lambda: receiver.ended)
        assert isinstance(receiver.reason, ChannelBroken)
        assert receiver.payloads() == [b"first"]
        assert node.hub.statistics().broken == 1
        await until(lambda: peer.ended)


async def test_a_peer_that_hangs_up_in_the_middle_of_a_record(uri: str) -> None:
    async with visited(uri) as (node, peer):
        peer.say(hello(), OPEN, data(1, b"first"), data(2, bytes(100_000))[:60_000])
        await peer.hears(Kind.OPENED)
        receiver = node.receivers[b"key"]
        await receiver.received(1)
        peer.wire.abort()
        await until(lambda: receiver.ended)
        assert isinstance(receiver.reason, ChannelBroken)
        assert len(receiver.deliveries) == 1


async def test_a_peer_that_reads_and_never_answers_is_dead_by_heartbeat(uri: str) -> None:
    limits = Limits(heartbeat_period_secs=1, heartbeat_dead_secs=3)
    async with visited(uri, limits) as (node, peer):
        peer.say(hello(), OPEN)
        await peer.hears(Kind.OPENED)
        link = next(link for link in node.hub.links if link.peer.name == "foreign")
        now = asyncio.get_running_loop().time()
        for second in range(1, 7):
            link.tick(now + second)
            if link.close_reason is None:
                await peer.hears(Kind.PING, second)
        await peer.hears(Kind.CLOSE)
        assert isinstance(link.close_reason, ChannelBroken)
        assert "silent" in str(link.close_reason)


# Readers in trouble.


async def test_a_stalled_reader_holds_the_window_and_no_more(uri: str) -> None:
    limits = Limits(window_frames=32, urgent_frames=40)
    async with visited(uri, limits) as (node, peer):
        peer.say(hello())
        await peer.hears(Kind.READY)
        link = next(link for link in node.hub.links if link.peer.name == "foreign")
        opening = asyncio.ensure_future(link.open_stream(b"back"))
        stream_id = (await peer.hears(Kind.OPEN))[1]
        peer.say(pack_record(Kind.OPENED, stream_id))
        stream = await opening
        peer.wire.pause_reading()
        frame = bytes(20_000)
        taken = sum(stream.send_nowait(frame) for _ in range(100))
        assert taken == 32
        waiting = asyncio.ensure_future(stream.send(frame))
        for _ in range(40):
            stream.send_nowait(frame, urgent=True)
        with pytest.raises(ChannelBusy):
            stream.send_nowait(frame, urgent=True)
        with pytest.raises(ChannelBusy):
            await waiting
        peer.wire.resume_reading()
        # The link lives, and the peer learns that the stream does not.
        await peer.hears(Kind.RESET)
        assert link.close_reason is None


async def test_a_slow_reader_gets_everything_in_order(uri: str) -> None:
    limits = Limits(window_frames=200, window_bytes=8 << 20)
    async with linked(uri, near=limits, far=limits) as (_, far, link):
        stream = await link.open_stream(b"key")
        wire = far.hub.links[0].wire
        frames = [number.to_bytes(4, "big") * 5000 for number in range(200)]

        async def stutter() -> None:
            while True:
                wire.pause_reading()
                await asyncio.sleep(0)
                wire.resume_reading()
                for _ in range(
                    3
                ):  # the event loop asks the socket in one turn and reads in another
                    await asyncio.sleep(0)

        stuttering = asyncio.ensure_future(stutter())
        async with asyncio.timeout(WAIT_SECS):
            for frame in frames:
                await stream.send(frame)
            await stream.drain()
        stuttering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stuttering
        assert far.receivers[b"key"].payloads() == frames


async def test_empty_payloads_arrive(uri: str) -> None:
    async with linked(uri) as (_, far, link):
        stream = await link.open_stream(b"")
        for number in range(10):
            await stream.send(b"", urgent=number % 2 == 0)
        await stream.drain()
        assert far.receivers[b""].payloads() == [b""] * 10
        assert await _echoed(far, link, b"") == b""


async def _echoed(far: Node, link: Link, body: bytes) -> bytes:
    async def echo(link: Link, body: bytes) -> bytes:
        return body

    far.handlers["echo"] = echo
    return await link.call("echo", body, deadline_secs=WAIT_SECS)


async def test_limits_given_as_whole_seconds(uri: str) -> None:
    whole, half = Limits(heartbeat_period_secs=1), Limits(heartbeat_period_secs=0.5)
    async with linked(uri, near=whole, far=half) as (_, far, link):
        assert link.limits.heartbeat_period_secs == 0.5
        assert far.hub.links[0].limits.heartbeat_period_secs == 0.5


CHILD = """
import asyncio, sys
from pathlib import Path
from antiphon_actors.channels import Limits, TlsCredentials
from antiphon_actors.channels.testing import Node

async def main(uri, directory):
    credentials = TlsCredentials(Path(directory), "test", frozenset({"node"}))
    node = Node("child", credentials=credentials)
    node.auto_done = False
    async with node.hub:
        print(await node.hub.listen(uri), flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.chaos
@pytest.mark.parametrize("scheme", ["unix", "tls"])
async def test_a_killed_peer_leaves_what_it_had_not_processed(
    scheme: str, unix_uri: str, credentials: TlsCredentials
) -> None:
    uri = unix_uri if scheme == "unix" else "tls://127.0.0.1:0"
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        uri,
        str(credentials.directory),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    node = Node("parent", credentials=credentials)
    try:
        assert child.stdout is not None
        async with asyncio.timeout(30):
            bound = (await child.stdout.readline()).decode().strip()
        async with node.hub:
            link = await node.hub.connect(bound, deadline_secs=WAIT_SECS)
            stream = await link.open_stream(b"key")
            sizes = [10, 40_000, 600_000]
            for size in sizes:
                assert stream.send_nowait(bytes(size))
            stream.send_nowait(b"urgent", urgent=True)
            waiting = asyncio.ensure_future(stream.send(bytes(600_000)))
            await asyncio.sleep(0)
            child.send_signal(signal.SIGKILL)
            async with asyncio.timeout(WAIT_SECS):
                await link.closed.wait()
            with pytest.raises(ChannelBroken):
                await waiting
            left = [(urgent, len(sent.payload)) for urgent, sent in stream.unacknowledged()]
            assert left == [(True, 6), *((False, size) for size in sizes)]
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        await child.wait()
        child._transport.close()  # type: ignore[attr-defined]
