"""A gateway with a real web server and supervisors in the test's own process."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from antiphon.runner.types import WebSocketRunnerArguments
from antiphon_actors.bot_program import BotFile
from antiphon_actors.errors import NoActorError, SupervisorLostError
from antiphon_actors.gateway.access import hash_key, new_secret
from antiphon_actors.gateway.gateway import Gateway
from antiphon_actors.gateway.http import make_application
from antiphon_actors.gateway.server import GatewayServer
from antiphon_actors.gateway.session_state import Patience
from antiphon_actors.gateway.settings import AppSpec, GatewaySettings
from antiphon_actors.report import SessionReport
from antiphon_actors.session.caller_websocket import CallerWebSocket
from antiphon_actors.session.endpoint import Endpoint
from antiphon_actors.supervisor import Failure, Output, SessionSpec

WAIT_SECS = 10.0
KEY = "a-key-that-nobody-guesses"

Bot = Callable[[WebSocketRunnerArguments], Awaitable[None]]


def app_named(name: str) -> AppSpec:
    return AppSpec(name, BotFile(f"/nowhere/{name}.py", "async def bot(runner_args): ..."))


async def echo(arguments: WebSocketRunnerArguments) -> None:
    """Says everything twice."""
    async for text in arguments.websocket.iter_text():
        await arguments.websocket.send_text(text)


class Process:
    """A process that runs bots, with links of its own."""

    def __init__(self, name: str, directory: Path, bot: Bot) -> None:
        self.name = name
        self.endpoint = Endpoint(name)
        self.bot = bot
        self.specs: list[SessionSpec] = []
        self.sockets: list[CallerWebSocket] = []
        self.running: dict[str, asyncio.Task[None]] = {}
        self.dead: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stuck = False
        self.cancelled: list[str] = []
        self.abandoned: list[str] = []
        self.handed_over: set[str] = set()
        self.lost = ""
        self._uri = f"unix://{directory}/{name}.sock"

    async def start(self) -> None:
        await self.endpoint.start(self._uri)

    def die(self) -> None:
        """Ends as a killed process does: its links break, and nothing more is done."""
        if not self.dead.done():
            self.dead.set_result(None)
            self.endpoint.abort()
            for task in self.running.values():
                task.cancel()

    def cut_off(self) -> None:
        """Loses its links, and works on."""
        for link in self.endpoint._hub.links:
            link.wire.abort()

    async def run(self, spec: SessionSpec) -> AsyncGenerator[Output | Failure | SessionReport]:
        assert spec.caller is not None
        self.specs.append(spec)
        caller = CallerWebSocket(spec.caller, self.endpoint, resumed=spec.resume)
        self.sockets.append(caller)
        await caller.connect()
        arguments = WebSocketRunnerArguments(
            websocket=caller, body=dict(spec.body), session_id=spec.session_id
        )
        task = asyncio.create_task(self._run(arguments, caller))
        self.running[spec.run_id] = task
        caller.call_when_lost(task.cancel)
        try:
            await asyncio.wait({task, self.dead}, return_when=asyncio.FIRST_COMPLETED)
            if self.dead.done():
                raise SupervisorLostError(f"{self.name} was killed")
            code = 130 if task.cancelled() else int(task.exception() is not None)
            yield SessionReport(
                spec.session_id,
                code,
                lost=self.lost,
                handed_over=spec.run_id in self.handed_over,
            )
        finally:
            task.cancel()
            await asyncio.wait({task})
            del self.running[spec.run_id]

    async def hand_over(self, run_id: str) -> None:
        """Ends a session here for another process to go on with."""
        self.handed_over.add(run_id)
        await self.sockets[-1].let_go()
        self.running[run_id].cancel()

    async def _run(self, arguments: WebSocketRunnerArguments, caller: CallerWebSocket) -> None:
        failed = True
        try:
            await self.bot(arguments)
            failed = False
        finally:
            if self.lost:
                await caller.let_go()
            elif not self.dead.done():
                await caller.finish(1011 if failed else 1000, "the bot failed" if failed else "")


class Place:
    """A session's place in a process (`Supervisor`)."""

    def __init__(self, owner: Processes, process: Process, run_id: str) -> None:
        self._owner = owner
        self._process = process
        self._run_id = run_id
        self.actor_id = process.name
        self.where = f"process {process.name}"

    def run(self, spec: SessionSpec) -> AsyncGenerator[Output | Failure | SessionReport]:
        return self._process.run(spec)

    async def cancel(self, run_id: str) -> None:
        self._process.cancelled.append(run_id)
        await self._end(run_id)

    async def abandon(self, run_id: str) -> None:
        self._process.abandoned.append(run_id)
        await self._end(run_id)

    async def _end(self, run_id: str) -> None:
        assert run_id == self._run_id
        if self._process.dead.done():
            raise SupervisorLostError("dead")
        if self._process.stuck:
            await asyncio.Event().wait()
        if (task := self._process.running.get(run_id)) is not None:
            task.cancel()

    def kill(self) -> None:
        self._owner.killed.append(self._process.name)
        self._process.die()

    async def release(self) -> None:
        self._owner.held.remove(self._run_id)


class Processes:
    """Where supervisors come from (`Supervisors`)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()
        self.bot: Bot = echo
        self.all: list[Process] = []
        self.held: list[str] = []
        self.killed: list[str] = []
        self.avoided: list[set[str]] = []
        self.refusal: NoActorError | None = None
        self.may_grant = asyncio.Event()
        self.may_grant.set()

    async def reserve(self, run_id: str, app: AppSpec, avoid: Collection[str]) -> Place:
        self.avoided.append(set(avoid))
        await self.may_grant.wait()
        if self.refusal is not None:
            raise self.refusal
        process = Process(f"process{next(self._numbers)}", self._directory, self.bot)
        await process.start()
        self.all.append(process)
        self.held.append(run_id)
        return Place(self, process, run_id)

    async def aclose(self) -> None:
        for process in self.all:
            await process.endpoint.aclose()


class Line:
    """A gateway that can be called.

    Attributes:
        gateway: The gateway.
        processes: Who runs its bots.
        address: ``host:port``.
        output: What bots printed.
    """

    def __init__(self, gateway: Gateway, processes: Processes, server: GatewayServer) -> None:
        self.gateway = gateway
        self.processes = processes
        self.server = server
        self.address = "{}:{}".format(*server.address)

    def url(self, app: str = "echo", token: str = KEY) -> str:
        return f"ws://{self.address}/ws/{app}?token={token}"

    async def call(self, app: str = "echo", **options: Any) -> ClientConnection:
        return await connect(self.url(app), **options)

    async def running(self) -> dict[str, Any]:
        """The status of the only session, once it runs."""
        await until(lambda: self._states() == ["running"])
        (session,) = self.gateway.status()["sessions"]
        return dict(session)

    def _states(self) -> list[str]:
        return [session["state"] for session in self.gateway.status()["sessions"]]

    async def process(self, number: int) -> Process:
        """A process, once it runs a session."""
        await until(lambda: len(self.processes.all) > number)
        process = self.processes.all[number]
        await until(lambda: process.running)
        return process


Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Starts a gateway; whatever happens, nothing of its sessions may be left."""

    @asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[Line]:
        made = GatewaySettings(port=0, key_hash=hash_key(KEY), secret=new_secret())
        made = replace(made, **{"patience": patience(), **settings})
        endpoint = Endpoint("gateway")
        await endpoint.start(f"unix://{tmp_path}/gateway.sock")
        processes = Processes(tmp_path)
        gateway = Gateway(made, endpoint, processes, lambda session_id, item: None)
        gateway.set_apps([app_named("echo"), app_named("other")])
        server = GatewayServer(make_application(gateway), made)
        await server.start()
        try:
            yield Line(gateway, processes, server)
        finally:
            await gateway.aclose()
            await server.aclose()
            await processes.aclose()
            await endpoint.aclose()
        assert processes.held == []
        assert gateway.status()["sessions"] == []
        assert endpoint._lines == {}
        assert [p.name for p in processes.all if p.running] == []

    return start


def patience(**seconds: Any) -> Patience:
    """Patience of which sessions count as begun at once."""
    return replace(Patience(settle_secs=0.0), **seconds)


async def until(condition: Callable[[], object]) -> None:
    """Waits for what has no event of its own."""
    async with asyncio.timeout(WAIT_SECS):
        while not condition():  # noqa: ASYNC110 - for what tells nobody of itself
            await asyncio.sleep(0.001)


async def heard(client: ClientConnection) -> str | bytes:
    """The next message."""
    async with asyncio.timeout(WAIT_SECS):
        return await client.recv()


async def hung_up(client: ClientConnection) -> tuple[int | None, str | None]:
    """Waits until the other side has closed; code and reason."""
    async with asyncio.timeout(WAIT_SECS):
        await client.wait_closed()
    return client.close_code, client.close_reason


async def request(
    address: str, method: str, path: str, body: bytes = b"", /, **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Makes an HTTP request; status, headers and JSON of the answer."""
    reader, writer = await asyncio.open_connection(*address.split(":"))
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    writer.write("\r\n".join(lines).encode() + body)
    async with asyncio.timeout(WAIT_SECS):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, content = answer.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    found = {k.lower(): v for k, _, v in (field.partition(": ") for field in fields)}
    is_json = found.get("content-type") == "application/json"
    return int(status.split()[1]), found, json.loads(content) if is_json else content.decode()
