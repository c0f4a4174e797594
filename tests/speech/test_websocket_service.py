import asyncio
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from antiphon.frames.frames import ErrorFrame
from antiphon.services.websocket_service import WebsocketService


class Client(WebsocketService):
    """Notes what it receives."""

    def __init__(self, port: int, *, reconnect_on_error: bool = True) -> None:
        super().__init__(reconnect_on_error=reconnect_on_error)
        self.port = port
        self.received: list[Any] = []
        self.errors: list[ErrorFrame] = []

    async def _connect(self) -> None:
        await self._connect_websocket()

    async def _disconnect(self) -> None:
        await self._disconnect_websocket()

    async def _connect_websocket(self) -> None:
        self._websocket = await connect(f"ws://127.0.0.1:{self.port}")

    async def _disconnect_websocket(self) -> None:
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            await websocket.close()

    async def _receive_messages(self) -> None:
        async for message in self._websocket:
            self.received.append(message)
            if message == "bye":
                await self._disconnect()

    async def report(self, error: ErrorFrame) -> None:
        self.errors.append(error)

    async def run(self) -> None:
        await self._connect()
        await asyncio.wait_for(self._receive_task_handler(self.report), 5)
        await self._disconnect()


@pytest.mark.parametrize("code", [1000, 1011])
async def test_a_lost_connection_is_made_again(code: int) -> None:
    connections = 0

    async def peer(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await connection.send("first")
            await connection.close(code)
        else:
            await connection.send("bye")
            await connection.wait_closed()

    async with serve(peer, "127.0.0.1", 0) as server:
        client = Client(next(iter(server.sockets)).getsockname()[1])
        await client.run()
    assert client.received == ["first", "bye"]
    assert [error.fatal for error in client.errors] == [False]


async def test_without_reconnecting_the_loss_is_reported() -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.close(1011)

    async with serve(peer, "127.0.0.1", 0) as server:
        client = Client(next(iter(server.sockets)).getsockname()[1], reconnect_on_error=False)
        await client.run()
    assert [error.fatal for error in client.errors] == [False]


async def test_it_gives_up_after_three_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[int] = []

    def no_wait(attempt: int) -> float:
        failures.append(attempt)
        return 0

    async def peer(connection: ServerConnection) -> None:
        await connection.send("first")
        await connection.close(1011)

    async with serve(peer, "127.0.0.1", 0) as server:
        client = Client(next(iter(server.sockets)).getsockname()[1])
        await client._connect()

        async def refuse() -> None:
            raise ConnectionRefusedError("closed for today")

        monkeypatch.setattr(client, "_connect_websocket", refuse)
        monkeypatch.setattr("antiphon.services.websocket_service.exponential_backoff_time", no_wait)
        await client._receive_task_handler(client.report)
        await client._disconnect()
    assert [error.fatal for error in client.errors] == [False, False, False, True]
    assert "closed for today" in client.errors[-1].error
    assert failures == [1, 2]
