"""Links over TCP with mutual TLS 1.3: both ends show a certificate of their cluster.

Who connects is nobody until its certificate has been verified and its identity is one to talk to;
until then it costs a bounded share of a bounded number of handshakes, and no `Link` exists.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections.abc import Iterable
from time import monotonic_ns
from typing import cast

from loguru import logger

from antiphon_actors.channels.credentials import TlsContexts, TlsCredentials
from antiphon_actors.channels.errors import (
    ChannelBroken,
    ChannelBusy,
    ChannelRefused,
    CredentialsError,
    HandshakeError,
)
from antiphon_actors.channels.limits import Limits
from antiphon_actors.channels.uris import Address, tls_address
from antiphon_actors.channels.wire import Accept, Listener, Refused, Wire, WireOwner

_BACKLOG = 128
_ACCEPTS_A_TURN = 16
# Out of descriptors or memory: connections stay in the kernel's queue for so long.
_EXHAUSTED_SECS = 1.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# A handshake older than this share of its deadline gives way when there are too many.
_OLD_SHARE = 0.25
# What one read takes out of OpenSSL at most. asyncio would else allocate 256 KiB for every read.
_READ_BYTES = 64 << 10
# TLS cuts what it is given into records of at most this size.
_RECORD_BYTES = 16 << 10
# A write that comes so soon after another is part of a burst: it waits for the end of this turn of
# the event loop, to share a TLS record. A lone one leaves at once, because a turn costs as much as
# its encryption (measured: a hop of 50 us with, 30 us without).
_BURST_NS = 50_000


class TlsWire(asyncio.BufferedProtocol, Wire):
    """One connection, in both roles: the transport's protocol and the link's wire.

    Attributes:
        met: Whether the TLS handshake was completed.
        refusal: Why the other end is not to be talked to, if so.
    """

    gathers_writes = True
    local = False

    def __init__(
        self, remote: str, accept: Accept, credentials: TlsCredentials, limits: Limits
    ) -> None:
        self.remote = remote
        self.met = False
        self.refusal: str | None = None
        self._accept = accept
        self._trust = credentials
        self._high_bytes = limits.write_high_bytes
        self._transport: asyncio.Transport | None = None
        self._owner: WireOwner | None = None
        self._buffer = memoryview(b"")
        self._heard = False
        self._loop = asyncio.get_running_loop()
        self._gathered: list[bytes] = []  # less than one TLS record
        self._gathered_bytes = 0
        self._flushing: asyncio.Handle | None = None
        self._written_ns = 0

    # The protocol's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Checks who is there, now that its certificate is verified."""
        # uvloop's transports implement asyncio.Transport without deriving from it.
        transport = cast(asyncio.Transport, transport)
        self._transport = transport
        self.met = True
        try:
            self.identity = self._trust.peer(transport.get_extra_info("ssl_object"))
        except PermissionError as error:
            self.refusal = f"{self.remote}: {error}"
            transport.abort()
            return
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # What the network does not take yet waits on our side, where urgent records overtake.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self._high_bytes)
        transport.set_write_buffer_limits(high=self._high_bytes, low=self._high_bytes // 4)
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._owner = self._accept(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Returns where to decrypt to; a view, because asyncio slices it and expects no copy."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Passes bytes on, without a copy."""
        self._heard = True
        if self._owner is not None:
            self._owner.wire_bytes(self._buffer[:nbytes])

    def pause_writing(self) -> None:
        """Passes on that the buffer is full."""
        if self._owner is not None:
            self._owner.wire_paused()

    def resume_writing(self) -> None:
        """Passes on that the buffer has room."""
        if self._owner is not None:
            self._owner.wire_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        """Passes the end on."""
        self._drop_gathered()
        owner, self._owner = self._owner, None
        if owner is None:
            return
        if not self._heard:
            # In TLS 1.3 the side that dials is ready before the other has looked at its certificate.
            exc = ConnectionResetError("it may not accept the certificate of this process")
        owner.wire_ended(exc)

    # The wire's side.

    def _connected(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def write(self, data: bytes) -> None:
        """Writes, at once unless in a burst; see `Wire`."""
        self.writelines((data,))

    def writelines(self, chunks: Iterable[bytes]) -> None:
        """Writes several chunks, small ones in a common TLS record; see `Wire`."""
        for chunk in chunks:
            if self._gathered_bytes + len(chunk) > _RECORD_BYTES:
                self._flush()
            if len(chunk) > _RECORD_BYTES:
                self._connected().write(chunk)
            else:
                self._gathered.append(chunk)
                self._gathered_bytes += len(chunk)
        if self._flushing is not None:
            return
        now_ns = monotonic_ns()
        if now_ns - self._written_ns < _BURST_NS:
            self._flushing = self._loop.call_soon(self._turn_over)
        else:
            self._flush()
        self._written_ns = now_ns

    def _turn_over(self) -> None:
        self._flushing = None
        self._written_ns = monotonic_ns()
        self._flush()

    def _flush(self) -> None:
        gathered = self._gathered
        if gathered:
            self._gathered = []
            self._gathered_bytes = 0
            self._connected().write(gathered[0] if len(gathered) == 1 else b"".join(gathered))

    def _drop_gathered(self) -> None:
        self._gathered.clear()
        self._gathered_bytes = 0
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None

    def close(self) -> None:
        """Closes after the buffer; see `Wire`."""
        self._flush()
        self._connected().close()

    def abort(self) -> None:
        """Closes now; see `Wire`."""
        self._drop_gathered()
        self._connected().abort()

    def pause_reading(self) -> None:
        """Stops reading; see `Wire`."""
        self._connected().pause_reading()

    def resume_reading(self) -> None:
        """Reads again; see `Wire`."""
        self._connected().resume_reading()


def _why(error: OSError, limits: Limits) -> str:
    """Returns what went wrong in a TLS handshake, in words without anything secret."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "it showed no certificate"
        return f"no TLS 1.3 handshake: {str(error.reason).lower().replace('_', ' ')}"
    if isinstance(error, ConnectionAbortedError):
        return f"no TLS handshake within {limits.handshake_secs} s"
    return "it hung up in the TLS handshake"


class TlsListener(Listener):
    """A listening socket, and the handshakes of those who came."""

    def __init__(
        self,
        sock: socket.socket,
        uri: str,
        transport: TlsTransport,
        accept: Accept,
        refused: Refused,
        limits: Limits,
    ) -> None:
        """Accepts from now on."""
        self.uri = uri
        self._socket = sock
        self._tls = transport
        self._accept = accept
        self._refused = refused
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        # When each began. Bounded by max_handshakes, oldest first.
        self._handshakes: dict[asyncio.Task[None], float] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # those, and what was cancelled just now
        self._unbegun: dict[asyncio.Task[None], socket.socket] = {}
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        self._resume()

    @property
    def pending(self) -> int:  # type: ignore[override]
        """How many handshakes are under way."""
        return len(self._handshakes)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket, self._readable)

    def _readable(self) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            if self._closed:
                return
            try:
                connection, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                logger.error("cannot accept connections", uri=self.uri, error=error.strerror)
                self._loop.remove_reader(self._socket)
                self._pause = self._loop.call_later(_EXHAUSTED_SECS, self._resume)
                return
            connection.setblocking(False)
            self._begin(connection, tls_address(*peer[:2]).uri)

    def _begin(self, connection: socket.socket, remote: str) -> None:
        if len(self._handshakes) >= self._limits.max_handshakes and not self._make_room():
            connection.close()
            self._refused(f"{remote}: {len(self._handshakes)} handshakes are under way")
            return
        task = self._loop.create_task(
            self._shake_hands(connection, remote), name=f"TLS handshake with {remote}"
        )
        self._handshakes[task] = self._loop.time()
        self._unbegun[task] = connection
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _make_room(self) -> bool:
        """Gives up the oldest handshake if it is slow, so that idle strangers keep nobody out."""
        oldest = next(iter(self._handshakes))
        age_secs = self._loop.time() - self._handshakes[oldest]
        if age_secs < self._limits.handshake_secs * _OLD_SHARE:
            return False
        del self._handshakes[oldest]
        oldest.cancel()
        self._refused(f"{oldest.get_name()} gave way to newer ones after {age_secs:.1f} s")
        return True

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._handshakes.pop(task, None)
        connection = self._unbegun.pop(task, None)
        if connection is not None:
            connection.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error("TLS handshake failed unexpectedly", uri=self.uri)

    async def _shake_hands(self, connection: socket.socket, remote: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            context = self._tls.contexts.server()
        except CredentialsError as error:
            self._refused(f"{remote}: {error}")
            return
        del self._unbegun[task]  # from here on the transport closes it
        wire = TlsWire(remote, self._accept, self._tls.credentials, self._limits)
        try:
            await self._loop.connect_accepted_socket(
                lambda: wire,
                connection,
                ssl=context,
                ssl_handshake_timeout=self._limits.handshake_secs,
                ssl_shutdown_timeout=self._limits.close_secs,
            )
        except OSError as error:
            self._refused(f"{remote}: {_why(error, self._limits)}")
            return
        if wire.refusal is not None:
            self._refused(wire.refusal)
        elif not wire.met:
            self._refused(f"{remote}: it hung up in the TLS handshake")

    def close(self) -> None:
        """Stops accepting and gives up the handshakes under way."""
        if self._closed:
            return
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        else:
            self._loop.remove_reader(self._socket)
        self._socket.close()
        for task in self._tasks:
            task.cancel()

    async def gone(self) -> None:
        """Waits until the handshakes have ended; see `Listener`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._limits.close_secs)


class TlsTransport:
    """Transport of `tls://` addresses.

    Attributes:
        credentials: Whose certificate is shown, and who is talked to.
        contexts: The same as OpenSSL holds it.
    """

    def __init__(self, credentials: TlsCredentials) -> None:
        """Reads nothing yet."""
        self.credentials = credentials
        self.contexts = TlsContexts(credentials)

    @property
    def expires(self) -> float | None:
        """When this process's certificate expires, in seconds since 1970, if it has been read."""
        return self.contexts.expires

    def reload(self) -> None:
        """Reads the certificates again; see `TlsContexts.reload`."""
        self.contexts.reload()

    async def listen(
        self, address: Address, accept: Accept, refused: Refused, limits: Limits
    ) -> Listener:
        """Binds the port; see `Transport`."""
        self.contexts.server()  # an unusable certificate is the caller's to know, not the log's
        host, port = address.host_port
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise ChannelRefused(f"cannot listen at {address.uri}: {error}") from error
        family, _, _, _, where = found[0]
        if ipaddress.ip_address(where[0]).is_unspecified:
            raise ChannelRefused(
                f"{address.uri} is every address of this machine and none that a peer could dial; "
                "name one"
            )
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            # Connections of a predecessor that linger in the kernel do not keep the port taken.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(where)
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                raise ChannelBusy(f"another process listens at {address.uri}") from error
            raise ChannelRefused(f"cannot listen at {address.uri}: {error}") from error
        bound = tls_address(host, sock.getsockname()[1])
        return TlsListener(sock, bound.uri, self, accept, refused, limits)

    async def dial(self, address: Address, accept: Accept, limits: Limits) -> None:
        """Connects; see `Transport`.

        Raises:
            CredentialsError: This process's own certificate cannot be used.
            HandshakeError: What listens there hung up or does not speak TLS 1.3.
        """
        host, port = address.host_port
        wire = TlsWire(address.uri, accept, self.credentials, limits)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: wire,
                host,
                port,
                ssl=self.contexts.client(),
                server_hostname="",  # peers are known by identity, not by host name
                ssl_handshake_timeout=limits.handshake_secs,
                ssl_shutdown_timeout=limits.close_secs,
            )
        except ssl.SSLCertVerificationError as error:
            raise ChannelRefused(f"{address.uri}: {_why(error, limits)}") from error
        except ConnectionRefusedError as error:
            raise ChannelBroken(f"nobody listens at {address.uri}") from error
        except (ssl.SSLError, ConnectionError) as error:
            raise HandshakeError(f"{address.uri}: {_why(error, limits)}") from error
        except OSError as error:
            raise ChannelBroken(f"cannot connect to {address.uri}: {error}") from error
        if wire.refusal is not None:
            raise ChannelRefused(wire.refusal)
        if not wire.met:
            raise HandshakeError(f"{address.uri}: it hung up in the TLS handshake")
