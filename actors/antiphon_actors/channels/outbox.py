"""The way out of a link: what is written at once, what waits, and in which order it leaves.

A record on an idle link goes to the transport at once. Records wait here when the transport is above
its high-water mark, or (on a transport that makes a system call of each) when something was
already written in this turn of the event loop; they then leave in one gathered write, express
records (urgent frames, calls, control) before ordered frames.

While several records are being received together, what they make this process write is held, and
leaves with what the last of them makes it write: one system call for a batch. The last one's is
written on the spot, so that the next process begins before this one has tidied up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from antiphon_actors.channels.limits import Limits
from antiphon_actors.channels.wire import Wire

# Frames that one stream may send before the next waiting stream has its turn.
_QUANTUM_FRAMES = 16


class OrderedSource(Protocol):
    """A stream with ordered frames that wait in its own (window-bounded) queue."""

    def take_chunks(self, chunks: list[bytes], max_frames: int, max_bytes: int) -> tuple[int, bool]:
        """Moves waiting frames into `chunks`; returns their bytes and whether more wait."""


class AckSource(Protocol):
    """A stream that has processed frames to acknowledge."""

    def take_ack(self) -> bytes:
        """Returns the ACK record that is due, or nothing when it has left already."""


# Whether bytes are being received, and whether more records follow the one in hand. One thread, the
# event loop's, receives for all links of a process.
_receiving = False
_holding = False
# Outboxes with held records; bounded by the links.
_held_outboxes: list[Outbox] = []


def receiving(more: bool) -> None:
    """Notes that a received record is handled now, and whether more follow at once."""
    global _receiving, _holding
    _receiving = True
    _holding = more


def received() -> None:
    """Notes that all that was received has been handled: what was held leaves."""
    global _receiving, _holding
    _receiving = _holding = False
    while _held_outboxes:
        _held_outboxes.pop().let_go()


class Outbox:
    """Writes of one link.

    Attributes:
        gate_open: A record may go straight to the transport: nothing waits before it.
        writes: Writes handed to the transport.
        written_bytes: Their bytes.
        pending_bytes: Express records waiting here.
    """

    __slots__ = (
        "_ack_delay_secs",
        "_ack_timer",
        "_acks",
        "_express",
        "_flush_waiters",
        "_gathers",
        "_held",
        "_held_bytes",
        "_high_bytes",
        "_loop",
        "_max_pending_bytes",
        "_ordered",
        "_overflowed",
        "_paused",
        "_turn",
        "_wire",
        "gate_open",
        "pauses",
        "pending_bytes",
        "writes",
        "written_bytes",
    )

    def __init__(self, wire: Wire, limits: Limits, overflowed: Callable[[], None]) -> None:
        """Starts with an open gate.

        Args:
            wire: Where to.
            limits: Of the link.
            overflowed: Called when more express records wait than may; the link is to be aborted.
        """
        self._loop = asyncio.get_running_loop()
        self._wire = wire
        self._gathers = wire.gathers_writes
        self._high_bytes = limits.write_high_bytes
        self._max_pending_bytes = limits.max_pending_bytes
        self._ack_delay_secs = limits.ack_delay_secs
        self._overflowed = overflowed
        self._express: list[bytes] = []  # bounded by max_pending_bytes
        # Written while several records are received together; bounded by write_high_bytes.
        self._held: list[bytes] = []
        self._held_bytes = 0
        # Streams with waiting frames, served in turn. Bounded by max_streams.
        self._ordered: deque[OrderedSource] = deque()
        self._acks: dict[AckSource, None] = {}
        self._ack_timer: asyncio.Handle | None = None
        self._turn: asyncio.Handle | None = None
        self._paused = False
        self._flush_waiters: list[asyncio.Future[None]] = []
        self.gate_open = True
        self.pending_bytes = 0
        self.writes = 0
        self.written_bytes = 0
        self.pauses = 0

    @property
    def writable(self) -> bool:
        """Whether the transport takes bytes, be it in a later write of this turn."""
        return not self._paused

    @property
    def empty(self) -> bool:
        """Whether all that was written is out of this process."""
        return not (self._express or self._held or self._ordered) and not self._wire.unsent_bytes

    def use(self, limits: Limits) -> None:
        """Takes over the values agreed in the handshake."""
        self._ack_delay_secs = limits.ack_delay_secs
        self._max_pending_bytes = limits.max_pending_bytes

    def express(self, record: bytes) -> None:
        """Sends a record that overtakes waiting ordered frames."""
        if self.gate_open:
            self.write_now(record)
        else:
            self._express.append(record)
            self._count_pending(len(record))

    def express_pair(self, head: bytes, payload: bytes) -> None:
        """Sends a large record without joining its two parts."""
        if self.gate_open:
            self.write_pair_now(head, payload)
        else:
            self._express += (head, payload)
            self._count_pending(len(head) + len(payload))

    def _count_pending(self, size: int) -> None:
        self.pending_bytes += size
        if self.pending_bytes > self._max_pending_bytes:
            self._overflowed()

    def write_now(self, record: bytes) -> None:
        """Writes one record; only while `gate_open`."""
        if self._gathers:
            self._write(record)
        elif _holding:
            self._hold(record)
        elif self._held:
            self._held.append(record)
            self.let_go()
        else:
            self._write(record)
            if not _receiving:
                self._begin_turn()

    def _write(self, record: bytes) -> None:
        self.writes += 1
        self.written_bytes += len(record)
        self._wire.write(record)

    def _hold(self, record: bytes) -> None:
        if not self._held:
            _held_outboxes.append(self)
        self._held.append(record)
        self._held_bytes += len(record)
        if self._held_bytes >= self._high_bytes:
            self.let_go()

    def let_go(self) -> None:
        """Writes what was held."""
        if self._held:
            held, self._held = self._held, []
            self._held_bytes = 0
            self._write(held[0] if len(held) == 1 else b"".join(held))

    def write_pair_now(self, head: bytes, payload: bytes) -> None:
        """Writes one record given in two parts; only while `gate_open`."""
        self.let_go()
        self.writes += 1
        self.written_bytes += len(head) + len(payload)
        self._wire.writelines((head, payload))
        if not self._gathers and not _receiving:
            self._begin_turn()

    def wait_in_order(self, source: OrderedSource) -> None:
        """Notes that a stream, which had nothing waiting before, has ordered frames now."""
        self._ordered.append(source)
        if self.gate_open:
            self._flush()

    def leave_order(self, source: OrderedSource) -> None:
        """Forgets a stream that has nothing waiting any more."""
        if source in self._ordered:
            self._ordered.remove(source)

    def ack_due(self, source: AckSource) -> None:
        """Notes that a stream has something to acknowledge soon."""
        self._acks[source] = None
        if self._ack_timer is None:
            if self._ack_delay_secs > 0:
                self._ack_timer = self._loop.call_later(self._ack_delay_secs, self._acks_late)
            else:
                self._ack_timer = self._loop.call_soon(self._acks_late)

    def _acks_late(self) -> None:
        self._ack_timer = None
        if self._acks and (acks := self._take_acks()):
            self.express(acks)

    def _take_acks(self) -> bytes:
        sources, self._acks = self._acks, {}
        return b"".join([source.take_ack() for source in sources])

    # A turn: after one write, further records of the same turn of the loop wait for its end.

    def _begin_turn(self) -> None:
        self.gate_open = False
        if self._turn is None:
            self._turn = self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn = None
        if not self._paused:
            self._flush()

    def pause(self) -> None:
        """The transport is full: everything waits here until `resume`."""
        self._paused = True
        self.pauses += 1
        self.gate_open = False

    def resume(self) -> None:
        """The transport takes bytes again: urgent and control first, then the streams in turn."""
        self._paused = False
        if self._turn is None:
            self._flush()

    def _flush(self) -> None:
        """Writes what waits until nothing does or the transport is full."""
        wrote = False
        while not self._paused:
            # First: who is asked for one may have something to send that belongs before it.
            acks = self._take_acks() if self._acks else b""
            chunks, self._express = self._express, []
            self.pending_bytes = 0
            if acks:
                chunks.append(acks)
            if self._ordered:
                self._take_ordered(chunks)
            if not chunks:
                break
            self.let_go()
            self.writes += 1
            self.written_bytes += sum(map(len, chunks))
            self._wire.writelines(chunks)
            wrote = True
        if self._paused:
            return
        if wrote and not self._gathers and not _receiving:
            self._begin_turn()
        else:
            self.gate_open = True
        waiters, self._flush_waiters = self._flush_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _take_ordered(self, chunks: list[bytes]) -> None:
        # No more than the high-water mark at a time, so that what is urgent by the next write still
        # overtakes the rest.
        budget = self._high_bytes
        ordered = self._ordered
        while ordered and budget > 0:
            source = ordered.popleft()
            taken, more = source.take_chunks(chunks, _QUANTUM_FRAMES, budget)
            budget -= taken
            if more:
                ordered.append(source)

    async def flushed(self) -> None:
        """Waits until nothing waits here or the box is closed; the caller sets the deadline."""
        if not (self._paused or self._express or self._ordered):
            return
        waiter = self._loop.create_future()
        self._flush_waiters.append(waiter)
        await waiter

    def close(self) -> None:
        """Drops what waits and stops the timers; the gate stays shut."""
        self.let_go()
        self._paused = True
        self.gate_open = False
        self._express.clear()
        self.pending_bytes = 0
        self._ordered.clear()
        self._acks.clear()
        for handle in (self._ack_timer, self._turn):
            if handle is not None:
                handle.cancel()
        self._ack_timer = self._turn = None
        waiters, self._flush_waiters = self._flush_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
