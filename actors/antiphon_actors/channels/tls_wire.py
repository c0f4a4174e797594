"""One connection with TLS, once both ends have shown who they are.

OpenSSL reads and writes the socket itself, and the event loop only says when it can. Between two
processes of one machine a record there and back takes 31 us so, and 36 us through the TLS of
uvloop, which has the bytes pass two more buffers (700 bytes; without TLS 21 us).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Iterable
from time import monotonic_ns

from antiphon_actors.channels.credentials import Identity
from antiphon_actors.channels.limits import Limits
from antiphon_actors.channels.wire import Accept, Wire, WireOwner

# TLS cuts what it is given into records of at most this size; a read returns one.
_RECORD_BYTES = 16 << 10
# A write that comes so soon after another may be part of a burst: what else is written in this turn
# of the event loop shares TLS records with each other. Looking for that costs a callback.
_BURST_NS = 50_000

_LATER = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TlsWire(Wire):
    """The link's side of a connection, in both roles."""

    gathers_writes = True
    local = False

    def __init__(
        self, remote: str, connection: ssl.SSLSocket, identity: Identity, limits: Limits
    ) -> None:
        """Takes over a connection whose handshake is over; `begin` reads and writes.

        Args:
            remote: Its address, for messages.
            connection: Not blocking; closed by this from now on.
            identity: Who is at the other end.
            limits: Of the hub.
        """
        self.remote = remote
        self.identity = identity
        self._connection = connection
        self._fd = connection.fileno()
        self._loop = asyncio.get_running_loop()
        self._high_bytes = limits.write_high_bytes
        self._close_secs = limits.close_secs
        self._owner: WireOwner | None = None
        self._buffer = memoryview(bytearray(_RECORD_BYTES))
        self._heard = False
        self._gathered: list[bytes] = []  # less than one TLS record
        self._gathered_bytes = 0
        self._turn: asyncio.Handle | None = None  # set while writes are gathered
        self._written_ns = 0
        # What the socket does not take yet; the link stops writing when told that it is much.
        self._backlog: deque[memoryview] = deque()
        self._backlog_bytes = 0
        self._full = False
        self._closing: asyncio.TimerHandle | None = None
        self._goodbye = False
        self._ended = False

    def begin(self, accept: Accept) -> None:
        """Gives the wire to a link, and reads from now on."""
        self._owner = accept(self)
        if not self._ended:
            self._loop.add_reader(self._fd, self._readable)

    # Reading.

    def _readable(self) -> None:
        try:
            if self._goodbye:
                # OpenSSL does not like what arrives after that; all of it is dropped anyway.
                count = socket.socket.recv_into(self._connection, self._buffer)
            else:
                count = self._connection.recv_into(self._buffer)
        except (*_LATER, BlockingIOError):
            return
        except OSError as error:
            self._end(error)
            return
        if count == 0:
            self._end(None)
        elif self._closing is None and self._owner is not None:
            self._heard = True
            self._owner.wire_bytes(self._buffer[:count])

    def pause_reading(self) -> None:
        """Stops reading; see `Wire`."""
        if not self._ended:
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        """Reads again; see `Wire`."""
        if not self._ended:
            self._loop.add_reader(self._fd, self._readable)

    # Writing.

    @property
    def unsent_bytes(self) -> int:
        """What is gathered, and what the socket has not taken; see `Wire`."""
        return self._gathered_bytes + self._backlog_bytes

    def write(self, data: bytes) -> None:
        """Writes, at once unless in a burst; see `Wire`."""
        if self._turn is not None:
            self._gather(data)
            return
        self._send(data)
        now_ns = monotonic_ns()
        if now_ns - self._written_ns < _BURST_NS:
            self._turn = self._loop.call_soon(self._turn_over)
        self._written_ns = now_ns

    def writelines(self, chunks: Iterable[bytes]) -> None:
        """Writes several chunks, small ones in a common TLS record; see `Wire`."""
        for chunk in chunks:
            self._gather(chunk)
        if self._turn is None:
            self._flush()

    def _gather(self, data: bytes) -> None:
        if self._gathered_bytes + len(data) > _RECORD_BYTES:
            self._flush()
        if len(data) > _RECORD_BYTES:
            self._send(data)
        else:
            self._gathered.append(data)
            self._gathered_bytes += len(data)

    def _turn_over(self) -> None:
        self._turn = None
        self._flush()

    def _flush(self) -> None:
        gathered = self._gathered
        if gathered:
            self._gathered = []
            self._gathered_bytes = 0
            self._send(gathered[0] if len(gathered) == 1 else b"".join(gathered))

    def _send(self, data: bytes) -> None:
        if self._ended:
            return
        if not self._backlog:
            try:
                sent = self._connection.send(data)
            except _LATER:
                sent = 0
            except OSError as error:
                self._end_soon(error)
                return
            if sent == len(data):
                return
            self._loop.add_writer(self._fd, self._writable)
            self._backlog.append(memoryview(data)[sent:])
            self._backlog_bytes += len(data) - sent
            if sent:
                # A record's worth went out: perhaps there is room for more at once.
                self._writable()
        else:
            self._backlog.append(memoryview(data))
            self._backlog_bytes += len(data)
        if self._backlog_bytes > self._high_bytes and not self._full:
            self._full = True
            if self._owner is not None:
                self._owner.wire_paused()

    def _writable(self) -> None:
        backlog = self._backlog
        try:
            while backlog:
                # After a refusal OpenSSL wants to be given the same bytes again.
                sent = self._connection.send(backlog[0])
                self._backlog_bytes -= sent
                rest = backlog[0][sent:]
                if rest:
                    backlog[0] = rest
                else:
                    backlog.popleft()
        except _LATER:
            pass
        except OSError as error:
            self._end_soon(error)
            return
        if not backlog:
            self._loop.remove_writer(self._fd)
            if self._closing is not None:
                self._say_goodbye()
        if self._full and self._backlog_bytes <= self._high_bytes // 4:
            self._full = False
            if self._owner is not None:
                self._owner.wire_resumed()

    # The end.

    def close(self) -> None:
        """Closes after the buffer; see `Wire`."""
        if self._ended or self._closing is not None:
            return
        self._flush()
        # Nothing of the peer's is listened to, but its end is awaited: closing a socket that holds
        # unread bytes would take back what was written last.
        self._closing = self._loop.call_later(self._close_secs, self._end, None)
        self.resume_reading()
        if not self._backlog:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        self._goodbye = True
        with contextlib.suppress(OSError, ValueError):
            self._connection.unwrap()
        # TCP's own end: two that close at the same time would wait for each other otherwise.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Closes now; see `Wire`."""
        self._end_soon(None)

    def _end_soon(self, error: OSError | None) -> None:
        """Ends the connection now and tells the owner in the next turn of the loop."""
        if not self._ended:
            self._shut()
            self._loop.call_soon(self._tell, error)

    def _end(self, error: OSError | None) -> None:
        if not self._ended:
            if error is None:
                self._say_goodbye()
            self._shut()
            self._tell(error)

    def _shut(self) -> None:
        self._ended = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        for handle in (self._turn, self._closing):
            if handle is not None:
                handle.cancel()
        self._turn = None
        self._gathered.clear()
        self._gathered_bytes = 0
        self._backlog.clear()
        self._backlog_bytes = 0
        self._connection.close()

    def _tell(self, error: OSError | None) -> None:
        owner, self._owner = self._owner, None
        if owner is None:
            return
        if not self._heard and self._closing is None:
            # In TLS 1.3 the side that dials is ready before the other has looked at its certificate.
            error = ConnectionResetError("it may not accept the certificate of this process")
        owner.wire_ended(error)
