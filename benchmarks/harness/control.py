"""How a measured program is told what to do: lines of JSON over a Unix socket.

The program connects and says its name; after that it answers each line with one line. So the same
commands reach a plain process, a bot that a supervisor actor runs, and another framework's process.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

# A list of samples is one line.
LINE_LIMIT = 64 * 1024 * 1024


class ProgramFailed(Exception):
    """A measured program went away or said that something failed."""


class Contestant(Protocol):
    """Something that can be measured."""

    @property
    def name(self) -> str:
        """For tables."""

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Has it do something and returns what it says."""

    async def rest(self) -> None:
        """Its turn in this round is over."""


class Program:
    """A measured program at the other end of a control connection."""

    def __init__(
        self,
        name: str,
        hello: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.name = name
        self.hello = hello
        self._reader = reader
        self._writer = writer

    async def ask(
        self, command: str, *, deadline_secs: float = 60.0, **arguments: Any
    ) -> dict[str, Any]:
        """Has the program do something and returns what it says.

        Raises:
            ProgramFailed: If it cannot, has gone, or does not answer in time.
        """
        line = json.dumps({"do": command, **arguments})
        try:
            async with asyncio.timeout(deadline_secs):
                self._writer.write(line.encode() + b"\n")
                await self._writer.drain()
                answer = await self._reader.readline()
        except TimeoutError:
            raise ProgramFailed(
                f"{self.name}: no answer to {command} in {deadline_secs:g} s"
            ) from None
        except OSError as error:
            raise ProgramFailed(f"{self.name} is gone: {error}") from error
        if not answer:
            raise ProgramFailed(f"{self.name} is gone")
        said: dict[str, Any] = json.loads(answer)
        if "error" in said:
            raise ProgramFailed(f"{self.name}: {said['error']}")
        return said

    async def rest(self) -> None:
        """Waits for the next command, which costs nothing."""

    def close(self) -> None:
        """Hangs up, at which a program ends."""
        self._writer.close()


class Control:
    """Where measured programs connect to; an async context manager.

    Args:
        path: Of the socket; at most 107 bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server: asyncio.Server | None = None
        self._waiting: dict[str, asyncio.Future[Program]] = {}
        self._programs: list[Program] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(
            self._connected, path=str(self.path), limit=LINE_LIMIT, backlog=1024
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for program in self._programs:
            program.close()
        if self._server is not None:
            self._server.close()

    def expect(self, name: str) -> asyncio.Future[Program]:
        """A program of this name will connect."""
        future: asyncio.Future[Program] = asyncio.get_running_loop().create_future()
        self._waiting[name] = future
        return future

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        hello: dict[str, Any] = json.loads(line) if line else {}
        future = self._waiting.pop(hello.get("hello", ""), None)
        if future is None or future.done():
            writer.close()
            return
        program = Program(hello["hello"], hello, reader, writer)
        self._programs.append(program)
        future.set_result(program)
