"""The connection of a `FastAPIWebsocketTransport`, which both its halves use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from loguru import logger
from pydantic import BaseModel
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from antiphon.errors import ConfigError
from antiphon.frames.frames import StartFrame
from antiphon.transports.network._caller_messages import CallerMessages, ResumableWebSocket

SEND_DEADLINE_SECS = 10.0
"""A client that takes nothing for so long counts as gone."""

CLOSE_DEADLINE_SECS = 2.0
"""How long a client may take to let the connection be closed."""

_GONE_CODE = 1008

Callback = Callable[[Any], Awaitable[None]]


class FastAPIWebsocketCallbacks(BaseModel):
    """What a connection tells its transport; each is called with the WebSocket.

    Attributes:
        on_client_connected: The pipeline starts with a client.
        on_client_disconnected: The client has left.
        on_session_timeout: The session has lasted as long as it should.
        on_client_resumed: The pipeline starts with a client that another process has served before.
    """

    on_client_connected: Callback
    on_client_disconnected: Callback
    on_session_timeout: Callback
    on_client_resumed: Callback | None = None


class FastAPIWebsocketClient:
    """The connection, as both halves of the transport share it.

    Attributes:
        messages: Counts the client's messages, where the connection can outlive the process.
    """

    def __init__(
        self, websocket: WebSocket, is_binary: bool, callbacks: FastAPIWebsocketCallbacks
    ) -> None:
        """Takes a connection.

        Args:
            websocket: It has been accepted.
            is_binary: Whether messages are binary; those of the other kind are dropped.
            callbacks: Told what happens.
        """
        self._websocket = websocket
        self._is_binary = is_binary
        self._callbacks = callbacks
        self._halves = 0
        self._closing = False
        self._gone = False
        self._other_kind = 0
        self.messages: CallerMessages | None = None
        if isinstance(websocket, ResumableWebSocket):
            self.messages = CallerMessages(websocket)

    @property
    def is_connected(self) -> bool:
        """Whether the client is there, as far as is known."""
        return not self._gone and self._websocket.client_state is WebSocketState.CONNECTED

    @property
    def is_closing(self) -> bool:
        """Whether this side has closed the connection."""
        return self._closing

    @property
    def resumed(self) -> bool:
        """Whether the bot goes on with what another process has begun."""
        return isinstance(self._websocket, ResumableWebSocket) and self._websocket.resumed

    async def setup(self, frame: StartFrame) -> None:
        """Counts one half of the transport in.

        Raises:
            ConfigError: The connection has not been accepted.
        """
        if self._websocket.application_state is WebSocketState.CONNECTING:
            raise ConfigError(
                "the WebSocket has not been accepted: call `await websocket.accept()` before the "
                "pipeline runs"
            )
        self._halves += 1

    def end_prologue(self) -> None:
        """Says that the bot has received what it needs before it starts."""
        if isinstance(self._websocket, ResumableWebSocket):
            self._websocket.end_prologue()

    async def receive(self) -> AsyncIterator[bytes | str]:
        """The client's messages, until it leaves or this side closes."""
        kind = "bytes" if self._is_binary else "text"
        while True:
            try:
                message = await self._websocket.receive()
            except (WebSocketDisconnect, RuntimeError, OSError):
                # It was gone before.
                return
            if message["type"] == "websocket.disconnect":
                return
            data: bytes | str | None = message.get(kind)
            if data is not None:
                yield data
                continue
            self._other_kind += 1
            if self._other_kind == 1:
                logger.warning("messages of the client dropped: wrong kind", expected=kind)

    async def send(self, data: str | bytes) -> None:
        """Sends a message; waits while the client is slow, and drops it when the client is gone.

        A client that takes nothing for `SEND_DEADLINE_SECS` counts as gone: the connection is
        closed, and ``on_client_disconnected`` called. If this is cancelled, the message has been
        sent whole or not at all.
        """
        if self._closing or not self.is_connected:
            return
        try:
            async with asyncio.timeout(SEND_DEADLINE_SECS):
                if isinstance(data, bytes):
                    await self._websocket.send_bytes(data)
                else:
                    await self._websocket.send_text(data)
        except TimeoutError:
            logger.warning("the client takes nothing, and counts as gone", secs=SEND_DEADLINE_SECS)
            await self._lose()
            await self._close(_GONE_CODE, "messages were not taken in time")
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            logger.debug("message not sent: the client is gone", error=type(error).__name__)
            await self._lose()

    async def disconnect(self) -> None:
        """Counts one half of the transport out, and closes the connection after the last."""
        self._halves -= 1
        if self._halves > 0 or self._closing:
            return
        self._closing = True
        if self.is_connected:
            await self._close(1000, "")

    async def trigger_client_connected(self) -> None:
        """Tells that the pipeline starts with a client, a new one or one it goes on with."""
        if not self.resumed:
            await self._callbacks.on_client_connected(self._websocket)
        elif self._callbacks.on_client_resumed is not None:
            await self._callbacks.on_client_resumed(self._websocket)

    async def trigger_client_disconnected(self) -> None:
        """Tells that the client has left, once, unless this side has closed the connection."""
        await self._lose()

    async def trigger_client_timeout(self) -> None:
        """Tells that the session has lasted as long as it should."""
        await self._callbacks.on_session_timeout(self._websocket)

    async def _lose(self) -> None:
        if not self._gone:
            self._gone = True
            if not self._closing:
                await self._callbacks.on_client_disconnected(self._websocket)

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_DEADLINE_SECS):
                await self._websocket.close(code, reason)
        except (TimeoutError, WebSocketDisconnect, RuntimeError, OSError) as error:
            logger.debug("connection not closed in order", error=type(error).__name__)
