"""The WebSocket that a bot behind the gateway is given: the caller's, at the end of a line."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message as AsgiMessage
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from antiphon_actors.channels import ChannelError, Delivery
from antiphon_actors.session.endpoint import Endpoint
from antiphon_actors.session.line import Kind, Line, Message


@dataclass(frozen=True)
class CallerRequest:
    """The caller's request, and where its line ends; travels through Ray.

    Attributes:
        line: Name of the line.
        gateway_uri: The hub of the gateway's process, where it listens.
        path: Path of the request.
        path_params: What the path holds.
        query: Its query, without credentials.
        headers: Its headers, lower case, without credentials.
        client: Address and port of the caller.
        server: Address and port that it has called.
        scheme: ``ws`` or ``wss``.
    """

    line: str
    gateway_uri: str
    path: str = "/"
    path_params: Mapping[str, str] = field(default_factory=dict)
    query: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()
    client: tuple[str, int] | None = None
    server: tuple[str, int | None] | None = None
    scheme: str = "ws"

    def scope(self) -> dict[str, Any]:
        """The request as ASGI describes it."""
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": self.scheme,
            "path": self.path,
            "raw_path": self.path.encode(),
            "root_path": "",
            "path_params": dict(self.path_params),
            "query_string": self.query,
            "headers": list(self.headers),
            "client": self.client,
            "server": self.server,
            "subprotocols": [],
            "state": {},
            "extensions": {},
        }


class CallerWebSocket(WebSocket):
    """A caller's accepted WebSocket, as Starlette and FastAPI document it.

    It outlives the process that serves it: the gateway keeps the caller's connection, and what the
    caller has sent and no process has committed. Messages arrive in order, those of the prologue and
    those not committed once more in a process that resumes the session.

    Attributes:
        resumed: Whether the bot goes on with what another process has saved of the session.

    When the gateway is gone, or the session is handed over, it is over here and may go on elsewhere.
    So the bot is not told that the caller has left: it sends to nobody and receives nothing until it is
    cancelled, which `call_when_lost` is for.
    """

    def __init__(
        self, request: CallerRequest, endpoint: Endpoint, *, resumed: bool = False
    ) -> None:
        """Makes a WebSocket that is not connected; see `connect`."""
        super().__init__(request.scope(), self._take, self._put)
        self.client_state = self.application_state = WebSocketState.CONNECTED
        self.resumed = resumed
        self._taken = 0
        self._committed = 0
        self._uri = request.gateway_uri
        self._line = Line(request.line, endpoint, self)
        self._waiting: deque[tuple[Message, Delivery]] = deque()  # bounded by the stream's window
        self._news = asyncio.Event()
        # Known at once to who sends; who receives gets what came before.
        self._gone = False
        self._left: tuple[int, str] | None = None
        self._lost = False
        self._let_go = False
        self._when_lost: Callable[[], object] | None = None

    def call_when_lost(self, callback: Callable[[], object]) -> None:
        """Has a function called once, when the gateway is gone; at once if it is."""
        self._when_lost = callback
        if self._lost:
            callback()

    @property
    def received(self) -> int:
        """Number of the last message that was taken or committed, counted over all processes."""
        return max(self._taken, self._committed)

    async def connect(self) -> None:
        """Connects to the gateway.

        Raises:
            ChannelError: It cannot be reached, or does not wait for this session.
        """
        await self._line.dial(self._uri)

    async def finish(self, code: int, reason: str) -> None:
        """Hangs up, unless the bot or the caller has, and ends the line.

        The gateway has everything that was sent when this returns. If it is cancelled, the line is
        ended all the same.
        """
        try:
            self._tell(Kind.FINISHED, 0)
            if not self._gone and not self._detached:
                with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                    await self.close(code, reason)
            await self._line.aclose()
        finally:
            self._line.abort()
            self._drop_waiting()

    async def let_go(self) -> None:
        """Leaves the caller to another process; the gateway has everything that was sent before.

        If it is cancelled, the line is ended all the same.
        """
        self._let_go = True
        try:
            await self._line.aclose()
        finally:
            self._line.abort()
            self._drop_waiting()

    async def accept(
        self,
        subprotocol: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
    ) -> None:
        """Does nothing: the gateway has accepted the connection, without a subprotocol."""

    def end_prologue(self) -> None:
        """Says that what was received so far is what a bot has to know before it starts.

        The gateway keeps it for the whole session. Only the first call of a session counts.
        """
        self._tell(Kind.PROLOGUE, self.received)

    def commit(self, received: int) -> None:
        """Says that messages are safe: they are neither kept nor delivered again, not even here.

        Args:
            received: The number of the last of them (see `received`); one that is not above an
                earlier one changes nothing.
        """
        if received > self._committed:
            self._committed = received
            self._tell(Kind.COMMITTED, received)

    # What the line tells (`LineOwner`).

    def line_opened(self) -> None:
        """The gateway can be written to."""

    def line_message(self, message: Message, delivery: Delivery) -> None:
        """Takes what the caller sent."""
        if self._let_go:
            delivery.done()
            return
        self._gone = self._gone or message.kind is Kind.CLOSED
        self._waiting.append((message, delivery))
        self._news.set()

    def line_lost(self, error: Exception) -> None:
        """The gateway is gone."""
        self._lost = True
        self._drop_waiting()
        if self._when_lost is not None:
            self._when_lost()

    # What Starlette calls: an ASGI server, as far as it can see.

    async def _take(self) -> AsgiMessage:
        self._skip_committed()
        while not self._waiting and self._left is None:
            self._news.clear()
            await self._news.wait()
            self._skip_committed()
        if not self._waiting:
            assert self._left is not None
            return _disconnect(*self._left)
        message, delivery = self._waiting.popleft()
        delivery.done()
        if message.kind is Kind.CLOSED:
            self._left = message.code_and_reason
            return _disconnect(*self._left)
        self._taken = message.number
        if message.kind is Kind.TEXT:
            return {"type": "websocket.receive", "text": message.data.decode()}
        return {"type": "websocket.receive", "bytes": message.data}

    async def _put(self, message: AsgiMessage) -> None:
        if self._gone:
            raise OSError("the caller has left")
        if self._detached:
            await asyncio.sleep(0)  # whoever sends without end can be cancelled here
            return
        if message["type"] == "websocket.close":
            record = Message.closed(message.get("code", 1000), message.get("reason") or "")
            # As a server does: what the caller still sends is not for the bot.
            self._gone, self._left = True, record.code_and_reason
            self._news.set()
        elif (data := message.get("bytes")) is not None:
            record = Message(Kind.BYTES, 0, data)
        else:
            record = Message(Kind.TEXT, 0, message["text"].encode())
        try:
            await self._line.send(record.pack())
        except ChannelError as error:
            if self._gone:
                raise OSError("the caller has left") from error

    def _tell(self, kind: Kind, number: int) -> None:
        # Without a gateway there is nobody who keeps anything.
        with contextlib.suppress(ChannelError):
            self._line.send_urgent(Message(kind, number))

    @property
    def _detached(self) -> bool:
        return self._lost or self._let_go

    def _skip_committed(self) -> None:
        """Drops what an earlier process has saved, and only the gateway did not know of.

        The prologue has been taken by then.
        """
        while self._waiting and 0 < self._waiting[0][0].number <= self._committed:
            self._waiting.popleft()[1].done()

    def _drop_waiting(self) -> None:
        for _, delivery in self._waiting:
            delivery.done()
        self._waiting.clear()


def _disconnect(code: int, reason: str) -> AsgiMessage:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}
