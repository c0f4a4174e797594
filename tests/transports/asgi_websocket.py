"""A WebSocket without a network: Starlette's own, over what a test puts in and takes out."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.websockets import WebSocket, WebSocketState

Message = MutableMapping[str, Any]


class AsgiWebSocket(WebSocket):
    """An accepted connection.

    Attributes:
        sent: What was sent, with the loop's time at which it was.
        closed: Code and reason, once this side has closed.
        slow: Cleared: the client takes nothing.
        gone: The client has vanished: writing fails.
    """

    def __init__(self, *, accepted: bool = True) -> None:
        super().__init__({"type": "websocket", "headers": [], "path": "/"}, self._take, self._put)
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[tuple[float, bytes | str]] = []
        self.closed: tuple[int, str] | None = None
        self.slow = asyncio.Event()
        self.slow.set()
        self.gone = False
        if accepted:
            self.client_state = self.application_state = WebSocketState.CONNECTED

    def say(self, data: bytes | str) -> None:
        """The client sends something."""
        kind = "bytes" if isinstance(data, bytes) else "text"
        self._incoming.put_nowait({"type": "websocket.receive", kind: data})

    def hang_up(self, code: int = 1005) -> None:
        """The client leaves."""
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": code, "reason": ""})

    async def _take(self) -> Message:
        return await self._incoming.get()

    async def _put(self, message: Message) -> None:
        if self.gone:
            raise OSError("the client has vanished")
        await self.slow.wait()
        if message["type"] == "websocket.close":
            self.closed = message["code"], message["reason"]
            self._incoming.put_nowait({**message, "type": "websocket.disconnect"})
            return
        data = message.get("bytes")
        at = asyncio.get_running_loop().time()
        self.sent.append((at, message["text"] if data is None else data))


class ResumedWebSocket(AsgiWebSocket):
    """One that another process has served before."""

    resumed = True

    def __init__(self) -> None:
        super().__init__()
        self.prologues = 0
        self.committed: list[int] = []
        self.received = 7

    def end_prologue(self) -> None:
        self.prologues += 1

    def commit(self, received: int) -> None:
        self.committed.append(received)

    async def _take(self) -> Message:
        message = await super()._take()
        self.received += 1
        return message
