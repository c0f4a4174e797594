"""A chat completions server for tests: scripted streams, on a free local port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


def chunk(delta: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """One chunk of a completion; without a delta, one without choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": None}]
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "m",
        "choices": choices,
        **fields,
    }


def call(index: int | None, **fields: Any) -> dict[str, Any]:
    """A delta with a piece of a tool call."""
    return {"tool_calls": [{"index": index, **fields}]}


class ChatServer:
    """Answers each request with the next script.

    A script is a list of chunks to send and of events to wait for, or a whole response.

    Attributes:
        requests: The bodies received.
        headers: The headers received.
        gone: Set when a client left before its answer was complete.
    """

    def __init__(self, *scripts: Any) -> None:
        self.scripts = list(scripts)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.gone = asyncio.Event()
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ChatServer]:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        self.headers.append(request.headers)
        script = self.scripts.pop(0)
        if isinstance(script, web.Response):
            return script
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        try:
            if isinstance(script[0], asyncio.Event):
                await script[0].wait()  # not even the headers are sent
            await response.prepare(request)
            for item in script:
                if isinstance(item, asyncio.Event):
                    await item.wait()
                else:
                    await response.write(f"data: {json.dumps(item)}\n\n".encode())
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionError, asyncio.CancelledError):
            self.gone.set()
            raise
        return response
