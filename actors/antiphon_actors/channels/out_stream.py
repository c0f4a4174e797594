"""The sending end of a stream: two lanes, credits, and what is not yet acknowledged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final

from antiphon_actors.channels.errors import (
    ChannelBroken,
    ChannelBusy,
    ChannelClosed,
    ChannelError,
    ProtocolViolation,
    again,
)
from antiphon_actors.channels.framing import (
    DATA_OVERHEAD_BYTES,
    JOIN_BYTES,
    MAX_REASON,
    Kind,
    pack_data_head,
    pack_frame,
    pack_record,
)

if TYPE_CHECKING:
    from antiphon_actors.channels.link import Link
    from antiphon_actors.channels.outbox import Outbox
    from antiphon_actors.channels.shared_memory import SharedSender

_DATA: Final = int(Kind.DATA)
_URGENT: Final = int(Kind.URGENT)


class Sent:
    """One frame in the keeping of a stream.

    Attributes:
        payload: The encoded frame.
        tag: What the sender gave to recognise it by; the payload itself without a tag.
        size: Length of the payload in bytes.
        sent_ns: When `send` took it, CLOCK_MONOTONIC.
    """

    __slots__ = ("payload", "sent_ns", "size", "tag")

    def __init__(self, payload: bytes, tag: Any, sent_ns: int) -> None:
        self.payload = payload
        self.tag = payload if tag is None else tag
        self.size = len(payload)
        self.sent_ns = sent_ns


@dataclass(frozen=True, slots=True)
class OutStreamStatistics:
    """Counters of a sending end.

    Attributes:
        sent: Ordered frames handed to the link.
        acked: Of these, processed by the peer.
        in_flight_frames: Taken and not yet processed, those that wait here included.
        in_flight_bytes: The same in bytes.
        queued: Taken, but still here because the socket is not writable.
        waiting: Callers of `send` that wait for credit.
        dropped: Dropped by `drop_pending`.
        urgent_sent: Urgent frames handed to the link.
        urgent_acked: Of these, processed by the peer.
        urgent_in_flight_bytes: Bytes of urgent frames not yet processed.
    """

    sent: int
    acked: int
    in_flight_frames: int
    in_flight_bytes: int
    queued: int
    waiting: int
    dropped: int
    urgent_sent: int
    urgent_acked: int
    urgent_in_flight_bytes: int


class OutStream:
    """Sends frames of one directed edge. Made by `Link.open_stream`.

    Every method belongs to the event loop of the hub.

    Attributes:
        link: The link it runs on.
        key: What it was opened with.
    """

    __slots__ = (
        "_acked",
        "_bytes",
        "_drainers",
        "_dropped",
        "_ended",
        "_ending",
        "_error",
        "_forget",
        "_frames",
        "_max_bytes",
        "_max_frames",
        "_max_payload",
        "_max_urgent_bytes",
        "_max_urgent_frames",
        "_outbox",
        "_queue",
        "_sent",
        "_shared",
        "_shared_from",
        "_stream_id",
        "_unacked",
        "_urgent_acked",
        "_urgent_bytes",
        "_urgent_sent",
        "_urgent_unacked",
        "_waiters",
        "key",
        "link",
    )

    def __init__(
        self,
        link: Link,
        outbox: Outbox,
        stream_id: int,
        key: bytes,
        forget: Callable[[int], None],
    ) -> None:
        limits = link.limits
        self.link = link
        self.key = key
        self._outbox = outbox
        self._forget = forget
        self._stream_id = stream_id
        self._max_frames = limits.window_frames
        self._max_bytes = limits.window_bytes
        self._max_urgent_frames = limits.urgent_frames
        self._max_urgent_bytes = limits.urgent_bytes
        self._max_payload = limits.max_record_bytes - DATA_OVERHEAD_BYTES
        # Takes payloads from this size on, once the peer has said that it can read them there.
        self._shared: SharedSender | None = None
        self._shared_from = limits.shared_payload_bytes
        # Taken and not yet processed, wherever they are: the window.
        self._frames = 0
        self._bytes = 0
        self._queue: deque[Sent] = deque()  # bounded by the window
        self._unacked: deque[Sent] = deque()  # bounded by the window
        # One entry a waiting task; bounded by the number of tasks that send here.
        self._waiters: deque[tuple[Sent, asyncio.Future[None]]] = deque()
        self._sent = 0
        self._acked = 0
        self._dropped = 0
        self._urgent_unacked: deque[Sent] = deque()  # bounded by urgent_frames and urgent_bytes
        self._urgent_bytes = 0
        self._urgent_sent = 0
        self._urgent_acked = 0
        self._drainers: list[asyncio.Future[None]] = []
        self._ending = False
        self._ended: asyncio.Future[None] | None = None
        self._error: ChannelError | None = None

    @property
    def error(self) -> ChannelError | None:
        """Why nothing more can be sent; None while the stream is open."""
        return self._error

    def share(self, sender: SharedSender) -> None:
        """Has large payloads go by shared memory; the link calls this."""
        self._shared = sender

    @property
    def congested(self) -> bool:
        """Whether a quarter of the urgent frames that may be unprocessed are."""
        return (
            4 * len(self._urgent_unacked) >= self._max_urgent_frames
            or 4 * self._urgent_bytes >= self._max_urgent_bytes
        )

    def send_nowait(self, payload: bytes, urgent: bool = False, tag: Any = None) -> bool:
        """Takes a frame if it may be sent now.

        Args:
            payload: The encoded frame; it must not change afterwards.
            urgent: Whether it overtakes ordered frames. Urgent frames are always taken.
            tag: Kept beside the payload for `drop_pending` and `unacknowledged`.

        Returns:
            False when the ordered window is full or others wait for it: use `send`.

        Raises:
            ChannelError: The stream or its link is closed.
            ChannelBusy: More urgent frames are unprocessed than may be; the stream is given up,
                because the peer does not read.
            ValueError: The payload exceeds the largest record.
        """
        if self._error is not None:
            raise again(self._error)
        size = len(payload)
        if size > self._max_payload:
            raise ValueError(f"a payload of {size} bytes exceeds the limit of {self._max_payload}")
        sent = Sent(payload, tag, monotonic_ns())
        if urgent:
            self._send_urgent(sent)
            return True
        if self._waiters or not self._has_room(size):
            return False
        self._take(sent)
        return True

    async def send(self, payload: bytes, *, urgent: bool = False, tag: Any = None) -> None:
        """Sends a frame, waiting for credit when it is ordered; arguments as for `send_nowait`.

        Waiting senders are served in the order of their calls. The wait ends with the link at the
        latest, whose heartbeat is its deadline against a dead peer; against a slow one the caller
        sets a deadline. When cancelled, the frame was either sent whole or is not sent.

        Raises:
            ChannelError: The stream or its link is closed.
            ValueError: The payload exceeds the largest record.
        """
        if self.send_nowait(payload, urgent=urgent, tag=tag):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent = Sent(payload, tag, monotonic_ns())
        waiter = (sent, future)
        self._waiters.append(waiter)
        try:
            await future
        except asyncio.CancelledError:
            if future.cancelled():
                # Still in line: the ones behind may have room now that this one is gone.
                self._waiters = deque(each for each in self._waiters if each is not waiter)
                self._serve_waiters()
            raise

    def _has_room(self, size: int) -> bool:
        return self._frames == 0 or (
            self._frames < self._max_frames and self._bytes + size <= self._max_bytes
        )

    def _take(self, sent: Sent) -> None:
        self._frames += 1
        self._bytes += sent.size
        outbox = self._outbox
        if outbox.gate_open and not self._queue:
            self._sent += 1
            self._unacked.append(sent)
            number, sent_ns, size = self._sent, sent.sent_ns, sent.size
            if size <= JOIN_BYTES:
                outbox.write_now(pack_frame(_DATA, self._stream_id, number, sent_ns, sent.payload))
            else:
                head, rest = self._large(_DATA, number, sent)
                outbox.write_pair_now(head, rest)
            return
        self._queue.append(sent)
        if len(self._queue) == 1:
            outbox.wait_in_order(self)

    def _send_urgent(self, sent: Sent) -> None:
        unacked = self._urgent_unacked
        if unacked and (
            len(unacked) >= self._max_urgent_frames
            or self._urgent_bytes + sent.size > self._max_urgent_bytes
        ):
            error = ChannelBusy(
                f"{len(unacked)} urgent frames ({self._urgent_bytes} bytes) are unprocessed: "
                "the peer does not read this stream"
            )
            self.abort(error)
            raise again(error)
        unacked.append(sent)
        self._urgent_bytes += sent.size
        self._urgent_sent += 1
        number, sent_ns, size = self._urgent_sent, sent.sent_ns, sent.size
        if size <= JOIN_BYTES:
            record = pack_frame(_URGENT, self._stream_id, number, sent_ns, sent.payload)
            self._outbox.express(record)
        else:
            head, rest = self._large(_URGENT, number, sent)
            self._outbox.express_pair(head, rest)

    def _large(self, kind: int, seq: int, sent: Sent) -> tuple[bytes, bytes]:
        """Returns a frame's record in two parts."""
        if self._shared is not None and sent.size >= self._shared_from:
            where = self._shared.put(seq, sent.payload, urgent=kind == _URGENT)
            if where is not None:
                return pack_record(Kind(kind), self._stream_id, seq, sent.sent_ns, where), b""
        return pack_data_head(kind, self._stream_id, seq, sent.sent_ns, sent.size), sent.payload

    def take_chunks(self, chunks: list[bytes], max_frames: int, max_bytes: int) -> tuple[int, bool]:
        """Hands waiting ordered frames to the outbox, which calls this (`OrderedSource`)."""
        queue = self._queue
        taken = 0
        for _ in range(min(max_frames, len(queue))):
            if taken >= max_bytes:
                break
            sent = queue.popleft()
            self._unacked.append(sent)
            self._sent += 1
            chunks += self._large(_DATA, self._sent, sent)
            taken += sent.size
        if self._ending and not queue:
            self._send_end(chunks)
        return taken, bool(queue)

    def acknowledge(self, ordered: int, urgent: int) -> None:
        """Takes the peer's cumulative counts of processed frames; the link calls this.

        Raises:
            ProtocolViolation: The peer acknowledges what was never sent, or takes back an earlier
                acknowledgement.
        """
        if not (
            self._acked <= ordered <= self._sent
            and self._urgent_acked <= urgent <= self._urgent_sent
        ):
            raise ProtocolViolation(
                f"ACK of {ordered} ordered and {urgent} urgent frames, "
                f"where {self._sent} and {self._urgent_sent} were sent"
            )
        unacked = self._unacked
        for _ in range(ordered - self._acked):
            self._bytes -= unacked.popleft().size
        self._frames -= ordered - self._acked
        self._acked = ordered
        unacked = self._urgent_unacked
        for _ in range(urgent - self._urgent_acked):
            self._urgent_bytes -= unacked.popleft().size
        self._urgent_acked = urgent
        if self._shared is not None:
            self._shared.acknowledged(ordered, urgent)
        if self._waiters:
            self._serve_waiters()
        if self._drainers:
            self._check_drained()

    def _serve_waiters(self) -> None:
        waiters = self._waiters
        while waiters:
            sent, future = waiters[0]
            if future.done():
                waiters.popleft()
                continue
            if not self._has_room(sent.size):
                return
            waiters.popleft()
            future.set_result(None)
            self._take(sent)

    def drop_pending(self, keep: Callable[[Any], bool]) -> int:
        """Drops ordered frames that have not left this process.

        What the peer already has is for the peer to drop. Callers of `send` whose frame is dropped
        return as if it had been sent.

        Args:
            keep: Called with the tag of each frame (the payload where no tag was given); True saves
                the frame. It must not use the stream.

        Returns:
            How many frames were dropped.
        """
        kept = deque(sent for sent in self._queue if keep(sent.tag))
        dropped = len(self._queue) - len(kept)
        self._frames -= dropped
        self._bytes -= sum(sent.size for sent in self._queue) - sum(sent.size for sent in kept)
        had_turn = bool(self._queue)
        self._queue = kept
        waiters: deque[tuple[Sent, asyncio.Future[None]]] = deque()
        for waiter in self._waiters:
            sent, future = waiter
            if future.done():
                continue
            if keep(sent.tag):
                waiters.append(waiter)
            else:
                future.set_result(None)
                dropped += 1
        self._waiters = waiters
        self._dropped += dropped
        if had_turn and not kept:
            self._outbox.leave_order(self)
            if self._ending:
                self._send_end(None)
        self._serve_waiters()
        self._check_drained()
        return dropped

    def unacknowledged(self) -> list[tuple[bool, Sent]]:
        """Returns the frames the peer has not reported as processed, each with whether it is urgent.

        Urgent ones come first, each lane in order; callers of `send` that still wait are not
        included. Works after the link broke, too: this is what a replay starts from.
        """
        frames = [(True, sent) for sent in self._urgent_unacked]
        frames += [(False, sent) for sent in self._unacked]
        frames += [(False, sent) for sent in self._queue]
        return frames

    @property
    def _idle(self) -> bool:
        return not (self._frames or self._urgent_unacked or self._waiters)

    def _check_drained(self) -> None:
        if not self._drainers or not self._idle:
            return
        drainers, self._drainers = self._drainers, []
        for future in drainers:
            if not future.done():
                future.set_result(None)

    async def drain(self) -> None:
        """Waits until the peer has processed everything, frames sent meanwhile included.

        The caller sets a deadline. Cancelling changes nothing else.

        Raises:
            ChannelError: The stream or its link closed before that.
        """
        if self._idle:
            return
        if self._error is not None:
            raise again(self._error)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._drainers.append(future)
        try:
            await future
        finally:
            if future in self._drainers:
                self._drainers.remove(future)

    async def aclose(self) -> None:
        """Ends the stream: what was sent reaches the peer, then the receiver learns of the end.

        It does not wait for processing (see `drain`). Callers that wait in `send` fail. If the
        socket takes nothing for `close_secs`, or on cancellation, the stream is aborted. Idempotent.
        """
        if self._error is not None and self._ended is None:
            return
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
            self._shut(ChannelClosed("this side closed the stream"))
            self._ending = True
            if not self._queue:
                self._send_end(None)
        try:
            async with asyncio.timeout(self.link.limits.close_secs):
                await asyncio.shield(self._ended)
        except TimeoutError:
            self.abort(ChannelBroken("the peer did not take the rest of the stream in time"))
        except asyncio.CancelledError:
            self.abort(ChannelClosed("this side gave up closing the stream"))
            raise

    def _send_end(self, chunks: list[bytes] | None) -> None:
        self._ending = False
        record = pack_record(Kind.END, self._stream_id)
        if chunks is None:
            self._outbox.express(record)
        else:
            chunks.append(record)

    def abort(self, error: ChannelError | None = None) -> None:
        """Gives the stream up at once; the receiver is told. Idempotent.

        Args:
            error: What further sends raise.
        """
        if self._ended is not None and self._ended.done():
            return
        if self._error is not None and self._ended is None:
            return
        error = error or ChannelClosed("this side aborted the stream")
        self._forget(self._stream_id)
        self.lose(error)
        self._outbox.express(pack_record(Kind.RESET, self._stream_id, str(error)[:MAX_REASON]))

    def ended_by_peer(self) -> None:
        """The peer confirmed the end; the link calls this.

        Raises:
            ProtocolViolation: It was not told of an end.
        """
        if self._ended is None or self._ending:
            raise ProtocolViolation(f"stream {self._stream_id} has not ended")
        if self._shared is not None:
            self._shared.close()  # the peer has read everything, processed or not
        if not self._ended.done():
            self._ended.set_result(None)

    def lose(self, error: ChannelError) -> None:
        """The stream exists no more, because of `error`; the link calls this."""
        self._outbox.leave_order(self)
        self._shut(error)
        self._ending = False
        if self._shared is not None:
            self._shared.close()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _shut(self, error: ChannelError) -> None:
        if self._error is None:
            self._error = error
        waiters, self._waiters = self._waiters, deque()
        for _, future in waiters:
            if not future.done():
                future.set_exception(again(error))
        drainers, self._drainers = self._drainers, []
        for future in drainers:
            if not future.done():
                future.set_exception(again(error))

    def statistics(self) -> OutStreamStatistics:
        """Returns the counters as they are now."""
        return OutStreamStatistics(
            sent=self._sent,
            acked=self._acked,
            in_flight_frames=self._frames,
            in_flight_bytes=self._bytes,
            queued=len(self._queue),
            waiting=len(self._waiters),
            dropped=self._dropped,
            urgent_sent=self._urgent_sent,
            urgent_acked=self._urgent_acked,
            urgent_in_flight_bytes=self._urgent_bytes,
        )
