"""A cluster of three nodes, of which one is lost and one is taken away; prints what was seen, as JSON.

A program of its own, as the nodes are gone then.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import ray

from antiphon_actors.agent_client import AgentClient, end_agent
from antiphon_actors.agent_types import ActorWanted, AgentSettings, NetworkSettings
from antiphon_actors.agents import create_agent
from antiphon_actors.cluster import ClusterSettings, LocalCluster
from antiphon_actors.pool_types import PoolSettings

POOLS = PoolSettings(reserve=0, supervisor_reserve=0)


async def until(question: Callable[[], Awaitable[Any]], secs: float = 30.0) -> tuple[Any, float]:
    """Asks until the answer is true; the answer, and how long that took."""
    began = time.monotonic()
    async with asyncio.timeout(secs):
        while not (answer := await question()):  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.02)
    return answer, time.monotonic() - began


def node_with(resource: str) -> str:
    """The id of the node that has it."""
    return next(str(n["NodeID"]) for n in ray.nodes() if resource in n["Resources"])


async def restarted_first_agent(first: Any, seen: dict[str, Any]) -> Any:
    """Kills the first agent, whose session has a place elsewhere; returns that place."""
    client = AgentClient(first)
    (place,) = await client.call(
        "acquire_all",
        "a/a",
        [ActorWanted("Far", resources={"lost": 0.1})],
        deadline_secs=30.0,
    )
    pid = (await first.status.remote())["pid"]
    os.kill(pid, signal.SIGKILL)

    async def back() -> bool:
        status = await client.call("status", deadline_secs=30.0)
        return bool(status["pid"] != pid and status["network"]["neighbours"])

    await until(back)
    verdict = await client.call("suspect", place.actor_id, "a test", deadline_secs=10.0)
    seen["after a restart"] = verdict.finding
    (other,) = await client.call(
        "acquire_all",
        "b/b",
        [ActorWanted("Far", resources={"lost": 0.1})],
        deadline_secs=30.0,
    )
    seen["leases differ"] = other.lease_id != place.lease_id
    await client.call("release", "b", deadline_secs=10.0)
    return place


async def lost_node(first: Any, place: Any, seen: dict[str, Any]) -> None:
    """Kills a node, and looks when its session's place is known to be lost."""
    client = AgentClient(first)
    cursor = (await client.call("deaths", -1, deadline_secs=10.0)).cursor
    raylet = int(psutil.Process(place.facts.pid).environ()["RAY_RAYLET_PID"])
    os.kill(raylet, signal.SIGKILL)

    async def death() -> Any:
        return (await client.call("deaths", cursor, 0.1, deadline_secs=10.0)).deaths

    deaths, took = await until(death)
    seen["lost"] = [deaths[0].actor_id == place.actor_id, list(deaths[0].sessions)]
    seen["lost after secs"] = took
    verdict = await client.call("suspect", place.actor_id, "a test", deadline_secs=10.0)
    seen["suspect on a lost node"] = verdict.finding


async def leaving_node(address: str, hub: Path, seen: dict[str, Any]) -> None:
    """Has Ray take a node away, and looks what its agent does."""
    node_id = node_with("leaving")
    agent = create_agent(
        AgentSettings(
            hub_dir=str(hub),
            host="antiphon_fake_actors:FakeHost",
            supervisor="antiphon_fake_actors:FakeSupervisor",
            pools=POOLS,
            warm_workers=0,
        ),
        node_id=node_id,
        detached=True,
    )
    lease = await agent.start_supervisor.remote("a")
    await lease.handle.run.remote("a")
    gcs: Any = importlib.import_module("ray._raylet")
    deadline_ms = int((time.time() + 11.0) * 1000)
    seen["accepted"] = gcs.GcsClient(address).drain_node(node_id, 2, "a test", deadline_ms)[0]

    async def done() -> Any:
        drains = await agent.drains.remote()
        return [each for each in drains if each.state == "done"]

    (progress,), _ = await until(done)
    seen["drained"] = [progress.reason, progress.began_with, progress.sessions]
    seen["moved or cut"] = progress.moved + progress.cut
    await end_agent(agent, 6.0)


async def main(address: str, directory: Path) -> None:
    seen: dict[str, Any] = {}
    here, there = directory / "here", directory / "there"
    here.mkdir(mode=0o700)
    there.mkdir(mode=0o700)
    network = NetworkSettings("test", scratch_dir=directory)
    first = create_agent(
        AgentSettings(hub_dir=str(here), pools=POOLS, warm_workers=0, network=network),
        detached=True,
    )
    place = await restarted_first_agent(first, seen)
    await lost_node(first, place, seen)
    await leaving_node(address, there, seen)
    await end_agent(first, 6.0)
    seen["left"] = ray.util.list_named_actors(all_namespaces=True)
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    settings = ClusterSettings(
        num_cpus=2,
        further_nodes=[{"lost": 1.0}, {"leaving": 1.0}],
        environment={"PYTHONPATH": str(Path(__file__).parent)},
    )
    with LocalCluster(settings) as cluster, TemporaryDirectory(prefix="nodes-") as name:
        asyncio.run(main(cluster.address, Path(name)))
