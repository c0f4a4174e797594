"""A session's places together, pools that do not start, and pools that grow and shrink."""

from __future__ import annotations

from dataclasses import replace

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
    ready,
)

from antiphon_actors.pool_types import (
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

THIRD = PoolKey.of(Role.PROCESSOR, "Third")
SMALL = replace(SETTINGS, reserve=0, max_actors=3, max_starts=9)


def test_a_session_gets_all_its_places_in_the_order_it_asked() -> None:
    pools = filled()
    _, actions = pools.acquire("a", [Want(OTHER), Want(ECHO), Want(ECHO), Want(OTHER)], 0.0)
    (granted,) = of(Grant, actions)
    first, second, third, fourth = granted.places
    assert first.actor == fourth.actor != second.actor == third.actor
    assert len({place.lease for place in granted.places}) == 4


def test_its_places_are_granted_together_once_the_last_is_there() -> None:
    pools = filled(replace(SETTINGS, reserve=1, max_starts=1))
    _, actions = pools.acquire("a", [Want(ECHO), Want(OTHER)], 0.0)
    assert not of(Grant, actions)
    (start,) = of(StartActor, actions)
    (granted,) = of(Grant, pools.started(start.actor, 1.0))
    assert granted.places[1].actor == start.actor != granted.places[0].actor


def test_what_waits_keeps_what_it_has_reserved() -> None:
    pools = filled(replace(SETTINGS, reserve=1, slots_per_actor=1))
    pools.acquire("a", [Want(ECHO), Want(OTHER)], 0.0)
    # The one actor of the reserve is promised to the first session.
    assert not of(Grant, pools.acquire("b", [Want(ECHO)], 0.0)[1])


def test_a_session_the_node_has_no_room_for_gets_nothing_and_starts_nothing() -> None:
    pools = filled(replace(SMALL, reserve=1))
    ready(pools, pools.acquire("a", [Want(ECHO, Mode.DEDICATED)], 0.0)[1])
    (refused,) = pools.acquire("b", [Want(ECHO), Want(OTHER), Want(THIRD)], 0.0)[1]
    assert isinstance(refused, Refuse)
    assert refused.overloaded
    assert "2 more, for processor Other (1), processor Third (1)" in refused.reason
    assert "can start 1 beside" in refused.reason
    assert pools.statistics(0.0)["overloads"] == 1
    # The actor of the reserve that it would have had is still everybody's.
    assert pools.statistics(0.0)["reserve"] == 1
    assert grant(pools, "c", OTHER, Mode.POOLED)


def test_a_burst_is_let_in_as_far_as_there_is_room() -> None:
    pools = NodePools(replace(SMALL, max_starts=1))
    answers = [pools.acquire(f"{n}", [Want(ECHO), Want(OTHER)], 0.0)[1] for n in range(4)]
    # Two sessions share an actor of each kind; a third needs a second of both, and one fits.
    refused = [bool(of(Refuse, actions)) for actions in answers]
    assert refused == [False, False, True, True]
    actions = [action for each in answers for action in each]
    granted = [action.session for action in of(Grant, ready(pools, actions))]
    assert granted == ["0", "1"]


def test_what_starts_anyway_counts_as_room() -> None:
    pools = NodePools(replace(SMALL, max_actors=1))
    (start,) = of(StartActor, pools.acquire("a", [Want(ECHO)], 0.0)[1])
    assert pools.acquire("b", [Want(ECHO)], 0.0)[1] == []
    assert of(Refuse, pools.acquire("c", [Want(ECHO)], 0.0)[1])
    assert len(of(Grant, pools.started(start.actor, 0.0))) == 2


def test_a_full_node_gives_up_as_many_idle_actors_as_a_session_needs() -> None:
    pools = filled(replace(SMALL, reserve=0))
    for session, key in (("a", ECHO), ("b", OTHER), ("c", THIRD)):
        ready(pools, pools.acquire(session, [Want(key)], 0.0)[1])
    pools.release("a", 1.0)
    pools.release("b", 2.0)
    _, actions = pools.acquire("d", [Want(SUPERVISOR), Want(GPU)], 3.0)
    assert len(of(KillActor, actions)) == len(of(StartActor, actions)) == 2
    assert of(Grant, ready(pools, actions, 4.0))


def test_the_reserve_takes_no_room_that_was_promised() -> None:
    settings = replace(SETTINGS, reserve=2, max_actors=2, backoff_first_secs=5.0)
    pools = NodePools(replace(settings, reserve=0))
    (start,) = of(StartActor, pools.acquire("a", [Want(GPU)], 0.0)[1])
    pools.settings = settings
    # While the session waits for the next attempt, one actor may be started, and not two.
    assert len(of(StartActor, pools.start_failed(start.actor, "busy", 0.0))) == 1
    assert len(of(StartActor, pools.tick(5.0))) == 1


def test_an_actor_that_dies_with_a_reserved_place_is_replaced_unseen() -> None:
    pools = filled(replace(SETTINGS, reserve=1, max_starts=1))
    _, actions = pools.acquire("a", [Want(ECHO), Want(OTHER)], 0.0)
    (start,) = of(StartActor, actions)
    reserved = next(n for n in range(start.actor) if pools.used_slots(n))
    actions = pools.died(reserved, "killed", 0.0)
    assert of(ReportDeath, actions)[0].sessions == ()
    due = pools.wake_at(0.0)
    assert due is not None
    (granted,) = of(Grant, ready(pools, [start, *pools.tick(due)], due))
    assert reserved not in {place.actor for place in granted.places}


def test_a_session_whose_last_actor_does_not_start_gives_the_others_back() -> None:
    pools = filled(replace(SETTINGS, failures_to_open=1))
    request, actions = pools.acquire("a", [Want(ECHO, Mode.DEDICATED), Want(GPU)], 0.0)
    before = pools.statistics(0.0)["reserve"]
    (start,) = [each for each in of(StartActor, actions) if each.resources]
    (refused,) = of(Refuse, pools.start_failed(start.actor, "no GPU here", 0.0))
    assert refused.request == request
    assert "no GPU here" in refused.reason
    assert before == 1
    assert pools.statistics(0.0)["reserve"] == 2


def test_a_breaker_tells_of_itself_and_closes_with_the_first_use() -> None:
    pools = NodePools(replace(SETTINGS, reserve=1, failures_to_open=2))
    now = 0.0
    for _ in range(2):
        (start,) = of(StartActor, pools.tick(now))
        pools.start_failed(start.actor, "no sockets", now)
        now = pools.wake_at(now) or now
    opened = now - 1.0
    (breaker,) = breakers(pools, opened)
    assert (breaker["open"], breaker["reason"]) == (True, "no sockets")
    assert breaker["retry_in_secs"] == 1.0
    (refused,) = of(Refuse, pools.acquire("a", [Want(ECHO)], opened)[1])
    assert refused.retry_after_secs == 1.0
    # It is tried again, and works; who comes then is served.
    ready(pools, pools.tick(now), now)
    (breaker,) = breakers(pools, now)
    assert not breaker["open"]
    assert grant(pools, "b", ECHO, Mode.POOLED, now)
    assert breakers(pools, now) == []


def test_actors_that_die_before_their_first_use_are_not_started_without_end() -> None:
    pools = NodePools(replace(SETTINGS, reserve=1))
    now, starts = 0.0, 0
    while now < 60.0:
        for start in of(StartActor, pools.tick(now)):
            starts += 1
            pools.started(start.actor, now)
            pools.died(start.actor, "out of memory", now)
        now = pools.wake_at(now) or 60.0
    # After 1, 2, and then every 3 seconds.
    assert starts <= 22
    assert breakers(pools, now - 1.0)[0]["reason"] == "out of memory"


def test_the_supervisors_reserve_serves_a_session_at_once_and_is_refilled() -> None:
    pools = filled(replace(SETTINGS, supervisor_reserve=1))
    _, actions = pools.acquire("a", [Want(SUPERVISOR, Mode.DEDICATED)], 0.0)
    assert of(Grant, actions)
    (start,) = of(StartActor, actions)
    assert start.role is Role.SUPERVISOR
    pools.started(start.actor, 1.0)
    assert of(KillActor, pools.tick(999.0)) == []


def test_a_supervisor_of_several_sessions_is_filled_before_the_next() -> None:
    pools = filled(replace(SETTINGS, supervisor_reserve=2, supervisor_slots=3))
    carriers = [grant(pools, f"{n}", SUPERVISOR, Mode.POOLED).actor for n in range(4)]
    assert len(set(carriers[:3])) == 1
    assert carriers[3] not in carriers[:3]


def test_a_node_takes_no_more_sessions_than_it_may() -> None:
    pools = filled(replace(SETTINGS, supervisor_reserve=1, supervisor_slots=2, max_sessions=3))
    for session in "ab":
        grant(pools, session, SUPERVISOR, Mode.POOLED)
    # The third waits for a supervisor, and counts all the same.
    assert not of(Refuse, pools.acquire("c", [Want(SUPERVISOR)], 0.0)[1])
    (refused,) = pools.acquire("d", [Want(SUPERVISOR)], 0.0)[1]
    assert isinstance(refused, Refuse)
    assert refused.overloaded
    assert refused.reason == "the node has its 3 sessions"
    # Those that are there get what they need.
    assert grant(pools, "a/processors", ECHO, Mode.POOLED)
    pools.release("a", 1.0)
    assert not of(Refuse, pools.acquire("d", [Want(SUPERVISOR)], 1.0)[1])


def test_a_session_is_released_with_its_parts() -> None:
    pools = filled(replace(SETTINGS, supervisor_reserve=1))
    supervisor = grant(pools, "a", SUPERVISOR, Mode.POOLED)
    processor = grant(pools, "a/pipeline", ECHO, Mode.POOLED)
    other = grant(pools, "ab", OTHER, Mode.POOLED)
    pools.release("a", 1.0)
    used = [pools.used_slots(place.actor) for place in (supervisor, processor, other)]
    assert used == [0, 0, 1]


def test_a_load_that_comes_and_goes_moves_no_actor() -> None:
    pools = filled(replace(SETTINGS, slots_per_actor=1))
    moved = 0
    for minute in range(10):
        now = minute * 20.0
        for session in "ab":
            actions = pools.acquire(session, [Want(ECHO)], now)[1]
            if minute:
                moved += len(of(StartActor, actions))
            ready(pools, actions, now)
        for session in "ab":
            pools.release(session, now + 1.0)
        # Two thirds of the time until an idle actor is given back.
        moved += len(of(KillActor, pools.tick(now + 19.0)))
    assert moved == 0


def test_a_pool_shrinks_to_what_its_busiest_moment_needed() -> None:
    pools = filled(replace(SETTINGS, slots_per_actor=1))
    for session in "abc":
        ready(pools, pools.acquire(session, [Want(ECHO)], 0.0)[1])
    for session in "bc":
        pools.release(session, 1.0)
    killed = 0
    for second in range(2, 60):
        killed += len(of(KillActor, pools.tick(float(second))))
        if second % 10 == 0:
            # One more session now and then: of the idle ones, always the same is used.
            grant(pools, "d", ECHO, Mode.POOLED, float(second))
            pools.release("d", float(second))
    assert killed == 1
