"""The sending end of a stream: two lanes, credits, and what is not yet acknowledged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
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
    pack_cause,
    pack_data_head,
    pack_frame,
    pack_record,
)
from antiphon_actors.channels.out_statistics import OutStreamStatistics
from antiphon_actors.channels.retained import Retained, Sent

if TYPE_CHECKING:
    from antiphon_actors.channels.link import Link
    from antiphon_actors.channels.outbox import Outbox
    from antiphon_actors.channels.shared_memory import SharedSender

_DATA: Final = int(Kind.DATA)
_URGENT: Final = int(Kind.URGENT)


class OutStream:
    """Sends frames of one directed edge. Made by `Link.open_stream`.

    One that is opened with `retain` outlives its link: it keeps what it is given, and what the peer
    has not reported as safe, until `Link.resume_stream` lets it go on with the peer's successor.

    Every method belongs to the event loop of the hub.

    Attributes:
        link: The link it runs on.
        key: What it was opened with.
        greeting: What the receiver had to say about what was before.
        detached: Whether its link is gone, and it waits to be resumed.
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
        "_retained",
        "_sent",
        "_shared",
        "_shared_from",
        "_stream_id",
        "_unacked",
        "_urgent_acked",
        "_urgent_bytes",
        "_urgent_sent",
        "_urgent_unacked",
        "_urgent_waiting",
        "_waiters",
        "detached",
        "greeting",
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
        *,
        retain: bool = False,
    ) -> None:
        self.key = key
        self.greeting = b""
        self.detached = False
        # Taken and not yet processed, wherever they are: the window.
        self._frames = 0
        self._bytes = 0
        self._queue: deque[Sent] = deque()  # bounded by the window
        self._unacked: deque[Sent] = deque()  # bounded by the window
        # One entry a waiting task, which bounds them, and before them (without a future) what was
        # sent to a lost peer, exceeds the window of its successor, and is bounded by `Retained`.
        self._waiters: deque[tuple[Sent, asyncio.Future[None] | None]] = deque()
        self._sent = 0
        self._acked = 0
        self._dropped = 0
        self._urgent_unacked: deque[Sent] = deque()  # bounded by urgent_frames and urgent_bytes
        self._urgent_waiting: deque[Sent] = deque()  # without a link; bounded together with those
        self._urgent_bytes = 0
        self._urgent_sent = 0
        self._urgent_acked = 0
        self._retained = Retained() if retain else None
        self._drainers: list[asyncio.Future[None]] = []
        self._ending = False
        self._ended: asyncio.Future[None] | None = None
        self._error: ChannelError | None = None
        self._use(link, outbox, stream_id, forget)

    def _use(
        self, link: Link, outbox: Outbox, stream_id: int, forget: Callable[[int], None]
    ) -> None:
        limits = link.limits
        self.link = link
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

    @property
    def error(self) -> ChannelError | None:
        """Why nothing more can be sent; None while the stream is open."""
        return self._error

    @property
    def safe(self) -> tuple[int, int]:
        """Ordered and urgent frames that the peer has reported as safe, from the first one on."""
        if self._retained is None:
            return self._acked, self._urgent_acked
        return self._retained.ordered, self._retained.urgent

    @property
    def position(self) -> tuple[int, int]:
        """How many ordered and urgent frames were taken, as the peer will count them."""
        behind = sum(future is None for _, future in self._waiters)
        return (
            self._sent + len(self._queue) + behind,
            self._urgent_sent + len(self._urgent_waiting),
        )

    def has_processed(self, position: tuple[int, int]) -> bool:
        """Whether the peer has processed all up to a `position`, or never will."""
        if self._error is not None:
            return True
        return self._acked >= position[0] and self._urgent_acked >= position[1]

    @property
    def handed_over(self) -> bool:
        """Whether all that was taken has been given to the link, or was when there was one."""
        behind = self._waiters and self._waiters[0][1] is None
        return not (self._queue or self._urgent_waiting or behind)

    @property
    def flushed(self) -> bool:
        """Whether all that was taken is out of this process."""
        return self.handed_over and (self.detached or self._outbox.empty)

    def share(self, sender: SharedSender) -> None:
        """Has large payloads go by shared memory; the link calls this."""
        self._shared = sender

    def begin(self, ordered: int, urgent: int, greeting: bytes) -> None:
        """Takes what the receiver answered to its opening; the link calls this."""
        self._sent = self._acked = ordered
        self._urgent_sent = self._urgent_acked = urgent
        self.greeting = greeting
        if self._retained is not None:
            self._retained.safe(ordered, urgent)

    @property
    def congested(self) -> bool:
        """Whether a quarter of the urgent frames that may be unprocessed are."""
        return (
            4 * (len(self._urgent_unacked) + len(self._urgent_waiting)) >= self._max_urgent_frames
            or 4 * self._urgent_bytes >= self._max_urgent_bytes
        )

    def send_nowait(
        self,
        payload: bytes,
        urgent: bool = False,
        tag: Any = None,
        cause: int = 0,
        ordinal: int = 0,
    ) -> bool:
        """Takes a frame if it may be sent now.

        Args:
            payload: The encoded frame; it must not change afterwards.
            urgent: Whether it overtakes ordered frames. Urgent frames are always taken.
            tag: Kept beside the payload for `drop_pending` and `unacknowledged`.
            cause: Origin of the frame whose processing made the sender send it; 0 for none.
            ordinal: Which of the frames it is that were sent because of that, from 0.

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
        sent = Sent(payload, urgent, tag, monotonic_ns(), cause, ordinal)
        if urgent:
            self._send_urgent(sent)
            return True
        if self._waiters or not self._has_room(size):
            return False
        self._take(sent)
        return True

    async def send(
        self,
        payload: bytes,
        *,
        urgent: bool = False,
        tag: Any = None,
        cause: int = 0,
        ordinal: int = 0,
    ) -> None:
        """Sends a frame, waiting for credit when it is ordered; arguments as for `send_nowait`.

        Waiting senders are served in the order of their calls. The wait ends with the link at the
        latest, whose heartbeat is its deadline against a dead peer; against a slow one the caller
        sets a deadline. A stream that can be resumed waits for that. When cancelled, the frame was
        either sent whole or is not sent.

        Raises:
            ChannelError: The stream or its link is closed.
            ValueError: The payload exceeds the largest record.
        """
        if self.send_nowait(payload, urgent, tag, cause, ordinal):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent = Sent(payload, False, tag, monotonic_ns(), cause, ordinal)
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
        if self.detached:
            self._queue.append(sent)
        elif outbox.gate_open and not self._queue:
            self._leaves(sent)
            if sent.size <= JOIN_BYTES:
                outbox.write_now(self._whole(_DATA, sent))
            else:
                head, rest = self._large(_DATA, sent)
                outbox.write_pair_now(head, rest)
        else:
            self._queue.append(sent)
            if len(self._queue) == 1:
                outbox.wait_in_order(self)

    def _leaves(self, sent: Sent) -> None:
        """Numbers an ordered frame that is being handed to the link."""
        self._sent += 1
        sent.seq = self._sent
        self._unacked.append(sent)
        if self._retained is not None:
            self._retained.add(sent)

    def _send_urgent(self, sent: Sent) -> None:
        unprocessed = len(self._urgent_unacked) + len(self._urgent_waiting)
        if unprocessed and (
            unprocessed >= self._max_urgent_frames
            or self._urgent_bytes + sent.size > self._max_urgent_bytes
        ):
            error = ChannelBusy(
                f"{unprocessed} urgent frames ({self._urgent_bytes} bytes) are unprocessed: "
                "the peer does not read this stream"
            )
            self.abort(error)
            raise again(error)
        self._urgent_bytes += sent.size
        if self.detached:
            self._urgent_waiting.append(sent)
        else:
            self._urgent_leaves(sent)

    def _urgent_leaves(self, sent: Sent) -> None:
        self._urgent_unacked.append(sent)
        self._urgent_sent += 1
        sent.seq = self._urgent_sent
        if self._retained is not None:
            self._retained.add(sent)
        if sent.size <= JOIN_BYTES:
            self._outbox.express(self._whole(_URGENT, sent))
        else:
            head, rest = self._large(_URGENT, sent)
            self._outbox.express_pair(head, rest)

    def _whole(self, kind: int, sent: Sent) -> bytes:
        """Returns a frame's record."""
        return pack_frame(
            kind, self._stream_id, sent.seq, sent.sent_ns, sent.payload, sent.cause, sent.ordinal
        )

    def _large(self, kind: int, sent: Sent) -> tuple[bytes, bytes]:
        """Returns a frame's record in two parts."""
        cause = sent.cause
        if self._shared is not None and sent.size >= self._shared_from:
            where = self._shared.put(sent.seq, sent.payload, urgent=kind == _URGENT)
            if where is not None:
                fields = (self._stream_id, sent.seq, sent.sent_ns, where)
                why = (cause, sent.ordinal) if cause else ()
                return pack_record(Kind(kind), *fields, *why), b""
        head = pack_data_head(kind, self._stream_id, sent.seq, sent.sent_ns, sent.size, cause)
        return head, sent.payload + pack_cause(cause, sent.ordinal) if cause else sent.payload

    def take_chunks(self, chunks: list[bytes], max_frames: int, max_bytes: int) -> tuple[int, bool]:
        """Hands waiting ordered frames to the outbox, which calls this (`OrderedSource`)."""
        queue = self._queue
        taken = 0
        for _ in range(min(max_frames, len(queue))):
            if taken >= max_bytes:
                break
            sent = queue.popleft()
            self._leaves(sent)
            chunks += self._large(_DATA, sent)
            taken += sent.size
        if self._ending and not queue:
            self._send_end(chunks)
        return taken, bool(queue)

    def acknowledge(
        self, ordered: int, urgent: int, safe_ordered: int = -1, safe_urgent: int = -1
    ) -> None:
        """Takes the peer's cumulative counts; the link calls this.

        Args:
            ordered: Ordered frames that it has processed.
            urgent: Urgent frames that it has processed.
            safe_ordered: Of those, the ones that need not be given again; -1: all.
            safe_urgent: The same.

        Raises:
            ProtocolViolation: The peer acknowledges what was never sent, or takes back an earlier
                acknowledgement.
        """
        if safe_ordered < 0:
            safe_ordered, safe_urgent = ordered, urgent
        if not (
            self._acked <= ordered <= self._sent
            and self._urgent_acked <= urgent <= self._urgent_sent
            and safe_ordered <= ordered
            and 0 <= safe_urgent <= urgent
        ):
            raise ProtocolViolation(
                f"ACK of {ordered} ordered and {urgent} urgent frames ({safe_ordered} and "
                f"{safe_urgent} safe), where {self._sent} and {self._urgent_sent} were sent"
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
        retained = self._retained
        if retained is not None:
            # What was forgotten is not kept again.
            retained.safe(max(safe_ordered, retained.ordered), max(safe_urgent, retained.urgent))
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
            if future is not None and future.done():
                waiters.popleft()
                continue
            if not self._has_room(sent.size):
                return
            waiters.popleft()
            if future is not None:
                future.set_result(None)
            self._take(sent)

    def drop_pending(self, keep: Callable[[Any], bool]) -> int:
        """Drops ordered frames that have not left this process.

        What the peer already has is for the peer to drop; its successor does not get it. Callers of
        `send` whose frame is dropped return as if it had been sent.

        Args:
            keep: Called with the tag of each frame (the payload where no tag was given); True saves
                the frame. It must not use the stream.

        Returns:
            How many frames were dropped.
        """
        if self._retained is not None:
            self._retained.take_back(keep)
        # One that has left before keeps its number.
        for sent in self._queue:
            if sent.seq and not keep(sent.tag):
                sent.payload = b""
        kept = deque(sent for sent in self._queue if sent.seq or keep(sent.tag))
        dropped = len(self._queue) - len(kept)
        self._frames -= dropped
        self._bytes -= sum(sent.size for sent in self._queue) - sum(sent.size for sent in kept)
        had_turn = bool(self._queue)
        self._queue = kept
        waiters: deque[tuple[Sent, asyncio.Future[None] | None]] = deque()
        for waiter in self._waiters:
            sent, future = waiter
            if future is not None and future.done():
                continue
            if keep(sent.tag):
                waiters.append(waiter)
            elif sent.seq:
                sent.payload = b""
                waiters.append(waiter)
            else:
                if future is not None:
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
        included. Works after the link broke, too.
        """
        frames = [(True, sent) for sent in self._urgent_unacked]
        frames += [(True, sent) for sent in self._urgent_waiting]
        frames += [(False, sent) for sent in self._unacked]
        frames += [(False, sent) for sent in self._queue]
        return frames

    # Another peer in the place of one that is lost.

    def detach(self) -> None:
        """Leaves its link, which may still be there; what is given from here on waits for another."""
        if self.detached or self._error is not None:
            return
        self._forget(self._stream_id)
        self._detach()
        self._outbox.express(pack_record(Kind.RESET, self._stream_id, "it goes on elsewhere"))

    def _detach(self) -> None:
        self._outbox.leave_order(self)
        self.detached = True
        if self._shared is not None:
            self._shared.close()

    def resume(
        self, link: Link, outbox: Outbox, stream_id: int, forget: Callable[[int], None]
    ) -> None:
        """Goes on over another link, with what is not safe; `Link.resume_stream` calls this.

        Frames have the numbers that they had.
        """
        assert self._retained is not None
        ordered, urgent = self.safe
        given = self._retained.take_all()
        # Urgent frames that wait were given after all that has left; so was what is in the queue.
        given += self._urgent_waiting
        behind = [*self._queue, *(sent for sent, future in self._waiters if future is None)]
        asked = [waiter for waiter in self._waiters if waiter[1] is not None]
        self._use(link, outbox, stream_id, forget)
        self._frames = self._bytes = self._urgent_bytes = 0
        self._sent = self._acked = ordered
        self._urgent_sent = self._urgent_acked = urgent
        for frames in (self._queue, self._unacked, self._urgent_unacked, self._urgent_waiting):
            frames.clear()
        self._waiters.clear()
        self.detached = False
        for sent in given:
            if sent.urgent:
                self._urgent_bytes += sent.size
                self._urgent_leaves(sent)
            elif not self._waiters and self._has_room(sent.size):
                self._take(sent)
            else:
                self._waiters.append((sent, None))
        for sent in behind:
            sent.size = len(sent.payload)
            self._waiters.append((sent, None))
        self._waiters += asked
        self._serve_waiters()
        self._check_drained()

    @property
    def _idle(self) -> bool:
        return not (self._frames or self._urgent_unacked or self._urgent_waiting or self._waiters)

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
        if self.detached:
            self.abort()
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
        detached = self.detached
        self._forget(self._stream_id)
        self.give_up(error)
        if not detached:
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
        """The link is gone, because of `error`; the link calls this."""
        if self._retained is not None and self._error is None:
            self._detach()
        else:
            self.give_up(error)

    def give_up(self, error: ChannelError) -> None:
        """The stream exists no more, because of `error`, and cannot be resumed."""
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
            if future is not None and not future.done():
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
            retained=len(self._retained) if self._retained is not None else 0,
            forgotten=self._retained.forgotten if self._retained is not None else 0,
            urgent_sent=self._urgent_sent,
            urgent_acked=self._urgent_acked,
            urgent_in_flight_bytes=self._urgent_bytes,
        )
