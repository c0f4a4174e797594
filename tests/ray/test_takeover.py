"""A detached agent dies, and its actors go on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from antiphon_actors.agent_client import AgentClient, end_agent
from antiphon_actors.agent_store import FILE_NAME
from antiphon_actors.agent_types import NAMESPACE, ActorWanted, AgentSettings
from antiphon_actors.agents import create_agent
from antiphon_actors.cluster import LocalCluster
from antiphon_actors.pool_types import PoolSettings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(90)]

POOLS = PoolSettings(
    reserve=1, supervisor_reserve=0, supervisor_slots=2, slots_per_actor=2, idle_secs=60.0
)


class Detached:
    """A detached agent, and what it is asked."""

    def __init__(self, hub: Path, **options: Any) -> None:
        settings = AgentSettings(
            hub_dir=str(hub),
            host="antiphon_fake_actors:FakeHost",
            supervisor="antiphon_fake_actors:FakeSupervisor",
            pools=POOLS,
            warm_workers=1,
            unused_secs=1.0,
            **options,
        )
        self.hub = hub
        self.handle = create_agent(settings, detached=True)
        self.client = AgentClient(self.handle)
        self.pids: set[int] = set()

    async def call(self, method: str, *arguments: Any) -> Any:
        return await self.client.call(method, *arguments, deadline_secs=30.0)

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while True:
                status = dict(await self.call("status"))
                self.pids |= {each["pid"] for each in status["processes"]}
                if condition(status):
                    return status
                await asyncio.sleep(0.02)

    async def settled(self) -> dict[str, Any]:
        """Waits until the reserve is filled, so that nothing is being started."""
        return await self.until(lambda s: s["reserve"] == 1 and s["starting"] == 0)

    async def killed(self) -> dict[str, Any]:
        """Kills the agent and waits for the next one."""
        before = (await self.settled())["pid"]
        os.kill(before, signal.SIGKILL)
        return await self.until(lambda s: s["pid"] != before)


@pytest.fixture
async def agent(cluster: LocalCluster, tmp_path: Path) -> AsyncIterator[Detached]:
    made = Detached(tmp_path)
    await made.call("start")
    yield made
    await end_agent(made.handle, 6.0)
    await gone(*made.pids)
    assert names() == []


async def gone(*pids: int) -> None:
    async with asyncio.timeout(10):
        while any(psutil.pid_exists(pid) for pid in pids):  # noqa: ASYNC110 - processes
            await asyncio.sleep(0.01)


def names() -> list[str]:
    return [
        entry["name"]
        for entry in ray.util.list_named_actors(all_namespaces=True)
        if entry["namespace"] == NAMESPACE
    ]


async def test_actors_and_their_sessions_outlive_the_agent(agent: Detached) -> None:
    supervisor = await agent.call("start_supervisor", "a")
    await supervisor.handle.run.remote("a")
    places = await agent.call("acquire_all", "a/a", [ActorWanted("Echo"), ActorWanted("Other")])
    before = await agent.settled()
    after = await agent.killed()
    assert after["adoption"]["adopted"] == 4
    assert after["adoption"]["lost"] == after["adoption"]["ended"] == 0
    assert after["kinds"] == before["kinds"]
    old = {each["pid"]: each["used"] for each in before["processes"]}
    assert {each["pid"]: each["used"] for each in after["processes"]} == old
    # The leases are those of before, and new ones are others.
    assert await agent.call("attach", [(places[0].lease_id, "spec")]) == [None]
    (again,) = await agent.call("acquire_all", "b/b", [ActorWanted("Echo")])
    assert again.facts.pid == places[0].facts.pid
    assert again.lease_id not in {place.lease_id for place in places}
    # Deaths are noticed, those of before as of new ones.
    deaths = await agent.call("deaths", -1)
    os.kill(places[1].facts.pid, signal.SIGKILL)
    (death,) = (await agent.call("deaths", deaths.cursor)).deaths
    assert (death.actor_id, death.sessions) == (places[1].actor_id, ("a/a",))
    for session in "ab":
        await agent.call("release", session)
    status = await agent.until(lambda s: all(not kind["used"] for kind in s["kinds"].values()))
    assert status["state_not_written"] == ""


async def test_who_asks_while_it_is_away_waits_but_a_moment(agent: Detached) -> None:
    supervisor = await agent.call("start_supervisor", "a")
    await supervisor.handle.run.remote("a")
    await agent.settled()
    asking = asyncio.ensure_future(supervisor.handle.borrow_often.remote("a/a", 3.0))
    for _ in range(3):
        await agent.killed()
    count, _ = await asking
    assert count > 3
    (entry,) = [kind for name, kind in (await agent.settled())["kinds"].items() if "Echo" in name]
    # A place of each call that was repeated may be left; they are the session's, and end with it.
    assert entry["actors"] <= 4


async def test_who_missed_deaths_is_told_so(agent: Detached) -> None:
    (place,) = await agent.call("acquire_all", "a/a", [ActorWanted("Echo")])
    cursor = (await agent.call("deaths", -1)).cursor
    await agent.killed()
    answer = await agent.call("deaths", cursor)
    assert answer.missed
    assert answer.cursor > cursor
    # An actor that dies with its agent is reported by the next one.
    status = await agent.settled()
    os.kill(status["pid"], signal.SIGSTOP)
    os.kill(place.facts.pid, signal.SIGKILL)
    await gone(place.facts.pid)
    os.kill(status["pid"], signal.SIGKILL)
    (death,) = (await agent.call("deaths", answer.cursor)).deaths
    assert (death.actor_id, death.sessions) == (place.actor_id, ("a/a",))
    assert "while the node agent was away" in death.reason


async def test_without_its_file_it_keeps_what_serves_somebody(agent: Detached) -> None:
    supervisor = await agent.call("start_supervisor", "a")
    await supervisor.handle.run.remote("a")
    (place,) = await agent.call("acquire_all", "a/a", [ActorWanted("Echo")])
    await agent.call("attach", [(place.lease_id, "session a")])
    status = await agent.settled()
    os.kill(status["pid"], signal.SIGSTOP)
    (agent.hub / FILE_NAME).unlink()
    os.kill(status["pid"], signal.SIGKILL)
    status = await agent.until(lambda s: s["pid"] != status["pid"])
    assert status["adoption"]["adopted"] == 2
    # The spare one.
    assert status["adoption"]["ended"] == 1
    kept = {each["pid"]: each["used"] for each in status["processes"] if each["used"]}
    assert kept == {supervisor.facts.pid: 1, place.facts.pid: 1}
    # Nobody else gets a place in them, and they end with their session.
    other = await agent.call("start_supervisor", "b")
    assert other.facts.pid != supervisor.facts.pid
    await agent.call("release", "a")
    await gone(supervisor.facts.pid, place.facts.pid)


async def test_what_nobody_uses_is_freed(agent: Detached) -> None:
    """Its session has ended while the agent was away."""
    supervisor = await agent.call("start_supervisor", "a")
    await agent.call("acquire_all", "a/a", [ActorWanted("Echo")])
    other = await agent.call("start_supervisor", "b")
    await other.handle.run.remote("b")
    await agent.killed()
    assert other.facts.pid == supervisor.facts.pid
    status = await agent.until(lambda s: s["adoption"]["freed"] == 2)
    assert status["kinds"]["supervisor:supervisor"]["used"] == 1
    assert status["kinds"]["processor:Echo"]["used"] == 0


async def test_actors_end_if_nobody_comes_back(cluster: LocalCluster, tmp_path: Path) -> None:
    agent = Detached(tmp_path, orphaned_secs=0.5)
    await agent.call("start_supervisor", "a")
    await agent.settled()
    # For good, and without a word to its actors.
    ray.kill(agent.handle)
    assert len(agent.pids) == 2
    await gone(*agent.pids)
    async with asyncio.timeout(10):
        while names():  # noqa: ASYNC110 - Ray's list
            await asyncio.sleep(0.01)
