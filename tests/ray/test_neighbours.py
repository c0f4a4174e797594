"""Places on other nodes, with agents that are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError

from antiphon_actors.agent_store import KeptElsewhere
from antiphon_actors.agent_types import ActorPlace, ActorWanted, Verdict
from antiphon_actors.errors import NoActorError
from antiphon_actors.neighbours import Neighbours, Node
from antiphon_actors.node_watch import IDLE_SECS
from antiphon_actors.processor_actor import ActorFacts


class Remote:
    """A method of an actor."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.remote = method


class FakeNode:
    """A node with so many places, as its agent and its handle show it."""

    def __init__(self, name: str, room: int) -> None:
        self.name = name
        self.room = room
        self.leases: dict[int, str] = {}
        self.attached: list[tuple[int, Any]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._next = 1
        self.start = Remote(self._start)
        self.acquire_all = Remote(self.give)
        self.attach = Remote(self.take_specs)
        self.release = Remote(self._release)
        self.release_lease = Remote(self._release_lease)
        self.ctl_pid = Remote(self._live)
        self.suspect = Remote(self._suspect)
        self.shutdown = Remote(self._shutdown)
        self.lives = asyncio.Event()
        self.lives.set()
        self.ended = False
        self.error: Exception | None = None

    async def _live(self) -> int:
        await self.lives.wait()
        if self.error is not None:
            raise self.error
        return 1

    async def _suspect(self, actor_id: str, reason: str) -> Verdict:
        await self.lives.wait()
        return Verdict("stuck", f"{actor_id}: {reason}")

    async def _shutdown(self, wait_secs: float) -> None:
        self.ended = True

    async def _start(self) -> None:
        await asyncio.sleep(0)

    async def give(
        self, session_id: str, wanted: Sequence[ActorWanted], avoid: Iterable[str]
    ) -> list[ActorPlace]:
        await self.may_answer.wait()
        if len(self.leases) + len(wanted) > self.room:
            raise NoActorError(f"{self.name} is full", True)
        places = []
        for _ in wanted:
            self.leases[self._next] = session_id
            facts = ActorFacts("unix:///x", self._next, 0, self.name)
            places.append(ActorPlace(self._next, f"{self.name}{self._next}", facts))
            self._next += 1
        return places

    async def take_specs(
        self, specs: Sequence[tuple[int, Any]], call: str
    ) -> list[BaseException | None]:
        self.attached += specs
        return [None if lease in self.leases else LookupError(str(lease)) for lease, _ in specs]

    async def _release(self, session_id: str) -> None:
        for lease, owner in list(self.leases.items()):
            if owner == session_id or owner.startswith(f"{session_id}/"):
                del self.leases[lease]

    async def _release_lease(self, lease: int) -> None:
        self.leases.pop(lease, None)

    def free(self, leases: Iterable[int]) -> None:
        for lease in leases:
            self.leases.pop(lease, None)


class Cluster:
    """Three nodes, of which `c` has a camera."""

    def __init__(self, **room: int) -> None:
        self.nodes = {name: FakeNode(name, count) for name, count in room.items()}
        self.made: list[str] = []
        self.lost: list[KeptElsewhere] = []
        here = self.nodes["a"]
        self.neighbours = Neighbours(
            "a",
            nodes=lambda: [
                Node(name, {"CPU": 2.0, **({"camera": 1.0} if name == "c" else {})})
                for name in self.nodes
            ],
            make=self.make,
            acquire_here=here.give,
            attach_here=here.take_specs,
            release_here=here.free,
            changed=lambda: None,
            lost=self.lost.append,
        )

    def make(self, name: str) -> FakeNode:
        self.made.append(name)
        return self.nodes[name]

    async def acquire(self, session_id: str, *wanted: ActorWanted) -> list[ActorPlace]:
        return await self.neighbours.acquire_all(session_id, wanted, ())

    @property
    def used(self) -> dict[str, int]:
        return {name: len(node.leases) for name, node in self.nodes.items()}


Clusters = Callable[..., Cluster]


@pytest.fixture
async def clusters() -> AsyncIterator[Clusters]:
    made: list[Cluster] = []

    def make(**room: int) -> Cluster:
        made.append(Cluster(**room))
        return made[-1]

    yield make
    for cluster in made:
        cluster.neighbours.close()


PLAIN, CAMERA = ActorWanted("X"), ActorWanted("Y", resources={"camera": 1.0})


def where(places: Sequence[ActorPlace]) -> str:
    return "".join(place.facts.node_id for place in places)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_this_node_first_then_the_others_one_after_another(clusters: Clusters) -> None:
    cluster = clusters(a=3, b=2, c=2)
    assert where(await cluster.acquire("s", PLAIN, PLAIN)) == "aa"
    assert cluster.made == []
    # What does not fit stays together.
    assert where(await cluster.acquire("t", PLAIN, PLAIN)) == "bb"
    assert where(await cluster.acquire("u", PLAIN)) == "a"
    assert where(await cluster.acquire("v", PLAIN)) == "c"
    with pytest.raises(NoActorError, match="c is full"):
        await cluster.acquire("w", PLAIN, PLAIN)
    assert cluster.made == ["b", "c"]
    assert cluster.used == {"a": 3, "b": 2, "c": 1}


async def test_what_this_node_lacks_is_found_where_it_is(clusters: Clusters) -> None:
    cluster = clusters(a=2, b=2, c=1)
    places = await cluster.acquire("s", CAMERA, PLAIN)
    assert where(places) == "ca"
    with pytest.raises(NoActorError, match="c is full"):
        await cluster.acquire("t", PLAIN, CAMERA)
    await turns()
    assert cluster.used == {"a": 1, "b": 0, "c": 1}  # nothing was kept
    with pytest.raises(NoActorError, match="no node of the cluster has num_cpus=3"):
        await cluster.acquire("u", ActorWanted("Z", resources={"num_cpus": 3}))


async def test_specs_and_releases_find_their_way(clusters: Clusters) -> None:
    cluster = clusters(a=2, b=2, c=2)
    first, second, third = await cluster.acquire("s", PLAIN, CAMERA, PLAIN)
    assert second.lease_id < 0
    answers = await cluster.neighbours.attach(
        [
            (third.lease_id, "three"),
            (second.lease_id, "two"),
            (first.lease_id, "one"),
            (99, "none"),
        ],
        "call",
    )
    assert [type(answer) for answer in answers] == [type(None)] * 3 + [LookupError]
    assert cluster.nodes["c"].attached == [(1, "two")]
    assert [spec for _, spec in cluster.nodes["a"].attached] == ["three", "one", "none"]
    await cluster.neighbours.release("another")
    assert cluster.used == {"a": 2, "b": 0, "c": 1}
    await cluster.neighbours.release("s")
    assert cluster.used == {"a": 2, "b": 0, "c": 0}  # its own are the agent's to release
    cluster.neighbours.release_leases([first.lease_id, second.lease_id])
    assert cluster.used["a"] == 1


async def test_who_does_not_wait_any_more_keeps_nothing(clusters: Clusters) -> None:
    cluster = clusters(a=0, b=1)
    cluster.nodes["b"].may_answer.clear()
    asking = asyncio.create_task(cluster.acquire("s", PLAIN))
    while not cluster.made:  # noqa: ASYNC110 - a thread lists the nodes
        await asyncio.sleep(0)
    await turns()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    cluster.nodes["b"].may_answer.set()
    await turns()
    assert cluster.used == {"a": 0, "b": 0}


async def test_the_parts_of_a_session_are_released_with_it(clusters: Clusters) -> None:
    cluster = clusters(a=0, b=4)
    for name in ("s", "s/s", "s/s.2", "st"):
        await cluster.acquire(name, PLAIN)
    assert cluster.used == {"a": 0, "b": 4}
    await cluster.neighbours.release("s")
    assert list(cluster.nodes["b"].leases.values()) == ["st"]
    assert [each.session_id for each in cluster.neighbours._places.values()] == ["st"]


async def test_what_is_granted_after_the_release_is_given_back(clusters: Clusters) -> None:
    cluster = clusters(a=0, b=1)
    cluster.nodes["b"].may_answer.clear()
    asking = asyncio.create_task(cluster.acquire("s/s", PLAIN))
    while not cluster.made:  # noqa: ASYNC110 - a thread lists the nodes
        await asyncio.sleep(0)
    await turns()
    await cluster.neighbours.release("s")
    cluster.nodes["b"].may_answer.set()
    with pytest.raises(NoActorError, match="released"):
        await asking
    assert cluster.used == {"a": 0, "b": 0}
    assert not cluster.neighbours._places
    assert not cluster.neighbours._asking


# Nodes that are lost, silent, or of no use any more.


@pytest.mark.virtual_time
async def test_a_node_that_is_silent_is_lost_with_its_places(clusters: Clusters) -> None:
    cluster = clusters(a=0, b=4)
    (place,) = await cluster.acquire("s/s", PLAIN)
    await cluster.acquire("t/t", PLAIN)
    await asyncio.sleep(10.0)
    assert cluster.lost == []
    cluster.nodes["b"].lives.clear()
    await asyncio.sleep(4.0)
    assert sorted(each.session_id for each in cluster.lost) == ["s/s", "t/t"]
    assert cluster.neighbours.node_ids == []
    assert (await cluster.neighbours.suspect(place.actor_id, "why")).finding == "dead"
    # It was only slow: what was taken for lost is freed there when it is asked again.
    cluster.nodes["b"].lives.set()
    await cluster.acquire("u/u", PLAIN)
    assert list(cluster.nodes["b"].leases.values()) == ["u/u"]


@pytest.mark.virtual_time
async def test_an_agent_that_is_gone_is_lost_at_once(clusters: Clusters) -> None:
    cluster = clusters(a=0, b=4)
    await cluster.acquire("s/s", PLAIN)
    cluster.nodes["b"].error = ActorUnavailableError("restarting", None)
    await asyncio.sleep(1.0)
    assert cluster.lost == []
    cluster.nodes["b"].error = ActorDiedError()
    await asyncio.sleep(0.6)
    assert [each.session_id for each in cluster.lost] == ["s/s"]


@pytest.mark.virtual_time
async def test_a_node_that_nobody_uses_loses_its_agent(
    clusters: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    cluster = clusters(a=0, b=4)
    await cluster.acquire("s/s", PLAIN)
    await asyncio.sleep(2 * IDLE_SECS)
    assert killed == []
    await cluster.neighbours.release("s")
    await asyncio.sleep(IDLE_SECS - 5.0)
    assert killed == []
    await asyncio.sleep(10.0)
    assert killed == [cluster.nodes["b"]]
    assert cluster.nodes["b"].ended
    # Who needs it again starts it again.
    await cluster.acquire("t/t", PLAIN)
    assert cluster.made == ["b", "b"]


async def test_a_suspicion_goes_to_the_agent_of_the_actor(clusters: Clusters) -> None:
    cluster = clusters(a=0, b=1)
    (place,) = await cluster.acquire("s/s", PLAIN)
    verdict = await cluster.neighbours.suspect(place.actor_id, "it is silent")
    assert verdict == Verdict("stuck", f"{place.actor_id}: it is silent")
    assert (await cluster.neighbours.suspect("unknown", "")).finding == "dead"


async def test_a_restarted_agent_goes_on_with_places_elsewhere(clusters: Clusters) -> None:
    cluster = clusters(a=0, b=2)
    (place,) = await cluster.acquire("s/s", PLAIN)
    kept = cluster.neighbours.kept()
    assert [each.number for each in kept] == [place.lease_id]
    heir = Cluster(a=0, b=2)
    heir.nodes = cluster.nodes
    heir.neighbours.take_over(kept)
    await turns()
    assert heir.neighbours.node_ids == ["b"]
    (other,) = await heir.acquire("t/t", PLAIN)
    assert other.lease_id < place.lease_id
    assert await heir.neighbours.attach([(place.lease_id, "spec")], "call") == [None]
    await heir.neighbours.release("s")
    assert list(cluster.nodes["b"].leases.values()) == ["t/t"]
    heir.neighbours.close()


async def test_a_node_that_is_gone_when_an_agent_comes_back(clusters: Clusters) -> None:
    cluster = clusters(a=0, b=2)
    await cluster.acquire("s/s", PLAIN)
    heir = Cluster(a=0)
    heir.nodes["b"] = FakeNode("b", 1)

    async def gone() -> None:
        raise ActorDiedError

    heir.nodes["b"].start = Remote(gone)
    heir.neighbours.take_over(cluster.neighbours.kept())
    await turns()
    assert [each.session_id for each in heir.lost] == ["s/s"]
    heir.neighbours.close()
