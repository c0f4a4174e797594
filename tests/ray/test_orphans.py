"""What becomes of a session's places when its supervisor dies."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from tests.ray.pool_support import ECHO, OTHER, SETTINGS, SUPERVISOR, filled, grant, of, ready

from antiphon_actors.agent_types import AgentSettings
from antiphon_actors.fleet import Member
from antiphon_actors.node_agent import NodeAgent
from antiphon_actors.pool_types import KillActor, Mode, Refuse, ReportDeath, Role, Want
from antiphon_actors.pools import NodePools

CARRIERS = replace(SETTINGS, supervisor_reserve=2, supervisor_slots=2)


def used(pools: NodePools) -> int:
    kinds: Any = pools.statistics(0.0)["kinds"]
    return sum(entry["used"] for entry in kinds.values())


def test_sessions_end_with_their_supervisor() -> None:
    pools = filled(CARRIERS)
    carrier = grant(pools, "a", SUPERVISOR, Mode.POOLED)
    grant(pools, "b", SUPERVISOR, Mode.POOLED)
    grant(pools, "a/a", ECHO, Mode.POOLED)
    alone = grant(pools, "b/b", OTHER, Mode.DEDICATED)
    ready(pools, pools.tick(0.0))
    kept = grant(pools, "another", ECHO, Mode.POOLED)
    actions = pools.died(carrier.actor, "killed", 1.0)
    (report,) = of(ReportDeath, actions)
    assert report.sessions == report.orphans == ("a", "b")
    assert [action.actor for action in of(KillActor, actions)] == [alone.actor]
    assert used(pools) == 1
    assert pools.used_slots(kept.actor) == 1


def test_what_their_sessions_wait_for_is_refused() -> None:
    pools = filled(CARRIERS)
    carrier = grant(pools, "a", SUPERVISOR, Mode.POOLED)
    # More than the reserve has.
    request, actions = pools.acquire("a/a", [Want(ECHO, Mode.DEDICATED)] * 3, 0.0)
    assert not of(Refuse, actions)
    actions = pools.died(carrier.actor, "killed", 1.0)
    assert [refused.request for refused in of(Refuse, actions)] == [request]
    assert used(pools) == 0


def test_a_session_with_a_successor_goes_on() -> None:
    """Who runs it may have noticed the death first."""
    pools = filled(CARRIERS)
    carrier = grant(pools, "a", SUPERVISOR, Mode.POOLED)
    processor = grant(pools, "a/a", ECHO, Mode.POOLED)
    pools.acquire("a", [Want(SUPERVISOR)], 0.5, avoid=[carrier.actor])
    (report,) = of(ReportDeath, pools.died(carrier.actor, "killed", 1.0))
    assert report.sessions == ("a",)
    assert report.orphans == ()
    assert pools.used_slots(processor.actor) == 1


def test_a_session_goes_on_without_one_of_its_processors() -> None:
    pools = filled(CARRIERS)
    grant(pools, "a", SUPERVISOR, Mode.POOLED)
    dead = grant(pools, "a/a", ECHO, Mode.POOLED)
    grant(pools, "a/a", OTHER, Mode.POOLED)
    (report,) = of(ReportDeath, pools.died(dead.actor, "killed", 1.0))
    assert report.orphans == ()
    assert used(pools) == 2


async def test_their_places_on_other_nodes_are_freed() -> None:
    released: list[str] = []

    class FakeNeighbours:
        async def release(self, session_id: str) -> None:
            released.append(session_id)

    agent = NodeAgent(AgentSettings(hub_dir="/nowhere"))
    agent._across = SimpleNamespace(neighbours=FakeNeighbours())  # type: ignore[assignment]
    agent._fleet._members[1] = Member(1, Role.SUPERVISOR, None, "1")
    agent._perform([ReportDeath(1, Role.SUPERVISOR, "bot", ("a", "b"), "killed", ("b",))])
    await asyncio.wait(agent._tasks)
    assert released == ["b"]
