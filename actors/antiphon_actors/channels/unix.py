"""Links over Unix domain sockets: a directory of our own, and the kernel's word on who connects."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import stat
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

from loguru import logger

from antiphon_actors.channels.acceptor import Acceptor
from antiphon_actors.channels.errors import ChannelBroken, ChannelBusy, ChannelRefused
from antiphon_actors.channels.limits import Limits
from antiphon_actors.channels.uris import Address
from antiphon_actors.channels.wire import Accept, Credentials, Listener, Refused, Wire, WireOwner

# struct ucred of unix(7): pid, uid, gid.
_UCRED = struct.Struct("3i")
_BACKLOG = 128
# How long a listener may still answer after its process was killed.
_DYING_SECS = 0.2


def peer_credentials(connection: socket.socket) -> Credentials:
    """Returns who is at the other end of a connected Unix socket (SO_PEERCRED)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(raw))


class UnixWire(asyncio.Protocol, Wire):
    """One connection, in both roles: the transport's protocol and the link's wire."""

    def __init__(self, path: str, accept: Accept, refused: Refused, limits: Limits) -> None:
        self.remote = f"unix://{path}"
        self.refusal: str | None = None
        self._accept = accept
        self._refused = refused
        self._high_bytes = limits.write_high_bytes
        self._transport: asyncio.Transport | None = None
        self._owner: WireOwner | None = None
        self._fd = -1

    # The protocol's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Checks who connected before anything is read or written."""
        # uvloop's transports implement asyncio.Transport without deriving from it.
        transport = cast(asyncio.Transport, transport)
        self._transport = transport
        self.credentials = peer_credentials(transport.get_extra_info("socket"))
        if self.credentials.uid != os.getuid():
            self.refusal = f"the process at {self.remote} belongs to user {self.credentials.uid}"
            logger.warning(
                "foreign user refused", uid=self.credentials.uid, pid=self.credentials.pid
            )
            self._refused(self.refusal)
            transport.abort()
            return
        # The socket itself, as long as the transport holds nothing back.
        self._fd = transport.get_extra_info("socket").fileno()
        transport.set_write_buffer_limits(high=self._high_bytes, low=self._high_bytes // 4)
        owner = self._owner = self._accept(self)
        # Straight to the owner; the transport looks the method up when it is given its protocol.
        self.data_received = owner.wire_bytes  # type: ignore[method-assign]
        transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Passes bytes on."""
        if self._owner is not None:
            self._owner.wire_bytes(data)

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
        self._fd = -1
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.wire_ended(exc)

    # The wire's side.

    def _connected(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    @property
    def unsent_bytes(self) -> int:
        """What the socket has not taken; see `Wire`."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def write(self, data: bytes) -> None:
        """Writes at once, without a turn of the event loop, what the socket takes; see `Wire`."""
        transport = self._connected()
        if self._fd < 0 or transport.get_write_buffer_size():
            transport.write(data)
            return
        try:
            written = os.write(self._fd, data)
        except (BrokenPipeError, ConnectionResetError):
            # The peer is gone. The transport would end at once, and not read what that said last.
            return
        except OSError:  # it is full: the transport's to wait for
            written = 0
        if written < len(data):
            transport.write(memoryview(data)[written:] if written else data)

    def writelines(self, chunks: Iterable[bytes]) -> None:
        """Writes several chunks; see `Wire`."""
        self.write(b"".join(chunks))

    def close(self) -> None:
        """Closes after the buffer; see `Wire`."""
        self._fd = -1
        self._connected().close()

    def abort(self) -> None:
        """Closes now; see `Wire`."""
        self._fd = -1
        self._connected().abort()

    def pause_reading(self) -> None:
        """Stops reading; see `Wire`."""
        self._connected().pause_reading()

    def resume_reading(self) -> None:
        """Reads again; see `Wire`."""
        self._connected().resume_reading()


class UnixListener(Listener):
    """A listening socket and its file."""

    def __init__(
        self, uri: str, path: Path, listening: socket.socket, make_wire: Callable[[], UnixWire]
    ) -> None:
        self.uri = uri
        self._path = path
        self._make_wire = make_wire
        self._beginning: set[asyncio.Task[None]] = set()  # each for a turn or two of the loop
        found = path.stat()
        self._identity = (found.st_dev, found.st_ino)
        self._acceptor = Acceptor(listening, uri, self._accepted)

    def _accepted(self, connection: socket.socket, _: object) -> None:
        task = asyncio.get_running_loop().create_task(
            self._begin(connection), name=f"begin a connection to {self.uri}"
        )
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self._make_wire, connection)
        except OSError as error:
            connection.close()
            logger.debug("connection not begun", uri=self.uri, error=str(error))

    async def gone(self) -> None:
        """Waits until what had been accepted is begun, and turned away by a closed hub."""
        if self._beginning:
            await asyncio.wait(self._beginning)

    def close(self) -> None:
        """Stops accepting and unlinks the file if it is still ours."""
        self._acceptor.close()
        try:
            found = self._path.lstat()
            if (found.st_dev, found.st_ino) == self._identity:
                self._path.unlink()
        except FileNotFoundError:
            pass  # a directory may be swept away whole


def _prepare_directory(directory: Path) -> None:
    """Makes the directory, or checks that nobody else can reach into it."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except OSError as error:
        raise ChannelRefused(f"cannot make the directory {directory}: {error}") from error
    if found.st_uid != os.getuid():
        raise ChannelRefused(f"the directory {directory} belongs to another user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise ChannelRefused(
            f"the directory {directory} is open to other users; use one with mode 0700"
        )


async def _remove_stale(path: Path) -> None:
    """Removes the socket file of a process that is gone.

    The kernel closes the descriptors of a killed process one after another: its links can be gone
    while its listener still answers, so that one is asked again for a short while.

    Raises:
        ChannelBusy: Something listens there.
        ChannelRefused: The path is something else than a socket.
    """
    deadline = asyncio.get_running_loop().time() + _DYING_SECS
    while _is_live(path):
        if asyncio.get_running_loop().time() > deadline:
            raise ChannelBusy(f"another process listens at {path}")
        await asyncio.sleep(_DYING_SECS / 20)


def _is_live(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise ChannelRefused(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            logger.info("stale socket removed", path=str(path))
            return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True  # its backlog is full
    return True


def _publish(unready: Path, path: Path) -> None:
    """Gives a listening socket its address, unless somebody else took it meanwhile."""
    path.hardlink_to(unready)


class UnixTransport:
    """Transport of `unix://` addresses."""

    async def listen(
        self, address: Address, accept: Accept, refused: Refused, limits: Limits
    ) -> Listener:
        """Binds the socket; see `Transport`."""
        path = Path(address.target)
        _prepare_directory(path.parent)
        await _remove_stale(path)
        # Bound under another name first: the address appears at once and only when it listens.
        unready = path.with_name("." + secrets.token_hex(4))
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.bind(str(unready))
            sock.listen(_BACKLOG)
            _publish(unready, path)
        except FileExistsError as error:
            sock.close()
            raise ChannelBusy(f"another process listens at {path}") from error
        except OSError as error:
            sock.close()
            raise ChannelRefused(f"cannot listen at {path}: {error}") from error
        finally:
            unready.unlink(missing_ok=True)
        return UnixListener(
            address.uri, path, sock, lambda: UnixWire(address.target, accept, refused, limits)
        )

    async def dial(self, address: Address, accept: Accept, limits: Limits) -> None:
        """Connects; see `Transport`."""
        loop = asyncio.get_running_loop()
        wire = UnixWire(address.target, accept, lambda reason: None, limits)
        try:
            await loop.create_unix_connection(lambda: wire, address.target)
        except FileNotFoundError as error:
            raise ChannelBroken(f"nobody listens at {address.uri}: no such socket") from error
        except ConnectionRefusedError as error:
            raise ChannelBroken(f"nobody listens at {address.uri}: the process is gone") from error
        except OSError as error:
            raise ChannelBroken(f"cannot connect to {address.uri}: {error}") from error
        if wire.refusal is not None:
            raise ChannelRefused(wire.refusal)
