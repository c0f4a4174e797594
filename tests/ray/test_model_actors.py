"""Models in Ray actors, with a node agent and processes that use them."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from antiphon.models.client import ModelClient
from antiphon.models.model import ModelSpec
from antiphon.models.provider import connect_model, runs_in_process
from antiphon_actors.agent_client import AgentClient
from antiphon_actors.agent_types import AgentSettings
from antiphon_actors.agents import create_agent
from antiphon_actors.cluster import LocalCluster
from antiphon_actors.errors import NoActorError
from antiphon_actors.models.provider import use_actors_for_models
from antiphon_actors.models.settings import ModelRule, ModelSettings, Scaling
from antiphon_actors.pool_types import PoolSettings
from antiphon_actors.session.endpoint import Endpoint

pytestmark = [pytest.mark.ray, pytest.mark.timeout(90)]

WAIT_SECS = 30.0

FAKES = importlib.import_module("antiphon_fake_models")
SHOUT = ModelSpec(FAKES.Shout, {"mark": "!"})


class Process:
    """A process that uses models: this one, with a hub of its own and an agent."""

    def __init__(self, agent: Any, clients: list[ModelClient]) -> None:
        self.agent = agent
        self._clients = clients

    async def connect(self, spec: ModelSpec) -> ModelClient:
        client = await connect_model(spec)
        self._clients.append(client)
        return client

    async def until(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Waits until the agent's status is as wanted."""
        async with asyncio.timeout(WAIT_SECS):
            while not condition(status := await self.agent.status.remote()):  # noqa: ASYNC110 - remote
                await asyncio.sleep(0.02)
        return dict(status)


@asynccontextmanager
async def process(directory: Path, settings: ModelSettings) -> AsyncIterator[Process]:
    hub = directory / "hub"
    hub.mkdir(mode=0o700)
    agent = create_agent(
        AgentSettings(
            hub_dir=str(hub),
            host="antiphon_fake_actors:FakeHost",
            pools=PoolSettings(reserve=0, supervisor_reserve=0),
            warm_workers=0,
            models=settings,
        )
    )
    endpoint = Endpoint("user")
    clients: list[ModelClient] = []
    try:
        await agent.start.remote()
        await endpoint.start(f"unix://{directory}/user/user.sock")
        with use_actors_for_models(endpoint, AgentClient(agent), settings):
            try:
                yield Process(agent, clients)
            finally:
                for client in clients:
                    await client.aclose()
    finally:
        await endpoint.aclose()
        await agent.shutdown.remote()
        ray.kill(agent)
    assert not list(hub.iterdir())


async def ask(client: Any, payload: Any) -> Any:
    return await client.request(payload, deadline_secs=WAIT_SECS)


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid):  # noqa: ASYNC110 - a process
            await asyncio.sleep(0.01)


def ready(status: dict[str, Any]) -> int:
    return sum(line["ready"] for line in status["models"])


async def test_a_model_runs_in_an_actor_and_ends_when_nobody_uses_it(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    settings = ModelSettings(idle_secs=0.3, report_secs=0.05)
    async with process(tmp_path, settings) as here:
        assert not runs_in_process(SHOUT)
        client = await here.connect(SHOUT)
        assert await ask(client, "good evening") == "GOOD EVENING!"
        pid, thread, _ = await ask(client, "who")
        assert pid != os.getpid()
        assert thread.startswith("model Shout")
        other = await here.connect(SHOUT)
        assert (await ask(other, "who"))[0] == pid
        status = await here.until(lambda status: status["models"][0]["users"] == 1)
        assert status["models"][0]["model"] == "Shout"
        await client.aclose()
        await other.aclose()
        await gone(pid)
        status = await here.until(lambda status: not status["models"])
        assert status["model_processes"] == []
        # And once more.
        assert await ask(await here.connect(SHOUT), "again") == "AGAIN!"


async def test_all_sessions_go_on_when_their_actor_is_killed(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    async with process(tmp_path, ModelSettings()) as here:
        client = await here.connect(ModelSpec(FAKES.Adder))
        sessions = [client.open_session() for _ in range(8)]
        killed = asyncio.Event()

        async def talk(session: Any) -> list[Any]:
            answers = []
            for number in range(1, 101):
                answers.append(await ask(session, number))
                if number == 50:
                    killed.set()
            return answers

        talking = [asyncio.ensure_future(talk(session)) for session in sessions]
        await killed.wait()
        (actor,) = (await here.agent.status.remote())["model_processes"]
        os.kill(actor["pid"], 9)
        undisturbed = [number * (number + 1) // 2 for number in range(1, 101)]
        assert await asyncio.gather(*talking) == [undisturbed] * 8
        assert client.statistics()["actors_lost"] == 1
        (successor,) = (await here.agent.status.remote())["model_processes"]
        assert successor["actor_id"] != actor["actor_id"]


async def test_the_other_actor_takes_over_at_once(cluster: LocalCluster, tmp_path: Path) -> None:
    settings = ModelSettings(rules=(ModelRule("Shout", scaling=Scaling(least=2, most=2)),))
    async with process(tmp_path, settings) as here:
        client = await here.connect(SHOUT)
        await here.until(lambda status: ready(status) == 2)
        async with asyncio.timeout(WAIT_SECS):
            while client.statistics()["actors"] < 2:  # noqa: ASYNC110 - told over its link
                await asyncio.sleep(0.01)
        pid = (await ask(client, "who"))[0]
        os.kill(pid, 9)
        assert (await ask(client, "who"))[0] != pid
        await here.until(lambda status: ready(status) == 2)  # and there is a new second one


async def test_a_request_that_kills_is_given_up_and_the_model_goes_on(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    async with process(tmp_path, ModelSettings(backoff_first_secs=0.01)) as here:
        client = await here.connect(SHOUT)
        with pytest.raises(Exception, match="3 actors were lost that had the request"):
            await ask(client, "die")
        assert await ask(client, "on") == "ON!"


async def test_fractions_of_a_gpu_are_reserved_and_what_is_not_there_is_refused(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    rules = (ModelRule("Shout", resources={"num_gpus": 0.5}),)
    async with process(tmp_path, ModelSettings(rules=rules, load_secs=20)) as here:
        first = await here.connect(SHOUT)
        second = await here.connect(ModelSpec(FAKES.Shout, {"mark": "?"}))
        (one, _, card), (two, _, same) = await ask(first, "who"), await ask(second, "who")
        assert one != two
        assert card == same == "0"
        third = asyncio.ensure_future(connect_model(ModelSpec(FAKES.Shout, {"mark": "."})))
        await here.until(lambda status: sum(each["starting"] for each in status["models"]) == 1)
        await first.aclose()
        third.cancel()
        await asyncio.gather(third, return_exceptions=True)


async def test_a_model_that_cannot_be_loaded_says_why(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    settings = ModelSettings(backoff_first_secs=0.01, failures_to_open=2)
    async with process(tmp_path, settings) as here:
        with pytest.raises(NoActorError, match=r"do not start .*shout\.bin is missing: fetch it"):
            await here.connect(ModelSpec(FAKES.Shout, {"mark": "broken"}))


async def test_a_model_is_there_before_anybody_asks(cluster: LocalCluster, tmp_path: Path) -> None:
    settings = ModelSettings(preload=(SHOUT,), idle_secs=0.1, report_secs=0.05)
    async with process(tmp_path, settings) as here:
        status = await here.until(lambda status: ready(status) == 1)
        client = await here.connect(SHOUT)
        (actor,) = status["model_processes"]
        assert (await ask(client, "who"))[0] == actor["pid"]


async def test_more_actors_come_when_requests_wait_and_go_when_they_do_not(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    scaling = Scaling(most=2, queue_secs=0.02, up_secs=0.1, down_secs=0.3)
    settings = ModelSettings(rules=(ModelRule("Shout", scaling=scaling),), report_secs=0.05)
    async with process(tmp_path, settings) as here:
        client = await here.connect(SHOUT)
        busy = True

        async def work() -> None:
            while busy:
                await ask(client, "work 0.02")

        working = [asyncio.ensure_future(work()) for _ in range(24)]
        await here.until(lambda status: ready(status) == 2)
        async with asyncio.timeout(WAIT_SECS):
            while client.statistics()["actors"] < 2:  # noqa: ASYNC110 - told over its link
                await asyncio.sleep(0.01)
        busy = False
        await asyncio.gather(*working)
        await here.until(lambda status: ready(status) == 1 and not status["models"][0]["leaving"])
        assert await ask(client, "still here") == "STILL HERE!"
        assert client.statistics()["actors_lost"] == 0


async def test_an_actor_that_is_stuck_is_replaced(cluster: LocalCluster, tmp_path: Path) -> None:
    settings = ModelSettings(stuck_secs=0.5, report_secs=0.1)
    async with process(tmp_path, settings) as here:
        client = await here.connect(SHOUT)
        pid = (await ask(client, "who"))[0]
        stuck = asyncio.ensure_future(client.request("work 60", deadline_secs=2.0))
        await gone(pid)
        assert await ask(client, "on") == "ON!"
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)


async def test_a_node_that_is_drained_gives_up_its_models(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    async with process(tmp_path, ModelSettings(report_secs=0.05)) as here:
        client = await here.connect(SHOUT)
        pid, _, _ = await ask(client, "who")
        number = await here.agent.drain.remote("node", "", 0.0, "test")
        await gone(pid)
        with pytest.raises(NoActorError, match="the node is being drained"):
            await ask(client, "anybody")
        await here.agent.cancel_drain.remote(number)
        assert await ask(await here.connect(ModelSpec(FAKES.Shout, {"mark": "?"})), "now") == "NOW?"


async def test_a_node_preloads_what_it_could_have(cluster: LocalCluster, tmp_path: Path) -> None:
    settings = ModelSettings(
        rules=(ModelRule("Adder", resources={"num_gpus": 1000}),),
        preload=(ModelSpec(FAKES.Adder), SHOUT),
    )
    async with process(tmp_path, settings) as here:
        status = await here.until(lambda status: ready(status) == 1)
        assert [line["model"] for line in status["models"]] == ["Shout"]
