"""A caller's line: WebSocket messages between the gateway and the process that runs the bot.

Each end opens a stream to the other over the link between the two processes. So the caller's audio does
not travel through Ray, and credit holds back whichever end is faster.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from antiphon_actors.channels import (
    ChannelClosed,
    ChannelError,
    ChannelRefused,
    Delivery,
    Link,
    OutStream,
    StreamReceiver,
)
from antiphon_actors.session.endpoint import LINE, Endpoint, pack

_HEAD = struct.Struct(">BQ")
_CODE = struct.Struct(">H")


class Kind(IntEnum):
    """What a message on a line is; the numbers are those on the wire."""

    TEXT = 0
    BYTES = 1
    CLOSED = 2
    """Whoever sends it has closed the WebSocket, or seen it closed: nothing follows."""
    COMMITTED = 3
    """Of the bot: the caller's messages up to this number need not be kept any more."""
    PROLOGUE = 4
    """Of the bot: the caller's messages up to this number are what it had to know at its start."""
    FINISHED = 5
    """Of the bot: it has ended, so that a line that breaks from now on is no loss."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message on a line.

    Attributes:
        kind: What it is.
        number: For a message of the caller its number, from 1; for what the bot says about them, which
            one it means.
        data: Its bytes; a text as UTF-8.
    """

    kind: Kind
    number: int = 0
    data: bytes = b""

    def pack(self) -> bytes:
        """Its form on the wire."""
        return _HEAD.pack(self.kind, self.number) + self.data

    @classmethod
    def unpack(cls, payload: bytes) -> Message:
        """Reads it.

        Raises:
            ChannelError: It is malformed.
        """
        try:
            kind, number = _HEAD.unpack_from(payload)
            return cls(Kind(kind), number, payload[_HEAD.size :])
        except (struct.error, ValueError) as error:
            raise ChannelError(f"malformed message on a line: {error}") from error

    @classmethod
    def closed(cls, code: int, reason: str) -> Message:
        """Tells of the end of the WebSocket."""
        return cls(Kind.CLOSED, 0, _CODE.pack(code) + reason.encode())

    @property
    def code_and_reason(self) -> tuple[int, str]:
        """Of a message that tells of the end.

        Raises:
            ChannelError: It is malformed.
        """
        if len(self.data) < _CODE.size:
            raise ChannelError("malformed end of a line")
        return _CODE.unpack_from(self.data)[0], self.data[_CODE.size :].decode(errors="replace")


class LineOwner(Protocol):
    """Who uses an end of a line; called from the event loop as bytes arrive, and must not block."""

    def line_opened(self) -> None:
        """Messages can be sent, and arrive. Called once, before any message."""

    def line_message(self, message: Message, delivery: Delivery) -> None:
        """A message arrived; its `done()` lets the other end send another."""

    def line_lost(self, error: Exception) -> None:
        """The other end is gone, without a goodbye; called at most once, and nothing after it."""


class Line:
    """One end of a line."""

    def __init__(self, name: str, endpoint: Endpoint, owner: LineOwner) -> None:
        """Makes an end that is not connected.

        Args:
            name: What both ends call it.
            endpoint: This process's hub.
            owner: Told what happens.
        """
        self._name = name
        self._endpoint = endpoint
        self._owner = owner
        self._receiver = _Receiver(self)
        self._received_from: Link | None = None
        self._out: OutStream | None = None
        self._early: list[tuple[Message, Delivery]] = []  # bounded by the stream's window
        self._dialled = False
        self._connected = False
        self._answering: asyncio.Task[None] | None = None
        self._over = False

    async def dial(self, uri: str) -> None:
        """Connects to the other end, which listens.

        Raises:
            ChannelError: It cannot be reached, or does not want the line.
        """
        self._dialled = True
        self._endpoint.join_line(self._name, self._accept)
        try:
            link = await self._endpoint.link(uri)
            self._out = await link.open_stream(self._key)
        except BaseException:
            self.abort()
            raise
        self._connect()

    def listen(self) -> None:
        """Waits for the other end to connect; `line_opened` tells.

        Raises:
            ChannelError: The name is in use here.
        """
        self._endpoint.join_line(self._name, self._accept)

    async def send(self, message: bytes) -> None:
        """Sends a packed message, waiting for credit.

        Raises:
            ChannelError: The line is not open, or breaks meanwhile.
        """
        if self._out is None or self._over:
            raise ChannelClosed(f"line {self._name} is not open")
        await self._out.send(message)

    def send_urgent(self, message: Message) -> None:
        """Sends a message that overtakes others, without waiting.

        Raises:
            ChannelError: The line is not open.
        """
        if self._out is None or self._over:
            raise ChannelClosed(f"line {self._name} is not open")
        self._out.send_nowait(message.pack(), urgent=True)

    async def aclose(self) -> None:
        """Ends the line: what was sent has reached the other process then. Idempotent."""
        out = self._out
        if out is not None and not self._over:
            await out.aclose()
        self.abort()

    def abort(self) -> None:
        """Ends the line at once; the other end takes that for a loss, if it has not ended it too."""
        self._over = True
        self._endpoint.leave_line(self._name, self._accept)
        if self._answering is not None:
            self._answering.cancel()
        if self._out is not None:
            self._out.abort()
        if self._received_from is not None:
            self._received_from.stop_stream(self._receiver, "the line was given up")
        for _, delivery in self._early:
            delivery.done()
        self._early.clear()

    @property
    def _key(self) -> bytes:
        return pack(self._name, LINE, 0, 0, None)

    def _accept(self, link: Link) -> StreamReceiver:
        if self._received_from is not None or self._over:
            raise ChannelRefused(f"line {self._name} is taken")
        self._received_from = link
        if not self._dialled:
            self._answering = asyncio.get_running_loop().create_task(
                self._answer(link), name=f"line {self._name}"
            )
        return self._receiver

    async def _answer(self, link: Link) -> None:
        try:
            self._out = await link.open_stream(self._key)
        except ChannelError as error:
            self._lost(error)
        else:
            self._connect()

    def _connect(self) -> None:
        self._connected = True
        self._owner.line_opened()
        early, self._early = self._early, []
        for message, delivery in early:
            self._owner.line_message(message, delivery)

    def _deliver(self, delivery: Delivery) -> None:
        message = Message.unpack(delivery.payload)
        if self._over:
            delivery.done()
        elif not self._connected:
            self._early.append((message, delivery))
        else:
            self._owner.line_message(message, delivery)

    def _ended(self, reason: Exception | None) -> None:
        """The other end sends no more: it has closed the line in good order, or is lost."""
        self._received_from = None
        if reason is not None:
            self._lost(reason)

    def _lost(self, error: Exception) -> None:
        if not self._over:
            self.abort()
            self._owner.line_lost(error)


class _Receiver:
    """Takes what the other end sends."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def deliver(self, delivery: Delivery) -> None:
        """Takes a record of the stream."""
        self._line._deliver(delivery)

    def closed(self, reason: Exception | None) -> None:
        """Takes the end of the stream."""
        self._line._ended(reason)
