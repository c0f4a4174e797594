"""A real web server in the test's own event loop, as a bot's author would run one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

START_SECS = 10.0


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they are pytest's


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[str]:
    """Runs an ASGI application on a free port; yields ``host:port``."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, log_config=None, lifespan="off", loop="none", **options)
        server = _Server(config)
        running = asyncio.create_task(server.serve([listening]))
        host, port = listening.getsockname()
        try:
            async with asyncio.timeout(START_SECS):
                while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                    await asyncio.sleep(0.001)
            yield f"{host}:{port}"
        finally:
            server.should_exit = True
            await running
