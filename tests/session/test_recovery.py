"""The decisions about lost processors, without any."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import ConfigError
from antiphon_actors.placement.supervision import Strategy, Supervision
from antiphon_actors.session.recovery import (
    GATHER_SECS,
    Action,
    GiveUp,
    Group,
    Recovery,
    Replace,
    State,
)


def recovery(
    strategy: Strategy = "one_for_one",
    max_restarts: int = 2,
    pids: Sequence[int] = (1, 2, 3),
    **more: float,
) -> Recovery:
    supervision = Supervision((), strategy, max_restarts, within_secs=10.0)
    return Recovery([Group(supervision, tuple(pids))], **more)


def lose(machine: Recovery, pids: Iterable[int], now: float, reason: str = "gone") -> list[Action]:
    """Loses processors, and lets the moment pass in which others may follow."""
    return machine.lost(pids, reason, now) or machine.tick(now + GATHER_SECS)


def replaces(actions: list[Action]) -> set[int]:
    (action,) = actions
    assert isinstance(action, Replace)
    return set(action.pids)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("one_for_one", {2}), ("rest_for_one", {2, 3}), ("one_for_all", {1, 2, 3})],
)
def test_strategies(strategy: Strategy, expected: set[int]) -> None:
    machine = recovery(strategy)
    assert replaces(lose(machine, [2], 0.0)) == expected
    assert machine.missing == expected
    assert machine.replaced(1, 0.5) == []
    assert machine.state is State.SOUND
    assert not machine.missing
    (recovered,) = machine.history
    assert recovered.pids == expected
    assert (recovered.secs, recovered.attempts, recovered.reason) == (0.5, 1, "gone")


def test_a_group_does_not_touch_another() -> None:
    groups = [
        Group(Supervision(strategy="one_for_all"), (1, 2)),
        Group(Supervision(strategy="one_for_all"), (3, 4)),
    ]
    assert replaces(lose(Recovery(groups), [2], 0.0)) == {1, 2}
    assert replaces(lose(Recovery(groups), [2, 3], 0.0)) == {1, 2, 3, 4}


def test_the_same_loss_is_no_news() -> None:
    machine = recovery(max_restarts=1)
    lose(machine, [1], 0.0)
    machine.failed(1, "no actor", 0.1)
    assert machine.lost([1], "gone", 0.12) == []
    assert machine.state is State.WAITING


def test_what_is_lost_meanwhile_comes_next() -> None:
    machine = recovery()
    assert replaces(lose(machine, [1], 0.0)) == {1}
    assert lose(machine, [3], 0.1, "gone too") == []
    assert replaces(machine.replaced(1, 0.2) or machine.tick(0.2)) == {3}
    assert machine.missing == {3}
    assert machine.replaced(2, 0.3) == []
    assert [set(entry.pids) for entry in machine.history] == [{1}, {3}]


def test_a_successor_that_is_lost_in_its_turn_is_replaced_again() -> None:
    machine = recovery()
    lose(machine, [1], 0.0)
    assert lose(machine, [1], 0.1, "gone again") == []
    assert replaces(machine.replaced(1, 0.2) or machine.tick(0.2)) == {1}
    assert machine.replaced(2, 0.3) == []
    assert machine.state is State.SOUND


def test_attempts_are_repeated_after_growing_pauses() -> None:
    machine = recovery(deadline_secs=1.0)
    lose(machine, [1], 0.0)
    assert machine.wake_at() is None
    assert machine.failed(1, "no actor", 0.1) == []
    assert machine.wake_at() == pytest.approx(0.15)
    assert machine.tick(0.14) == []
    assert replaces(machine.tick(0.16)) == {1}
    machine.failed(2, "no actor", 0.2)
    assert machine.wake_at() == pytest.approx(0.3)
    assert replaces(machine.tick(0.31)) == {1}
    (action,) = machine.failed(3, "still none", 0.9)
    assert action == GiveUp("gone; and it could not be replaced: still none")
    assert machine.state is State.OVER


def test_too_many_losses_end_it() -> None:
    machine = recovery(max_restarts=2)
    for attempt, now in ((1, 0.0), (2, 1.0)):
        lose(machine, [1], now)
        machine.replaced(attempt, now + 0.1)
    (action,) = lose(machine, [2], 2.0)
    assert action == GiveUp("lost 3 times within 10 s: gone")
    assert machine.missing == {2}
    assert lose(machine, [1], 3.0) == []
    assert machine.replaced(3, 3.0) == []
    assert machine.failed(3, "", 3.0) == []


def test_what_is_lost_together_is_replaced_together() -> None:
    machine = recovery()
    assert machine.lost([1], "gone", 0.0) == []
    assert machine.lost([2], "gone", 0.001) == []
    assert machine.wake_at() == GATHER_SECS
    assert replaces(machine.tick(GATHER_SECS)) == {1, 2}


def test_processors_that_are_moved_are_not_counted() -> None:
    machine = recovery(max_restarts=0)
    assert machine.moved([1], "drained", 0.0) == []
    assert replaces(machine.tick(1.0)) == {1}
    assert machine.moved([1, 2], "drained", 1.1) == []
    machine.replaced(1, 1.2)
    assert replaces(machine.tick(1.2)) == {1, 2}


def test_old_losses_are_forgotten() -> None:
    machine = recovery(max_restarts=1)
    lose(machine, [1], 0.0)
    machine.replaced(1, 0.1)
    assert replaces(lose(machine, [1], 10.0)) == {1}


def test_the_first_loss_may_be_the_last() -> None:
    (action,) = lose(recovery(max_restarts=0), [1], 0.0)
    assert isinstance(action, GiveUp)


def test_answers_of_earlier_attempts_are_ignored() -> None:
    machine = recovery()
    lose(machine, [1], 0.0)
    machine.failed(1, "no actor", 0.0)
    machine.tick(1.0)
    assert machine.replaced(1, 1.1) == []
    assert machine.failed(1, "late", 1.1) == []
    assert machine.state is State.REPLACING


def test_nothing_happens_after_the_end() -> None:
    machine = recovery()
    machine.end()
    assert lose(machine, [1], 0.0) == []
    assert machine.tick(5.0) == []


@pytest.mark.parametrize(
    "values",
    [
        {"strategy": "all"},
        {"match": "STT"},
        {"max_restarts": -1},
        {"max_restarts": 1.5},
        {"within_secs": 0},
    ],
)
def test_impossible_supervision_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="supervision"):
        Supervision(**values)  # type: ignore[arg-type]


events = st.lists(
    st.one_of(
        st.tuples(st.just("lost"), st.sets(st.integers(1, 5), min_size=1)),
        st.tuples(st.sampled_from(["replaced", "failed"]), st.booleans()),
        st.tuples(st.just("tick"), st.floats(0, 3)),
    ),
    max_size=40,
)


@given(
    events,
    st.sampled_from(["one_for_one", "rest_for_one", "one_for_all"]),
    st.integers(0, 6),
)
def test_whatever_the_order_each_loss_is_answered_once(
    events: list[tuple[str, object]], strategy: Strategy, max_restarts: int
) -> None:
    """One attempt at a time; nothing is missing for ever; after giving up nothing more happens."""
    supervision = Supervision((), strategy, max_restarts, 5.0)
    machine = Recovery([Group(supervision, (1, 2, 3)), Group(Supervision(), (4, 5))])
    now, under_way, over = 0.0, 0, False
    present = {1, 2, 3, 4, 5}
    for kind, value in events:
        now += 0.1
        actions: list[Action] = []
        if kind == "lost":
            assert isinstance(value, set)
            actions = machine.lost(value, "gone", now)
            if not over:
                present -= value
        elif kind == "tick":
            assert isinstance(value, float)
            now += value
            actions = machine.tick(now)
        elif under_way:
            attempt, under_way = under_way, 0
            actions = (
                machine.replaced(attempt, now)
                if kind == "replaced"
                else machine.failed(attempt, "no", now)
            )
        assert not (over and actions)
        assert len(actions) <= 1
        for action in actions:
            if isinstance(action, GiveUp):
                over = True
                under_way = 0
            else:
                assert not under_way
                under_way = action.attempt
                assert action.pids
                assert action.pids == machine.missing
        if over:
            continue
        # Whoever is lost is being replaced, will be next, or is waited for.
        assert (machine.state is State.SOUND) == (not machine.missing)
        assert (machine.state is State.REPLACING) == bool(under_way)
        assert (machine.state is State.WAITING) == (machine.wake_at() is not None)
    # Left alone, it ends sound or given up.
    for _ in range(20):
        now += 0.1
        if under_way:
            attempt, under_way = under_way, 0
            actions = machine.replaced(attempt, now)
        else:
            actions = machine.tick(now + 5.0)
        for action in actions:
            assert isinstance(action, Replace)
            under_way = action.attempt
    assert machine.state in (State.SOUND, State.OVER)
