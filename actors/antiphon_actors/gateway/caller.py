"""A caller's connection: reads it always, writes to it in order, and notices when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

from loguru import logger
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from antiphon_actors.channels import Delivery
from antiphon_actors.session.line import Kind

_ABNORMAL = 1006
_MAX_REASON_BYTES = 123
"""Of a close frame (RFC 6455, 5.5)."""

# Those that an endpoint may send, beside 3000 to 4999 (RFC 6455, 7.4, and the registry of IANA).
_SENDABLE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})

_GONE = (WebSocketDisconnect, RuntimeError, OSError)


class CallerOwner(Protocol):
    """Who serves the caller; called from the event loop, and must not block."""

    def caller_said(self, kind: Kind, data: bytes) -> None:
        """The caller has sent a message."""

    def caller_took(self) -> None:
        """The caller has been sent a message."""

    def caller_left(self, code: int, reason: str) -> None:
        """The connection is over; called once, and nothing after it."""


class CallerConnection:
    """One WebSocket of the web server; for the task that serves it, and its children.

    Nothing is read ahead: the server takes the next message from the network when this has passed on
    the one before.
    """

    def __init__(self, websocket: WebSocket, owner: CallerOwner, *, send_secs: float) -> None:
        """Takes a WebSocket that has not been accepted.

        Args:
            websocket: The server's.
            owner: Told what happens.
            send_secs: A caller who takes nothing for so long counts as gone.
        """
        self._websocket = websocket
        self._owner = owner
        self._send_secs = send_secs
        # Bounded by the windows of the lines that feed it.
        self._waiting: deque[tuple[Kind, bytes, Delivery]] = deque()
        self._news = asyncio.Event()
        self._close: tuple[int, str] | None = None
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Begins to notice whether the caller leaves."""
        await self._websocket.receive()  # its wish to connect
        self._start(self._read(), "read caller")

    async def accept(self) -> None:
        """Accepts the connection and begins to write."""
        with contextlib.suppress(*_GONE):  # the reader finds out
            await self._websocket.accept()
        self._start(self._write(), "write caller")

    def put(self, kind: Kind, data: bytes, delivery: Delivery) -> None:
        """Sends a message of the bot in its turn; it is done when the network has taken it."""
        if self._over.is_set() or self._close is not None:
            delivery.done()
            return
        self._waiting.append((kind, data, delivery))
        self._news.set()

    def close(self, code: int, reason: str) -> None:
        """Closes the connection behind what waits to be sent; the first call counts.

        A code that cannot be sent becomes 1000.
        """
        if self._close is None:
            if code not in _SENDABLE_CODES and not 3000 <= code < 5000:
                logger.warning("a bot closed with a code that cannot be sent", code=code)
                code = 1000
            self._close = code, reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
            self._news.set()

    async def closed(self) -> None:
        """Returns when the connection is over."""
        await self._over.wait()

    async def aclose(self) -> None:
        """Ends what still runs for the connection; the server ends the connection itself."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._end()

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work, name=name))

    async def _read(self) -> None:
        while True:
            try:
                message = await self._websocket.receive()
            except _GONE:
                self._leave(_ABNORMAL, "")
                return
            if message["type"] == "websocket.disconnect":
                self._leave(message.get("code") or _ABNORMAL, message.get("reason") or "")
                return
            data = message.get("bytes")
            if data is not None:
                self._owner.caller_said(Kind.BYTES, data)
            else:
                self._owner.caller_said(Kind.TEXT, message["text"].encode())

    async def _write(self) -> None:
        try:
            while self._waiting or self._close is None:
                if not self._waiting:
                    self._news.clear()
                    await self._news.wait()
                    continue
                kind, data, delivery = self._waiting.popleft()
                try:
                    async with asyncio.timeout(self._send_secs):
                        if kind is Kind.TEXT:
                            await self._websocket.send_text(data.decode(errors="replace"))
                        else:
                            await self._websocket.send_bytes(data)
                finally:
                    delivery.done()
                self._owner.caller_took()
            code, reason = self._close
            async with asyncio.timeout(self._send_secs):
                await self._websocket.close(code, reason)
        except TimeoutError:
            logger.warning("a caller takes nothing, and counts as gone", secs=self._send_secs)
            self._leave(_ABNORMAL, "messages were not taken in time")
        except _GONE as error:
            logger.debug("caller gone while writing", error=type(error).__name__)
            self._leave(_ABNORMAL, "")
        else:
            self._leave(code, reason)

    def _leave(self, code: int, reason: str) -> None:
        if not self._over.is_set():
            self._end()
            self._owner.caller_left(code, reason)

    def _end(self) -> None:
        self._over.set()
        for _, _, delivery in self._waiting:
            delivery.done()
        self._waiting.clear()


async def deny(websocket: WebSocket, response: Response) -> None:
    """Refuses a caller's connection with an HTTP response."""
    with contextlib.suppress(*_GONE):
        if "websocket.http.response" in websocket.scope.get("extensions", {}):
            await websocket.send_denial_response(response)
        else:
            await websocket.close()
