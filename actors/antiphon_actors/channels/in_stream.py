"""The receiving end of a stream: order per lane, the window, and acknowledgements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from antiphon_actors.channels.errors import ProtocolViolation
from antiphon_actors.channels.framing import Kind, pack_record

if TYPE_CHECKING:
    from antiphon_actors.channels.limits import Limits
    from antiphon_actors.channels.outbox import Outbox


class Delivery:
    """One received frame.

    Attributes:
        payload: The encoded frame, the receiver's to keep.
        urgent: Which lane it came on.
        seq: Its number on that lane, from 1.
        sent_ns: When the sender took it, on its CLOCK_MONOTONIC (comparable on one node).
    """

    __slots__ = ("_stream", "payload", "sent_ns", "seq", "urgent")

    def __init__(
        self, stream: InStream, payload: bytes, urgent: bool, seq: int, sent_ns: int
    ) -> None:
        self._stream: InStream | None = stream
        self.payload = payload
        self.urgent = urgent
        self.seq = seq
        self.sent_ns = sent_ns

    def done(self) -> None:
        """Says that the frame is processed or dropped, which returns its credit.

        To be called once, in any order among deliveries, from the hub's event loop; a further
        call does nothing. After the stream has closed it is harmless and not needed.
        """
        stream = self._stream
        if stream is not None:
            self._stream = None
            stream.processed(self)


class StreamReceiver(Protocol):
    """What the application puts at the receiving end."""

    def deliver(self, delivery: Delivery) -> None:
        """Takes a frame, called in order per lane as bytes arrive; it must not block.

        An exception resets this stream (the sender sees it refused) and harms no other.
        """

    def closed(self, reason: Exception | None) -> None:
        """Nothing more comes: None after a graceful end, else why. Called once."""


class _Lane:
    """Counts of one lane. Frames are numbered from 1, so a count is also the last number."""

    __slots__ = (
        "ack_bytes",
        "ack_frames",
        "done",
        "early",
        "max_bytes",
        "max_frames",
        "open_bytes",
        "received",
        "reported",
        "unreported_bytes",
    )

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self.max_frames = max_frames
        self.max_bytes = max_bytes
        # A quarter of the window keeps the sender going while few ACKs travel.
        self.ack_frames = max(1, max_frames // 4)
        self.ack_bytes = max(1, max_bytes // 4)
        self.received = 0
        self.done = 0
        self.reported = 0
        self.early: set[int] = set()  # done out of order; bounded by the window
        self.open_bytes = 0
        self.unreported_bytes = 0


@dataclass(frozen=True, slots=True)
class InStreamStatistics:
    """Counters of a receiving end.

    Attributes:
        received: Ordered frames delivered.
        processed: Of these, processed without a gap.
        open_bytes: Bytes of ordered frames delivered and not processed.
        urgent_received: Urgent frames delivered.
        urgent_processed: Of these, processed without a gap.
        urgent_open_bytes: Bytes of urgent frames delivered and not processed.
        acks: ACK records sent.
    """

    received: int
    processed: int
    open_bytes: int
    urgent_received: int
    urgent_processed: int
    urgent_open_bytes: int
    acks: int


class InStream:
    """State of one receiving end; the link feeds it, the application sees deliveries.

    Attributes:
        key: What the peer opened it with.
        receiver: The application's side.
    """

    __slots__ = (
        "_acks",
        "_closed",
        "_ordered",
        "_outbox",
        "_stream_id",
        "_urgent",
        "key",
        "receiver",
    )

    def __init__(
        self, outbox: Outbox, limits: Limits, stream_id: int, key: bytes, receiver: StreamReceiver
    ) -> None:
        self.key = key
        self.receiver = receiver
        self._outbox = outbox
        self._stream_id = stream_id
        self._ordered = _Lane(limits.window_frames, limits.window_bytes)
        self._urgent = _Lane(limits.urgent_frames, limits.urgent_bytes)
        self._closed = False
        self._acks = 0

    def accept(self, urgent: bool, seq: int, sent_ns: int, payload: bytes) -> Delivery:
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
        return Delivery(self, payload, urgent, seq, sent_ns)

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
        if done - lane.reported >= lane.ack_frames or lane.unreported_bytes >= lane.ack_bytes:
            self._outbox.express(self.take_ack())
        else:
            self._outbox.ack_due(self)

    def take_ack(self) -> bytes:
        """Returns the ACK record that is due, or nothing (`AckSource`)."""
        ordered, urgent = self._ordered, self._urgent
        if self._closed or (ordered.done == ordered.reported and urgent.done == urgent.reported):
            return b""
        ordered.reported = ordered.done
        urgent.reported = urgent.done
        ordered.unreported_bytes = urgent.unreported_bytes = 0
        self._acks += 1
        return pack_record(Kind.ACK, self._stream_id, ordered.done, urgent.done)

    def close(self) -> None:
        """The stream is over: deliveries that are still open need no acknowledgement."""
        self._closed = True

    def statistics(self) -> InStreamStatistics:
        """Returns the counters as they are now."""
        return InStreamStatistics(
            received=self._ordered.received,
            processed=self._ordered.done,
            open_bytes=self._ordered.open_bytes,
            urgent_received=self._urgent.received,
            urgent_processed=self._urgent.done,
            urgent_open_bytes=self._urgent.open_bytes,
            acks=self._acks,
        )
