"""The receiving end of a stream: order per lane, the window, and acknowledgements."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from antiphon_actors.channels.errors import ProtocolViolation
from antiphon_actors.channels.framing import Kind, pack_record

if TYPE_CHECKING:
    from antiphon_actors.channels.limits import Limits
    from antiphon_actors.channels.outbox import Outbox


_MASK: Final = (1 << 64) - 1


def origin_of(cause: int, ordinal: int) -> int:
    """Names the frame that was sent as the `ordinal`-th because of the one named `cause`.

    The first has the name of what it came of; those of others are spread over 64 bits (the finalizer
    of SplitMix64, Steele et al., 2014), so that two that meet are as good as sure to differ.
    """
    if not ordinal:
        return cause
    mixed = (cause + ordinal * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return (mixed ^ (mixed >> 31)) | 1 << 63


class Delivery:
    """One received frame.

    A frame that is done is *processed*: its credit goes back. It is *safe* when its sender need not
    give it again, should the receiver be lost: at once, unless somebody holds it.

    Attributes:
        payload: The encoded frame, the receiver's to keep; empty for one that the sender has taken
            back.
        urgent: Which lane it came on.
        seq: Its number on that lane, from 1.
        sent_ns: When the sender took it, on its CLOCK_MONOTONIC (comparable on one node).
        cause: The `origin`, at the sender, of the frame that made it send this one; 0 if unknown.
        ordinal: Which of the frames it is that were sent because of that.
    """

    __slots__ = (
        "_down",
        "_holds",
        "_open",
        "_stream",
        "_up",
        "cause",
        "ordinal",
        "payload",
        "sent_ns",
        "seq",
        "urgent",
    )

    def __init__(
        self,
        stream: InStream,
        payload: bytes,
        urgent: bool,
        seq: int,
        sent_ns: int,
        cause: int,
        ordinal: int,
    ) -> None:
        self._stream = stream
        self._open = True
        self._holds = 0
        self._down = 0
        self._up = 0
        self.payload = payload
        self.urgent = urgent
        self.seq = seq
        self.sent_ns = sent_ns
        self.cause = cause
        self.ordinal = ordinal

    @property
    def origin(self) -> int:
        """Names this frame, for the causes of what is sent because of it.

        It follows from what the frame came of, back to its first sender. So a frame that a successor
        sends again has the name it had.
        """
        if self.cause:
            return origin_of(self.cause, self.ordinal)
        return (self._stream.slot << 48) | (self.seq << 1) | self.urgent

    def next_ordinal(self, upstream: bool) -> int:
        """Numbers what is sent because of this frame, in each direction from 0."""
        if upstream:
            self._up += 1
            return self._up - 1
        self._down += 1
        return self._down - 1

    def done(self) -> None:
        """Says that the frame is processed or dropped, which returns its credit.

        To be called once, in any order among deliveries, from the hub's event loop; a further
        call does nothing. After the stream has closed it is harmless and not needed.
        """
        if self._open:
            self._open = False
            self._stream.processed(self)

    def hold(self) -> None:
        """Keeps the frame from being safe until as many calls of `release` have followed."""
        self._holds += 1
        if self._holds == 1:
            self._stream.hold(self)

    def release(self) -> None:
        """Takes one `hold` back."""
        self._holds -= 1
        if self._holds == 0:
            self._stream.release(self)

    async def safe(self) -> None:
        """Waits until a successor of this process would not be given this frame, or would skip it.

        Returns at once when the stream has closed. It has no deadline: the caller sets one.
        """
        await self._stream.wait_safe(self)


class StreamReceiver(Protocol):
    """What the application puts at the receiving end."""

    def deliver(self, delivery: Delivery) -> None:
        """Takes a frame, called in order per lane as bytes arrive; it must not block.

        An exception resets this stream (the sender sees it refused) and harms no other.
        """

    def closed(self, reason: Exception | None) -> None:
        """Nothing more comes: None after a graceful end, else why. Called once."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A receiver, and what the two ends of its stream have to know of what was before.

    Attributes:
        receiver: Takes the frames.
        ordered: Ordered frames of this edge that were received from the sender's predecessor; numbering
            goes on from there, unless the opener says where (it goes on with a stream of its own).
        urgent: The same for urgent frames.
        greeting: Whatever else the opener is to know, see `OutStream.greeting`.
        slot: Which of this process's receivers it is, for `Delivery.origin`; below 65,536.
        mark: Asked, with frames that nothing in this process waits for, for what stands for all that
            came of them; None if that cannot be told now, and it is asked again soon.
        passed: Asked whether that can be lost no more with this process alone, or the next one. The
            frames are reported as safe then.
        began: Given the stream when it is open, before any frame.
        prompt: Whether each processed ordered frame is marked at once, and that is all that who
            waits for it to be safe waits for.
    """

    receiver: StreamReceiver
    ordered: int = 0
    urgent: int = 0
    greeting: bytes = b""
    slot: int = 0
    mark: Callable[[], object | None] | None = None
    passed: Callable[[object], bool] | None = None
    began: Callable[[InStream], None] | None = None
    prompt: bool = False


class _Lane:
    """Counts of one lane. Frames are numbered from 1, so a count is also the last number."""

    __slots__ = (
        "ack_bytes",
        "ack_frames",
        "done",
        "early",
        "held",
        "marked",
        "max_bytes",
        "max_frames",
        "open_bytes",
        "received",
        "reported",
        "safe",
        "unreported_bytes",
    )

    def __init__(self, max_frames: int, max_bytes: int, start: int) -> None:
        self.max_frames = max_frames
        self.max_bytes = max_bytes
        # A quarter of the window keeps the sender going while few ACKs travel.
        self.ack_frames = max(1, max_frames // 4)
        self.ack_bytes = max(1, max_bytes // 4)
        self.received = self.done = self.reported = self.marked = self.safe = start
        self.early: set[int] = set()  # done out of order; bounded by the window
        # Numbers of frames that somebody holds; bounded by what the sender keeps.
        self.held: set[int] = set()
        self.open_bytes = 0
        self.unreported_bytes = 0

    def safe_now(self) -> int:
        """How many frames, without a gap, are processed and not held."""
        if not self.held:
            return self.done
        return min(self.done, min(self.held) - 1)


@dataclass(frozen=True, slots=True)
class InStreamStatistics:
    """Counters of a receiving end.

    Attributes:
        received: Ordered frames delivered.
        processed: Of these, processed without a gap.
        open_bytes: Bytes of ordered frames delivered and not processed.
        held: Frames of either lane that somebody holds.
        urgent_received: Urgent frames delivered.
        urgent_processed: Of these, processed without a gap.
        urgent_open_bytes: Bytes of urgent frames delivered and not processed.
        acks: ACK records sent.
    """

    received: int
    processed: int
    open_bytes: int
    held: int
    urgent_received: int
    urgent_processed: int
    urgent_open_bytes: int
    acks: int


class InStream:
    """State of one receiving end; the link feeds it, the application sees deliveries.

    Attributes:
        key: What the peer opened it with.
        receiver: The application's side; None once it has been told of the end.
        slot: See `Acceptance`.
    """

    __slots__ = (
        "_acks",
        "_closed",
        "_mark",
        "_marks",
        "_ordered",
        "_outbox",
        "_passed",
        "_prompt",
        "_stream_id",
        "_urgent",
        "_waiting",
        "key",
        "receiver",
        "slot",
    )

    def __init__(
        self, outbox: Outbox, limits: Limits, stream_id: int, key: bytes, accepted: Acceptance
    ) -> None:
        self.key = key
        self.receiver: StreamReceiver | None = accepted.receiver
        self.slot = accepted.slot
        self._mark = accepted.mark
        self._passed = accepted.passed
        # Frames that wait to be safe: counts of both lanes, and what stands for what came of them.
        # Bounded by the frames that the sender keeps.
        self._marks: deque[tuple[int, int, object]] = deque()
        self._prompt = accepted.prompt
        self._outbox = outbox
        self._stream_id = stream_id
        self._ordered = _Lane(limits.window_frames, limits.window_bytes, accepted.ordered)
        self._urgent = _Lane(limits.urgent_frames, limits.urgent_bytes, accepted.urgent)
        # Who waits for a frame to be safe. Bounded by the frames in progress.
        self._waiting: list[tuple[_Lane, int, asyncio.Future[None]]] = []
        self._closed = False
        self._acks = 0

    @property
    def received(self) -> tuple[int, int]:
        """Ordered and urgent frames that have come, those before this stream included."""
        return self._ordered.received, self._urgent.received

    @property
    def safe(self) -> tuple[int, int]:
        """Ordered and urgent frames, of those received, that need not be given again."""
        return self._ordered.safe_now(), self._urgent.safe_now()

    def accept(
        self, urgent: bool, seq: int, sent_ns: int, payload: bytes, cause: int, ordinal: int
    ) -> Delivery:
        """Checks a frame against its lane and returns its delivery.

        Raises:
            ProtocolViolation: It is out of sequence or exceeds the window.
        """
        lane = self._urgent if urgent else self._ordered
        if seq != lane.received + 1:
            raise ProtocolViolation(
                f"frame {seq} of stream {self._stream_id} follows {lane.received}"
            )
        size = len(payload)
        if lane.open_bytes and lane.open_bytes + size > lane.max_bytes:
            raise ProtocolViolation(f"stream {self._stream_id} exceeds its window in bytes")
        if seq - lane.reported > lane.max_frames:
            raise ProtocolViolation(f"stream {self._stream_id} exceeds its window in frames")
        lane.received = seq
        lane.open_bytes += size
        return Delivery(self, payload, urgent, seq, sent_ns, cause, ordinal)

    def processed(self, delivery: Delivery) -> None:
        """Counts a delivery that is done; `Delivery.done` calls this."""
        if self._closed:
            return
        lane = self._urgent if delivery.urgent else self._ordered
        size = len(delivery.payload)
        lane.open_bytes -= size
        lane.unreported_bytes += size
        done = lane.done + 1
        if delivery.seq != done:
            lane.early.add(delivery.seq)
            return
        early = lane.early
        while early and done + 1 in early:
            done += 1
            early.remove(done)
        lane.done = done
        if (
            done - lane.reported >= lane.ack_frames
            or lane.unreported_bytes >= lane.ack_bytes
            or (self._prompt and not delivery.urgent)
        ):
            self._outbox.express(self.take_ack())
        else:
            self._outbox.ack_due(self)

    def hold(self, delivery: Delivery) -> None:
        """Notes that a frame is not to be reported as safe; `Delivery.hold` calls this."""
        lane = self._urgent if delivery.urgent else self._ordered
        lane.held.add(delivery.seq)

    def release(self, delivery: Delivery) -> None:
        """Takes that back; `Delivery.release` calls this."""
        lane = self._urgent if delivery.urgent else self._ordered
        lane.held.discard(delivery.seq)
        if not self._closed:
            self._outbox.ack_due(self)

    async def wait_safe(self, delivery: Delivery) -> None:
        """Waits until a frame has been reported as safe; see `Delivery.safe`."""
        lane = self._urgent if delivery.urgent else self._ordered
        if self._closed or (lane.marked if self._prompt else lane.safe) >= delivery.seq:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((lane, delivery.seq, future))
        await future

    def take_ack(self) -> bytes:
        """Returns the ACK record that is due, or nothing (`AckSource`)."""
        ordered, urgent = self._ordered, self._urgent
        if self._closed:
            return b""
        news = self._find_safe()
        if self._waiting:
            self._tell_waiting()
        if not news and ordered.done == ordered.reported and urgent.done == urgent.reported:
            return b""
        ordered.reported = ordered.done
        urgent.reported = urgent.done
        ordered.unreported_bytes = urgent.unreported_bytes = 0
        self._acks += 1
        if ordered.safe == ordered.done and urgent.safe == urgent.done:
            return pack_record(Kind.ACK, self._stream_id, ordered.done, urgent.done)
        return pack_record(
            Kind.ACK, self._stream_id, ordered.done, urgent.done, ordered.safe, urgent.safe
        )

    def _find_safe(self) -> bool:
        """Counts what is safe by now; whether that is more than before."""
        ordered, urgent = self._ordered, self._urgent
        ordered_now, urgent_now = ordered.safe_now(), urgent.safe_now()
        if self._mark is None or self._passed is None:
            news = ordered_now != ordered.safe or urgent_now != urgent.safe
            ordered.safe = ordered.marked = ordered_now
            urgent.safe = urgent.marked = urgent_now
            return news
        if ordered_now != ordered.marked or urgent_now != urgent.marked:
            mark = self._mark()
            if mark is not None:
                ordered.marked, urgent.marked = ordered_now, urgent_now
                self._marks.append((ordered_now, urgent_now, mark))
        news = False
        while self._marks and self._passed(self._marks[0][2]):
            ordered.safe, urgent.safe, _ = self._marks.popleft()
            news = True
        if ordered.safe != ordered_now or urgent.safe != urgent_now:
            # Asked again with the next acknowledgements.
            self._outbox.ack_due(self)
        return news

    def _tell_waiting(self, *, everybody: bool = False) -> None:
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            lane, seq, future = entry
            reached = lane.marked if self._prompt else lane.safe
            if not everybody and reached < seq:
                self._waiting.append(entry)
            elif not future.done():
                future.set_result(None)

    def close(self) -> None:
        """The stream is over: deliveries that are still open need no acknowledgement."""
        self._closed = True
        self._marks.clear()
        self._tell_waiting(everybody=True)

    def statistics(self) -> InStreamStatistics:
        """Returns the counters as they are now."""
        return InStreamStatistics(
            received=self._ordered.received,
            processed=self._ordered.done,
            open_bytes=self._ordered.open_bytes,
            held=len(self._ordered.held) + len(self._urgent.held),
            urgent_received=self._urgent.received,
            urgent_processed=self._urgent.done,
            urgent_open_bytes=self._urgent.open_bytes,
            acks=self._acks,
        )
