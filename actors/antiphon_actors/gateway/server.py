"""The web server of a gateway: uvicorn, in an event loop that is somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn
from loguru import logger
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from antiphon.errors import ConfigError
from antiphon_actors.gateway.settings import GatewaySettings

START_DEADLINE_SECS = 5.0
STOP_DEADLINE_SECS = 1.0
PING_SECS = 10.0
"""A caller is asked for a sign of life so often, and gets so long to give it."""

_POLL_SECS = 0.005


class GatewayServer:
    """Serves an application at the address of the settings."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        """Makes a server that does not listen.

        Args:
            app: What to serve.
            settings: Where, and with which limits.
        """
        config = uvicorn.Config(
            app,
            loop="none",
            lifespan="off",
            http=partial(_ImpatientProtocol, settings),  # type: ignore[arg-type]
            ws="websockets-sansio",
            ws_max_size=settings.max_message_bytes,
            ws_ping_interval=PING_SECS,
            ws_ping_timeout=PING_SECS,
            # Audio does not get smaller, and each connection would need a compressor.
            ws_per_message_deflate=False,
            # What it would log holds URLs, and these hold keys.
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(STOP_DEADLINE_SECS),
        )
        self._settings = settings
        self._server = _Server(config)
        self._socket: socket.socket | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port at which it listens."""
        assert self._socket is not None, "the server has not been started"
        host, port = self._socket.getsockname()[:2]
        return host, port

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._server.server_state.connections)

    async def start(self) -> None:
        """Begins to listen.

        Raises:
            ConfigError: It cannot listen there.
        """
        self._socket = _bind(self._settings.host, self._settings.port)
        self._running = asyncio.create_task(self._server.serve([self._socket]), name="web server")
        async with asyncio.timeout(START_DEADLINE_SECS):
            while not self._server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(_POLL_SECS)

    async def aclose(self) -> None:
        """Stops listening and ends all connections; sessions should have ended before."""
        self._server.should_exit = True
        if self._running is not None:
            await asyncio.wait({self._running})
        if self._socket is not None:
            self._socket.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals of the process to whose they are."""
        yield


class _ImpatientProtocol(H11Protocol):
    """Takes so many connections, and hangs up on those that do not say what they want."""

    def __init__(self, settings: GatewaySettings, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings = settings
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a connection."""
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections:
            logger.warning("connection refused: there are too many", count=len(self.connections))
            transport.abort()
            return
        self._late = self.loop.call_later(self._settings.handshake_secs, self._hang_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Lets go of a connection."""
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def _hang_up(self) -> None:
        # Once a request has begun others look after it: keep-alive, the application, the session.
        begun: Any = self.scope
        if begun is None:
            self.transport.abort()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"the gateway cannot listen at {host}:{port}: {getattr(error, 'strerror', error)}; "
            "choose another --host or --port"
        ) from error
    listening.setblocking(False)
    return listening
