from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ray.pool_support import SETTINGS

from antiphon_actors.health import Reason
from antiphon_actors.pool_types import Role
from antiphon_actors.retirement import (
    LEAVE_SECS,
    RETRY_SECS,
    STUCK_SUPERVISOR_SECS,
    Move,
    Plan,
    Retirements,
    Stop,
    plan_for,
)

QUIET = Plan(10.0, 5.0, None)
HASTY = Plan(0.0, 2.0, 2.0, stop_when_tried=True)


def test_sessions_may_end_by_themselves_first() -> None:
    going = Retirements()
    assert going.begin(1, "worn", QUIET, 0.0) == []
    assert 1 in going
    assert going.wake_at() == 10.0
    assert going.tick(10.0) == [Move(1, "worn", 5.0)]
    assert going.tick(11.0) == []
    # Some could not be moved.
    assert going.moved(1, 12.0) == []
    assert going.tick(12.0 + RETRY_SECS) == [Move(1, "worn", 5.0)]
    going.gone(1)
    assert 1 not in going
    assert going.moved(1, 20.0) == []
    assert going.wake_at() is None


def test_a_stuck_one_is_stopped_with_what_is_left() -> None:
    going = Retirements()
    assert going.begin(1, "stuck", HASTY, 0.0) == [Move(1, "stuck", 2.0)]
    assert going.moved(1, 0.3) == [Stop(1, "stuck")]
    assert 1 not in going


def test_a_try_that_takes_too_long_does_not_keep_it_alive() -> None:
    going = Retirements()
    going.begin(1, "stuck", HASTY, 0.0)
    assert going.wake_at() == 2.0
    assert going.tick(2.0) == [Stop(1, "stuck")]
    assert going.moved(1, 2.5) == []


def test_a_try_takes_no_longer_than_there_is_time() -> None:
    going = Retirements()
    going.begin(1, "drained", Plan(4.0, 5.0, 7.0), 0.0)
    assert going.tick(4.0) == [Move(1, "drained", 3.0)]


def test_the_more_urgent_reason_counts() -> None:
    going = Retirements()
    going.begin(1, "worn", QUIET, 0.0)
    assert going.begin(1, "stuck", HASTY, 3.0) == [Move(1, "stuck", 2.0)]
    assert going.moved(1, 3.1) == [Stop(1, "stuck")]


def test_a_less_urgent_one_changes_nothing_else() -> None:
    going = Retirements()
    going.begin(1, "drained", Plan(4.0, 5.0, 7.0), 0.0)
    going.begin(1, "worn", QUIET, 1.0)
    assert going.wake_at() == 4.0
    assert going.tick(7.0) == [Stop(1, "drained")]


@pytest.mark.parametrize(
    ("reason", "role", "resumable", "move_after", "stop_after"),
    [
        (Reason.WORN, Role.PROCESSOR, True, SETTINGS.recycle_patience_secs, None),
        (Reason.GROWN, Role.SUPERVISOR, True, SETTINGS.recycle_patience_secs, None),
        (Reason.SLOW, Role.PROCESSOR, True, 0.0, None),
        (Reason.STUCK, Role.PROCESSOR, False, 0.0, SETTINGS.evacuate_secs),
        (Reason.STUCK, Role.SUPERVISOR, True, STUCK_SUPERVISOR_SECS, STUCK_SUPERVISOR_SECS),
        # Its sessions would end with it.
        (Reason.STUCK, Role.SUPERVISOR, False, STUCK_SUPERVISOR_SECS, None),
        (Reason.LEAVING, Role.SUPERVISOR, False, 0.0, LEAVE_SECS),
    ],
)
def test_how_an_actor_goes(
    reason: Reason, role: Role, resumable: bool, move_after: float, stop_after: float | None
) -> None:
    plan = plan_for(reason, role, SETTINGS, resumable=resumable)
    assert (plan.move_after_secs, plan.stop_after_secs) == (move_after, stop_after)


PLANS = st.builds(
    Plan,
    move_after_secs=st.sampled_from([0.0, 1.0, 5.0]),
    move_secs=st.sampled_from([0.5, 5.0]),
    stop_after_secs=st.sampled_from([None, 2.0, 8.0]),
    stop_when_tried=st.booleans(),
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "moved", "gone", "tick"]),
            st.integers(1, 3),
            st.floats(0.0, 4.0),
            PLANS,
        ),
        max_size=60,
    )
)
def test_any_order_of_events(events: list[tuple[str, int, float, Plan]]) -> None:
    """Nothing is moved twice at once, and a deadline is kept, whatever happens meanwhile."""
    going = Retirements()
    now = 0.0
    moving: set[int] = set()
    limits: dict[int, float] = {}
    for event, actor, passed, plan in events:
        now += passed
        match event:
            case "begin":
                actions = going.begin(actor, "why", plan, now)
                if plan.stop_after_secs is not None and (actor in going or actions):
                    limits[actor] = min(limits.get(actor, 1e9), now + plan.stop_after_secs)
            case "moved":
                actions = going.moved(actor, now) if actor in moving else []
                moving.discard(actor)
            case "gone":
                going.gone(actor)
                moving.discard(actor)
                limits.pop(actor, None)
                actions = []
            case _:
                actions = going.tick(now)
        for action in actions:
            match action:
                case Move(number, _, deadline_secs):
                    assert number not in moving
                    assert deadline_secs > 0
                    moving.add(number)
                case Stop(number):
                    assert number not in going
                    limits.pop(number, None)
                    moving.discard(number)
        if event == "tick":
            assert all(limit > now for limit in limits.values())
            due = going.wake_at()
            assert due is None or due > now
