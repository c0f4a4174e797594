"""Actors that go, kinds that die, sessions that are not let in, and what another agent takes over."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ray.pool_support import (
    ECHO,
    OTHER,
    SETTINGS,
    SUPERVISOR,
    all_ready,
    filled,
    grant,
    of,
    ready,
)

from antiphon_actors.pool_state import PoolActor, State
from antiphon_actors.pool_types import (
    Grant,
    KillActor,
    Mode,
    Place,
    PoolKey,
    Refuse,
    ReportDeath,
    Role,
    StartActor,
    Want,
    is_of_pool,
)
from antiphon_actors.pools import NodePools

DYING = replace(SETTINGS, max_deaths=2, deaths_period_secs=10.0, max_actors=20, slots_per_actor=1)


def test_one_that_retires_gets_no_more_sessions_and_ends_with_the_last() -> None:
    pools = filled()
    old = grant(pools, "a", ECHO, Mode.POOLED)
    assert not of(KillActor, pools.retire(old.actor, "worn", 1.0))
    fresh = grant(pools, "b", ECHO, Mode.POOLED)
    assert fresh.actor != old.actor
    assert pools.statistics(1.0)["retiring"] == 1
    assert pools.retire(old.actor, "again", 1.5) == []
    (kill,) = of(KillActor, pools.release("a", 2.0))
    assert kill == KillActor(old.actor, "worn")
    assert not pools.knows(old.actor)


def test_one_that_nobody_uses_ends_at_once_and_the_reserve_is_filled_up() -> None:
    pools = filled()
    spare = next(actor.number for actor in pools.ready())
    actions = pools.retire(spare, "stuck", 1.0)
    assert of(KillActor, actions) == [KillActor(spare, "stuck")]
    assert len(of(StartActor, actions)) == 1


def test_what_was_reserved_in_it_is_looked_for_again() -> None:
    pools = filled()
    # Two of the reserve are reserved for it; the third has to be started.
    request, _ = pools.acquire("a", [Want(ECHO, Mode.DEDICATED)] * 3, 0.0)
    (first, *_) = pools.ready()
    actions = pools.retire(first.number, "stuck", 1.0)
    assert of(KillActor, actions) == [KillActor(first.number, "stuck")]
    (granted,) = of(Grant, all_ready(pools, 2.0))
    assert granted.request == request
    assert first.number not in {place.actor for place in granted.places}


def test_a_full_node_has_room_for_the_successor() -> None:
    pools = NodePools(replace(SETTINGS, reserve=0, max_actors=1))
    _, actions = pools.acquire("a", [Want(ECHO, Mode.POOLED)], 0.0)
    (place,) = of(Grant, ready(pools, actions))[0].places
    pools.retire(place.actor, "worn", 1.0)
    _, actions = pools.acquire("b", [Want(ECHO, Mode.POOLED)], 1.0)
    assert len(of(StartActor, actions)) == 1


def test_places_are_counted_when_they_are_given_away() -> None:
    pools = filled()
    place = grant(pools, "a", ECHO, Mode.POOLED)
    pools.release("a", 1.0)
    grant(pools, "b", ECHO, Mode.POOLED)
    assert pools.served(place.actor) == 2
    assert pools.served(99) == 0
    assert pools.is_pooled(place.actor)
    assert not pools.is_pooled(grant(pools, "c", OTHER, Mode.DEDICATED).actor)
    assert not pools.is_pooled(99)


def killed(pools: NodePools, session: str, key: PoolKey, now: float) -> None:
    place = grant(pools, session, key, Mode.POOLED, now)
    pools.died(place.actor, f"killed by {session}", now)
    all_ready(pools, now)


def test_a_kind_that_dies_again_and_again_is_refused_for_a_while() -> None:
    pools = filled(DYING)
    killed(pools, "a", ECHO, 1.0)
    killed(pools, "b", ECHO, 4.0)
    request, actions = pools.acquire("c", [Want(ECHO)], 5.0)
    (refused,) = of(Refuse, actions)
    assert refused.request == request
    assert "processor Echo die again and again: 2 within 10 s" in refused.reason
    assert "killed by b" in refused.reason
    assert refused.retry_after_secs == 6.0
    assert not refused.overloaded
    dying = pools.statistics(5.0)["dying"]
    assert dying == [
        {
            "role": "processor",
            "kind": "Echo",
            "deaths": 2,
            "refused": True,
            "retry_in_secs": 6.0,
            "reason": "killed by b",
        }
    ]
    # Others are served, and so is this one when it has calmed down.
    assert grant(pools, "d", OTHER, Mode.POOLED, 5.0)
    assert grant(pools, "c", ECHO, Mode.POOLED, 11.5)
    assert pools.statistics(14.1)["dying"] == []


def test_who_waits_for_such_a_kind_is_told() -> None:
    pools = NodePools(replace(DYING, reserve=0))
    places: list[Place] = []
    for session in "ab":
        _, actions = pools.acquire(session, [Want(ECHO)], 0.0)
        (granted,) = of(Grant, ready(pools, actions))
        places += granted.places
    waiting, _ = pools.acquire("c", [Want(ECHO)], 0.5)
    pools.died(places[0].actor, "killed", 1.0)
    actions = pools.died(places[1].actor, "killed", 1.1)
    assert [refused.request for refused in of(Refuse, actions)] == [waiting]


def test_a_living_actor_of_such_a_kind_goes_on_to_be_used() -> None:
    pools = filled(replace(DYING, slots_per_actor=2, reserve=3))
    first = grant(pools, "a", ECHO, Mode.POOLED)
    grant(pools, "b", ECHO, Mode.POOLED)
    third = grant(pools, "c", ECHO, Mode.POOLED)
    pools.died(first.actor, "killed", 1.0)
    other = grant(pools, "d", OTHER, Mode.POOLED, 1.0)
    pools.died(other.actor, "killed", 1.0)
    killed_again = replace(DYING, max_deaths=1)
    pools._intensity._settings = killed_again
    assert grant(pools, "e", ECHO, Mode.POOLED, 1.5).actor == third.actor


def test_a_node_that_is_drained_serves_only_the_sessions_it_has() -> None:
    pools = filled(replace(SETTINGS, supervisor_reserve=2))
    all_ready(pools)
    grant(pools, "a", SUPERVISOR, Mode.POOLED)
    pools.admission.close("node", "n", "drained")
    for session, key in (("b", SUPERVISOR), ("b/b", ECHO)):
        (refused,) = of(Refuse, pools.acquire(session, [Want(key)], 1.0)[1])
        assert refused.reason == "drained"
        # Another node may serve it.
        assert refused.overloaded
    assert grant(pools, "a/a", ECHO, Mode.POOLED)
    # Nobody will ask for a reserve.
    assert not of(StartActor, pools.tick(2.0))
    assert pools.statistics(2.0)["refusing"] == ["drained"]
    pools.admission.open("node", "n")
    assert of(StartActor, pools.tick(3.0))


def test_an_app_is_refused_in_one_version_or_all() -> None:
    pools = filled(replace(SETTINGS, reserve=0, supervisor_reserve=4, max_actors=9))
    all_ready(pools)

    def refused(kind: str) -> bool:
        key = PoolKey.of(Role.SUPERVISOR, kind)
        return bool(of(Refuse, pools.acquire(kind, [Want(key)], 1.0)[1]))

    pools.admission.close("app", "bot@1", "an old version")
    assert [refused(kind) for kind in ("bot@1", "bot@2", "bot")] == [True, False, False]
    pools.admission.close("app", "bot", "drained")
    assert [refused(kind) for kind in ("bot@2", "bot", "robot")] == [True, True, False]
    pools.admission.open("app", "bot")
    assert not refused("bot@3")
    assert refused("bot@1")


def test_another_agent_goes_on_where_one_has_left_off() -> None:
    pools = filled(replace(SETTINGS, supervisor_reserve=1))
    all_ready(pools)
    grant(pools, "a", SUPERVISOR, Mode.POOLED)
    shared = grant(pools, "a/a", ECHO, Mode.POOLED)
    grant(pools, "b/b", OTHER, Mode.DEDICATED)
    left = pools.ready()
    heir = NodePools(pools.settings, first_number=1000)
    heir.adopt(left, 50.0)
    assert heir.leases_of(shared.actor) == {shared.lease: "a/a"}
    assert heir.actor_of(shared.lease) == shared.actor
    assert heir.carrier_of("a/a") == heir.carrier_of("a") != heir.carrier_of("b/b") is None
    assert grant(heir, "c", ECHO, Mode.POOLED, 51.0).actor == shared.actor
    all_ready(heir, 51.0)
    fresh = grant(heir, "d", OTHER, Mode.POOLED, 51.0)
    assert fresh.lease >= 1000
    assert len(of(KillActor, heir.release("b", 52.0))) == 1


def test_what_is_only_reserved_is_not_left() -> None:
    pools = filled()
    pools.acquire("a", [Want(ECHO, Mode.DEDICATED)] * 3, 0.0)
    assert all(not actor.leases for actor in pools.ready())


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("Echo", {"a.b:Echo", "a.b:Echo #2", "c:Other+a.b:Echo"}),
        ("a.b:Echo", {"a.b:Echo", "a.b:Echo #2", "c:Other+a.b:Echo"}),
        ("light", {"pool light", "pool light #2"}),
        ("Other", {"c:Other+a.b:Echo"}),
        ("pool", set()),
    ],
)
def test_what_people_call_a_pool(name: str, kinds: set[str]) -> None:
    everything = [
        "a.b:Echo",
        "a.b:Echo #2",
        "c:Other+a.b:Echo",
        "pool light",
        "pool light #2",
        "d:EchoService",
    ]
    assert {kind for kind in everything if is_of_pool(kind, name)} == kinds


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["acquire", "release", "retire", "died", "started", "tick", "adopt"]),
        st.sampled_from(["a", "b", "c", "d"]),
        st.sampled_from([ECHO, OTHER, SUPERVISOR]),
        st.sampled_from(list(Mode)),
        st.integers(0, 20),
    ),
    max_size=60,
)


@given(STEPS)
def test_any_order_of_events(steps: list[tuple[str, str, PoolKey, Mode, int]]) -> None:
    """A retiring actor is never given away and never kept empty, and no lease is in two places."""
    pools = filled(replace(SETTINGS, max_deaths=3, deaths_period_secs=5.0))
    now = 0.0
    for step, session, key, mode, number in steps:
        now += 0.5
        actors = sorted(pools._actors)
        actor = actors[number % len(actors)] if actors else 0
        before = {n: set(a.leases) for n, a in pools._actors.items() if a.retiring}
        match step:
            case "acquire":
                pools.acquire(session, [Want(key, mode)], now)
            case "release":
                pools.release(session, now)
            case "retire":
                pools.retire(actor, "why", now)
            case "died":
                for action in pools.died(actor, "killed", now):
                    if isinstance(action, ReportDeath):
                        assert action.actor == actor
            case "started":
                all_ready(pools, now)
            case "adopt":
                lease = next(pools.numbers)
                pools.adopt(
                    [
                        PoolActor(
                            next(pools.numbers),
                            key.start_class,
                            State.READY,
                            key,
                            slots=2,
                            leases={lease: session},
                            served=1,
                        )
                    ],
                    now,
                )
            case _:
                pools.tick(now)
        for n, leases in before.items():
            if pools.knows(n):
                assert set(pools._actors[n].leases) <= leases
        everything = [lease for found in pools._actors.values() for lease in found.leases]
        assert len(everything) == len(set(everything))
        assert all(found.leases for found in pools._actors.values() if found.retiring)
        assert all(len(a.leases) <= a.slots for a in pools._actors.values() if a.key is not None)
