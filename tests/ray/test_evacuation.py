"""Moving sessions off actors, with supervisors that are none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from tests.ray.pool_support import ECHO, SETTINGS, SUPERVISOR, placed

from antiphon_actors.agent_types import AgentSettings
from antiphon_actors.evacuation import Evacuation
from antiphon_actors.fleet import Fleet, Member
from antiphon_actors.pool_types import Action, KillActor, PoolKey
from antiphon_actors.pools import NodePools
from antiphon_actors.processor_actor import ActorFacts

pytestmark = pytest.mark.virtual_time


class Remote:
    """A method of an actor."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.remote = method


class FakeSupervisor:
    """Carries sessions, some of which cannot be moved."""

    def __init__(self, *stay: str, error: Exception | None = None, hangs: bool = False) -> None:
        self.stay = stay
        self.asked: list[tuple[Any, ...]] = []
        self.ended: list[str] = []
        self._error = error
        self._hangs = hangs
        self.evacuate = Remote(self._evacuate)
        self.hand_over = Remote(self._hand_over)
        self.cancel_session = Remote(self._cancel)

    async def _evacuate(self, uris: Sequence[str], reason: str, deadline_secs: float) -> list[str]:
        self.asked.append((*uris, reason, deadline_secs))
        await self._trouble()
        return list(self.stay)

    async def _hand_over(self, session: str, deadline_secs: float) -> bool:
        self.asked.append((session,))
        await self._trouble()
        return session not in self.stay

    async def _cancel(self, session: str) -> bool:
        await self._trouble()
        self.ended.append(session)
        return True

    async def _trouble(self) -> None:
        if self._error is not None:
            raise self._error
        if self._hangs:
            await asyncio.Event().wait()


class Elsewhere:
    """Another node, whose agent moves what it is told to."""

    def __init__(self, *stay: str) -> None:
        self.stay = stay
        self.asked: list[tuple[str, ...]] = []

    async def evacuate(
        self, uris: Sequence[str], sessions: Sequence[str], reason: str, deadline_secs: float
    ) -> list[str]:
        self.asked.append(tuple(sessions))
        return [name for name in sessions if name in self.stay]


class Node:
    """A node with actors that its fleet knows."""

    def __init__(self, elsewhere: Elsewhere | None = None) -> None:
        nobody: Any = None
        self.pools = NodePools(
            replace(SETTINGS, reserve=0, slots_per_actor=8, supervisor_slots=2, max_actors=20)
        )
        self.fleet = Fleet(AgentSettings(hub_dir="/nowhere"), nobody, nobody)
        self.done: list[Action] = []
        self.evacuation = Evacuation(
            self.pools, self.fleet, perform=self.done.extend, elsewhere=lambda: elsewhere
        )

    def place(self, session: str, key: PoolKey, handle: Any = None) -> Member:
        """Gives a session a place, in a new actor with this handle if there is none."""
        number = placed(self.pools, session, key).actor
        facts = ActorFacts(f"unix:///{number}", number, 0, "node")
        made = Member(number, key.role, handle, f"id{number}", facts)
        return self.fleet._members.setdefault(number, made)

    def shared(self, sessions: Iterable[str], key: PoolKey, handle: Any = None) -> Member:
        """Gives places in one actor to all of these."""
        (member,) = {
            id(each): each for each in (self.place(s, key, handle) for s in sessions)
        }.values()
        return member

    def left(self, member: Member) -> list[str]:
        return sorted(self.pools.leases_of(member.number).values())


async def test_processors_move_with_the_help_of_their_supervisors() -> None:
    node = Node()
    first, second = FakeSupervisor(), FakeSupervisor()
    for session, supervisor in (("a", first), ("b", first), ("c", second)):
        node.place(session, SUPERVISOR, supervisor)
    actor = node.shared(("a/a", "a/a", "b/b", "c/c"), ECHO)
    node.pools.retire(actor.number, "stuck", 1.0)
    assert await node.evacuation.move(actor, "why", 2.0) == 3
    # Each is asked once, for all of its sessions.
    assert first.asked == second.asked == [(f"unix:///{actor.number}", "why", 2.0)]
    assert node.left(actor) == []
    assert KillActor(actor.number, "stuck") in node.done


async def test_what_cannot_be_moved_keeps_its_place() -> None:
    node = Node()
    node.place("a", SUPERVISOR, FakeSupervisor("b"))
    node.place("b", SUPERVISOR)
    actor = node.shared(("a/a", "b/b"), ECHO)
    assert await node.evacuation.move(actor, "why", 2.0) == 1
    assert node.left(actor) == ["b/b"]


@pytest.mark.parametrize(
    "supervisor",
    [FakeSupervisor(error=ActorDiedError()), FakeSupervisor(hangs=True)],
)
async def test_a_supervisor_that_does_not_answer_moves_nothing(supervisor: FakeSupervisor) -> None:
    node = Node()
    node.place("a", SUPERVISOR, supervisor)
    actor = node.place("a/a", ECHO)
    assert await node.evacuation.move(actor, "why", 2.0) == 0
    assert node.left(actor) == ["a/a"]


async def test_sessions_of_other_nodes_are_moved_by_their_agent() -> None:
    elsewhere = Elsewhere("far")
    node = Node(elsewhere)
    node.place("near", SUPERVISOR, FakeSupervisor())
    actor = node.shared(("near/near", "far/far", "further/further"), ECHO)
    assert await node.evacuation.move(actor, "why", 2.0) == 2
    assert elsewhere.asked == [("far", "further")]
    assert node.left(actor) == ["far/far"]


async def test_nobody_moves_what_nobody_supervises() -> None:
    node = Node()
    actor = node.place("lost/lost", ECHO)
    assert await node.evacuation.move(actor, "why", 2.0) == 0


async def test_on_a_node_that_is_drained_processors_stay_with_their_supervisor() -> None:
    supervisor, elsewhere = FakeSupervisor(), Elsewhere()
    node = Node(elsewhere)
    node.place("near", SUPERVISOR, supervisor)
    actor = node.shared(("near/near", "far/far"), ECHO)
    node.pools.admission.close("node", "n", "drained")
    assert await node.evacuation.move(actor, "why", 2.0) == 1
    assert supervisor.asked == []
    assert node.left(actor) == ["near/near"]


async def test_sessions_are_handed_over_by_their_supervisor() -> None:
    node = Node()
    supervisor = FakeSupervisor("b")
    member = node.shared(("a", "b"), SUPERVISOR, supervisor)
    assert await node.evacuation.move(member, "why", 5.0) == 1
    assert sorted(supervisor.asked) == [("a",), ("b",)]
    assert node.left(member) == ["b"]


async def test_what_is_left_is_ended_by_its_supervisor() -> None:
    node = Node()
    supervisor, broken = FakeSupervisor(), FakeSupervisor(hangs=True)
    member = node.shared(("a", "b"), SUPERVISOR, supervisor)
    other = node.place("c", SUPERVISOR, broken)
    actor = node.place("a/a", ECHO)
    await node.evacuation.end(actor)
    assert supervisor.ended == []
    await asyncio.gather(node.evacuation.end(member), node.evacuation.end(other))
    assert sorted(supervisor.ended) == ["a", "b"]
    assert node.left(member) == []
    assert node.left(other) == ["c"]
