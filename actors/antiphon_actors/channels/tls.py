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

from loguru import logger

from antiphon_actors.channels.acceptor import Acceptor
from antiphon_actors.channels.credentials import TlsContexts, TlsCredentials
from antiphon_actors.channels.errors import (
    ChannelBroken,
    ChannelBusy,
    ChannelRefused,
    CredentialsError,
    HandshakeError,
)
from antiphon_actors.channels.limits import Limits
from antiphon_actors.channels.tls_wire import TlsWire
from antiphon_actors.channels.uris import Address, tls_address
from antiphon_actors.channels.wire import Accept, Listener, Refused

_BACKLOG = 128
# A handshake older than this share of its deadline gives way when there are too many.
_OLD_SHARE = 0.25


def _why(error: OSError, limits: Limits) -> str:
    """Returns what went wrong in a TLS handshake, in words without anything secret."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "it hung up in the TLS handshake"
    if isinstance(error, ssl.SSLError):
        if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "it showed no certificate"
        return f"no TLS 1.3 handshake: {str(error.reason).lower().replace('_', ' ')}"
    if isinstance(error, ConnectionAbortedError):
        return f"no TLS handshake within {limits.handshake_secs} s"
    return "it hung up in the TLS handshake"


async def _shake_hands(connection: ssl.SSLSocket, limits: Limits) -> None:
    """Completes the TLS handshake.

    Raises:
        OSError: It failed; `_why` has the words.
    """
    loop = asyncio.get_running_loop()
    descriptor = connection.fileno()
    try:
        async with asyncio.timeout(limits.handshake_secs):
            while True:
                try:
                    connection.do_handshake()
                    return
                except ssl.SSLWantReadError:
                    add, remove = loop.add_reader, loop.remove_reader
                except ssl.SSLWantWriteError:
                    add, remove = loop.add_writer, loop.remove_writer
                ready = asyncio.Event()
                add(descriptor, ready.set)
                try:
                    await ready.wait()
                finally:
                    remove(descriptor)
    except TimeoutError:
        raise ConnectionAbortedError from None


def _wrap(
    connection: socket.socket, context: ssl.SSLContext, *, server_side: bool
) -> ssl.SSLSocket:
    """Puts TLS on a connected socket; nothing is sent yet."""
    return context.wrap_socket(connection, server_side=server_side, do_handshake_on_connect=False)


def _prepare(connection: ssl.SSLSocket, limits: Limits) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # What the network does not take yet waits on our side, where urgent records overtake.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limits.write_high_bytes)


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
        self._tls = transport
        self._accept = accept
        self._refused = refused
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        # When each began. Bounded by max_handshakes, oldest first.
        self._handshakes: dict[asyncio.Task[None], float] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # those, and what was cancelled just now
        self._unbegun: dict[asyncio.Task[None], socket.socket] = {}
        self._acceptor = Acceptor(sock, uri, self._begin)

    @property
    def pending(self) -> int:  # type: ignore[override]
        """How many handshakes are under way."""
        return len(self._handshakes)

    def _begin(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        remote = tls_address(*peer[:2]).uri
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
        try:
            secured = _wrap(connection, context, server_side=True)
        except OSError as error:
            self._refused(f"{remote}: {_why(error, self._limits)}")
            return
        self._unbegun[task] = secured
        try:
            await _shake_hands(secured, self._limits)
            identity = self._tls.credentials.peer(secured)
            _prepare(secured, self._limits)
        except PermissionError as error:
            self._refused(f"{remote}: {error}")
        except OSError as error:
            self._refused(f"{remote}: {_why(error, self._limits)}")
        else:
            del self._unbegun[task]  # from here on the wire closes it
            TlsWire(remote, secured, identity, self._limits).begin(self._accept)

    def close(self) -> None:
        """Stops accepting and gives up the handshakes under way."""
        if self._acceptor.closed:
            return
        self._acceptor.close()
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
        context = self.contexts.client()
        connection = await self._connect(address)
        try:
            secured = _wrap(connection, context, server_side=False)
        except BaseException:
            connection.close()
            raise
        try:
            await _shake_hands(secured, limits)
            identity = self.credentials.peer(secured)
            _prepare(secured, limits)
        except BaseException as error:
            secured.close()
            if isinstance(error, PermissionError):
                raise ChannelRefused(f"{address.uri}: {error}") from error
            if isinstance(error, ssl.SSLCertVerificationError):
                raise ChannelRefused(f"{address.uri}: {_why(error, limits)}") from error
            if isinstance(error, OSError):
                raise HandshakeError(f"{address.uri}: {_why(error, limits)}") from error
            raise
        TlsWire(address.uri, secured, identity, limits).begin(accept)

    async def _connect(self, address: Address) -> socket.socket:
        """Opens a TCP connection, at the first of the host's addresses that answers."""
        host, port = address.host_port
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ChannelBroken(f"cannot connect to {address.uri}: {error}") from error
        for family, _, _, _, where in found:
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.setblocking(False)
                await loop.sock_connect(connection, where)
            except OSError as error:
                connection.close()
                failure = error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        if isinstance(failure, ConnectionRefusedError):
            raise ChannelBroken(f"nobody listens at {address.uri}") from failure
        raise ChannelBroken(f"cannot connect to {address.uri}: {failure}") from failure
