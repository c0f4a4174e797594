from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ray.pool_support import (
    ECHO,
    GPU,
    OTHER,
    SETTINGS,
    SUPERVISOR,
    breakers,
    filled,
    grant,
    of,
)

from antiphon_actors.breakers import StartBreakers
from antiphon_actors.pool_types import (
    Action,
    Grant,
    KillActor,
    Mode,
    PoolKey,
    Refuse,
    ReportDeath,
    Role,
    StartActor,
    Want,
)
from antiphon_actors.pools import NodePools


def test_fills_the_reserve_a_few_at_a_time() -> None:
    pools = NodePools(replace(SETTINGS, reserve=3))
    first = of(StartActor, pools.tick(0.0))
    assert len(first) == 2
    assert pools.tick(0.0) == []
    assert len(of(StartActor, pools.started(first[0].actor, 1.0))) == 1
    assert pools.started(first[1].actor, 1.0) == []


def test_pooled_sessions_share_an_actor_until_its_slots_are_used() -> None:
    pools = filled()
    first = grant(pools, "a", ECHO, Mode.POOLED)
    second = grant(pools, "b", ECHO, Mode.POOLED)
    third = grant(pools, "c", ECHO, Mode.POOLED)
    assert first.actor == second.actor != third.actor
    assert pools.used_slots(first.actor) == 2


def test_an_actor_serves_one_kind() -> None:
    pools = filled()
    assert grant(pools, "a", ECHO, Mode.POOLED).actor != grant(pools, "a", OTHER, Mode.POOLED).actor


def test_a_dedicated_actor_is_never_shared_and_dies_with_its_session() -> None:
    pools = filled()
    alone = grant(pools, "a", ECHO, Mode.DEDICATED)
    assert grant(pools, "b", ECHO, Mode.POOLED).actor != alone.actor
    assert of(KillActor, pools.release("a", 1.0)) == [KillActor(alone.actor, "its session is over")]


def test_the_fullest_actor_is_filled_first() -> None:
    pools = filled(replace(SETTINGS, slots_per_actor=3))
    first = grant(pools, "a", ECHO, Mode.POOLED)
    for session in "bc":
        grant(pools, session, ECHO, Mode.POOLED)
    fuller = grant(pools, "d", ECHO, Mode.POOLED)
    grant(pools, "e", ECHO, Mode.POOLED)
    pools.release("a", 1.0)
    pools.release("b", 1.0)
    assert pools.used_slots(first.actor) == 1
    assert grant(pools, "f", ECHO, Mode.POOLED).actor == fuller.actor


def test_taking_from_the_reserve_refills_it() -> None:
    pools = filled()
    _, actions = pools.acquire("a", [Want(ECHO, Mode.DEDICATED)], 0.0)
    assert [type(action) for action in actions] == [Grant, StartActor]


def test_waits_for_a_start_when_the_reserve_is_empty() -> None:
    pools = NodePools(replace(SETTINGS, reserve=0))
    request, actions = pools.acquire("a", [Want(ECHO, Mode.DEDICATED)], 0.0)
    (start,) = of(StartActor, actions)
    assert pools.hurried
    assert pools.starting == 1
    (granted,) = of(Grant, pools.started(start.actor, 1.0))
    assert (granted.request, granted.session) == (request, "a")
    assert [place.actor for place in granted.places] == [start.actor]


def test_waiting_pooled_requests_share_one_start() -> None:
    pools = NodePools(replace(SETTINGS, reserve=0, max_starts=9))
    starts = []
    for session in "abc":
        starts += of(StartActor, pools.acquire(session, [Want(ECHO, Mode.POOLED)], 0.0)[1])
    assert len(starts) == 2
    assert len(of(Grant, pools.started(starts[0].actor, 1.0))) == 2


def test_resources_are_never_served_from_the_reserve() -> None:
    pools = filled()
    _, actions = pools.acquire("a", [Want(GPU, Mode.POOLED)], 0.0)
    assert actions == [StartActor(of(StartActor, actions)[0].actor, *GPU.start_class)]
    assert GPU.resources == (("num_gpus", 1),)


def test_a_supervisor_goes_before_the_reserve() -> None:
    pools = NodePools(replace(SETTINGS, max_starts=1))
    (blank,) = of(StartActor, pools.tick(0.0))
    pools.acquire("a", [Want(SUPERVISOR, Mode.POOLED)], 0.0)
    (start,) = of(StartActor, pools.started(blank.actor, 1.0))
    assert start.role is Role.SUPERVISOR


def test_avoided_actors_are_not_chosen() -> None:
    pools = filled()
    first = grant(pools, "a", ECHO, Mode.POOLED)
    _, actions = pools.acquire("a", [Want(ECHO, Mode.POOLED)], 0.0, avoid=[first.actor])
    assert of(Grant, actions)[0].places[0].actor != first.actor


def test_an_overdue_request_is_refused() -> None:
    pools = NodePools(replace(SETTINGS, reserve=0))
    request, _ = pools.acquire("a", [Want(ECHO, Mode.POOLED)], 0.0)
    assert pools.wake_at(0.0) == 10.0
    assert of(Refuse, pools.tick(9.9)) == []
    (refused,) = of(Refuse, pools.tick(10.0))
    assert refused.request == request
    assert refused.overloaded
    assert "10 s" in refused.reason


def test_a_cancelled_request_gets_nothing() -> None:
    pools = NodePools(replace(SETTINGS, reserve=0))
    request, actions = pools.acquire("a", [Want(ECHO, Mode.DEDICATED)], 0.0)
    pools.cancel(request, 0.5)
    assert of(Grant, pools.started(of(StartActor, actions)[0].actor, 1.0)) == []


def test_releasing_a_session_refuses_what_it_waits_for() -> None:
    pools = NodePools(replace(SETTINGS, reserve=0))
    request, _ = pools.acquire("a", [Want(ECHO, Mode.DEDICATED)], 0.0)
    assert [item.request for item in of(Refuse, pools.release("a", 0.1))] == [request]


def test_too_many_waiting_are_refused_at_once() -> None:
    pools = NodePools(replace(SETTINGS, reserve=0))
    for number in range(4):
        pools.acquire(f"{number}", [Want(ECHO, Mode.POOLED)], 0.0)
    (refused,) = of(Refuse, pools.acquire("last", [Want(ECHO, Mode.POOLED)], 0.0)[1])
    assert refused.overloaded


def test_a_full_node_refuses() -> None:
    pools = filled(replace(SETTINGS, max_actors=2))
    grant(pools, "a", ECHO, Mode.DEDICATED)
    grant(pools, "b", ECHO, Mode.DEDICATED)
    (refused,) = of(Refuse, pools.acquire("c", [Want(ECHO, Mode.DEDICATED)], 0.0)[1])
    assert refused.overloaded
    assert "at most 2 actors" in refused.reason


def test_a_full_node_gives_up_an_idle_actor_for_another_kind() -> None:
    pools = filled(replace(SETTINGS, max_actors=2))
    idle = grant(pools, "a", ECHO, Mode.POOLED)
    grant(pools, "b", OTHER, Mode.DEDICATED)
    pools.release("a", 1.0)
    _, actions = pools.acquire("c", [Want(SUPERVISOR, Mode.POOLED)], 2.0)
    assert of(KillActor, actions)[0].actor == idle.actor
    assert of(StartActor, actions)[0].role is Role.SUPERVISOR


def test_idle_pooled_actors_go_and_the_reserve_stays() -> None:
    pools = filled()
    first = grant(pools, "a", ECHO, Mode.POOLED)
    for start in of(StartActor, pools.tick(0.0)):
        pools.started(start.actor, 0.0)
    pools.release("a", 5.0)
    assert pools.wake_at(5.0) == 35.0
    assert of(KillActor, pools.tick(34.9)) == []
    assert of(KillActor, pools.tick(35.0)) == [KillActor(first.actor, "idle")]
    assert of(KillActor, pools.tick(999.0)) == []


def test_failed_starts_are_retried_after_a_growing_pause() -> None:
    pools = NodePools(replace(SETTINGS, reserve=1))
    (start,) = of(StartActor, pools.tick(0.0))
    assert pools.start_failed(start.actor, "no memory", 0.0) == []
    assert pools.wake_at(0.0) == 1.0
    assert pools.tick(0.9) == []
    (start,) = of(StartActor, pools.tick(1.0))
    assert pools.wake_at(1.0) is None
    pools.start_failed(start.actor, "no memory", 1.0)
    assert pools.wake_at(1.0) == 3.0


def test_repeated_failures_refuse_with_the_reason_and_recover() -> None:
    pools = NodePools(replace(SETTINGS, reserve=0))
    request, actions = pools.acquire("a", [Want(ECHO, Mode.POOLED)], 0.0)
    now = 0.0
    for _ in range(2):
        pools.start_failed(of(StartActor, actions)[0].actor, "no sockets", now)
        now = pools.wake_at(now) or now
        actions = pools.tick(now)
    (refused,) = of(Refuse, pools.start_failed(of(StartActor, actions)[0].actor, "no sockets", now))
    assert refused.request == request
    assert "no sockets" in refused.reason
    assert of(Refuse, pools.acquire("b", [Want(ECHO, Mode.POOLED)], now)[1])
    # After the pause one attempt is made for whoever asks then.
    _, actions = pools.acquire("c", [Want(ECHO, Mode.POOLED)], now + 3.0)
    (granted,) = of(Grant, pools.started(of(StartActor, actions)[0].actor, now + 4.0))
    assert granted.session == "c"
    assert pools.statistics(now + 4.0)["breakers"] == []


def test_failures_of_one_class_do_not_stop_another() -> None:
    pools = filled()
    _, actions = pools.acquire("a", [Want(GPU, Mode.POOLED)], 0.0)
    for _ in range(3):
        now = pools.wake_at(0.0) or 0.0
        pools.start_failed(of(StartActor, actions)[0].actor, "no GPU here", now)
        actions = pools.tick(pools.wake_at(now) or now)
        if not of(StartActor, actions):
            break
    assert grant(pools, "b", ECHO, Mode.POOLED, 5.0)


def test_a_death_is_reported_with_its_sessions_and_replaced() -> None:
    pools = filled(replace(SETTINGS, reserve=1))
    first = grant(pools, "a", ECHO, Mode.POOLED)
    grant(pools, "b", ECHO, Mode.POOLED)
    actions = pools.died(first.actor, "killed", 1.0)
    assert actions[0] == ReportDeath(first.actor, Role.PROCESSOR, "Echo", ("a", "b"), "killed")
    assert pools.died(first.actor, "killed", 1.0) == []
    assert pools.release("a", 2.0) == []


def test_a_death_while_starting_is_a_failed_start() -> None:
    pools = NodePools(replace(SETTINGS, reserve=1))
    (start,) = of(StartActor, pools.tick(0.0))
    assert of(ReportDeath, pools.died(start.actor, "killed", 0.0)) == []
    (breaker,) = breakers(pools, 0.0)
    assert (breaker["role"], breaker["failures"], breaker["open"]) == ("processor", 1, False)


def test_closing_refuses_and_kills_everything() -> None:
    pools = filled()
    grant(pools, "a", ECHO, Mode.POOLED)
    request, _ = pools.acquire("b", [Want(GPU, Mode.POOLED)], 0.0)
    actions = pools.close("going away")
    assert [item.request for item in of(Refuse, actions)] == [request]
    assert len(of(KillActor, actions)) == 4
    assert of(Refuse, pools.acquire("c", [Want(ECHO, Mode.POOLED)], 1.0)[1])
    assert pools.tick(100.0) == []
    assert pools.wake_at(100.0) is None


def test_an_actor_that_starts_after_the_end_is_killed() -> None:
    pools = NodePools(SETTINGS)
    (start, _) = of(StartActor, pools.tick(0.0))
    pools.close("going away")
    assert of(KillActor, pools.started(start.actor, 1.0)) == [
        KillActor(start.actor, "no longer wanted")
    ]


WANTS = st.lists(
    st.builds(Want, st.sampled_from([ECHO, OTHER, GPU, SUPERVISOR]), st.sampled_from(list(Mode))),
    min_size=1,
    max_size=4,
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acquire", "cancel", "release", "started", "failed", "died", "tick"]),
            st.integers(0, 5),
            WANTS,
        ),
        max_size=60,
    )
)
def test_limits_hold_whatever_happens(events: list[tuple[str, int, list[Want]]]) -> None:
    pools = NodePools(SETTINGS)
    starting: set[int] = set()
    alive: set[int] = set()
    waiting: dict[int, int] = {}
    now = 0.0

    def take(actions: list[Action]) -> None:
        for action in actions:
            match action:
                case StartActor(actor=actor):
                    starting.add(actor)
                case KillActor(actor=actor):
                    assert actor in starting | alive
                    starting.discard(actor)
                    alive.discard(actor)
                case Grant(request=request, places=places):
                    assert {place.actor for place in places} <= alive
                    assert len(places) == waiting.pop(request)
                case Refuse(request=request):
                    del waiting[request]
                case ReportDeath():
                    pass

    for event, number, wanted in events:
        now += 0.7
        if event == "acquire":
            request, actions = pools.acquire(f"s{number}", wanted, now)
            waiting[request] = len(wanted)
            take(actions)
        elif event == "cancel" and waiting:
            request = sorted(waiting)[number % len(waiting)]
            del waiting[request]
            take(pools.cancel(request, now))
        elif event == "release":
            take(pools.release(f"s{number}", now))
        elif event == "tick":
            take(pools.tick(now))
        elif event == "died" and alive:
            actor = sorted(alive)[number % len(alive)]
            alive.discard(actor)
            take(pools.died(actor, "test", now))
        elif event in ("started", "failed") and starting:
            actor = sorted(starting)[number % len(starting)]
            starting.discard(actor)
            if event == "started":
                alive.add(actor)
                take(pools.started(actor, now))
            else:
                take(pools.start_failed(actor, "test", now))
        assert len(starting) <= SETTINGS.max_starts
        assert len(starting | alive) <= SETTINGS.max_actors
        assert all(pools.used_slots(actor) <= SETTINGS.slots_per_actor for actor in alive)
        assert pools.statistics(now)["waiting"] == len(waiting) <= SETTINGS.max_waiting
        take(pools.tick(now))
        due = pools.wake_at(now)
        assert due is None or due > now
    take(pools.tick(now + 1000.0))
    assert not waiting
    for number in range(6):
        take(pools.release(f"s{number}", now + 1000.0))
    # Nothing that was only reserved is left behind.
    assert not any(pools.used_slots(actor) for actor in alive)
    take(pools.close("end"))
    assert not starting | alive


@pytest.mark.parametrize("resources", [None, {}, {"num_cpus": 0}])
def test_no_resources_mean_the_reserve(resources: dict[str, float] | None) -> None:
    assert PoolKey.of(Role.PROCESSOR, "Echo", resources) == ECHO


def test_a_pause_has_its_limit_however_often_a_start_fails() -> None:
    start_class = PoolKey.of(Role.PROCESSOR, "Echo", None).start_class
    pauses = StartBreakers(SETTINGS)
    for now in range(2000):
        pauses.failed(start_class, "no memory", float(now))
    assert pauses._breakers[start_class].retry_at == 1999.0 + SETTINGS.backoff_limit_secs
