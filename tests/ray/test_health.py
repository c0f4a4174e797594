from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ray.pool_support import SETTINGS

from antiphon_actors.health import (
    ISOLATIONS,
    ISOLATIONS_PERIOD_SECS,
    LOOK_AGAIN_SECS,
    PATIENCE,
    SLOW_PERIOD_SECS,
    SLOW_TIMES,
    Condition,
    Destroy,
    Examine,
    Finding,
    HealthAction,
    Isolate,
    NodeHealth,
    Reason,
)
from antiphon_actors.pool_types import PoolSettings, Role
from antiphon_actors.pulse import Pulse

T = TypeVar("T")

MB = 1_000_000
LIMITS = replace(
    SETTINGS,
    max_lag_ms=500.0,
    max_silence_secs=2.0,
    max_sessions_per_actor=100,
    max_growth_bytes=50 * MB,
    settled_sessions=10,
)


def beat(lag_ms: float = 0.0, memory: int = 90 * MB, **more: object) -> Pulse:
    return Pulse(1, lag_ms, memory, **more)  # type: ignore[arg-type]


class FakeUse:
    """Actors that have served so many, since long ago."""

    def __init__(self, actors: Sequence[int]) -> None:
        self.counts = dict.fromkeys(actors, 0)
        self.assigned = dict.fromkeys(actors, -1000.0)
        self.kinds = {actor: f"Kind{actor}" for actor in actors}
        self.dedicated: set[int] = set()

    def served(self, actor: int) -> int:
        return self.counts[actor]

    def assigned_at(self, actor: int) -> float:
        return self.assigned[actor]

    def kind_of(self, actor: int) -> str:
        return self.kinds[actor]

    def is_pooled(self, actor: int) -> bool:
        return actor not in self.dedicated


class Node:
    """A node's health, and the use of its actors."""

    def __init__(self, *actors: int, settings: PoolSettings = LIMITS) -> None:
        self.use = FakeUse(actors)
        self.served = self.use.counts
        self.health = NodeHealth(settings, self.use)
        for actor in actors:
            self.health.joined(actor, Role.PROCESSOR, 0.0)

    def condition(self, actor: int) -> Condition:
        record = self.health.record(actor)
        assert record is not None
        return record.condition


def only(actions: Sequence[HealthAction], kind: type[T]) -> T:
    (action,) = actions
    assert isinstance(action, kind)
    return action


def test_a_quick_actor_is_healthy() -> None:
    node = Node(1)
    assert node.health.pulse(1, beat(20.0), 1.0) == []
    assert node.condition(1) is Condition.HEALTHY
    assert node.health.tick(2.9) == []


def test_a_stuck_one_is_isolated_at_once_and_its_line_is_named() -> None:
    node = Node(1)
    isolate = only(
        node.health.pulse(1, beat(510.0, doing="Slow#0 in slow.py:7 (run)"), 1.0), Isolate
    )
    assert isolate.reason is Reason.STUCK
    assert isolate.text == (
        "its event loop is stuck for 510 ms already, in Slow#0 in slow.py:7 (run)"
    )
    assert node.condition(1) is Condition.ISOLATED
    assert node.health.pulse(1, beat(800.0), 1.3) == []


def test_a_slow_one_is_suspicious_for_a_while() -> None:
    node = Node(1)
    assert node.health.pulse(1, beat(300.0), 1.0) == []
    assert node.condition(1) is Condition.SUSPICIOUS
    assert node.health.pulse(1, beat(1.0), 1.0 + SLOW_PERIOD_SECS) == []
    assert node.condition(1) is Condition.SUSPICIOUS
    node.health.pulse(1, beat(1.0), 1.1 + SLOW_PERIOD_SECS)
    assert node.condition(1) is Condition.HEALTHY


def test_one_that_is_slow_again_and_again_is_isolated() -> None:
    node = Node(1)
    for number in range(SLOW_TIMES - 1):
        assert node.health.pulse(1, beat(300.0), 1.0 + number) == []
    isolate = only(node.health.pulse(1, beat(300.0), 1.0 + SLOW_TIMES), Isolate)
    assert isolate.reason is Reason.SLOW


def test_one_that_is_slow_now_and_then_is_not() -> None:
    node = Node(1)
    for number in range(3 * SLOW_TIMES):
        assert node.health.pulse(1, beat(300.0), number * SLOW_PERIOD_SECS) == []


def test_a_silent_one_is_looked_at_once_at_a_time() -> None:
    node = Node(1, 2)
    node.health.pulse(2, beat(), 1.0)
    assert node.health.wake_at() == 2.0
    assert node.health.tick(2.0) == [Examine(1)]
    assert node.condition(1) is Condition.SUSPICIOUS
    assert node.health.tick(2.5) == []
    assert node.health.suspected(1, "its link broke", 2.6) == []
    assert node.health.examined(1, Finding.ALIVE, "", 3.0) == []
    # It goes on to be silent.
    assert node.health.tick(2.9 + LOOK_AGAIN_SECS) == [Examine(2)]
    assert node.health.tick(3.0 + LOOK_AGAIN_SECS) == [Examine(1)]


@pytest.mark.parametrize(
    ("finding", "action"),
    [
        (Finding.ALIVE, None),
        (Finding.STUCK, Isolate(1, Reason.STUCK, "why")),
        (Finding.FROZEN, Destroy(1, "why")),
        (Finding.DEAD, Destroy(1, "why")),
    ],
)
def test_what_follows_from_a_look(finding: Finding, action: HealthAction | None) -> None:
    node = Node(1)
    assert node.health.suspected(1, "its link broke", 1.0) == [Examine(1)]
    assert node.condition(1) is Condition.SUSPICIOUS
    found = node.health.examined(1, finding, "why", 1.1)
    assert found == ([action] if action is not None else [])


def test_a_pulse_clears_a_suspicion() -> None:
    node = Node(1)
    node.health.suspected(1, "its link broke", 1.0)
    node.health.examined(1, Finding.ALIVE, "", 1.1)
    node.health.pulse(1, beat(), 1.2)
    assert node.condition(1) is Condition.HEALTHY


def test_one_that_has_just_got_a_session_may_load_what_that_needs() -> None:
    node = Node(1)
    node.use.assigned[1] = 1.0
    assert node.health.pulse(1, beat(2000.0), 1.0 + LIMITS.begin_secs) == []
    assert node.condition(1) is Condition.SUSPICIOUS
    # Not for ever.
    isolate = only(node.health.pulse(1, beat(500.0 * PATIENCE), 1.0 + LIMITS.begin_secs), Isolate)
    assert isolate.reason is Reason.STUCK
    assert only(Node(1).health.pulse(1, beat(2000.0), 1.1 + LIMITS.begin_secs), Isolate)


def test_a_look_at_one_that_begins_is_no_reason_either() -> None:
    node = Node(1)
    node.use.assigned[1] = 1.0
    node.health.suspected(1, "silent", 2.0)
    assert node.health.examined(1, Finding.STUCK, "", 2.5) == []
    assert node.condition(1) is Condition.SUSPICIOUS


def test_a_kind_that_is_slow_by_nature_is_not_moved_about() -> None:
    actors = range(1, ISOLATIONS + 3)
    node = Node(*actors)
    node.use.kinds.update(dict.fromkeys(actors, "Slow"))
    for actor in range(1, ISOLATIONS + 1):
        assert node.health.pulse(actor, beat(600.0), float(actor))
    assert node.health.pulse(ISOLATIONS + 1, beat(600.0), 10.0) == []
    # One that does nothing at all still goes, and so does each when that time is over.
    assert node.health.pulse(ISOLATIONS + 1, beat(500.0 * PATIENCE), 15.0)
    later = 20.0 + ISOLATIONS_PERIOD_SECS
    assert node.health.pulse(ISOLATIONS + 2, beat(600.0), later)


def test_one_that_was_told_to_end_leaves() -> None:
    node = Node(1)
    isolate = only(node.health.pulse(1, beat(leaving=True), 1.0), Isolate)
    assert isolate.reason is Reason.LEAVING
    assert node.health.pulse(1, beat(leaving=True), 1.3) == []


def test_one_that_has_served_enough_is_replaced_and_the_next_only_after_it() -> None:
    node = Node(1, 2, 3)
    node.served.update({1: 100, 2: 100, 3: 99})
    assert only(node.health.pulse(1, beat(), 1.0), Isolate).reason is Reason.WORN
    assert node.health.pulse(2, beat(), 1.0) == []
    assert node.health.pulse(3, beat(), 1.0) == []
    node.health.left(1)
    assert only(node.health.pulse(2, beat(), 1.3), Isolate).actor == 2


def test_growth_counts_from_when_it_had_settled() -> None:
    node = Node(1)
    node.health.pulse(1, beat(memory=90 * MB), 1.0)
    node.served[1] = 10
    node.health.pulse(1, beat(memory=150 * MB), 2.0)
    assert node.health.pulse(1, beat(memory=199 * MB), 3.0) == []
    isolate = only(node.health.pulse(1, beat(memory=200 * MB), 4.0), Isolate)
    assert (isolate.reason, isolate.text) == (Reason.GROWN, "it has grown by 50 MB")


def test_an_actor_of_one_session_is_not_replaced_for_its_age() -> None:
    node = Node(1)
    node.use.dedicated.add(1)
    node.served[1] = 1000
    node.health.pulse(1, beat(memory=90 * MB), 1.0)
    assert node.health.pulse(1, beat(memory=900 * MB), 2.0) == []


def test_limits_of_zero_are_none() -> None:
    node = Node(1, settings=replace(LIMITS, max_sessions_per_actor=0, max_growth_bytes=0))
    node.served[1] = 10**6
    node.health.pulse(1, beat(memory=90 * MB), 1.0)
    assert node.health.pulse(1, beat(memory=9000 * MB), 2.0) == []


def test_what_is_to_go_goes_sooner_if_it_gets_stuck() -> None:
    node = Node(1)
    node.served[1] = 100
    node.health.pulse(1, beat(), 1.0)
    assert only(node.health.pulse(1, beat(600.0), 2.0), Isolate).reason is Reason.STUCK
    node.health.isolated(1, Reason.DRAINED, "the pool is drained")
    record = node.health.record(1)
    assert record is not None
    assert record.reason is Reason.STUCK


def test_those_that_are_not_known_are_ignored() -> None:
    node = Node()
    assert node.health.pulse(7, beat(900.0), 1.0) == []
    assert node.health.suspected(7, "", 1.0) == []
    assert node.health.examined(7, Finding.DEAD, "", 1.0) == []
    node.health.isolated(7, Reason.DRAINED, "")
    node.health.left(7)
    assert node.health.wake_at() is None


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["pulse", "suspected", "examined", "tick", "left", "joined", "drained"]),
        st.integers(1, 3),
        st.floats(0.0, 3.0),
        st.sampled_from([0.0, 260.0, 600.0]),
        st.sampled_from(list(Finding)),
        st.integers(0, 120),
    ),
    max_size=60,
)


@given(EVENTS)
def test_any_order_of_events(
    events: list[tuple[str, int, float, float, Finding, int]],
) -> None:
    """No actor is told to go twice for the same, none is looked at twice at once, only one goes as planned."""
    node = Node(1, 2, 3)
    now = 0.0
    looking: set[int] = set()
    reasons: dict[int, set[Reason]] = {}
    planned: set[int] = set()
    for event, actor, passed, lag_ms, finding, served in events:
        now += passed
        node.served[actor] = max(node.served[actor], served)
        actions: list[HealthAction] = []
        match event:
            case "pulse":
                actions = node.health.pulse(actor, beat(lag_ms), now)
            case "suspected":
                actions = node.health.suspected(actor, "silent", now)
            case "examined":
                if actor in looking:
                    looking.discard(actor)
                    actions = node.health.examined(actor, finding, "", now)
            case "tick":
                actions = node.health.tick(now)
            case "drained":
                node.health.isolated(actor, Reason.DRAINED, "")
                reasons.setdefault(actor, set()).add(Reason.DRAINED)
            case _:
                node.health.left(actor)
                looking.discard(actor)
                reasons.pop(actor, None)
                planned.discard(actor)
                if event == "joined":
                    node.health.joined(actor, Role.PROCESSOR, now)
        for action in actions:
            match action:
                case Examine(number):
                    assert number not in looking
                    looking.add(number)
                case Isolate(number, reason):
                    assert reason not in reasons.setdefault(number, set())
                    reasons[number].add(reason)
                    if reason.planned:
                        planned.add(number)
                        assert len(planned) == 1
                case Destroy():
                    pass
        due = node.health.wake_at()
        assert due is None or event != "tick" or due > now
