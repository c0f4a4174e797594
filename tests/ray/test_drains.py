from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon_actors.drains import (
    END_SECS,
    KEPT_DRAINS,
    CloseAdmission,
    DrainAction,
    DrainModels,
    DrainProgress,
    Drains,
    DrainState,
    DrainTarget,
    EndSessions,
    OpenAdmission,
    RetireActors,
)

T = TypeVar("T")

NODE, POOL, APP = DrainTarget("node", "n"), DrainTarget("pool", "Echo"), DrainTarget("app", "bot")


def of(kind: type[T], actions: Sequence[DrainAction]) -> list[T]:
    return [action for action in actions if isinstance(action, kind)]


def begin(
    drains: Drains,
    target: DrainTarget,
    actors: dict[int, list[str]],
    now: float = 0.0,
    secs: float = 100.0,
) -> tuple[int, list[DrainAction]]:
    return drains.begin(target, actors, deadline_secs=secs, reason="test", now=now)


def progress(drains: Drains, number: int, now: float = 0.0) -> DrainProgress:
    return next(each for each in drains.progress(now) if each.number == number)


def test_admission_stops_and_actors_retire() -> None:
    drains = Drains()
    number, actions = begin(drains, NODE, {1: ["a"], 2: ["a/a", "b/b"], 3: []})
    assert of(CloseAdmission, actions) == [
        CloseAdmission(NODE, "the node n is being drained: test")
    ]
    (retire,) = of(RetireActors, actions)
    assert retire.actors == (1, 2, 3)
    assert (retire.move_after_secs, retire.stop_after_secs) == (50.0, 100.0 + END_SECS)
    found = progress(drains, number, 10.0)
    assert (found.state, found.left_secs) == (DrainState.WAITING, 90.0)
    # A session is one, however many places it has.
    assert (found.began_with, found.sessions, found.actors) == (2, 2, 3)


def test_a_pool_goes_on_with_fresh_actors() -> None:
    drains = Drains()
    _, actions = begin(drains, POOL, {1: ["a/a"]})
    assert not of(CloseAdmission, actions)
    # Others that have come since are none of its business.
    assert drains.counted({1: ["a/a"], 9: ["b/b"]}, 1.0) == []


@pytest.mark.parametrize(("target", "expected"), [(NODE, 1), (POOL, 0), (APP, 0)])
def test_the_models_of_a_node_leave_after_its_sessions(target: DrainTarget, expected: int) -> None:
    drains = Drains()
    _, actions = begin(drains, target, {1: ["a"]})
    assert not of(DrainModels, actions)
    assert not of(DrainModels, drains.tick(99.0))
    # At the deadline those that are left are ended.
    assert len(of(DrainModels, drains.tick(100.0))) == expected
    begin(again := Drains(), target, {1: ["a"]})
    assert len(of(DrainModels, again.counted({}, 10.0))) == expected
    _, actions = begin(Drains(), target, {})
    assert len(of(DrainModels, actions)) == expected


def test_it_is_done_when_the_last_actor_is_gone() -> None:
    drains = Drains()
    number, _ = begin(drains, APP, {1: ["a"], 2: ["b"]})
    assert drains.counted({1: ["a"]}, 10.0) == []
    assert progress(drains, number).sessions == 1
    drains.counted({}, 20.0)
    found = progress(drains, number)
    assert found.state is DrainState.DONE
    assert found.over
    assert (found.began_with, found.sessions, found.cut) == (2, 0, 0)
    assert not drains.active
    assert drains.wake_at() is None


def test_what_has_nothing_to_drain_is_done_at_once() -> None:
    drains = Drains()
    number, _ = begin(drains, NODE, {})
    assert progress(drains, number).state is DrainState.DONE


def test_sessions_are_moved_in_the_second_half_and_ended_at_the_deadline() -> None:
    drains = Drains()
    number, _ = begin(drains, APP, {1: ["a", "b", "c"]})
    assert drains.wake_at() == 50.0
    assert drains.tick(50.0) == []
    assert progress(drains, number).state is DrainState.MOVING
    drains.moved(1, 1)
    drains.moved(7, 5)
    drains.counted({1: ["b", "c"]}, 60.0)
    assert drains.wake_at() == 100.0
    assert drains.tick(100.0) == [EndSessions((1,), "the app bot was drained: test")]
    assert drains.tick(101.0) == []
    found = progress(drains, number)
    assert (found.state, found.moved, found.cut) == (DrainState.ENDING, 1, 2)
    drains.counted({}, 102.0)
    # Who moved the last session says so when the actor is gone already.
    drains.moved(1, 1)
    found = progress(drains, number)
    assert (found.state, found.moved) == (DrainState.DONE, 2)


def test_a_node_takes_what_comes_while_it_is_drained() -> None:
    """A session that is to end here may have got another actor for one that died."""
    drains = Drains()
    begin(drains, NODE, {1: ["a"]})
    (retire,) = of(RetireActors, drains.counted({1: ["a"], 5: ["a/a"]}, 80.0))
    assert retire.actors == (1, 5)
    assert (retire.move_after_secs, retire.stop_after_secs) == (0.0, 20.0 + END_SECS)
    assert drains.counted({1: ["a"], 5: ["a/a"]}, 81.0) == []


def test_the_earlier_deadline_counts() -> None:
    drains = Drains()
    first, _ = begin(drains, NODE, {1: ["a"]}, secs=100.0)
    second, actions = begin(drains, NODE, {1: ["a"]}, now=10.0, secs=20.0)
    assert first == second
    (retire,) = of(RetireActors, actions)
    assert retire.stop_after_secs == 20.0 + END_SECS
    begin(drains, NODE, {1: ["a"]}, now=11.0, secs=500.0)
    assert progress(drains, first, 11.0).left_secs == 19.0


def test_a_drain_can_be_called_off_or_its_target_opened_again() -> None:
    drains = Drains()
    under_way, _ = begin(drains, NODE, {1: ["a"]})
    assert drains.cancel(under_way) == [OpenAdmission(NODE)]
    over, _ = begin(drains, APP, {})
    assert drains.cancel(over) == [OpenAdmission(APP)]
    with pytest.raises(LookupError, match="no drain"):
        drains.cancel(over)
    pool, _ = begin(drains, POOL, {1: ["a/a"]})
    assert drains.cancel(pool) == []


def test_what_a_restarted_agent_goes_on_with() -> None:
    drains = Drains()
    begin(drains, NODE, {}, now=5.0)
    begin(drains, POOL, {})
    begin(drains, DrainTarget("pool", "Other"), {1: ["a/a"]})
    gone, _ = begin(drains, APP, {1: ["a"]})
    drains.cancel(gone)
    # A pool that has been drained is over; a node stays closed.
    assert drains.kept() == [
        (NODE, "test", 105.0),
        (DrainTarget("pool", "Other"), "test", 100.0),
    ]


def test_old_drains_are_forgotten() -> None:
    drains = Drains()
    for number in range(3 * KEPT_DRAINS):
        begin(drains, DrainTarget("pool", str(number)), {})
    assert len(drains.progress(0.0)) == KEPT_DRAINS


def test_progress_is_plain_data_for_tables() -> None:
    drains = Drains()
    begin(drains, POOL, {1: ["a/a"]})
    (plain,) = [each.to_plain() for each in drains.progress(1.0)]
    assert plain["target"] == "the pool Echo"
    assert plain["state"] == "waiting"


TARGETS = st.sampled_from([NODE, POOL, APP])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "counted", "tick", "cancel"]),
            TARGETS,
            st.floats(0.0, 20.0),
            st.dictionaries(st.integers(1, 4), st.lists(st.sampled_from(["a", "b/b", "c"]))),
        ),
        max_size=40,
    )
)
def test_any_order_of_events(
    events: list[tuple[str, DrainTarget, float, dict[int, list[str]]]],
) -> None:
    """Sessions are ended once and not before the deadline; what is closed and not opened stays closed."""
    drains = Drains()
    now = 0.0
    closed: set[DrainTarget] = set()
    limits: dict[int, float] = {}
    ended: set[int] = set()
    for event, target, passed, actors in events:
        now += passed
        actions: list[DrainAction] = []
        number = 0
        match event:
            case "begin":
                number, actions = begin(drains, target, actors, now, secs=30.0)
                limits.setdefault(number, now + 30.0)
            case "counted":
                actions = drains.counted(actors, now)
            case "tick":
                actions = drains.tick(now)
            case _:
                for each in drains.progress(now):
                    if each.target == target and not each.over:
                        actions = drains.cancel(each.number)
        for action in actions:
            match action:
                case CloseAdmission(what):
                    closed.add(what)
                case OpenAdmission(what):
                    closed.discard(what)
                case EndSessions(numbers):
                    assert numbers
                case RetireActors(numbers, _, move_after_secs, stop_after_secs):
                    assert numbers
                    assert 0.0 <= move_after_secs <= stop_after_secs
        for each in drains.progress(now):
            if each.state is DrainState.ENDING and each.number not in ended:
                ended.add(each.number)
                assert limits[each.number] <= now
            if not each.over and each.target.what != "pool":
                assert each.target in closed
            assert each.sessions <= max(each.began_with, each.sessions)
        due = drains.wake_at()
        assert due is None or event != "tick" or due > now
