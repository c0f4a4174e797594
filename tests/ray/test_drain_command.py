"""`antiphon drain`, on agents of a cluster."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayError
from typer.testing import CliRunner

from antiphon.errors import ConfigError
from antiphon_actors import drain_command
from antiphon_actors.agent_client import end_agent
from antiphon_actors.agent_types import AgentSettings
from antiphon_actors.agents import create_agent
from antiphon_actors.cluster import LocalCluster
from antiphon_actors.commands import app
from antiphon_actors.drain_command import DrainOptions, describe, drain_on_cluster, run_drain
from antiphon_actors.drains import DrainProgress, DrainState, DrainTarget
from antiphon_actors.errors import ClusterError, NoActorError
from antiphon_actors.pool_types import PoolSettings

QUICK = DrainOptions("node", deadline_secs=0.4, reason="a test")


@pytest.fixture
async def agent(cluster: LocalCluster, tmp_path: Path) -> AsyncIterator[Any]:
    settings = AgentSettings(
        hub_dir=str(tmp_path),
        host="antiphon_fake_actors:FakeHost",
        supervisor="antiphon_fake_actors:FakeSupervisor",
        pools=PoolSettings(reserve=0, supervisor_reserve=0),
        warm_workers=0,
    )
    made = create_agent(settings, detached=True)
    await made.start.remote()
    yield made
    await end_agent(made, 6.0)


def here() -> str:
    return str(ray.get_runtime_context().get_node_id())


@pytest.mark.ray
async def test_a_node_is_drained_and_its_progress_shown(agent: Any) -> None:
    lease = await agent.start_supervisor.remote("stay", "bot@1")
    await lease.handle.run.remote("stay")
    said: list[str] = []
    await run_drain(QUICK, said.append)
    assert said[0] == f"node {here()[:8]}: waiting, 1 of 1 sessions left in 1 actor, 0 s left"
    assert re.search(r"done, 0 of 1 sessions left in 0 actors, 1 ended at the deadline$", said[-1])
    with pytest.raises(NoActorError, match="a test"):
        await agent.start_supervisor.remote("b")
    await run_drain(replace(QUICK, name=here()[:10], cancel=True), said.append)
    assert await agent.start_supervisor.remote("b")
    with pytest.raises(ConfigError, match="was not, drained"):
        await run_drain(replace(QUICK, cancel=True), said.append)


@pytest.mark.ray
async def test_who_does_not_wait_leaves_it_going(agent: Any) -> None:
    await agent.start_supervisor.remote("a", "bot@1")
    await run_drain(DrainOptions("app", "bot", 60.0, wait=False), print)
    (progress,) = await agent.drains.remote()
    assert progress.target == DrainTarget("app", "bot")
    await run_drain(DrainOptions("app", "bot", cancel=True), print)
    (progress,) = await agent.drains.remote()
    assert progress.state == "cancelled"


@pytest.mark.ray
async def test_a_node_has_to_be_named_clearly(agent: Any) -> None:
    with pytest.raises(ConfigError, match=f"nothing is the beginning of 0 nodes: .*{here()}"):
        await run_drain(replace(QUICK, name="nothing"), print)


@pytest.mark.ray
async def test_where_nothing_was_deployed_there_is_nothing_to_drain(cluster: LocalCluster) -> None:
    with pytest.raises(ClusterError, match="no bot is deployed"):
        await run_drain(QUICK, print)


async def test_an_agent_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        async def call(self, method: str, *arguments: object, deadline_secs: float) -> object:
            raise RayError("out of order")

    monkeypatch.setattr(drain_command, "_agents", lambda: {"0123456789": Broken()})
    with pytest.raises(ClusterError, match="agent of node 01234567 did not drain: out of order"):
        await run_drain(QUICK, print)


async def test_a_cluster_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match="RAY_ADDRESS"):
        await drain_on_cluster(QUICK, None, print)


def test_progress_is_a_line() -> None:
    progress = DrainProgress(
        number=1,
        target=DrainTarget("pool", "Echo"),
        reason="a test",
        state=DrainState.MOVING,
        left_secs=29.6,
        began_with=5,
        sessions=2,
        actors=1,
        moved=1,
        cut=0,
    )
    assert describe(progress) == "moving, 2 of 5 sessions left in 1 actor, 1 moved, 30 s left"


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["planet"], "choose one of node, pool, app"),
        (["pool"], "drain pool: name it"),
        (["node"], "RAY_ADDRESS"),
    ],
)
def test_what_the_command_line_refuses(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], wrong: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    result = CliRunner().invoke(app, ["drain", *arguments])
    assert isinstance(result.exception, ConfigError)
    assert wrong in str(result.exception)
