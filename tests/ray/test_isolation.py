"""Actors that are stuck, frozen, told to end, worn out or drained, on a cluster."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from antiphon_actors.agent_client import end_agent
from antiphon_actors.agent_types import ActorPlace, ActorWanted, AgentSettings
from antiphon_actors.agents import create_agent
from antiphon_actors.cluster import LocalCluster
from antiphon_actors.errors import NoActorError
from antiphon_actors.pool_types import PoolSettings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(90)]

POOLS = PoolSettings(
    reserve=1,
    supervisor_reserve=0,
    supervisor_slots=4,
    slots_per_actor=8,
    idle_secs=60.0,
    begin_secs=0.0,
)


class Agent:
    """An agent with one supervisor, and sessions in it."""

    def __init__(self, hub: Path, pools: PoolSettings = POOLS) -> None:
        self.handle = create_agent(
            AgentSettings(
                hub_dir=str(hub),
                host="antiphon_fake_actors:FakeHost",
                supervisor="antiphon_fake_actors:FakeSupervisor",
                pools=pools,
                warm_workers=1,
            )
        )
        self.supervisor: Any = None

    async def session(self, name: str, kind: str = "Echo") -> ActorPlace:
        """Begins a session with one processor."""
        lease = await self.handle.start_supervisor.remote(name, "bot@1")
        self.supervisor = lease.handle
        await lease.handle.run.remote(name)
        (place,) = await self.handle.acquire_all.remote(f"{name}/{name}", [ActorWanted(kind)])
        found: ActorPlace = place
        return found

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while not condition(status := await self.handle.status.remote()):  # noqa: ASYNC110 - remote
                await asyncio.sleep(0.02)
        return dict(status)

    async def used(self, pid: int) -> int:
        status = await self.handle.status.remote()
        return sum(each["used"] for each in status["processes"] if each["pid"] == pid)


@pytest.fixture
async def agent(cluster: LocalCluster, tmp_path: Path) -> AsyncIterator[Agent]:
    made = Agent(tmp_path)
    await made.handle.start.remote()
    yield made
    await end_agent(made.handle, 6.0)


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid):  # noqa: ASYNC110 - a process
            await asyncio.sleep(0.01)


async def test_a_blocked_event_loop_costs_an_actor_its_sessions_and_its_life(agent: Agent) -> None:
    place = await agent.session("a")
    stays = await agent.session("stay")
    assert stays.facts.pid == place.facts.pid
    blocking = asyncio.ensure_future(agent.handle.attach.remote([(place.lease_id, "block")]))
    await gone(place.facts.pid)
    (error,) = await blocking
    assert "is gone" in str(error)
    assert await agent.supervisor.evacuations.remote() == [place.facts.uri]
    # One was moved in time, the other found that the actor died.
    (death,) = (await agent.handle.deaths.remote()).deaths
    assert (death.actor_id, death.sessions) == (place.actor_id, ("stay/stay",))
    assert death.reason.startswith("stuck: its event loop is stuck")
    assert "antiphon_fake_actors.py" in death.reason


async def test_a_suspect_that_is_stopped_is_killed_for_certain(agent: Agent) -> None:
    place = await agent.session("a")
    verdict = await agent.handle.suspect.remote(place.actor_id, "it is silent")
    assert verdict.finding == "alive"
    os.kill(place.facts.pid, signal.SIGSTOP)
    verdict = await agent.handle.suspect.remote(place.actor_id, "it is silent")
    assert verdict.finding == "frozen"
    await gone(place.facts.pid)
    (death,) = (await agent.handle.deaths.remote()).deaths
    assert death.reason == "its process is stopped"
    verdict = await agent.handle.suspect.remote(place.actor_id, "it is silent")
    assert verdict.finding == "dead"


async def test_a_stopped_actor_is_found_even_if_nobody_complains(agent: Agent) -> None:
    place = await agent.session("a")
    os.kill(place.facts.pid, signal.SIGSTOP)
    await gone(place.facts.pid)
    (death,) = (await agent.handle.deaths.remote()).deaths
    assert death.actor_id == place.actor_id


async def test_an_actor_that_is_told_to_end_loses_its_sessions_first(agent: Agent) -> None:
    place = await agent.session("a")
    stays = await agent.session("stay")
    os.kill(place.facts.pid, signal.SIGTERM)
    status = await agent.until(lambda s: s["retiring"] == 1)
    (leaving,) = [each for each in status["processes"] if each["pid"] == place.facts.pid]
    assert (leaving["condition"], leaving["trouble"]) == ("isolated", "it was told to end")
    fresh = await agent.session("b")
    assert fresh.facts.pid != place.facts.pid
    await agent.until(lambda s: any(p["used"] == 1 for p in s["processes"]))
    assert psutil.pid_exists(stays.facts.pid)
    await agent.handle.release.remote("stay")
    await gone(stays.facts.pid)
    assert not (await agent.handle.deaths.remote(0, 0.01)).deaths


async def test_an_actor_is_replaced_after_so_many_sessions(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    pools = replace(POOLS, max_sessions_per_actor=5, recycle_patience_secs=0.2)
    agent = Agent(tmp_path, pools)
    first = await agent.session("stay")
    pids = {first.facts.pid}
    for number in range(20):
        place = await agent.session(f"s{number}")
        pids.add(place.facts.pid)
        await agent.handle.release.remote(f"s{number}/s{number}")
        if len(pids) > 1:
            break
        await asyncio.sleep(0.1)
    assert len(pids) == 2
    # The session that cannot be moved keeps the old one, and loses nothing.
    assert psutil.pid_exists(first.facts.pid)
    assert await agent.used(first.facts.pid) == 1
    await agent.handle.release.remote("stay/stay")
    await gone(first.facts.pid)
    assert not (await agent.handle.deaths.remote(0, 0.01)).deaths
    await end_agent(agent.handle, 6.0)


async def test_a_pool_is_drained(agent: Agent) -> None:
    place = await agent.session("a")
    other = await agent.session("a2", kind="Other")
    number = await agent.handle.drain.remote("pool", "Echo", 0.4, "a test")
    fresh = await agent.session("b")
    assert fresh.facts.pid != place.facts.pid
    await gone(place.facts.pid)
    (progress,) = await agent.handle.drains.remote()
    assert (progress.number, progress.state, progress.moved) == (number, "done", 1)
    assert psutil.pid_exists(other.facts.pid)
    assert psutil.pid_exists(fresh.facts.pid)


async def test_an_app_is_drained_and_let_in_again(agent: Agent) -> None:
    await agent.session("stay")
    status = await agent.handle.status.remote()
    (pid,) = [p["pid"] for p in status["processes"] if p["uri"] == "unix:///nowhere"]
    number = await agent.handle.drain.remote("app", "bot", 0.4, "a test")
    with pytest.raises(NoActorError, match="the app bot is being drained: a test") as caught:
        await agent.handle.start_supervisor.remote("b", "bot@1")
    assert caught.value.overloaded
    # It could not be handed over: it is ended at the deadline.
    await gone(pid)
    (progress,) = await agent.handle.drains.remote()
    assert progress.cut == 1
    await agent.handle.cancel_drain.remote(number)
    assert await agent.handle.start_supervisor.remote("b", "bot@1")


async def test_a_node_is_drained(agent: Agent) -> None:
    await agent.session("a")
    status = await agent.until(lambda s: s["reserve"] == 1)
    await agent.handle.drain.remote("node", "", 0.4, "a test")
    with pytest.raises(NoActorError, match="is being drained: a test"):
        await agent.handle.start_supervisor.remote("b")
    await agent.until(lambda s: s["actors"] == 0)
    for process in status["processes"]:
        await gone(process["pid"])
    (progress,) = (await agent.handle.status.remote())["drains"]
    assert progress["state"] == "done"
    assert progress["actors"] == 0
    with pytest.raises(ray.exceptions.RayTaskError, match="there is no drain 99"):
        await agent.handle.cancel_drain.remote(99)
