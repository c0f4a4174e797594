"""One link between two processes: a state machine that a transport feeds with bytes.

It does no I/O of its own. Bytes and events come in through the `WireOwner` methods, records leave
through an `Outbox`, and whatever the peer does wrong ends this link and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from time import monotonic_ns
from typing import Any, Protocol

from loguru import logger

from antiphon_actors.channels.credentials import Identity
from antiphon_actors.channels.errors import (
    ChannelBroken,
    ChannelBusy,
    ChannelClosed,
    ChannelError,
    ChannelRefused,
    DuplicateLink,
    EndOfChannel,
    HandshakeError,
    ProtocolViolation,
    RemoteCallError,
    again,
)
from antiphon_actors.channels.framing import (
    MAX_REASON,
    Kind,
    Record,
    RecordParser,
    expect,
    pack_record,
)
from antiphon_actors.channels.handshake import (
    HELLO_MAX_BYTES,
    PeerFacts,
    is_arbiter,
    pack_hello,
    read_hello,
)
from antiphon_actors.channels.heartbeat import Beat, Heartbeat
from antiphon_actors.channels.in_stream import Acceptance, StreamReceiver
from antiphon_actors.channels.limits import Limits
from antiphon_actors.channels.out_stream import OutStream
from antiphon_actors.channels.outbox import Outbox
from antiphon_actors.channels.rpc import Calls, CallStatistics
from antiphon_actors.channels.shared_memory import SharedMemory, SharedReceiver
from antiphon_actors.channels.streams import Streams
from antiphon_actors.channels.wire import Credentials, Wire

# Room for method name and ids beside a body in the largest record.
_CALL_OVERHEAD_BYTES = 1024

ClosedCallback = Callable[["Link", ChannelError], None]


class LinkState(Enum):
    """Where a link stands."""

    GREETING = "greeting"  # HELLO sent, the peer's not seen
    AWAITING = "awaiting"  # both seen; the arbiter's READY is to come
    OPEN = "open"
    CLOSING = "closing"  # this side flushes and takes no new work
    ENDED = "ended"


class CloseCode(Enum):
    """Why an end says CLOSE."""

    CLOSED = "closed"
    REFUSED = "refused"
    DUPLICATE = "duplicate"
    HANDSHAKE = "handshake"
    VIOLATION = "violation"
    DEAD = "dead"
    ABORTED = "aborted"


class LinkOwner(Protocol):
    """What a link asks of its hub."""

    facts: PeerFacts
    limits: Limits
    shared: SharedMemory

    def link_wanted(self, link: Link) -> bool:
        """As the arbiter: whether this link is to be kept (no other exists with that peer)."""

    def link_open(self, link: Link) -> None:
        """The link is established."""

    def link_ended(self, link: Link, error: ChannelError) -> None:
        """The link has ended; called once."""

    def link_gone(self, link: Link) -> None:
        """Its connection is gone as well; called once, last."""

    def stream_opened(self, link: Link, key: bytes) -> StreamReceiver | Acceptance:
        """The peer opens a stream; raises to refuse."""

    def call_received(self, link: Link, method: str, body: bytes) -> Awaitable[bytes]:
        """Runs a call of the peer."""

    def notified(self, link: Link, method: str, body: bytes) -> None:
        """Takes a notification."""

    def spawn(self, work: Any, name: str) -> asyncio.Task[None]:
        """Starts a task that the hub owns."""


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """Counters of one link.

    Attributes:
        peer: Name of the peer's hub.
        state: Where the link stands.
        records_received: Records of any kind.
        bytes_received: Their bytes.
        writes: Writes handed to the transport (several records may leave in one).
        bytes_sent: Their bytes.
        pending_bytes: Express records that wait for the socket.
        pauses: How often the transport was full.
        out_streams: Streams open towards the peer.
        in_streams: Streams open from the peer.
        late_records: Records for streams that had just closed.
        rtt_secs: Smoothed round trip of heartbeats, None before the first.
        silent_secs: For how long the peer has been silent.
        calls: Counters of calls.
    """

    peer: str
    state: str
    records_received: int
    bytes_received: int
    writes: int
    bytes_sent: int
    pending_bytes: int
    pauses: int
    out_streams: int
    in_streams: int
    late_records: int
    rtt_secs: float | None
    silent_secs: float
    calls: CallStatistics


class Link:
    """A link to a peer process. `Hub.connect` and `Hub` callbacks give it; nobody else makes one.

    Attributes:
        peer: What the peer says about itself; valid once the link is established.
        limits: What both ends agreed to.
        credentials: Who the kernel says is at the other end, where it tells.
        identity: Who the peer's certificate says it is, on `tls://` links.
        dialled: Whether this side connected.
        wire: The connection underneath; for the hub and for tests.
        closed: Set when the link has ended.
        close_reason: Why it ended: `ChannelClosed` (this side), `EndOfChannel` (the peer said
            goodbye), `ChannelBroken` and its kin otherwise.
    """

    def __init__(self, owner: LinkOwner, wire: Wire, *, dialled: bool) -> None:
        """Says HELLO at once."""
        self._owner = owner
        self.wire = wire
        self._loop = asyncio.get_running_loop()
        self.dialled = dialled
        self.credentials: Credentials | None = wire.credentials
        self.identity: Identity | None = wire.identity
        self.limits = owner.limits
        self.peer = PeerFacts(name="?", pid=0, hub_id=b"", version=0)
        self.closed = asyncio.Event()
        self.close_reason: ChannelError | None = None
        self.state = LinkState.GREETING
        self._parser = RecordParser(
            min(HELLO_MAX_BYTES, self.limits.max_record_bytes), _too_early, self._on_record
        )
        self._outbox = Outbox(wire, self.limits, self._outbox_overflowed)
        self._calls = self._make_calls()
        self._streams = self._make_streams()
        self._closed_callbacks: list[ClosedCallback] = []
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._guard = self._loop.call_later(self.limits.handshake_secs, self._handshake_late)
        self._heartbeat = Heartbeat(
            period_secs=self.limits.heartbeat_period_secs,
            dead_secs=self.limits.heartbeat_dead_secs,
            now_secs=self._loop.time(),
        )
        self._heard = False
        self._bytes_received = 0
        self._handlers: dict[int, Callable[[Record], None]] = {
            Kind.HELLO: self._on_hello,
            Kind.READY: self._on_ready,
            Kind.CLOSE: self._on_close,
        }
        # Only where the kernel names the process at the other end can its memory be reached.
        shared = owner.shared.probe() if wire.credentials is not None else ()
        self._outbox.express(pack_hello(owner.facts, self.limits, shared))

    def __repr__(self) -> str:
        return f"<Link to {self.peer.name} ({self.peer.pid}) {self.state.value}>"

    def _make_streams(self) -> Streams:
        return Streams(
            outbox=self._outbox,
            limits=self.limits,
            accept=lambda key: self._owner.stream_opened(self, key),
            memory=self._owner.shared,
            reader=SharedReceiver.of(
                self.credentials, self.peer.hub_id, self.peer.shared, self.limits.max_record_bytes
            ),
        )

    def _make_calls(self) -> Calls:
        return Calls(
            send=self._outbox.express,
            handle=lambda method, body: self._owner.call_received(self, method, body),
            spawn=self._owner.spawn,
            max_calls=self.limits.max_calls,
            max_body_bytes=max(0, self.limits.max_record_bytes - _CALL_OVERHEAD_BYTES),
        )

    # What the application uses.

    async def open_stream(self, key: bytes, *, retain: bool = False) -> OutStream:
        """Opens a stream to the peer.

        When cancelled, the stream does not exist.

        Args:
            key: Tells the peer's `on_stream` what it is, up to `max_key_bytes`.
            retain: Whether it outlives this link, to be resumed over another one.

        Raises:
            ChannelRefused: The peer declined; the message is its reason.
            ChannelBusy: Too many streams are open already.
            ChannelBroken: No answer within `open_secs`, or the link broke.
            ChannelError: The link is closed.
            ValueError: The key is too large.
        """
        self._check_open()
        return await self._streams.open(self, key, retain=retain)

    async def resume_stream(self, stream: OutStream, key: bytes) -> None:
        """Has a stream whose link is gone go on over this one.

        The peer gets all frames that no peer before it has reported as safe, with the numbers they
        had, and then what has waited. When this fails or is cancelled, the stream waits on.

        Args:
            stream: Opened with `retain`, and `detached`.
            key: Tells the peer's `on_stream` what it is.

        Raises:
            ChannelError: As for `open_stream`.
            ValueError: The key is too large, or the stream cannot be resumed.
        """
        self._check_open()
        if not stream.detached or stream.error is not None:
            raise ValueError("the stream has a link, or is over")
        await self._streams.resume(self, stream, key)

    async def call(self, method: str, body: bytes, *, deadline_secs: float | None) -> bytes:
        """Runs the peer's handler and returns its result.

        When cancelled, the handler at the peer is cancelled, and the call may have had its effect.

        Args:
            method: What to call.
            body: Encoded arguments.
            deadline_secs: For the answer; None leaves it to the caller and the heartbeat.

        Raises:
            RemoteCallError: The handler raised.
            CallDeadlineExceeded: No answer in time.
            ChannelBusy: Too many calls wait already.
            ChannelError: The link is closed or broke.
            ValueError: The body or the name is too large.
        """
        self._check_open()
        return await self._calls.call(method, body, deadline_secs)

    def notify(self, method: str, body: bytes) -> None:
        """Sends a message that has no answer.

        Raises:
            ChannelError: The link is closed.
            ValueError: The body or the name is too large.
        """
        self._check_open()
        self._calls.check_size(method, body)
        self._outbox.express(pack_record(Kind.NOTIFY, method, body))

    def stop_stream(self, receiver: StreamReceiver, reason: str) -> bool:
        """Gives up the stream that `receiver` receives; the sender's next send raises.

        `receiver.closed` is not called. Returns whether there was such a stream.
        """
        return self._streams.stop(receiver, reason)

    def add_closed_callback(self, callback: ClosedCallback) -> None:
        """Has `callback(link, reason)` called once when the link ends, soon if it has ended."""
        if self.close_reason is not None:
            self._loop.call_soon(callback, self, self.close_reason)
        else:
            self._closed_callbacks.append(callback)

    def remove_closed_callback(self, callback: ClosedCallback) -> None:
        """Takes a callback back; does nothing if it is not there."""
        if callback in self._closed_callbacks:
            self._closed_callbacks.remove(callback)

    async def aclose(self) -> None:
        """Says goodbye after what was already taken has been written (at most `close_secs`).

        Frames that still wait for credit, waiting calls and running handlers end with
        `ChannelClosed` and cancellation. Cancelling aborts. Idempotent.
        """
        if self.state is LinkState.OPEN:
            self.state = LinkState.CLOSING
            try:
                async with asyncio.timeout(self.limits.close_secs):
                    await self._outbox.flushed()
            except TimeoutError:
                logger.warning("link closed with unsent records", peer=self.peer.name)
            except asyncio.CancelledError:
                if self.state is LinkState.CLOSING:
                    self.abort("closing was cancelled")
                raise
        self.end(ChannelClosed("this side closed the link"), CloseCode.CLOSED)
        await asyncio.shield(self._gone)

    def abort(self, reason: str) -> None:
        """Ends the link at once. Idempotent."""
        self.end(ChannelClosed(f"this side aborted the link: {reason}"), CloseCode.ABORTED)
        self.wire.abort()

    @property
    def flushed(self) -> bool:
        """Whether all that was sent is out of this process; of a link that has ended, too."""
        return self.state is LinkState.ENDED or self._outbox.empty

    def statistics(self) -> LinkStatistics:
        """Returns the counters as they are now."""
        return LinkStatistics(
            peer=self.peer.name,
            state=self.state.value,
            records_received=self._parser.records,
            bytes_received=self._bytes_received,
            writes=self._outbox.writes,
            bytes_sent=self._outbox.written_bytes,
            pending_bytes=self._outbox.pending_bytes,
            pauses=self._outbox.pauses,
            out_streams=self._streams.out_count,
            in_streams=self._streams.in_count,
            late_records=self._streams.late_records,
            rtt_secs=self._heartbeat.rtt_secs,
            silent_secs=self._heartbeat.silent_secs,
            calls=self._calls.statistics(),
        )

    # What the hub uses.

    async def established(self) -> None:
        """Waits for the handshake; it has a deadline of its own.

        Raises:
            ChannelError: It failed, or the link ended in it.
        """
        await asyncio.shield(self._ready)

    async def gone(self) -> None:
        """Waits until the connection itself is gone."""
        await asyncio.shield(self._gone)

    def tick(self, now_secs: float) -> None:
        """Takes the time, once a heartbeat period."""
        if self.state not in (LinkState.OPEN, LinkState.CLOSING):
            return
        heard, self._heard = self._heard, False
        if self._heartbeat.tick(now_secs, heard=heard) is Beat.DEAD:
            silent = self._heartbeat.silent_secs
            logger.warning("peer is silent", peer=self.peer.name, silent_secs=round(silent, 3))
            self.end(
                ChannelBroken(f"{self.peer.name} has been silent for {silent:.1f} s"),
                CloseCode.DEAD,
            )
            self.wire.abort()
        elif self.state is LinkState.OPEN:
            self._outbox.express(pack_record(Kind.PING, monotonic_ns()))

    def end(self, error: ChannelError, code: CloseCode | None) -> None:
        """Ends the link and everything on it; with a code, the peer is told if the socket takes it."""
        if self.state is LinkState.ENDED:
            return
        writable = self._outbox.writable
        self.state = LinkState.ENDED
        self.close_reason = error
        self._guard.cancel()
        self._outbox.close()
        if writable:
            if code is not None:
                self.wire.write(pack_record(Kind.CLOSE, code.value, str(error)[:MAX_REASON]))
            self.wire.close()
            # A peer that does not read must not keep the descriptor open.
            self._guard = self._loop.call_later(self.limits.close_secs, self.wire.abort)
        else:
            self.wire.abort()
        self._calls.lose(error)
        self._streams.lose(error)
        if not self._ready.done():
            self._ready.set_exception(again(error))
            self._ready.exception()  # an accepted link has nobody waiting for it
        self.closed.set()
        self._owner.link_ended(self, error)
        callbacks, self._closed_callbacks = self._closed_callbacks, []
        for callback in callbacks:
            try:
                callback(self, error)
            except Exception:  # noqa: BLE001 - one listener's fault is not another's
                logger.exception("closed callback failed", peer=self.peer.name)

    # What the transport calls.

    def wire_bytes(self, data: bytes | memoryview) -> None:
        """Takes bytes of the peer (`WireOwner`)."""
        if self.state is LinkState.ENDED:
            return
        self._heard = True
        self._bytes_received += len(data)
        try:
            self._parser.feed(data)
        except HandshakeError as error:
            self.end(error, CloseCode.HANDSHAKE)
        except ProtocolViolation as error:
            if self.state in (LinkState.GREETING, LinkState.AWAITING):
                self.end(HandshakeError(str(error)), CloseCode.HANDSHAKE)
            else:
                logger.warning("peer broke the protocol", peer=self.peer.name, error=str(error))
                self.end(error, CloseCode.VIOLATION)

    def _on_record(self, record: Record) -> None:
        if self.state is LinkState.ENDED:
            return  # the rest of what came with the record that ended it
        kind = record[0]
        handler = self._handlers.get(kind) if type(kind) is int else None
        if handler is None:
            raise ProtocolViolation(f"a record of kind {kind!r} does not belong here")
        handler(record)

    def wire_paused(self) -> None:
        """Takes note that the transport is full (`WireOwner`)."""
        if self.state is not LinkState.ENDED:
            self._outbox.pause()

    def wire_resumed(self) -> None:
        """Writes on (`WireOwner`)."""
        if self.state is not LinkState.ENDED:
            self._outbox.resume()

    def wire_ended(self, error: Exception | None) -> None:
        """Takes the loss of the connection (`WireOwner`)."""
        if self.state in (LinkState.GREETING, LinkState.AWAITING):
            hung_up = f"{self.wire.remote} hung up in the handshake"
            self.end(HandshakeError(f"{hung_up}: {error}" if error else hung_up), None)
        else:
            reason = f"the connection to {self.peer.name} ({self.wire.remote}) is lost"
            broken = ChannelBroken(f"{reason}: {error}" if error else reason)
            broken.__cause__ = error
            self.end(broken, None)
        self._guard.cancel()
        if not self._gone.done():
            self._gone.set_result(None)
            self._owner.link_gone(self)

    # Handshake.

    def _on_hello(self, record: Record) -> None:
        if self.state is not LinkState.GREETING:
            raise ProtocolViolation("a second HELLO")
        greeting = read_hello(record, self.limits)
        self.peer = greeting.peer
        self.limits = greeting.limits
        self._outbox.use(greeting.limits)
        self._calls = self._make_calls()
        self._streams = self._make_streams()
        self.state = LinkState.AWAITING
        own_id = self._owner.facts.hub_id
        if not is_arbiter(own_id, self.peer.hub_id, dialled=self.dialled):
            return
        if not self._owner.link_wanted(self):
            error = DuplicateLink(f"a link to {self.peer.name} exists already")
            self.end(error, CloseCode.DUPLICATE)
            return
        self._outbox.express(pack_record(Kind.READY))
        self._open()

    def _on_ready(self, _record: Record) -> None:
        own_id = self._owner.facts.hub_id
        if self.state is not LinkState.AWAITING or is_arbiter(
            own_id, self.peer.hub_id, dialled=self.dialled
        ):
            raise ProtocolViolation("READY from the wrong side or at the wrong time")
        self._open()

    def _open(self) -> None:
        self._guard.cancel()
        self.state = LinkState.OPEN
        self._parser.max_record_bytes = self.limits.max_record_bytes
        self._parser.on_frame = self._streams.frame
        self._heartbeat = Heartbeat(
            period_secs=self.limits.heartbeat_period_secs,
            dead_secs=self.limits.heartbeat_dead_secs,
            now_secs=self._loop.time(),
        )
        self._handlers = {
            **self._streams.handlers,
            Kind.CLOSE: self._on_close,
            Kind.PING: self._on_ping,
            Kind.PONG: self._on_pong,
            Kind.CALL: self._on_call,
            Kind.RESULT: self._on_result,
            Kind.ERROR: self._on_error,
            Kind.CANCEL: self._on_cancel,
            Kind.NOTIFY: self._on_notify,
        }
        self._owner.link_open(self)
        if not self._ready.done():
            self._ready.set_result(None)

    def _handshake_late(self) -> None:
        self.end(
            HandshakeError(f"no handshake within {self.limits.handshake_secs} s"),
            CloseCode.HANDSHAKE,
        )

    # Records of an open link.

    def _on_close(self, record: Record) -> None:
        _, code, reason = expect(record, str, str)[:3]
        error: ChannelError
        name = self.peer.name
        if code == CloseCode.DUPLICATE.value:
            error = DuplicateLink(f"{name} keeps another link to us")
        elif code == CloseCode.REFUSED.value:
            error = ChannelRefused(reason)
        elif code == CloseCode.HANDSHAKE.value:
            error = HandshakeError(f"{name} refused the handshake: {reason}")
        elif code == CloseCode.CLOSED.value:
            error = EndOfChannel(f"{name} closed the link")
        else:
            error = ChannelBroken(f"{name} ended the link: {reason}")
        self.end(error, None)

    def _on_ping(self, record: Record) -> None:
        _, clock = expect(record, int)[:2]
        self._outbox.express(pack_record(Kind.PONG, clock))

    def _on_pong(self, record: Record) -> None:
        _, clock = expect(record, int)[:2]
        rtt_ns = monotonic_ns() - clock
        if rtt_ns < 0:
            raise ProtocolViolation("PONG with a clock that was never sent")
        self._heartbeat.pong(rtt_ns / 1e9)

    def _on_call(self, record: Record) -> None:
        _, call_id, method, body = expect(record, int, str, bytes)[:4]
        self._calls.begin(call_id, method, body)

    def _on_result(self, record: Record) -> None:
        _, call_id, body = expect(record, int, bytes)[:3]
        self._calls.result(call_id, body)

    def _on_error(self, record: Record) -> None:
        _, call_id, type_name, message, data = expect(record, int, str, str, dict)[:5]
        self._calls.failed(call_id, RemoteCallError(type_name, message, data))

    def _on_cancel(self, record: Record) -> None:
        _, call_id = expect(record, int)[:2]
        self._calls.cancel(call_id)

    def _on_notify(self, record: Record) -> None:
        _, method, body = expect(record, str, bytes)[:3]
        self._owner.notified(self, method, body)

    # Helpers.

    def _check_open(self) -> None:
        if self.close_reason is not None:
            raise again(self.close_reason)
        if self.state is not LinkState.OPEN:
            raise ChannelClosed(f"the link to {self.peer.name} is {self.state.value}")

    def _outbox_overflowed(self) -> None:
        waiting = self._outbox.pending_bytes
        logger.warning("peer does not read", peer=self.peer.name, pending_bytes=waiting)
        self.end(
            ChannelBusy(f"{self.peer.name} does not read: {waiting} bytes wait for its socket"),
            CloseCode.ABORTED,
        )


def _too_early(*_: object) -> None:
    raise ProtocolViolation("a frame before the end of the handshake")
