"""Peers that do not keep to the protocol: their link dies, the hub and its other links live."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger
from tests.channels.conftest import read_records

from antiphon_actors.channels import HandshakeError, Hub, Limits, Link, LinkState
from antiphon_actors.channels.errors import ProtocolViolation
from antiphon_actors.channels.framing import Kind, pack_data_head, pack_record
from antiphon_actors.channels.handshake import (
    MAGIC,
    VERSION,
    PeerFacts,
    is_arbiter,
    pack_hello,
    read_hello,
)
from antiphon_actors.channels.testing import WAIT_SECS, Node, RecordingReceiver, until
from antiphon_actors.channels.wire import Wire

FACTS = PeerFacts("stranger", 1, b"\xff" * 16)
HELLO = pack_hello(FACTS, Limits())


class MemoryWire(Wire):
    """Keeps what a link writes."""

    gathers_writes = True
    remote = "memory"
    unsent_bytes = 0

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, chunks: Iterable[bytes]) -> None:
        self.written += b"".join(chunks)

    def close(self) -> None:
        self.closed = True

    abort = pause_reading = resume_reading = close


@contextmanager
def accepted(limits: Limits = Limits()) -> Iterator[tuple[Node, Link, MemoryWire]]:  # noqa: B008
    """A link that a stranger dialled, fed by hand. The hub's id is small: it is the arbiter."""
    node = Node("victim", limits)
    node.hub.facts = PeerFacts("victim", os.getpid(), b"\0" * 16)
    wire = MemoryWire()
    link = Link(node.hub, wire, dialled=False)
    logger.disable("antiphon_actors.channels")
    try:
        yield node, link, wire
    finally:
        logger.enable("antiphon_actors.channels")
        link.abort("the test is over")
        link.wire_ended(None)


def kinds(wire: MemoryWire) -> list[int]:
    return [record[0] for record in read_records(wire.written)[0]]


async def test_a_well_behaved_stranger_is_welcome() -> None:
    with accepted() as (node, link, wire):
        link.wire_bytes(HELLO + pack_record(Kind.OPEN, 1, b"key"))
        assert link.state is LinkState.OPEN
        link.wire_bytes(pack_data_head(Kind.DATA, 1, 1, 5, 3) + b"abc")
        assert node.receivers[b"key"].payloads() == [b"abc"]
        assert kinds(wire) == [Kind.HELLO, Kind.READY, Kind.OPENED]


def data(seq: int, payload: bytes = b"x", kind: Kind = Kind.DATA, stream: int = 1) -> bytes:
    return pack_data_head(kind, stream, seq, 1, len(payload)) + payload


@pytest.mark.parametrize(
    "sent",
    [
        pack_record(Kind.HELLO),
        HELLO,
        pack_record(Kind.READY),
        pack_record(Kind.OPEN, 1, b"again"),
        pack_record(Kind.OPEN, 0, b"zero"),
        pack_record(Kind.OPEN, 2, b"k" * 1025),
        pack_record(Kind.OPEN, "2", b"key"),
        data(2),
        data(0),
        data(1) + data(1),
        data(1) + data(3),
        data(1, stream=7),
        data(1, kind=Kind.URGENT) + data(3, kind=Kind.URGENT),
        pack_record(Kind.DATA, 1, 1, 1),
        pack_record(Kind.DATA, 1, 1, 1, "text"),
        pack_record(Kind.DATA, 1, 1, 1, b"x", "cause", 0),
        pack_record(Kind.DATA, 1, 1, 1, b"x", 1, None),
        pack_record(Kind.OPEN, 2, b"key", "1", "2"),
        pack_record(Kind.OPEN, 2, b"key", -1, 0),
        pack_record(Kind.DATA, 1, 1.0, 1, b"x"),
        pack_record(Kind.DATA, [1], 1, 1, b"x"),
        pack_record(Kind.ACK, 1, 0, 0),
        pack_record(Kind.OPENED, 1),
        pack_record(Kind.ENDED, 1),
        pack_record(Kind.END, 3),
        pack_record(Kind.RESULT, 1, b""),
        pack_record(Kind.CANCEL, 1),
        pack_record(Kind.CALL, 0, "x", b""),
        pack_record(Kind.NOTIFY, b"x", b""),
        pack_record(Kind.PONG, 1 << 63),
        pack_record(Kind.PING, "now"),
        b"\x04\0\0\0\x94\xcd\x01\x00" + b"",
        (1 << 30).to_bytes(4, "little"),
        b"".join(data(n) for n in range(1, Limits().window_frames + 6)),
        data(1, b"x" * (1 << 20)) + data(2),
    ],
)
async def test_violations_end_the_link(sent: bytes) -> None:
    with accepted() as (node, link, wire):
        node.auto_done = False
        link.wire_bytes(HELLO + pack_record(Kind.OPEN, 1, b"key"))
        link.wire_bytes(sent)
        assert isinstance(link.close_reason, ProtocolViolation)
        assert wire.closed
        assert kinds(wire)[-1] == Kind.CLOSE
        assert node.receivers[b"key"].ended
        assert node.hub.statistics().violations == 1


async def test_late_records_are_no_violation() -> None:
    with accepted() as (node, link, _):
        link.wire_bytes(HELLO + pack_record(Kind.OPEN, 1, b"key"))
        link.stop_stream(node.receivers[b"key"], "enough")
        link.wire_bytes(data(1) + pack_record(Kind.END, 1) + pack_record(Kind.RESET, 1, ""))
        assert link.close_reason is None
        assert link.statistics().late_records == 3


def hello(**changes: object) -> bytes:
    values: dict[str, object] = {
        "magic": MAGIC,
        "lowest": VERSION,
        "highest": VERSION,
        "facts": {"name": "x", "pid": 1, "id": b"\xff" * 16},
        "limits": {},
    }
    return pack_record(Kind.HELLO, *(values | changes).values())


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (hello(magic=b"something-else"), "does not speak"),
        (hello(lowest=VERSION + 1, highest=VERSION + 3), "no common protocol version"),
        (hello(lowest=0, highest=0), "no common protocol version"),
        (hello(facts={}), "malformed facts"),
        (hello(facts={"name": "x", "pid": 1, "id": b"short"}), "malformed facts"),
        (hello(limits={"window_frames": 0}), "window_frames"),
        (hello(limits={"window_frames": 1.5}), "window_frames"),
        (hello(limits={"max_calls": "many"}), "max_calls"),
        (hello(limits={"heartbeat_dead_secs": float("nan")}), "heartbeat_dead_secs"),
        (hello(limits=[]), "malformed"),
        (pack_record(Kind.PING, 1), "does not belong"),
        (pack_record(Kind.READY), "READY"),
        (b"GET / HTTP/1.1\r\n\r\n", "exceeds"),
        (pack_record(Kind.CLOSE, "handshake", "too old"), "too old"),
    ],
)
async def test_failed_handshakes(sent: bytes, text: str) -> None:
    with accepted() as (node, link, wire):
        link.wire_bytes(sent)
        assert isinstance(link.close_reason, HandshakeError)
        assert text in str(link.close_reason)
        assert wire.closed
        assert node.hub.statistics().handshakes_failed == 1
        with pytest.raises(HandshakeError):
            await link.established()


async def test_hanging_up_in_the_handshake() -> None:
    with accepted() as (_, link, _wire):
        link.wire_ended(None)
        assert isinstance(link.close_reason, HandshakeError)


@pytest.mark.virtual_time
async def test_a_silent_stranger_has_a_deadline() -> None:
    with accepted(Limits(handshake_secs=4)) as (_, link, wire):
        await asyncio.sleep(3.9)
        assert not link.closed.is_set()
        await asyncio.sleep(0.2)
        assert wire.closed
        assert isinstance(link.close_reason, HandshakeError)


def test_a_newer_peer_with_more_to_say_is_understood() -> None:
    [record], _ = read_records(hello(lowest=1, highest=9))
    record[4]["colour"] = "blue"
    record[5]["window_hours"] = 3
    record.append("more")
    greeting = read_hello(record, Limits())
    assert greeting.peer.version == VERSION
    assert greeting.limits == Limits()


def test_exactly_one_side_is_the_arbiter() -> None:
    low, high = b"\0" * 16, b"\1" * 16
    for dialled in (True, False):
        assert is_arbiter(low, high, dialled=dialled)
        assert not is_arbiter(high, low, dialled=not dialled)
        assert is_arbiter(low, low, dialled=dialled) is dialled


VALID = (
    HELLO
    + pack_record(Kind.OPEN, 1, b"key")
    + b"".join(data(n, b"frame") for n in range(1, 6))
    + data(1, b"urgent", Kind.URGENT)
    + pack_record(Kind.CALL, 1, "method", b"body")
    + pack_record(Kind.PING, 17)
    + pack_record(Kind.CANCEL, 1)
    + pack_record(Kind.NOTIFY, "method", b"body")
    + pack_record(Kind.END, 1)
)

noise = st.one_of(
    st.binary(max_size=300),
    st.integers(0, len(VALID)).map(lambda end: VALID[:end]),
    st.builds(
        lambda flips: bytes(
            byte ^ sum(1 << bit for at, bit in flips if at == n) % 256
            for n, byte in enumerate(VALID)
        ),
        st.sets(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 7)), max_size=6),
    ),
    st.builds(
        lambda kind, values: HELLO + pack_record(kind, *values),
        st.sampled_from(Kind),
        st.lists(st.one_of(st.integers(-2, 2), st.binary(max_size=4), st.none()), max_size=6),
    ),
)


@given(noise, st.integers(1, 64))
def test_noise_never_escapes_the_link(sent: bytes, step: int) -> None:
    async def feed() -> None:
        with accepted() as (node, link, _):
            for start in range(0, len(sent), step):
                link.wire_bytes(sent[start : start + step])
            assert (link.close_reason is None) is (link.state is not LinkState.ENDED)
            link.wire_ended(None)
            for receiver in node.receivers.values():
                assert receiver.ended
            await until(lambda: node.hub.statistics().tasks == 0)

    asyncio.run(feed())


sent_frames = st.lists(st.tuples(st.booleans(), st.binary(max_size=200)), max_size=12)


@given(sent_frames, st.lists(st.integers(0, 5000), max_size=30), st.booleans())
def test_frames_survive_any_cutting_of_the_stream(
    frames: list[tuple[bool, bytes]], cuts: list[int], views: bool
) -> None:
    counts = {True: 0, False: 0}
    sent = HELLO + pack_record(Kind.OPEN, 1, b"key")
    for urgent, payload in frames:
        counts[urgent] += 1
        sent += data(counts[urgent], payload, Kind.URGENT if urgent else Kind.DATA)
    sent += pack_record(Kind.PING, 17)
    edges = sorted({0, len(sent), *(cut % (len(sent) + 1) for cut in cuts)})

    async def feed() -> None:
        with accepted() as (node, link, wire):
            for start, end in itertools.pairwise(edges):
                piece = sent[start:end]
                # Some transports hand over a view of a buffer that they use again.
                buffer = bytearray(piece)
                link.wire_bytes(memoryview(buffer) if views else piece)
                buffer[:] = bytes(len(buffer))
            assert link.close_reason is None
            for lane in (True, False):
                expected = [payload for urgent, payload in frames if urgent is lane]
                assert node.receivers[b"key"].payloads(urgent=lane) == expected
            assert kinds(wire)[-1] == Kind.PONG

    asyncio.run(feed())


@asynccontextmanager
async def visitor(hub: Hub, path: str) -> AsyncIterator[asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield writer
        async with asyncio.timeout(WAIT_SECS):
            await reader.read()
    finally:
        writer.close()


async def test_a_hub_outlives_strangers(unix_uri: str) -> None:
    logger.disable("antiphon_actors.channels")
    victim, friend = Node("victim"), Node("friend")
    async with victim.hub, friend.hub:
        bound = await victim.hub.listen(unix_uri)
        link = await friend.hub.connect(bound, deadline_secs=WAIT_SECS)
        stream = await link.open_stream(b"key")
        path = bound.removeprefix("unix://")
        async with visitor(victim.hub, path) as writer:
            writer.write(b"\xff" * 100)
        async with visitor(victim.hub, path) as writer:
            writer.write(HELLO + b"\xff" * 100)
        async with visitor(victim.hub, path) as writer:
            writer.write(HELLO[:20])
            writer.write_eof()
        assert victim.hub.statistics().violations + victim.hub.statistics().handshakes_failed == 3
        await stream.send(b"still here")
        await stream.drain()
        receiver = victim.receivers[b"key"]
        assert isinstance(receiver, RecordingReceiver)
        assert receiver.payloads() == [b"still here"]
    logger.enable("antiphon_actors.channels")
