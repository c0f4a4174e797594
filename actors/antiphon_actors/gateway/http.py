"""The ways into a gateway: one application of routes."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlencode, urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from antiphon_actors.gateway.access import Ticket
from antiphon_actors.gateway.caller import deny
from antiphon_actors.gateway.gateway import Gateway
from antiphon_actors.gateway.refusal import Refusal

_WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def make_application(gateway: Gateway) -> Starlette:
    """The routes of a gateway.

    - ``GET /health``: 200, or 503 while it is being drained; for load balancers.
    - ``GET /status``: what it does; with the key.
    - ``POST /connect/{app}`` (``/connect`` with one bot): where to call, for client SDKs; with the key.
    - WebSocket ``/ws/{app}`` (``/ws`` with one bot): a call; with the key, or a ticket of `/connect`.
    """
    routes = _Routes(gateway)
    return Starlette(
        routes=[
            Route("/health", routes.health),
            Route("/status", routes.status),
            Route("/connect", routes.connect, methods=["POST"]),
            Route("/connect/{app}", routes.connect, methods=["POST"]),
            WebSocketRoute("/ws", routes.call),
            WebSocketRoute("/ws/{app}", routes.call),
            WebSocketRoute("/{path:path}", routes.nowhere),
        ],
        middleware=[
            # No cookie gives access, so no origin has to be kept out unless the operator says so.
            Middleware(
                CORSMiddleware,
                allow_origins=list(gateway.settings.cors_origins),
                allow_methods=["GET", "POST", "PATCH"],
                allow_headers=["*"],
                max_age=600,
            )
        ],
        exception_handlers={Refusal: _refuse, 404: _not_found, 405: _wrong_method},
    )


class _Routes:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def health(self, request: Request) -> Response:
        draining = self._gateway.draining
        return JSONResponse({"status": "draining" if draining else "ok"}, 503 if draining else 200)

    async def status(self, request: Request) -> Response:
        self._gateway.access.check(request)
        return JSONResponse(self._gateway.status())

    async def connect(self, request: Request) -> Response:
        """Says where to call: nothing else, because the client SDKs take every other key for an error."""
        gateway = self._gateway
        gateway.access.check(request)
        app = gateway.app(request.path_params.get("app", ""))
        body = await self._body(request)
        ticket = gateway.access.issue(Ticket(app.name, body))
        url = f"{self._base_url(request)}/ws/{app.name}?{urlencode({'token': ticket})}"
        return JSONResponse({"ws_url": url}, headers={"Cache-Control": "no-store"})

    async def call(self, websocket: WebSocket) -> None:
        app = websocket.path_params.get("app", "")
        await self._gateway.serve(websocket, app)

    async def nowhere(self, websocket: WebSocket) -> None:
        await deny(websocket, _no_such_page().response())

    def _base_url(self, request: Request) -> str:
        base = self._gateway.settings.public_url
        if base:
            parts = urlsplit(base)
            return f"{_WEBSOCKET_SCHEMES[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/')}"
        return f"{_WEBSOCKET_SCHEMES[request.url.scheme]}://{request.url.netloc}"

    async def _body(self, request: Request) -> dict[str, Any]:
        settings = self._gateway.settings
        data = b""
        try:
            async with asyncio.timeout(settings.handshake_secs):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > settings.max_body_bytes:
                        most = f"its body may have {settings.max_body_bytes} bytes"
                        raise Refusal(413, "request too large", most)
        except TimeoutError as error:
            raise Refusal(408, "request too slow", "send its body at once") from error
        if not data:
            return {}
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "not JSON", "send a JSON object, or nothing") from error
        if not isinstance(body, dict):
            raise Refusal(400, "not a JSON object", "send a JSON object, or nothing")
        return body


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


async def _not_found(request: Request, error: Exception) -> Response:
    return _no_such_page().response()


def _no_such_page() -> Refusal:
    return Refusal(404, "no such page", "there are /health, /status, /connect and /ws")


async def _wrong_method(request: Request, error: Exception) -> Response:
    return Refusal(405, "wrong method", "POST /connect, GET /health, GET /status").response()
