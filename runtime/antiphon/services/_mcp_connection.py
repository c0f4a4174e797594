"""One connection to an MCP server, and the task that holds it open."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon.errors import ServiceError

if TYPE_CHECKING:
    from mcp import ClientSession

_CLOSE_DEADLINE_SECS = 10.0
"""How long closing may take; the package itself kills a server process after 2 to 4 seconds."""

_TRUSTED_SECS = 5.0
"""How long after its last use a connection counts as alive without asking."""

_PING_TIMEOUT_SECS = 5.0

_URL_SECRETS = re.compile(r"(?<=://)[^/@\s'\"]+@|(?<=\S)\?[^\s'\"]+")
"""What a URL may have before its host and after its path: passwords and keys."""


class MCPConnection:
    """A session with a server.

    The package's connections belong to the task that opened them, so each has a task of its own;
    calls may come from any task of the same event loop.
    """

    def __init__(self, params: Any, idle_timeout_secs: float) -> None:
        """Makes a connection that is not open; use :meth:`open`."""
        self.target = _target(params)
        self._params = params
        self._idle_timeout_secs = idle_timeout_secs
        self._wanted = True
        self._calls = 0
        self._last_use = 0.0
        # Something to look at: a call has ended, or nobody wants the connection any more.
        self._news = asyncio.Event()
        self._session: ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, params: Any, *, timeout_secs: float, idle_timeout_secs: float
    ) -> MCPConnection:
        """Starts or reaches the server and greets it.

        Args:
            params: One of the package's parameter classes.
            timeout_secs: Longest time for all of it.
            idle_timeout_secs: After this long without a call the connection closes.

        Raises:
            ServiceError: The server cannot be reached, or did not answer in time.
        """
        self = cls(params, idle_timeout_secs)
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[ClientSession] = loop.create_future()
        self._task = loop.create_task(self._hold(opened), name=f"mcp::{self.target}")
        try:
            async with asyncio.timeout(timeout_secs):
                self._session = await asyncio.shield(opened)
        except TimeoutError as error:
            await self.close(at_once=True)
            raise ServiceError(
                f"MCP server {self.target} did not answer within {timeout_secs:g} s",
                retryable=True,
                provider="mcp",
            ) from error
        except asyncio.CancelledError:
            await self.close(at_once=True)
            raise
        except Exception as error:
            await self.close(at_once=True)
            raise ServiceError(
                f"MCP server {self.target} cannot be used: {describe_failure(error)}",
                retryable=True,
                provider="mcp",
            ) from error
        return self

    @property
    def closed(self) -> bool:
        """Whether nothing of it is left."""
        return self._task is None or self._task.done()

    async def alive(self) -> bool:
        """Whether a new call may use it; after a pause the server is asked first.

        A server that went away unnoticed then costs a new connection instead of a failed call.
        """
        if not self._wanted or self.closed:
            return False
        quiet = asyncio.get_running_loop().time() - self._last_use
        if self._calls or quiet < _TRUSTED_SECS:
            return True
        try:
            with self.in_use() as session:
                async with asyncio.timeout(_PING_TIMEOUT_SECS):
                    await session.send_ping()
        except Exception as error:  # noqa: BLE001 - whatever it is, this connection is of no use
            logger.debug("MCP server is gone", server=self.target, reason=describe_failure(error))
            self.retire()
            return False
        return True

    @contextmanager
    def in_use(self) -> Iterator[ClientSession]:
        """Keeps the connection open for the length of a block."""
        assert self._session is not None
        self._calls += 1
        try:
            yield self._session
        finally:
            self._calls -= 1
            self._touch()

    def retire(self) -> None:
        """Takes no further calls, and closes when the last one is over."""
        self._wanted = False
        self._news.set()

    async def close(self, *, at_once: bool = False) -> None:
        """Closes the connection; calls under way fail. If cancelled, closing goes on.

        Args:
            at_once: Whether to break off whatever it is doing, such as opening.
        """
        self._wanted = False
        self._calls = 0
        self._news.set()
        task = self._task
        if task is None:
            return
        if at_once:
            task.cancel()
        await asyncio.wait({task}, timeout=_CLOSE_DEADLINE_SECS)
        if not task.done():
            logger.warning("closing an MCP connection took too long", server=self.target)
            task.cancel()

    def _touch(self) -> None:
        self._last_use = asyncio.get_running_loop().time()
        self._news.set()

    async def _hold(self, opened: asyncio.Future[ClientSession]) -> None:
        from mcp import ClientSession

        try:
            async with (
                _streams(self._params) as (read, write),
                ClientSession(read, write) as session,
            ):
                await session.initialize()
                self._touch()
                if not opened.done():
                    opened.set_result(session)
                await self._until_unwanted()
        except asyncio.CancelledError:
            opened.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever the server and the package do
            if not opened.done():
                opened.set_exception(error)
                return
            logger.warning(
                "MCP connection ended", server=self.target, reason=describe_failure(error)
            )
        finally:
            self._wanted = False

    async def _until_unwanted(self) -> None:
        loop = asyncio.get_running_loop()
        while self._wanted or self._calls > 0:
            self._news.clear()
            left = self._last_use + self._idle_timeout_secs - loop.time()
            if left <= 0 and self._calls == 0:
                logger.debug("MCP connection closes, it was not used", server=self.target)
                self._wanted = False
                return
            try:
                async with asyncio.timeout(max(left, 0.0) if self._calls == 0 else None):
                    await self._news.wait()
            except TimeoutError:
                continue


def describe_failure(error: BaseException) -> str:
    """The text of an error without secrets of a URL; of a group, of the first one in it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return _URL_SECRETS.sub("", str(error)) or type(error).__name__


@asynccontextmanager
async def _streams(params: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Opens the transport that the parameters ask for."""
    from mcp import StdioServerParameters
    from mcp.client.session_group import SseServerParameters

    if isinstance(params, StdioServerParameters):
        from mcp.client.stdio import stdio_client

        async with stdio_client(params) as streams:
            yield streams
    elif isinstance(params, SseServerParameters):
        from mcp.client.sse import sse_client

        async with sse_client(
            params.url,
            headers=params.headers,
            timeout=params.timeout,
            sse_read_timeout=params.sse_read_timeout,
        ) as streams:
            yield streams
    else:
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        timeout = httpx2.Timeout(params.timeout, read=params.sse_read_timeout)
        async with (
            httpx2.AsyncClient(headers=params.headers, timeout=timeout) as client,
            streamable_http_client(
                params.url, http_client=client, terminate_on_close=params.terminate_on_close
            ) as streams,
        ):
            yield streams


def _target(params: Any) -> str:
    """What to call the server in logs: never its arguments, environment, headers or query."""
    url = getattr(params, "url", None)
    if url is None:
        return str(params.command)
    return _URL_SECRETS.sub("", str(url))
