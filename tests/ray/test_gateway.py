"""A gateway over Ray: supervisors that are killed, frozen, full; nodes; a restart."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from antiphon.audio.vad.silero import SHARED_MODEL
from antiphon.errors import ConfigError
from antiphon_actors.agent_types import NAMESPACE, AgentSettings
from antiphon_actors.agents import create_agent, find_agent
from antiphon_actors.bot_program import BotFile
from antiphon_actors.cluster import LocalCluster
from antiphon_actors.gateway.access import hash_key, new_secret
from antiphon_actors.gateway.actor import find_gateway
from antiphon_actors.gateway.deployment import Wishes, deploy, statuses, undeploy
from antiphon_actors.gateway.gateway import Gateway
from antiphon_actors.gateway.registry import Registry
from antiphon_actors.gateway.serve import gateway_here
from antiphon_actors.gateway.settings import AppSpec, GatewaySettings
from antiphon_actors.models.settings import ModelRule, ModelSettings
from antiphon_actors.neighbours import living_nodes
from antiphon_actors.pool_types import PoolSettings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

WAIT_SECS = 30.0
KEY = "a-key-that-nobody-guesses"

ECHO = """
import os


async def bot(runner_args):
    websocket = runner_args.websocket
    async for text in websocket.iter_text():
        await websocket.send_text(f"{VERSION} {os.getpid()} {websocket.resumed} {text}")


VERSION = "one"
"""


def echo(version: str = "one", name: str = "echo") -> AppSpec:
    return AppSpec(name, BotFile(f"/nowhere/{name}.py", ECHO.replace('"one"', repr(version))))


async def until(condition: Callable[[], Any]) -> None:
    """Waits for what has no event here."""
    async with asyncio.timeout(WAIT_SECS):
        while not condition():  # noqa: ASYNC110 - it happens in other processes
            await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Line:
    """A gateway that can be called."""

    gateway: Gateway
    agent: Any
    url: str

    async def call(self) -> ClientConnection:
        return await connect(self.url)

    async def supervisors_used(self) -> int:
        kinds = (await self.agent.status.remote())["kinds"]
        return sum(e["used"] for kind, e in kinds.items() if kind.startswith("supervisor:"))


@dataclass(frozen=True)
class Answer:
    version: str
    pid: int
    resumed: bool
    text: str


async def ask(client: ClientConnection, text: str) -> Answer:
    await client.send(text)
    return await heard(client)


async def heard(client: ClientConnection) -> Answer:
    async with asyncio.timeout(WAIT_SECS):
        answer = await client.recv()
    assert isinstance(answer, str)
    version, pid, resumed, text = answer.split(" ", 3)
    return Answer(version, int(pid), resumed == "True", text)


@asynccontextmanager
async def serving(tmp_path: Path, **pools: Any) -> AsyncIterator[Line]:
    """A gateway in this process, with an agent of its own."""
    settings = AgentSettings(
        hub_dir=str(tmp_path), pools=PoolSettings(reserve=0, supervisor_reserve=2, **pools)
    )
    agent = create_agent(settings)
    try:
        await agent.start.remote()
        made = GatewaySettings(port=0, key_hash=hash_key(KEY), secret=new_secret())
        async with gateway_here(agent, made, lambda text: None) as (gateway, server):
            gateway.set_apps([echo()])
            address = "{}:{}".format(*server.address)
            yield Line(gateway, agent, f"ws://{address}/ws/echo?token={KEY}")
            await until(lambda: not gateway.status()["sessions"])
        await agent.shutdown.remote(1.0)
    finally:
        ray.kill(agent)


async def test_a_call_takes_a_place_and_gives_it_back(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    async with serving(tmp_path) as line:
        client = await line.call()
        assert (await ask(client, "hello")).text == "hello"
        assert await line.supervisors_used() == 1
        await client.close()
        await until(lambda: not line.gateway.status()["sessions"])
        async with asyncio.timeout(WAIT_SECS):
            while await line.supervisors_used():  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(0.01)


async def test_a_full_node_refuses_before_anything_is_accepted(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    async with serving(tmp_path, max_sessions=1) as line:
        client = await line.call()
        with pytest.raises(InvalidStatus) as error:
            await line.call()
        assert error.value.response.status_code == 503
        assert int(error.value.response.headers["Retry-After"]) >= 1
        assert (await ask(client, "still here")).text == "still here"
        await client.close()


@pytest.mark.chaos
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_call_goes_on_when_its_supervisor_does_not(
    cluster: LocalCluster, tmp_path: Path, fault: signal.Signals
) -> None:
    async with serving(tmp_path) as line:
        client = await line.call()
        first = await ask(client, "one")
        assert not first.resumed
        # A call that has hardly begun begins anew.
        await until(lambda: line.gateway.status()["sessions"][0]["secs"] >= 1.0)
        os.kill(first.pid, fault)
        await until(lambda: _is_out_of_action(first.pid))
        await client.send("two")
        # Nothing was committed: the new one is told everything.
        answers = [await heard(client) for _ in range(2)]
        assert [answer.text for answer in answers] == ["one", "two"]
        assert all(answer.pid != first.pid for answer in answers)
        (session,) = line.gateway.status()["sessions"]
        assert session["resumed"] == 1
        # A frozen one is killed.
        await until(lambda: _status(first.pid) in (None, psutil.STATUS_ZOMBIE))
        await client.close()


def _is_out_of_action(pid: int) -> bool:
    return _status(pid) in (None, psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED)


def _status(pid: int) -> str | None:
    """What a process does; None if it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return str(psutil.Process(pid).status())
    return None


# -- on a cluster of two nodes -------------------------------------------------------------------


@pytest.fixture
async def nothing_left(cluster: LocalCluster) -> AsyncIterator[None]:
    """What is deployed is taken off again, and leaves no actor."""
    yield
    registry = Registry()
    for app in await registry.apps():
        await undeploy(app.name, 0.0)
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    assert [name for name in names if name.startswith("antiphon-")] == []
    assert await registry.deployment() is None


WISHES = Wishes(port=0, api_key=KEY)


async def test_a_bot_is_deployed_on_every_node(cluster: LocalCluster, nothing_left: None) -> None:
    deployed = await deploy(echo(), WISHES)
    assert deployed.new_key is None
    nodes = {node.node_id for node in living_nodes()}
    assert {facts.node_id for facts in deployed.gateways} == nodes
    assert len(nodes) == 2
    for facts in deployed.gateways:
        async with connect(f"ws://{facts.host}:{facts.port}/ws?token={KEY}") as client:
            assert (await ask(client, "hello")).version == "one"
            found = {status["node_id"]: status for status in await statuses()}
            (call,) = found[facts.node_id]["sessions"]
            # Each gateway asks its own node first.
            assert f"node {facts.node_id[:8]}" in call["supervisor"]


async def test_a_full_node_has_others_run_the_bot(
    cluster: LocalCluster, nothing_left: None
) -> None:
    wishes = Wishes(port=0, api_key=KEY, max_sessions=1)
    here, there = (await deploy(echo(), wishes)).gateways
    url = f"ws://127.0.0.1:{here.port}/ws/echo?token={KEY}"
    async with connect(url) as first, connect(url) as second:
        pids = {(await ask(client, "hello")).pid for client in (first, second)}
        assert len(pids) == 2
        (status,) = [each for each in await statuses() if each["node_id"] == here.node_id]
        where = "".join(call["supervisor"] for call in status["sessions"])
        assert f"node {here.node_id[:8]}" in where
        assert f"node {there.node_id[:8]}" in where
        with pytest.raises(InvalidStatus) as error:
            await connect(url)
        assert error.value.response.status_code == 503


async def test_a_new_version_is_for_new_calls(cluster: LocalCluster, nothing_left: None) -> None:
    deployed = await deploy(echo("one"), WISHES)
    url = f"ws://127.0.0.1:{deployed.gateways[0].port}/ws/echo?token={KEY}"
    async with connect(url) as old:
        assert (await ask(old, "a")).version == "one"
        again = await deploy(echo("two"), Wishes())
        assert again.app.version != deployed.app.version
        assert again.gateways == deployed.gateways
        async with connect(url) as new:
            assert (await ask(new, "b")).version == "two"
        assert (await ask(old, "c")).version == "one"


@pytest.mark.chaos
async def test_a_gateway_that_is_restarted_finds_its_bots(
    cluster: LocalCluster, nothing_left: None
) -> None:
    deployed = await deploy(echo(), WISHES)
    facts = deployed.gateways[0]
    client = await connect(f"ws://127.0.0.1:{facts.port}/ws/echo?token={KEY}")
    bot = await ask(client, "hello")
    os.kill(facts.pid, signal.SIGKILL)
    # Its own calls are gone, and so are their bots' sessions.
    async with asyncio.timeout(WAIT_SECS):
        await client.wait_closed()
    port = await _restarted(facts.node_id, facts.pid)
    async with connect(f"ws://127.0.0.1:{port}/ws/echo?token={KEY}") as again:
        found = await ask(again, "hello again")
        assert not found.resumed
        # The supervisor has outlived the gateway, and serves others.
        assert found.pid == bot.pid


async def _restarted(node_id: str, old_pid: int) -> int:
    """The port of a gateway that Ray has restarted, once it listens."""
    async with asyncio.timeout(WAIT_SECS):
        while True:
            # A call that Ray has sent to the old process may never be answered.
            with contextlib.suppress(ray.exceptions.RayError, TimeoutError):
                async with asyncio.timeout(1.0):
                    status = await find_gateway(node_id).status.remote()
                if status["pid"] != old_pid:
                    return int(status["address"].rpartition(":")[2])
            await asyncio.sleep(0.05)


async def test_what_is_deployed_keeps_its_settings(
    cluster: LocalCluster, nothing_left: None
) -> None:
    await deploy(echo(), WISHES)
    for wishes, option in [
        (Wishes(api_key="another-key-of-mine"), "--api-key"),
        (Wishes(host="127.0.0.2"), "--host"),
        (Wishes(max_sessions=7), "--max-sessions"),
        (Wishes(models=ModelSettings(max_actors=3)), "--models"),
    ]:
        with pytest.raises(ConfigError, match=option):
            await deploy(echo(), wishes)
    with pytest.raises(ConfigError, match="nobody is not deployed here; deployed: echo"):
        await undeploy("nobody", 0.0)
    await deploy(echo(name="other"), Wishes())
    assert await undeploy("echo", 0.0) is False
    (first, *_) = await statuses()
    assert [app["name"] for app in first["apps"]] == ["other"]


async def test_a_deployment_says_how_models_run(cluster: LocalCluster, nothing_left: None) -> None:
    models = ModelSettings(
        rules=(ModelRule("SileroModel", "actor"),), preload=(SHARED_MODEL,), report_secs=0.1
    )
    await deploy(echo(), replace(WISHES, models=models))
    await deploy(echo(), Wishes(models=models))
    async with asyncio.timeout(WAIT_SECS):
        for node in living_nodes():
            while True:
                status = await find_agent(node.node_id).status.remote()
                if [(line["model"], line["ready"]) for line in status["models"]] == [
                    ("SileroModel", 1)
                ]:
                    break
                await asyncio.sleep(0.05)


async def test_a_deployment_that_fails_leaves_nothing(
    cluster: LocalCluster, nothing_left: None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen at 127.0.0.1:{port}"):
            await deploy(echo(), Wishes(port=port, api_key=KEY))
    assert await Registry().deployment() is None
    assert await Registry().apps() == []


async def test_a_gateway_that_is_drained_says_so_in_its_status(
    cluster: LocalCluster, nothing_left: None
) -> None:
    deployed = await deploy(echo(), WISHES)
    facts = deployed.gateways[0]
    assert await find_gateway(facts.node_id).drain.remote("a new node is coming") == 0
    with pytest.raises(InvalidStatus) as error:
        await connect(f"ws://127.0.0.1:{facts.port}/ws/echo?token={KEY}")
    assert b"a new node is coming" in (error.value.response.body or b"")


async def test_actors_of_a_deployment_are_named(cluster: LocalCluster, nothing_left: None) -> None:
    await deploy(echo(), WISHES)
    named = {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}
    for node in living_nodes():
        assert f"antiphon-gateway-{node.node_id}" in named
        assert f"antiphon-agent-{node.node_id}" in named
    assert NAMESPACE == "antiphon"
