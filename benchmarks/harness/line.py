"""A caller at a Unix socket, whose line outlives the bot's process: stands for the gateway."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

DEADLINE_SECS = 30.0


class CallerLine:
    """Keeps what the caller says until it is committed, and what the bot says; a context manager.

    Attributes:
        said: The words of the bot, in order.
        connections: How often a bot has connected.
        first_word_at: When the last connected bot said its first word, monotonic seconds.
        connected_at: When it connected.
        lost_at: When the connection before was lost.
        over: The conversation, when it is over.
    """

    def __init__(self) -> None:
        self.said: list[str] = []
        self.connections = 0
        self.connected_at = 0.0
        self.first_word_at = 0.0
        self.lost_at = 0.0
        self.over: list[Any] | None = None
        self._messages: list[str | None] = []
        self._committed = 0
        self._directory = tempfile.TemporaryDirectory(prefix="line-")
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._sent = 0
        self._news = asyncio.Event()

    @property
    def path(self) -> str:
        """Of the socket."""
        return str(Path(self._directory.name, "line.sock"))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        if self._writer is not None:
            self._writer.close()
        await self._server.wait_closed()
        self._directory.cleanup()

    def say(self, text: str | None) -> None:
        """The caller says something, or hangs up; also while no bot is there."""
        self._messages.append(text)
        self._deliver()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for something to happen on the line.

        Raises:
            TimeoutError: If it does not.
        """
        async with asyncio.timeout(DEADLINE_SECS):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def hear(self, text: str) -> None:
        """Waits until the bot has said something."""
        await self.until(lambda: text in " ".join(self.said))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        fresh = True
        while line := await reader.readline():
            message = json.loads(line)
            if "from" in message:
                self._sent = max(self._committed, message["from"])
                self.connections += 1
                self.connected_at = time.monotonic()
                self._deliver()
            elif "commit" in message:
                self._committed = max(self._committed, message["commit"])
            elif "said" in message:
                if fresh:
                    self.first_word_at, fresh = time.monotonic(), False
                self.said.append(message["said"])
            elif "over" in message:
                self.over = message["over"]
            self._news.set()
        self.lost_at = time.monotonic()
        if self._writer is writer:
            self._writer = None
        writer.close()
        self._news.set()

    def _deliver(self) -> None:
        while self._writer is not None and self.connections and self._sent < len(self._messages):
            text = self._messages[self._sent]
            self._sent += 1
            message = {"number": self._sent, "text": text}
            self._writer.write(json.dumps(message).encode() + b"\n")
