"""What a session's end decides, event by event."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.pipeline.ending import (
    DWELL_SECS,
    LATE_SECS,
    Abort,
    Action,
    CancelTasks,
    CleanUp,
    Ending,
    Finish,
    PushCancel,
    Rung,
)

CANCEL_SECS = 2.0
CLEAN_UP_SECS = 20.0

Event = tuple[str, float] | tuple[str, float, bool]


def _ending() -> Ending:
    return Ending(cancel_secs=CANCEL_SECS, clean_up_secs=CLEAN_UP_SECS)


def _feed(ending: Ending, event: str, now: float, *given: Any) -> list[Action]:
    match event:
        case "cancel":
            return ending.cancel(now, flows=given[0] if given else True)
        case "cleaned":
            return ending.cleaned(now, left=given[0] if given else False)
        case _:
            found: list[Action] = getattr(ending, event)(now)
            return found


TABLE: list[tuple[str, list[Event], list[Action], Rung]] = [
    ("a pipeline ends", [("ended", 1)], [CleanUp(True)], Rung.CLEANING),
    ("and is cleaned up", [("ended", 1), ("cleaned", 2)], [Finish(False)], Rung.OVER),
    (
        "what it leaves running is the bot's",
        [("ended", 1), ("cleaned", 2, True)],
        [Finish(False)],
        Rung.OVER,
    ),
    ("frames flow when it is cancelled", [("cancel", 1)], [PushCancel()], Rung.CROSSING),
    ("none do", [("cancel", 1, False)], [CleanUp(True)], Rung.CLEANING),
    ("a second cancel is no news", [("cancel", 1), ("cancel", 1.1)], [], Rung.CROSSING),
    ("the frame crosses", [("cancel", 1), ("crossed", 1.1)], [CleanUp(True)], Rung.CLEANING),
    ("it does not yet", [("cancel", 1), ("tick", 1.69)], [], Rung.CROSSING),
    ("it does not at all", [("cancel", 1), ("tick", 1.7)], [CleanUp(False)], Rung.CLEANING),
    ("it does too late", [("cancel", 1), ("tick", 1.7), ("crossed", 1.8)], [], Rung.CLEANING),
    ("an EndFrame crosses first", [("cancel", 1), ("ended", 1.1)], [], Rung.CROSSING),
    (
        "something is left of a session that was cancelled",
        [("cancel", 0), ("crossed", 0.1), ("cleaned", 0.2, True)],
        [CancelTasks(1.7)],
        Rung.CUTTING,
    ),
    (
        "cleaning up hangs",
        [("cancel", 0), ("crossed", 0.1), ("tick", 1.1)],
        [CancelTasks(1.7)],
        Rung.CUTTING,
    ),
    (
        "and ends when tasks are cancelled",
        [("cancel", 0), ("crossed", 0.1), ("tick", 1.1), ("cleaned", 1.2)],
        [Finish(False)],
        Rung.OVER,
    ),
    (
        "but they go on",
        [("cancel", 0), ("crossed", 0.1), ("tick", 1.1), ("cleaned", 1.2, True)],
        [],
        Rung.CUTTING,
    ),
    (
        "and on",
        [("cancel", 0), ("crossed", 0.1), ("tick", 1.1), ("tick", 1.4)],
        [Abort(1.7)],
        Rung.ABORTING,
    ),
    (
        "they are given up",
        [("cancel", 0), ("tick", 0.7), ("tick", 1.1), ("tick", 1.4), ("tick", 1.7)],
        [Finish(True)],
        Rung.OVER,
    ),
    (
        "or have been",
        [("cancel", 0), ("tick", 0.7), ("tick", 1.1), ("tick", 1.4), ("aborted", 1.5)],
        [Finish(True)],
        Rung.OVER,
    ),
    ("an end has more time", [("ended", 0), ("tick", 19.9)], [], Rung.CLEANING),
    ("but not for ever", [("ended", 0), ("tick", 20)], [CancelTasks(20.6)], Rung.CUTTING),
    (
        "an end that is cancelled has less",
        [("ended", 0), ("cancel", 5), ("tick", 6.1)],
        [CancelTasks(6.7)],
        Rung.CUTTING,
    ),
    (
        "an end that is cancelled late has no more",
        [("ended", 0), ("cancel", 19.5), ("tick", 20)],
        [CancelTasks(20.6)],
        Rung.CUTTING,
    ),
    (
        "the thread was blocked: nothing could cross",
        [("cancel", 0), ("tick", 3)],
        [],
        Rung.CROSSING,
    ),
    (
        "it could, and did not",
        [("cancel", 0), ("tick", 3), ("tick", 3.05)],
        [CleanUp(False)],
        Rung.CLEANING,
    ),
    ("it is over", [("ended", 0), ("cleaned", 1), ("cancel", 2), ("tick", 3)], [], Rung.OVER),
]


@pytest.mark.parametrize(
    ("events", "actions", "rung"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_table(events: list[Event], actions: list[Action], rung: Rung) -> None:
    ending = _ending()
    found: list[Action] = []
    for name, now, *given_ in events:
        found = _feed(ending, name, now, *given_)
    assert [_rounded(action) for action in found] == actions
    assert ending.rung is rung


def _rounded(action: Action) -> Action:
    match action:
        case CancelTasks(until=until):
            return CancelTasks(round(until, 6))
        case Abort(until=until):
            return Abort(round(until, 6))
        case _:
            return action


_events = st.one_of(
    st.tuples(st.just("cancel"), st.booleans()),
    st.tuples(st.just("cleaned"), st.booleans()),
    st.tuples(st.sampled_from(["crossed", "ended", "aborted"])),
)

_ORDER = list(Rung)


@given(
    steps=st.lists(st.tuples(st.floats(0.0, 1.5), _events), max_size=20),
    secs=st.sampled_from([0.0, 0.3, 2.0, 20.0]),
)
def test_every_cancellation_is_over_in_time(
    steps: list[tuple[float, tuple[Any, ...]]], secs: float
) -> None:
    """In whatever order things happen, and if nothing ever answers: with a clock that is on time."""
    ending = Ending(cancel_secs=secs, clean_up_secs=CLEAN_UP_SECS)
    now = 0.0
    found: list[Action] = []
    cancelled_at: float | None = None
    rung = 0

    def take(actions: list[Action]) -> None:
        nonlocal rung
        found.extend(actions)
        assert _ORDER.index(ending.rung) >= rung, "it never goes back"
        rung = _ORDER.index(ending.rung)
        assert (ending.wake_at() is None) == (ending.rung in (Rung.RUNNING, Rung.OVER))

    def pass_time(until: float) -> None:
        nonlocal now
        while (due := ending.wake_at()) is not None and due <= until:
            assert due >= now
            now = due
            take(ending.tick(now))
        now = max(now, until)

    for pause, (name, *given_) in [*steps, (0.0, ("cancel", True))]:
        pass_time(now + pause)
        if name == "cancel" and cancelled_at is None and ending.rung is not Rung.OVER:
            cancelled_at = now
        take(_feed(ending, name, now, *given_))
    limit = (cancelled_at or 0.0) + max(secs, 5 * DWELL_SECS)
    pass_time(limit)
    assert ending.rung is Rung.OVER
    kinds = [type(action) for action in found]
    assert kinds.count(Finish) == 1
    assert kinds[-1] is Finish
    assert kinds.count(CleanUp) == 1
    for kind in (PushCancel, CancelTasks, Abort):
        assert kinds.count(kind) <= 1


@given(lates=st.lists(st.floats(0.0, 5.0), min_size=12, max_size=12))
def test_a_blocked_thread_takes_no_rung_away(lates: list[float]) -> None:
    """However late the clock is, each rung has been given time after the one before."""
    ending = _ending()
    now = 0.0
    entered = {Rung.CROSSING: now}
    ending.cancel(now, flows=True)
    for late in lates:
        due = ending.wake_at()
        if due is None:
            break
        before = ending.rung
        now = due + late
        ending.tick(now)
        if ending.rung is not before:
            assert now - entered[before] >= DWELL_SECS - 1e-9
            entered[ending.rung] = now
        elif late <= LATE_SECS:
            raise AssertionError("it goes on when it is on time")
    assert ending.rung is Rung.OVER
