"""The pure parts: when to write, what the caller need not say again, what is still to be answered."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.processors.aggregators._pending_answers import PendingAnswers
from antiphon.runner._hearing import Hearing
from antiphon.runner._write_schedule import LONGEST_PAUSE_SECS, WriteSchedule
from antiphon.utils.function_names import function_named, name_of_function

# --- when to write --------------------------------------------------------------------------------


def test_a_change_is_written_at_once() -> None:
    schedule = WriteSchedule()
    assert schedule.due_secs() is None
    assert schedule.is_settled
    schedule.changed()
    assert schedule.due_secs() == 0.0
    assert not schedule.is_settled


def test_one_write_at_a_time_and_the_next_has_the_rest() -> None:
    schedule = WriteSchedule()
    schedule.changed()
    schedule.begun()
    schedule.changed()
    schedule.changed()
    assert schedule.due_secs() is None
    schedule.done()
    assert schedule.due_secs() == 0.0
    schedule.begun()
    schedule.done()
    assert schedule.due_secs() is None
    assert schedule.is_settled


def test_pauses_double_after_failures() -> None:
    schedule = WriteSchedule()
    schedule.changed()
    now, pauses = 100.0, []
    for _ in range(8):
        schedule.begun()
        schedule.failed(now)
        due = schedule.due_secs()
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    schedule.begun()
    schedule.done()
    schedule.changed()
    assert schedule.due_secs() == 0.0


@given(st.lists(st.sampled_from(["changed", "begin", "done", "failed"]), max_size=60))
def test_nothing_is_forgotten(events: list[str]) -> None:
    schedule = WriteSchedule()
    writing, unsaved, in_flight, now = False, 0, 0, 0.0
    for event in events:
        now += 1.0
        if event == "changed":
            schedule.changed()
            unsaved += 1
        elif event == "begin" and not writing and schedule.due_secs() is not None:
            schedule.begun()
            writing, in_flight, unsaved = True, unsaved, 0
        elif event == "done" and writing:
            schedule.done()
            writing, in_flight = False, 0
        elif event == "failed" and writing:
            schedule.failed(now)
            writing, unsaved, in_flight = False, unsaved + in_flight, 0
        due = schedule.due_secs()
        assert (due is not None) == (unsaved > 0 and not writing)
        assert schedule.is_settled == (not unsaved and not writing)
        assert due is None or due <= now + LONGEST_PAUSE_SECS


# --- what the caller need not say again -----------------------------------------------------------


def test_speech_is_understood_up_to_its_end() -> None:
    hearing = Hearing(0)
    hearing.note(is_listening=True, is_speaking=True, received=10)
    hearing.note(is_listening=True, is_speaking=False, received=50)
    assert hearing.understood == 0
    # Its text comes later; by then there may be the first sounds of something else.
    hearing.note(is_listening=False, is_speaking=False, received=80)
    assert hearing.understood == 50


def test_speech_that_goes_on_after_a_pause_is_one() -> None:
    hearing = Hearing(0)
    hearing.note(is_listening=True, is_speaking=True, received=10)
    hearing.note(is_listening=True, is_speaking=False, received=50)
    hearing.note(is_listening=True, is_speaking=True, received=60)
    hearing.period(65)
    assert hearing.understood == 0
    hearing.note(is_listening=True, is_speaking=False, received=90)
    hearing.note(is_listening=False, is_speaking=False, received=95)
    assert hearing.understood == 90


def test_text_that_nobody_was_heard_to_say_is_understood_when_it_is_written() -> None:
    hearing = Hearing(0)
    hearing.note(is_listening=True, is_speaking=False, received=30)
    hearing.note(is_listening=False, is_speaking=False, received=40)
    assert hearing.understood == 40


def test_silence_is_understood_a_period_later() -> None:
    hearing = Hearing(5)
    hearing.period(20)
    assert hearing.understood == 5
    hearing.period(30)
    assert hearing.understood == 20
    # Somebody spoke: silence begins anew.
    hearing.note(is_listening=True, is_speaking=True, received=33)
    hearing.note(is_listening=False, is_speaking=False, received=36)
    hearing.period(40)
    assert hearing.understood == 36
    hearing.period(50)
    assert hearing.understood == 40


@given(
    st.lists(
        st.tuples(st.sampled_from(["note", "period"]), st.booleans(), st.booleans()), max_size=60
    )
)
def test_never_goes_back_and_never_ahead(steps: list[tuple[str, bool, bool]]) -> None:
    hearing, before = Hearing(0), 0
    for received, (what, listening, speaking) in enumerate(steps, 1):
        if what == "note":
            hearing.note(
                is_listening=listening or speaking, is_speaking=speaking, received=received
            )
        else:
            hearing.period(received)
        assert before <= hearing.understood <= received
        if speaking and what == "note":
            assert hearing.understood < received
        before = hearing.understood


# --- what is still to be answered -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "is_pending", "is_to_be_asked"),
    [
        ("", False, False),
        ("asked", True, False),
        ("asked answered", False, False),
        ("asked failed", True, True),
        ("asked failed asked", True, False),
        ("asked failed asked answered", False, False),
        ("asked cancelled", False, False),
        # A function's result asks once more while the first answer is still being spoken.
        ("asked asked answered", True, False),
        ("asked asked answered answered", False, False),
        # A question that got lost does not count for ever.
        ("asked user asked answered", False, False),
        # One that passes by was counted when it was made, or not.
        ("asked seen answered", False, False),
        ("seen", True, False),
        ("answered", False, False),
        ("reopen", True, True),
        ("reopen asked", True, False),
        ("reopen asked answered", False, False),
        ("reopen user", False, False),
    ],
)
def test_pending_answers(events: str, is_pending: bool, is_to_be_asked: bool) -> None:
    pending = PendingAnswers()
    does: dict[str, Any] = {
        "asked": pending.asked,
        "seen": pending.seen,
        "answered": lambda: pending.answered(empty=False),
        "failed": lambda: pending.answered(empty=True),
        "cancelled": pending.cancelled,
        "reopen": pending.reopen,
        "user": pending.user_has_spoken,
    }
    for event in events.split():
        does[event]()
    assert bool(pending) is is_pending
    assert pending.is_to_be_asked is is_to_be_asked


# --- functions by name ----------------------------------------------------------------------------


class Clerk:
    @staticmethod
    def stamp() -> None: ...

    def sign(self) -> None: ...


def everything(module: ModuleType) -> bool:
    return True


@pytest.mark.parametrize("function", [everything, Clerk.stamp, Clerk.sign])
def test_functions_are_found_by_their_names(function: Any) -> None:
    name = name_of_function(function)
    assert name == f"{__name__}:{function.__qualname__}"
    assert function_named(name, everything) is function


def test_what_has_no_name_to_be_found_by() -> None:
    def inner() -> None: ...

    for nameless in (inner, lambda: None, Clerk().sign, 3, Clerk()):
        with pytest.raises(LookupError):
            name_of_function(nameless)


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "nowhere:f",
        "f",
        "",
        f"{__name__}:sys.exit",
        f"{__name__}:st.builds",
        f"{__name__}:Clerk",
        f"{__name__}:missing",
        f"{__name__}:everything.__globals__",
        f"{__name__}:",
    ],
)
def test_only_functions_of_own_modules_are_found(name: str) -> None:
    def is_own(module: ModuleType) -> bool:
        return module is sys.modules[__name__]

    with pytest.raises(LookupError):
        function_named(name, is_own)
