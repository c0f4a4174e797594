"""What a restarted agent makes of a file and of the actors that live."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ray.pool_support import ECHO, OTHER, SUPERVISOR, all_ready, filled, grant

from antiphon_actors.adoption import (
    UNKNOWN_KIND,
    Inventory,
    abandoned,
    actor_name,
    compare,
    from_inventory,
    number_in,
)
from antiphon_actors.agent_store import (
    FILE_NAME,
    AgentState,
    AgentStore,
    KeptActor,
    KeptDrain,
    KeptElsewhere,
)
from antiphon_actors.pool_state import PoolActor, State
from antiphon_actors.pool_types import KillActor, Mode, PoolKey, Role
from antiphon_actors.pools import NodePools
from antiphon_actors.processor_actor import ActorFacts


def kept(actor: PoolActor) -> KeptActor:
    number = actor.number
    return KeptActor(actor, f"id{number}", ActorFacts(f"unix:///{number}", number, 7, "node"))


def pool_actor(number: int, key: PoolKey, *sessions: str) -> PoolActor:
    leases = {number * 10 + index: name for index, name in enumerate(sessions)}
    return PoolActor(number, key.start_class, State.READY, key, slots=4, leases=leases)


def test_names_say_whose_an_actor_is() -> None:
    assert number_in(actor_name("a1", 17), "a1") == 17
    assert number_in(actor_name("a1", 17), "a2") is None
    assert number_in("antiphon-agent-a1", "a1") is None
    assert number_in("antiphon-actor-a1-x", "a1") is None


def test_what_lives_is_adopted_and_what_does_not_is_lost() -> None:
    entries = [kept(pool_actor(number, ECHO)) for number in (1, 2, 3)]
    # Number 3 is another one now.
    found = compare(entries, {1: "id1", 3: "other", 4: "id4"})
    assert [each.actor.number for each in found.adopted] == [1]
    assert [each.actor.number for each in found.lost] == [2, 3]
    assert found.unknown == (3, 4)
    assert compare([], {}) == compare((), {})


ACTORS = st.dictionaries(st.integers(1, 9), st.sampled_from(["x", "y"]), max_size=9)


@given(ACTORS, ACTORS)
def test_everything_is_accounted_for_once(written: dict[int, str], living: dict[int, str]) -> None:
    entries = [
        replace(kept(pool_actor(n, ECHO)), actor_id=actor_id) for n, actor_id in written.items()
    ]
    found = compare(entries, living)
    adopted = [each.actor.number for each in found.adopted]
    lost = [each.actor.number for each in found.lost]
    assert sorted(adopted + lost) == sorted(written)
    assert sorted([*adopted, *found.unknown]) == sorted(living)
    assert all(written[number] == living[number] for number in adopted)


def test_an_actor_that_is_written_nowhere_keeps_its_sessions_and_gets_no_others() -> None:
    numbers = itertools.count(100)
    assert from_inventory(1, Inventory(Role.PROCESSOR, ()), numbers) is None
    actor = from_inventory(1, Inventory(Role.PROCESSOR, ("a", "b")), numbers)
    assert actor is not None
    assert actor.leases == {100: "a/a", 101: "b/b"}
    assert actor.key == PoolKey(Role.PROCESSOR, UNKNOWN_KIND)
    pools = NodePools(first_number=1000)
    pools.adopt([actor], 0.0)
    pools.release("a", 1.0)
    assert pools.knows(1)
    assert any(isinstance(action, KillActor) for action in pools.release("b", 2.0))
    resumed = from_inventory(3, Inventory(Role.PROCESSOR, ("a~2", "b.3", "c~1.2")), numbers)
    assert resumed is not None
    assert list(resumed.leases.values()) == ["a/a~2", "b/b.3", "c/c~1.2"]
    supervisor = from_inventory(2, Inventory(Role.SUPERVISOR, ("a",)), numbers)
    assert supervisor is not None
    assert list(supervisor.leases.values()) == ["a"]


@pytest.mark.parametrize(
    ("sessions", "left"),
    [
        # All as it should be.
        ({1: ["s"], 2: ["s"], 3: ["t"]}, []),
        # Its supervisor carries it: it may be about to build its processors.
        ({1: ["s"], 2: [], 3: ["t"]}, []),
        # The processors are there, and will find that their home is gone.
        ({1: [], 2: ["s"], 3: ["t"]}, [10]),
        # Nothing of it is there.
        ({1: [], 2: [], 3: ["t"]}, [10, 20]),
        # Who does not answer keeps what it has.
        ({1: None, 2: [], 3: ["t"]}, []),
        ({1: [], 2: None, 3: None}, [10]),
        ({}, []),
    ],
)
def test_which_places_nobody_uses(sessions: dict[int, list[str] | None], left: list[int]) -> None:
    actors = [
        pool_actor(1, SUPERVISOR, "s"),
        pool_actor(2, ECHO, "s/s"),
        # Of a session that another node supervises.
        pool_actor(3, OTHER, "t/t"),
    ]
    assert abandoned(actors, sessions) == left


def test_the_second_pipeline_of_a_session_is_known_by_its_own_name() -> None:
    assert abandoned([pool_actor(1, ECHO, "s/s.2")], {1: ["s.2"]}) == []
    assert abandoned([pool_actor(1, ECHO, "s/s.2")], {1: ["s"]}) == [10]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    pools = filled()
    all_ready(pools)
    grant(pools, "a/a", ECHO, Mode.POOLED)
    grant(pools, "b/b", OTHER, Mode.DEDICATED)
    all_ready(pools)
    assert any(actor.spare for actor in pools.ready())
    state = AgentState(
        tuple(kept(actor) for actor in pools.ready()),
        (KeptElsewhere(-1, "a/a", "node2", 5, "id5"),),
        (KeptDrain("pool", "Echo", "test", 1e9),),
    )
    store = AgentStore(tmp_path)
    assert store.read() is None
    store.write(state)
    assert AgentStore(tmp_path).read() == state
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    store.remove()
    assert store.read() is None


def test_what_is_the_same_is_not_written_again(tmp_path: Path) -> None:
    store = AgentStore(tmp_path)
    store.write(AgentState())
    (tmp_path / FILE_NAME).unlink()
    store.write(AgentState())
    assert not (tmp_path / FILE_NAME).exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"actors": 7}', b'{"version": 99}', b"\xff"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    assert AgentStore(tmp_path).read() is None


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    store = AgentStore(tmp_path / "missing")
    store.write(AgentState())
    assert "missing" in store.error
    (tmp_path / "missing").mkdir()
    store.write(AgentState())
    assert store.error == ""
