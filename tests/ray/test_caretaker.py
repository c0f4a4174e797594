"""The agent's care for its actors, with actors that are none."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError
from tests.ray.pool_support import ECHO, SETTINGS, SUPERVISOR, all_ready, placed

from antiphon_actors import ray_internal
from antiphon_actors.agent_types import AgentSettings
from antiphon_actors.caretaker import Caretaker, examine
from antiphon_actors.drains import DrainTarget
from antiphon_actors.fleet import Member
from antiphon_actors.pool_types import Action, KillActor, PoolKey
from antiphon_actors.pools import NodePools
from antiphon_actors.processes import Look, ProcessId
from antiphon_actors.processor_actor import ActorFacts, ActorHealth
from antiphon_actors.pulse import Pulse

T = TypeVar("T")

NODE = DrainTarget("node", "n")

pytestmark = pytest.mark.virtual_time


class FakeProcess(ProcessId):
    """A process that looks as it is told to."""

    looks: Look = Look.RUNS

    def look(self) -> Look:
        return self.looks


class FakeActor:
    """An actor's handle; its control thread answers what it is told to."""

    def __init__(self, answer: Callable[[], Coroutine[Any, Any, ActorHealth]]) -> None:
        self.ctl_health = self
        self.answer = answer
        self.asked = 0

    async def remote(self) -> ActorHealth:
        self.asked += 1
        return await self.answer()


async def well() -> ActorHealth:
    return ActorHealth(1.0, False, {}, [])


async def stuck() -> ActorHealth:
    await asyncio.sleep(0.5)
    return ActorHealth(500.0, True, {}, None)


async def silent() -> ActorHealth:
    await asyncio.Event().wait()
    raise AssertionError("not reached")


async def dead() -> ActorHealth:
    raise ActorDiedError


class FakeFleet:
    """Members that are killed by taking them off the list."""

    def __init__(self, hub_dir: Path) -> None:
        self.hub_dir = str(hub_dir)
        self.pulse: Any = None
        self.members: dict[int, Member] = {}
        self.destroyed: list[tuple[int, str]] = []

    def get(self, number: int) -> Member | None:
        return self.members.get(number)

    def of_process(self, pid: int) -> Member | None:
        return self.members.get(pid)

    def destroy(self, number: int, reason: str) -> None:
        self.destroyed.append((number, reason))
        self.members.pop(number, None)


class FakeEvacuation:
    """Moves so many sessions off an actor."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.moves: list[tuple[int, float]] = []
        self.ended: list[int] = []
        self.stay: set[str] = set()

    async def move(self, member: Member, reason: str, deadline_secs: float) -> int:
        self.moves.append((member.number, deadline_secs))
        leases = self.node.pools.leases_of(member.number)
        free = [lease for lease, owner in leases.items() if owner not in self.stay]
        self.node.perform(self.node.pools.release_leases(free, 0.0))
        return len(free)

    async def end(self, member: Member) -> None:
        self.ended.append(member.number)
        for owner in self.node.pools.leases_of(member.number).values():
            self.node.perform(self.node.pools.release(owner, 0.0))


class FakeModels:
    """The node's models: what they are told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def drain(self) -> None:
        self.told.append("drain")

    def reopen(self) -> None:
        self.told.append("reopen")


class Node:
    """An agent's caretaker with nothing below."""

    def __init__(self, hub_dir: Path, *, detached: bool = False) -> None:
        self.pools = NodePools(SETTINGS)
        self.fleet = FakeFleet(hub_dir)
        self.evacuation = FakeEvacuation(self)
        self.killed: list[KillActor] = []
        self.saved = 0
        self.tasks: set[asyncio.Task[Any]] = set()
        self.models = FakeModels()
        fakes: Any = (self.fleet, self.evacuation, self.models)
        self.caretaker = Caretaker(
            AgentSettings(hub_dir=str(hub_dir), pools=SETTINGS, detached=detached),
            self.pools,
            *fakes,
            perform=self.perform,
            spawn=self.spawn,
            on_drains=self._count,
        )
        all_ready(self.pools)

    def _count(self) -> None:
        self.saved += 1

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, KillActor):
                self.killed.append(action)
                self.fleet.members.pop(action.actor, None)
                self.caretaker.left(action.actor)
        self.caretaker.changed()

    def member(
        self,
        session: str,
        key: PoolKey = ECHO,
        answer: Callable[[], Coroutine[Any, Any, ActorHealth]] = well,
        look: Look = Look.RUNS,
    ) -> Member:
        """An actor with a session, or another place in one."""
        number = placed(self.pools, session, key).actor
        # Long ago: one that has just begun may be slow.
        self.pools._actors[number].assigned_at = None
        if number not in self.fleet.members:
            process = FakeProcess(number, 1)
            object.__setattr__(process, "looks", look) if look is not Look.RUNS else None
            facts = ActorFacts(f"unix:///{number}", number, 0, "node")
            made = Member(number, key.role, FakeActor(answer), f"id{number}", facts, process)
            self.fleet.members[number] = made
            self.caretaker.joined(made)
        return self.fleet.members[number]

    def beat(self, member: Member, lag_ms: float = 0.0, *, leaving: bool = False) -> None:
        self.caretaker._pulse(Pulse(member.number, lag_ms, 90_000_000, leaving))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path)
    made.caretaker.start("n")
    yield made
    made.caretaker.close()
    for task in made.tasks:
        task.cancel()


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_stuck_actor_loses_its_sessions_and_its_life(node: Node) -> None:
    member = node.member("a/a")
    node.beat(member, 600.0)
    await turns()
    assert node.evacuation.moves == [(member.number, SETTINGS.evacuate_secs)]
    (kill,) = node.killed
    assert kill.actor == member.number
    assert kill.reason.startswith("stuck: ")
    assert node.fleet.destroyed == []


async def test_what_cannot_leave_a_stuck_actor_finds_that_it_died(node: Node) -> None:
    member = node.member("a/a")
    node.evacuation.stay = {"a/a"}
    node.beat(member, 600.0)
    await turns()
    ((number, reason),) = node.fleet.destroyed
    assert number == member.number
    assert reason.startswith("stuck: ")


async def test_one_that_was_told_to_end_has_some_time(node: Node) -> None:
    member = node.member("a/a")
    node.evacuation.stay = {"a/a"}
    node.beat(member, leaving=True)
    await turns()
    assert len(node.evacuation.moves) == 1
    node.evacuation.stay = set()
    await asyncio.sleep(6.0)
    assert len(node.evacuation.moves) == 2
    assert [kill.actor for kill in node.killed] == [member.number]


async def test_silence_is_noticed(node: Node) -> None:
    member = node.member("a/a", answer=silent, look=Look.STOPPED)
    await asyncio.sleep(SETTINGS.max_silence_secs + 0.1)
    assert node.fleet.destroyed == [(member.number, "its process is stopped")]


async def test_who_suspects_the_same_actor_shares_the_answer(node: Node) -> None:
    member = node.member("a/a", answer=stuck)
    found = await asyncio.gather(
        *(node.caretaker.suspect(member, "its link is silent") for _ in range(3))
    )
    assert {verdict.finding for verdict in found} == {"stuck"}
    assert member.handle.asked == 1
    # It has gone meanwhile.
    assert (await node.caretaker.suspect(member, "again")).finding == "dead"


async def test_a_suspicion_that_is_wrong_changes_nothing(node: Node) -> None:
    member = node.member("a/a")
    verdict = await node.caretaker.suspect(member, "its link broke")
    assert verdict.finding == "alive"
    assert node.caretaker.describe(member.number)["condition"] == "suspicious"
    node.beat(member)
    assert node.caretaker.describe(member.number)["condition"] == "healthy"
    assert not node.killed
    assert node.caretaker.describe(999) == {}


@pytest.mark.parametrize(
    ("answer", "look", "finding"),
    [
        (well, Look.RUNS, "alive"),
        (well, Look.UNKNOWN, "alive"),
        (stuck, Look.RUNS, "stuck"),
        (dead, Look.RUNS, "dead"),
        (silent, Look.GONE, "dead"),
        (silent, Look.STOPPED, "frozen"),
        (silent, Look.RUNS, "frozen"),
    ],
)
async def test_what_a_look_finds(
    node: Node,
    answer: Callable[[], Coroutine[Any, Any, ActorHealth]],
    look: Look,
    finding: str,
) -> None:
    member = node.member("a/a", answer=answer, look=look)
    assert (await examine(member))[0].value == finding


async def test_an_actor_that_ray_cannot_reach_for_a_moment_is_asked_again(node: Node) -> None:
    answers = iter([ActorUnavailableError("restarting", None), None])

    async def twice() -> ActorHealth:
        error = next(answers)
        if error is not None:
            raise error
        return await well()

    member = node.member("a/a", answer=twice)
    assert (await examine(member))[0].value == "alive"


async def test_a_drain_moves_ends_and_stops_what_is_left(node: Node) -> None:
    supervisor = node.member("a", SUPERVISOR)
    processor = node.member("a/a")
    node.evacuation.stay = {"a", "a/a"}
    number = node.caretaker.drain(NODE, 10.0, "the machine goes away")
    assert node.saved == 1
    await asyncio.sleep(5.1)
    assert {moved for moved, _ in node.evacuation.moves} == {supervisor.number, processor.number}
    # The sessions that are left use the models.
    assert node.models.told == []
    await asyncio.sleep(5.0)
    assert set(node.models.told) == {"drain"}
    (progress,) = node.caretaker.drain_progress()
    assert (progress.number, progress.state, progress.cut) == (number, "done", 1)
    assert set(node.evacuation.ended) == {supervisor.number, processor.number}
    assert node.pools.statistics(0.0)["refusing"]
    node.caretaker.cancel_drain(number)
    assert not node.pools.statistics(0.0)["refusing"]
    assert node.models.told[-1] == "reopen"


async def test_a_drain_of_a_pool_is_about_its_kind(node: Node) -> None:
    node.member("a", SUPERVISOR)
    processor = node.member("a/a")
    node.caretaker.drain(DrainTarget("pool", "Echo"), 10.0, "test")
    await asyncio.sleep(5.1)
    assert {moved for moved, _ in node.evacuation.moves} == {processor.number}
    assert node.caretaker.drain_progress()[0].state == "done"
    assert node.models.told == []


async def test_a_restarted_agent_goes_on_with_drains(node: Node, tmp_path: Path) -> None:
    node.member("a", SUPERVISOR)
    node.caretaker.drain(NODE, 100.0, "test")
    other = tmp_path / "heir"
    other.mkdir()
    heir = Node(other)
    heir.caretaker.resume_drains(node.caretaker.kept_drains())
    (progress,) = heir.caretaker.drain_progress()
    assert progress.target == NODE
    assert progress.left_secs == pytest.approx(100.0, abs=5.0)
    assert heir.pools.admission.closed


async def test_a_node_that_the_cluster_takes_away_is_drained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    leaving: dict[str, int] = {"other": 1}
    monkeypatch.setattr(ray_internal, "draining_nodes", lambda: dict(leaving))
    node = Node(tmp_path, detached=True)
    node.caretaker.start("n")
    node.member("a", SUPERVISOR)
    await asyncio.sleep(1.5)
    assert node.caretaker.drain_progress() == []
    leaving["n"] = int((time.time() + 60.0) * 1000)
    for _ in range(3):
        await asyncio.sleep(1.5)
    (progress,) = node.caretaker.drain_progress()
    assert (progress.target, progress.reason) == (NODE, "the cluster takes it away")
    assert 40.0 < progress.left_secs <= 50.0
    node.caretaker.close()
    for task in node.tasks:
        task.cancel()


async def test_only_a_detached_agent_may_be_killed_by_its_actors(tmp_path: Path) -> None:
    for detached in (False, True):
        hub = tmp_path / str(detached)
        hub.mkdir()
        made = Node(hub, detached=detached)
        made.caretaker.start("n")
        address = made.fleet.pulse
        assert (address.restartable is not None) is detached
        assert Path(address.path).name == ("pulse" if detached else f"pulse-{os.getpid()}")
        made.caretaker.close()
        for task in made.tasks:
            task.cancel()
