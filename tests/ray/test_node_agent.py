from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from antiphon.errors import PlacementError
from antiphon_actors.agent_types import ActorWanted, AgentSettings
from antiphon_actors.agents import create_agent, find_agent
from antiphon_actors.cluster import LocalCluster
from antiphon_actors.errors import ActorGoneError, NoActorError
from antiphon_actors.pool_types import PoolSettings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(90)]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def agent(cluster: LocalCluster, hub: Path) -> Iterator[Any]:
    settings = AgentSettings(
        hub_dir=str(hub),
        host="antiphon_fake_actors:FakeHost",
        supervisor="antiphon_fake_actors:FakeSupervisor",
        supervisor_arguments={"greeting": "good evening"},
        pools=PoolSettings(
            reserve=1,
            supervisor_reserve=0,
            supervisor_slots=1,
            slots_per_actor=2,
            idle_secs=0.5,
            # Here nobody is killed for being slow: see test_isolation.py.
            max_lag_ms=60_000.0,
        ),
        warm_workers=1,
    )
    handle = create_agent(settings)
    ray.get(handle.start.remote())
    yield handle
    ray.get(handle.shutdown.remote(), timeout=10)
    ray.kill(handle)


async def until(condition: Callable[[dict[str, Any]], bool], agent: Any) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while not condition(status := await agent.status.remote()):  # noqa: ASYNC110 - remote
            await asyncio.sleep(0.02)
    return dict(status)


def sockets(hub: Path) -> list[Path]:
    return list(hub.glob("*.sock"))


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid):  # noqa: ASYNC110 - a process
            await asyncio.sleep(0.01)


async def test_serves_sessions_from_its_reserve(agent: Any, hub: Path) -> None:
    await until(lambda status: status["reserve"] == 1, agent)
    pooled = await agent.acquire.remote("a", "Echo")
    again = await agent.acquire.remote("b", "Echo")
    assert pooled.actor_id == again.actor_id
    assert pooled.lease_id != again.lease_id
    assert pooled.facts.prefix == 7
    assert Path(pooled.facts.uri.removeprefix("unix://")).parent == hub
    assert await pooled.handle.attach.remote("spec") == 1
    alone = await agent.acquire.remote("a", "Echo", "dedicated")
    assert alone.facts.pid != pooled.facts.pid
    status = await agent.status.remote()
    assert status["kinds"]["processor:Echo"] == {
        "actors": 2,
        "dedicated": 1,
        "used": 3,
        "slots": 3,
    }
    assert status["prestart_refused"] == ""

    await agent.release.remote("a")
    await gone(alone.facts.pid)
    assert psutil.pid_exists(pooled.facts.pid)
    await agent.release.remote("b")
    await gone(pooled.facts.pid)
    await until(lambda status: status["reserve"] == 1 == status["actors"], agent)
    assert len(sockets(hub)) == 1


async def test_gives_all_places_of_a_session_at_once_and_passes_its_specs_on(agent: Any) -> None:
    wanted = [ActorWanted("Echo"), ActorWanted("Other"), ActorWanted("Echo", "dedicated")]
    places = await agent.acquire_all.remote("a", wanted)
    assert len({place.facts.pid for place in places}) == 3
    errors = await agent.attach.remote([(place.lease_id, "spec") for place in places])
    assert errors == [None, None, None]
    await agent.release.remote("a")
    (error,) = await agent.attach.remote([(places[2].lease_id, "spec")])
    assert isinstance(error, ActorGoneError)


async def test_tells_what_went_wrong_in_an_actor(agent: Any) -> None:
    (place,) = await agent.acquire_all.remote("a", [ActorWanted("Echo")])
    first, second, third = await agent.attach.remote(
        [(place.lease_id, spec) for spec in ("refuse", "spec", "break")]
    )
    assert isinstance(first, PlacementError)
    assert str(first) == "not here"
    assert second is None
    # An exception of the bot's own, which no other process could make.
    assert isinstance(third, PlacementError)
    assert str(third).startswith("the actor failed:")
    assert "Unportable: twice two" in str(third)
    await agent.release.remote("a")


async def test_refuses_a_session_that_has_no_room_as_a_whole(
    cluster: LocalCluster, hub: Path
) -> None:
    agent = create_agent(
        AgentSettings(
            hub_dir=str(hub),
            host="antiphon_fake_actors:FakeHost",
            pools=PoolSettings(reserve=0, supervisor_reserve=0, max_actors=1),
            warm_workers=0,
        )
    )
    with pytest.raises(NoActorError, match="processor Other") as caught:
        await agent.acquire_all.remote("a", [ActorWanted("Echo"), ActorWanted("Other")])
    assert caught.value.overloaded
    assert (await agent.status.remote())["actors"] == 0
    await agent.shutdown.remote()
    ray.kill(agent)


async def test_reports_deaths_with_their_sessions(agent: Any) -> None:
    lease = await agent.acquire.remote("a", "Echo")
    cursor = (await agent.deaths.remote(-1)).cursor
    news = asyncio.ensure_future(agent.deaths.remote(cursor))
    await asyncio.sleep(0)
    os.kill(lease.facts.pid, 9)
    answer = await asyncio.wait_for(news, 5)
    (death,) = answer.deaths
    assert death.actor_id == lease.actor_id
    assert (death.role, death.kind, death.sessions) == ("processor", "Echo", ("a",))
    assert death.reason
    assert not answer.missed
    assert (await agent.deaths.remote(answer.cursor, 0.01)).deaths == ()
    replacement = await agent.acquire.remote("a", "Echo", avoid=[lease.actor_id])
    assert replacement.facts.pid != lease.facts.pid
    await agent.release.remote("a")


async def test_supervisors_and_processors_outlive_each_other(agent: Any) -> None:
    supervisor = await agent.start_supervisor.remote("a")
    assert await supervisor.handle.greeting.remote() == "good evening"
    processor = await supervisor.handle.borrow.remote("a")
    cursor = (await agent.deaths.remote(-1)).cursor
    os.kill(supervisor.facts.pid, 9)
    (death,) = (await agent.deaths.remote(cursor)).deaths
    assert death.role == "supervisor"
    assert psutil.pid_exists(processor)
    successor = await agent.start_supervisor.remote("a")
    assert successor.facts.pid != supervisor.facts.pid
    assert psutil.pid_exists(processor)
    await agent.release.remote("a")


async def test_health_is_answered_while_the_main_loop_is_stuck(agent: Any) -> None:
    lease = await agent.acquire.remote("a", "Echo", "dedicated")
    assert not (await lease.handle.ctl_health.remote()).stuck
    blocked = asyncio.ensure_future(lease.handle.attach.remote("block"))
    await asyncio.sleep(0.1)
    started = time.monotonic()
    health = await lease.handle.ctl_health.remote()
    assert health.stuck
    assert time.monotonic() - started < 1.5
    await agent.release.remote("a")
    with pytest.raises(ray.exceptions.RayActorError):
        await blocked


async def test_says_why_actors_do_not_start(cluster: LocalCluster, hub: Path) -> None:
    agent = create_agent(
        AgentSettings(
            hub_dir=str(hub),
            host="antiphon_fake_actors:BrokenHost",
            pools=PoolSettings(
                reserve=0, supervisor_reserve=0, backoff_first_secs=0.01, failures_to_open=2
            ),
            warm_workers=0,
        )
    )
    with pytest.raises(NoActorError, match="no sockets today") as caught:
        await agent.acquire.remote("a", "Echo")
    assert not caught.value.overloaded
    (breaker,) = (await agent.status.remote())["breakers"]
    assert (breaker["role"], breaker["failures"]) == ("processor", 2)
    assert "no sockets today" in breaker["reason"]
    await agent.shutdown.remote()
    with pytest.raises(NoActorError, match="shutting down"):
        await agent.acquire.remote("a", "Echo")
    ray.kill(agent)


async def test_shutdown_leaves_no_actor(cluster: LocalCluster, hub: Path) -> None:
    agent = create_agent(
        AgentSettings(
            hub_dir=str(hub),
            host="antiphon_fake_actors:FakeHost",
            pools=PoolSettings(reserve=1, supervisor_reserve=0),
            warm_workers=0,
        )
    )
    lease = await agent.acquire.remote("a", "Echo")
    await agent.shutdown.remote()
    await gone(lease.facts.pid)
    assert (await agent.status.remote())["processes"] == []
    ray.kill(agent)


async def test_a_detached_agent_is_found_by_its_node(cluster: LocalCluster, hub: Path) -> None:
    settings = AgentSettings(
        hub_dir=str(hub),
        host="antiphon_fake_actors:FakeHost",
        pools=PoolSettings(reserve=0, supervisor_reserve=0),
        warm_workers=0,
    )
    agent = create_agent(settings, detached=True)
    facts = await agent.start.remote()
    try:
        assert (await find_agent(facts.node_id).start.remote()).pid == facts.pid
        assert (await create_agent(settings, detached=True).start.remote()).pid == facts.pid
    finally:
        ray.kill(agent)
