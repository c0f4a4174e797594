"""The streams of one link, in both directions, and the records that concern them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from loguru import logger

from antiphon_actors.channels.errors import (
    ChannelBroken,
    ChannelBusy,
    ChannelError,
    ChannelRefused,
    EndOfChannel,
    ProtocolViolation,
    again,
)
from antiphon_actors.channels.framing import MAX_REASON, Kind, Record, expect, pack_record
from antiphon_actors.channels.in_stream import Acceptance, InStream, StreamReceiver
from antiphon_actors.channels.out_stream import OutStream
from antiphon_actors.channels.shared_memory import SharedMemory, SharedReceiver, SharedSender

if TYPE_CHECKING:
    from antiphon_actors.channels.limits import Limits
    from antiphon_actors.channels.link import Link
    from antiphon_actors.channels.outbox import Outbox

_URGENT = int(Kind.URGENT)


class Streams:
    """Tables of a link's streams.

    Each side numbers the streams it opens from 1. A record for a number that was used is late (it
    crossed the end of its stream) and ignored; one for a number never used is a violation.

    Attributes:
        handlers: What takes which kind of record.
        late_records: Records that came after the end of their stream.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        limits: Limits,
        accept: Callable[[bytes], StreamReceiver | Acceptance],
        memory: SharedMemory,
        reader: SharedReceiver | None,
    ) -> None:
        """Starts with none.

        Args:
            outbox: The way out of the link.
            limits: Of the link.
            accept: Returns the receiver for a key, perhaps with more, or raises to refuse.
            memory: Where large payloads go, if the peer can read them there.
            reader: Reads those of the peer, if that can be done here.
        """
        self._memory = memory
        self._reader = reader
        self._outbox = outbox
        self._limits = limits
        self._accept = accept
        self._out: dict[int, OutStream] = {}
        self._opening: dict[int, tuple[OutStream, asyncio.Future[None]]] = {}
        self._resuming: dict[int, Link] = {}
        self._last_out = 0
        self._in: dict[int, InStream] = {}
        self._last_in = 0
        self._error: ChannelError | None = None
        self.late_records = 0
        self.handlers: dict[int, Callable[[Record], None]] = {
            Kind.DATA: self._on_frame,
            Kind.URGENT: self._on_frame,
            Kind.ACK: self._on_ack,
            Kind.OPEN: self._on_open,
            Kind.OPENED: self._on_opened,
            Kind.REFUSED: self._on_refused,
            Kind.END: self._on_end,
            Kind.ENDED: self._on_ended,
            Kind.RESET: self._on_reset,
            Kind.STOP: self._on_stop,
        }

    @property
    def out_count(self) -> int:
        """Streams open towards the peer."""
        return len(self._out)

    @property
    def in_count(self) -> int:
        """Streams open from the peer."""
        return len(self._in)

    async def open(self, link: Link, key: bytes, *, retain: bool) -> OutStream:
        """Opens a stream to the peer; see `Link.open_stream`."""
        stream_id = self._next_id(link, key)
        stream = OutStream(link, self._outbox, stream_id, key, self._forget, retain=retain)
        try:
            await self._ask(link, stream_id, stream, pack_record(Kind.OPEN, stream_id, key))
        except asyncio.CancelledError:
            stream.abort()
            raise
        except ChannelError as error:
            if self._error is None and not isinstance(error, ChannelRefused):
                stream.abort()  # the peer may still open it
            else:
                stream.give_up(error)
            raise
        return stream

    async def resume(self, link: Link, stream: OutStream, key: bytes) -> None:
        """Has a stream go on over this link; see `Link.resume_stream`."""
        stream_id = self._next_id(link, key)
        stream.key = key
        self._resuming[stream_id] = link
        record = pack_record(Kind.OPEN, stream_id, key, *stream.safe)
        try:
            await self._ask(link, stream_id, stream, record)
        except (ChannelError, asyncio.CancelledError) as error:
            if self._error is None and not isinstance(error, ChannelRefused):
                self._forget(stream_id)
                self._outbox.express(pack_record(Kind.RESET, stream_id, "not resumed in time"))
            raise
        finally:
            self._resuming.pop(stream_id, None)

    def _next_id(self, link: Link, key: bytes) -> int:
        limits = self._limits
        if len(key) > limits.max_key_bytes:
            raise ValueError(
                f"a key of {len(key)} bytes exceeds the limit of {limits.max_key_bytes}"
            )
        if len(self._out) >= limits.max_streams:
            raise ChannelBusy(f"{len(self._out)} streams to {link.peer.name} are open already")
        self._last_out += 1
        return self._last_out

    async def _ask(self, link: Link, stream_id: int, stream: OutStream, record: bytes) -> None:
        """Opens a stream, and waits until the peer has answered.

        Raises:
            ChannelRefused: The peer declined.
            ChannelBroken: It did not answer in time, or the link broke.
        """
        opening: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._opening[stream_id] = stream, opening
        self._outbox.express(record)
        try:
            async with asyncio.timeout(self._limits.open_secs):
                await opening
        except TimeoutError as error:
            raise ChannelBroken(
                f"{link.peer.name} did not answer within {self._limits.open_secs} s"
            ) from error
        finally:
            self._opening.pop(stream_id, None)

    def _forget(self, stream_id: int) -> None:
        self._out.pop(stream_id, None)

    def stop(self, receiver: StreamReceiver, reason: str) -> bool:
        """Gives up a stream from the peer; see `Link.stop_stream`."""
        for stream_id, stream in self._in.items():
            if stream.receiver is receiver:
                self._stop(stream_id, stream, reason)
                stream.receiver = None
                return True
        return False

    def _stop(self, stream_id: int, stream: InStream, reason: str) -> None:
        del self._in[stream_id]
        # What is processed but unreported must not look unprocessed to the sender.
        ack = stream.take_ack()
        stream.close()
        self._outbox.express(ack + pack_record(Kind.STOP, stream_id, reason[:MAX_REASON]))

    def lose(self, error: ChannelError) -> None:
        """The link is gone, and all streams with it."""
        self._error = error
        for _, opening in self._opening.values():
            if not opening.done():
                opening.set_exception(again(error))
        out, self._out = self._out, {}
        for out_stream in out.values():
            out_stream.lose(error)
        streams, self._in = self._in, {}
        for in_stream in streams.values():
            in_stream.close()
            self._tell_closed(in_stream, error)

    def frame(
        self,
        urgent: bool,
        stream_id: int,
        seq: int,
        sent_ns: int,
        payload: bytes,
        cause: int,
        ordinal: int,
    ) -> None:
        """Takes a frame."""
        stream = self._in.get(stream_id)
        if stream is None:
            self._check_was_in_stream(stream_id)
            return
        delivery = stream.accept(urgent, seq, sent_ns, payload, cause, ordinal)
        try:
            if stream.receiver is not None:
                stream.receiver.deliver(delivery)
        except Exception as error:  # noqa: BLE001 - ends this stream only
            logger.opt(exception=error).error("stream receiver failed")
            if stream_id in self._in:
                self._stop(stream_id, stream, f"{type(error).__name__}: {error}")
                self._tell_closed(stream, error)

    def _on_frame(self, record: Record) -> None:
        # A payload in shared memory, or a head of other widths than ours.
        if len(record) < 5:
            raise ProtocolViolation("a frame's record is too short")
        kind, stream_id, seq, sent_ns, payload = record[:5]
        if type(stream_id) is not int or type(seq) is not int or type(sent_ns) is not int:
            raise ProtocolViolation("a frame's record has fields of wrong types")
        if type(payload) is list and self._reader is not None and stream_id in self._in:
            try:
                payload = self._reader.read(payload)
            except ChannelBroken as error:  # the sender is dying, or this process is
                stream = self._in[stream_id]
                self._stop(stream_id, stream, str(error))
                self._tell_closed(stream, error)
                return
        elif type(payload) is list and self._reader is not None:
            payload = b""  # it came after the end of its stream
        cause, ordinal = record[5:7] if len(record) > 6 else (0, 0)
        if type(payload) is not bytes or type(cause) is not int or type(ordinal) is not int:
            raise ProtocolViolation("a frame's record has fields of wrong types")
        self.frame(kind == _URGENT, stream_id, seq, sent_ns, payload, cause, ordinal)

    def _on_open(self, record: Record) -> None:
        _, stream_id, key = expect(record, int, bytes)[:3]
        if stream_id <= self._last_in:
            raise ProtocolViolation(f"stream {stream_id} follows stream {self._last_in}")
        if len(key) > self._limits.max_key_bytes:
            raise ProtocolViolation(f"a key of {len(key)} bytes")
        # Where the opener goes on with a stream of its own.
        start = _start(expect(record, int, bytes, int, int)[3:5]) if len(record) > 4 else None
        self._last_in = stream_id
        try:
            if len(self._in) >= self._limits.max_streams:
                raise ChannelRefused(f"{len(self._in)} streams are open already")
            accepted = self._accept(key)
        except ChannelRefused as error:
            self._refuse(stream_id, str(error))
            return
        except Exception as error:  # noqa: BLE001 - the peer is told, the link lives
            logger.exception("stream refused by an error")
            self._refuse(stream_id, f"{type(error).__name__}: {error}")
            return
        if not isinstance(accepted, Acceptance):
            accepted = Acceptance(accepted)
        if start is not None:
            accepted = replace(accepted, ordered=start[0], urgent=start[1])
        stream = InStream(self._outbox, self._limits, stream_id, key, accepted)
        if self._error is not None:  # what was asked ended the link
            self._tell_closed(stream, again(self._error))
            return
        self._in[stream_id] = stream
        fields = (accepted.ordered, accepted.urgent, accepted.greeting)
        self._outbox.express(pack_record(Kind.OPENED, stream_id, self._reader is not None, *fields))
        if accepted.began is not None:
            accepted.began(stream)

    def _refuse(self, stream_id: int, reason: str) -> None:
        self._outbox.express(pack_record(Kind.REFUSED, stream_id, reason[:MAX_REASON]))

    def _on_opened(self, record: Record) -> None:
        _, stream_id = expect(record, int)[:2]
        found = self._opening.pop(stream_id, None)
        if found is None:
            self._check_was_out_stream(stream_id)
            return
        stream, opening = found
        if opening.done():
            return
        self._out[stream_id] = stream
        if stream_id in self._resuming:
            stream.resume(self._resuming[stream_id], self._outbox, stream_id, self._forget)
        elif len(record) > 5:
            *start, greeting = expect(record, int, bool, int, int, bytes)[3:6]
            stream.begin(*_start(start), greeting)
        if len(record) > 2 and record[2] is True:
            stream.share(SharedSender(self._memory))
        opening.set_result(None)

    def _on_refused(self, record: Record) -> None:
        _, stream_id, reason = expect(record, int, str)[:3]
        found = self._opening.pop(stream_id, None)
        if found is None:
            self._check_was_out_stream(stream_id)
        elif not found[1].done():
            found[1].set_exception(ChannelRefused(reason))

    def _on_end(self, record: Record) -> None:
        _, stream_id = expect(record, int)[:2]
        stream = self._in.pop(stream_id, None)
        if stream is None:
            self._check_was_in_stream(stream_id)
            return
        # What is processed but unreported would be lost with the stream.
        ack = stream.take_ack()
        stream.close()
        self._outbox.express(ack + pack_record(Kind.ENDED, stream_id))
        self._tell_closed(stream, None)

    def _on_ended(self, record: Record) -> None:
        _, stream_id = expect(record, int)[:2]
        stream = self._out.get(stream_id)
        if stream is None:
            self._check_was_out_stream(stream_id)
        else:
            stream.ended_by_peer()
            del self._out[stream_id]

    def _on_reset(self, record: Record) -> None:
        _, stream_id, reason = expect(record, int, str)[:3]
        stream = self._in.pop(stream_id, None)
        if stream is None:
            self._check_was_in_stream(stream_id)
            return
        stream.close()
        self._tell_closed(stream, ChannelBroken(f"the sender gave the stream up: {reason}"))

    def _on_stop(self, record: Record) -> None:
        _, stream_id, reason = expect(record, int, str)[:3]
        stream = self._out.pop(stream_id, None)
        if stream is None:
            self._check_was_out_stream(stream_id)
        else:
            stream.give_up(EndOfChannel(f"the receiver gave the stream up: {reason}"))

    def _on_ack(self, record: Record) -> None:
        _, stream_id, ordered, urgent = expect(record, int, int, int)[:4]
        stream = self._out.get(stream_id)
        if stream is None:
            self._check_was_out_stream(stream_id)
        elif len(record) > 5:
            stream.acknowledge(ordered, urgent, *expect(record, int, int, int, int, int)[4:6])
        else:
            stream.acknowledge(ordered, urgent)

    def _check_was_in_stream(self, stream_id: int) -> None:
        # Records cross a STOP or a refusal on their way; they are no fault.
        if not 0 < stream_id <= self._last_in:
            raise ProtocolViolation(f"a record for stream {stream_id}, which was never opened")
        self.late_records += 1

    def _check_was_out_stream(self, stream_id: int) -> None:
        if not 0 < stream_id <= self._last_out:
            raise ProtocolViolation(f"an answer for stream {stream_id}, which was never opened")
        self.late_records += 1

    def _tell_closed(self, stream: InStream, reason: Exception | None) -> None:
        # Deliveries may live on, in contexts of what was begun then.
        receiver, stream.receiver = stream.receiver, None
        try:
            if receiver is not None:
                receiver.closed(reason)
        except Exception:  # noqa: BLE001 - one receiver's fault is not another's
            logger.exception("stream receiver failed to close")


def _start(numbers: Sequence[int]) -> tuple[int, int]:
    """How many ordered and urgent frames were before, checked."""
    ordered, urgent = numbers
    if ordered < 0 or urgent < 0:
        raise ProtocolViolation("a stream goes on from a negative number")
    return ordered, urgent
