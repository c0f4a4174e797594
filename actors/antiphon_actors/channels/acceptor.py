"""Takes the connections of a listening socket.

asyncio's servers leave a connection that they have accepted, and not begun when they are closed, open
with nobody at this end (CPython issue 109564, until 3.13): who dialled would wait for its deadline.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

from loguru import logger

_ACCEPTS_A_TURN = 16
# Out of descriptors or memory: connections stay in the kernel's queue for so long.
_EXHAUSTED_SECS = 1.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Owns a socket that listens, and gives each connection to whoever begins it."""

    def __init__(
        self, listening: socket.socket, uri: str, begin: Callable[[socket.socket, Any], None]
    ) -> None:
        """Accepts from now on, in the running event loop.

        Args:
            listening: The socket, which does not block.
            uri: Its address, for the log.
            begin: Takes a connection, which does not block and is its to close, and the peer's
                address.
        """
        self._socket = listening
        self._uri = uri
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self.closed = False
        self._resume()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket, self._readable)

    def _readable(self) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            if self.closed:
                return
            try:
                connection, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                logger.error("cannot accept connections", uri=self._uri, error=error.strerror)
                self._loop.remove_reader(self._socket)
                self._pause = self._loop.call_later(_EXHAUSTED_SECS, self._resume)
                return
            connection.setblocking(False)
            self._begin(connection, peer)

    def close(self) -> None:
        """Accepts nothing more and closes the socket; idempotent."""
        if self.closed:
            return
        self.closed = True
        if self._pause is not None:
            self._pause.cancel()
        else:
            self._loop.remove_reader(self._socket)
        self._socket.close()
