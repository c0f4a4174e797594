"""What becomes of a session: every rule of the state machine, and any order of events."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon_actors.gateway.session_events import (
    Accept,
    Action,
    BotHungUp,
    CallerLeft,
    Cancel,
    CloseCaller,
    Deny,
    Event,
    Fence,
    Granted,
    HandedOver,
    HangUp,
    LineLost,
    LineOpened,
    Refused,
    Release,
    Report,
    Reserve,
    Run,
    RunEnded,
    RunFailed,
    State,
    TellBot,
    Tick,
    Withdraw,
)
from antiphon_actors.gateway.session_state import Patience, SessionMachine

PATIENCE = Patience(
    admission_secs=10.0,
    start_secs=8.0,
    resume_secs=12.0,
    resume_attempts=3,
    retry_secs=1.0,
    restarts=2,
    restart_period_secs=60.0,
    grace_secs=5.0,
    cancel_secs=4.0,
)
UP: list[Event | float] = [Granted(0), LineOpened(0), 1.0]
"""A session that runs, for a second by now."""


class Story:
    """A machine, and what it wanted at which time."""

    def __init__(self, *events: Event | float) -> None:
        self.now = 100.0
        self.machine = SessionMachine(PATIENCE, self.now)
        assert self.machine.start() == [Reserve(0, ())]
        self.last: list[Action] = []
        self.all: list[Action] = []
        for event in events:
            if isinstance(event, float):
                self.wait(event)
            else:
                self.then(event)

    def at(self, state: State) -> bool:
        return self.machine.state is state

    def then(self, event: Event, *expected: Action) -> Story:
        self.last = self.machine.handle(event, self.now)
        self.all += self.last
        if expected:
            assert self.last == list(expected)
        return self

    def wait(self, secs: float, *expected: Action) -> Story:
        """Lets time pass, with a tick whenever the machine wants one."""
        until = self.now + secs
        actions: list[Action] = []
        while (due := self.machine.wake_at()) is not None and due <= until:
            self.now = max(self.now, due)
            actions += self.machine.handle(Tick(), self.now)
        self.now = until
        self.last = actions
        self.all += actions
        if expected:
            assert actions == list(expected)
        return self


# -- admission -------------------------------------------------------------------------------


def test_a_caller_is_accepted_when_there_is_a_place() -> None:
    story = Story().then(Granted(0), Accept(), Run(0, resume=False))
    assert story.at(State.STARTING)
    assert story.then(LineOpened(0)).at(State.RUNNING)
    assert story.machine.wake_at() is None


def test_a_caller_without_a_place_is_refused() -> None:
    story = Story().then(Refused(0, "full", 3.0), Deny("full", 3.0), Report(State.REFUSED, "full"))
    assert story.at(State.REFUSED)
    assert story.machine.wake_at() is None


def test_who_would_wait_too_long_is_refused() -> None:
    reason = "no supervisor became free in time"
    story = Story().wait(10.0, Withdraw(0), Deny(reason, 1.0), Report(State.REFUSED, reason))
    # The place may have been on its way.
    story.then(Granted(0), Release(0))


def test_a_caller_who_leaves_before_admission_leaves_nothing() -> None:
    story = Story().then(CallerLeft(1006, ""), Withdraw(0), Report(State.ENDED, "the caller left"))
    story.then(Granted(0), Release(0))


def test_a_gateway_that_goes_away_refuses() -> None:
    Story().then(HangUp(1001, "bye"), Withdraw(0), Deny("bye", None), Report(State.REFUSED, "bye"))


# -- the end of a call -------------------------------------------------------------------------


def test_a_bot_that_ends_closes_the_connection() -> None:
    story = Story(*UP).then(
        RunEnded(0, 0), Release(0), CloseCaller(1000, ""), Report(State.ENDED, "the bot has ended")
    )
    assert story.at(State.ENDED)


def test_a_bot_that_fails_says_so_to_the_caller() -> None:
    Story(*UP).then(
        RunEnded(0, 1),
        Release(0),
        CloseCaller(1011, "the bot failed"),
        Report(State.ENDED, "the bot failed"),
    )


def test_a_bot_that_hangs_up_may_finish() -> None:
    story = Story(*UP).then(BotHungUp(0))
    assert story.at(State.ENDING)
    story.then(CallerLeft(1000, ""))  # our own close, seen from the other side
    story.wait(4.0).then(RunEnded(0, 0), Release(0), Report(State.ENDED, "the bot hung up"))


def test_when_the_caller_leaves_the_bot_ends_in_bounded_time() -> None:
    story = Story(*UP).then(CallerLeft(1005, "x"), TellBot(0, 1005, "x"))
    assert story.at(State.ENDING)
    story.wait(4.9)
    assert story.last == []
    story.wait(0.1, Cancel(0))
    story.wait(4.0, Fence(0), Report(State.ENDED, "the caller left; the bot did not end"))


def test_a_bot_that_obeys_the_cancellation_is_not_fenced() -> None:
    story = Story(*UP).then(CallerLeft(1005, "")).wait(5.0, Cancel(0))
    story.then(RunEnded(0, 130), Release(0), Report(State.ENDED, "the caller left"))


def test_the_gateway_hangs_up() -> None:
    story = Story(*UP).then(
        HangUp(1013, "busy"), CloseCaller(1013, "busy"), TellBot(0, 1013, "busy")
    )
    story.then(CallerLeft(1013, "busy"))
    story.then(RunEnded(0, 0), Release(0), Report(State.ENDED, "busy"))


def test_a_supervisor_that_dies_at_the_end_is_no_loss() -> None:
    story = Story(*UP, BotHungUp(0)).then(
        RunFailed(0, "killed"),
        Release(0),
        CloseCaller(1000, ""),
        Report(State.ENDED, "the bot hung up"),
    )
    assert story.at(State.ENDED)


def test_a_caller_who_leaves_while_the_bot_starts_ends_it() -> None:
    Story(Granted(0)).then(CallerLeft(1006, ""), Fence(0), Report(State.ENDED, "the caller left"))


# -- supervisors that fail ---------------------------------------------------------------------


def test_a_dead_supervisor_is_replaced() -> None:
    story = Story(*UP).then(RunFailed(0, "killed"), Release(0), Reserve(1, (0,)))
    assert story.at(State.RESUMING)
    story.then(Granted(1), Run(1, resume=True)).then(LineOpened(1))
    assert story.at(State.RUNNING)
    assert story.machine.resumed == 1


def test_one_that_is_only_cut_off_is_fenced() -> None:
    fence = Fence(0, goes_on=True)
    story = Story(*UP).then(LineLost(0, "silent"), fence, Reserve(1, (0,)))
    # What it says afterwards is no news.
    for late in (RunFailed(0, "x"), RunEnded(0, 0), LineOpened(0), BotHungUp(0), LineLost(0, "y")):
        story.then(late)
        assert story.last == []
    assert story.at(State.RESUMING)


def test_a_supervisor_that_dies_before_the_bot_ran_is_replaced_by_one_that_begins() -> None:
    story = Story(Granted(0)).then(RunFailed(0, "killed"), Release(0), Reserve(1, (0,)))
    story.then(Granted(1), Run(1, resume=False)).then(LineOpened(1))
    assert story.machine.resumed == 0


def test_a_session_that_has_hardly_begun_begins_anew() -> None:
    story = Story(Granted(0), LineOpened(0), 0.2).then(
        RunFailed(0, "killed"), Release(0), Reserve(1, (0,))
    )
    story.then(Granted(1), Run(1, resume=False)).then(LineOpened(1)).wait(1.0)
    assert story.machine.resumed == 0
    story.then(RunFailed(1, "killed")).then(Granted(2), Run(2, resume=True))


def test_a_supervisor_that_does_not_begin_is_replaced() -> None:
    story = Story(Granted(0)).wait(8.0, Fence(0, goes_on=True), Reserve(1, (0,)))
    assert story.at(State.RESUMING)


def test_resuming_is_tried_again_after_a_pause_that_grows() -> None:
    story = Story(*UP, RunFailed(0, "killed"))
    story.then(Refused(1, "full")).wait(0.9)
    assert story.last == []
    story.wait(0.1, Reserve(2, (0,)))
    story.then(Granted(2), Run(2, resume=True))
    story.then(RunFailed(2, "again"), Release(2)).wait(2.0, Reserve(3, (0, 2)))
    story.then(
        Refused(3, "full"),
        CloseCaller(1012, "the session was lost"),
        Report(State.LOST, "full"),
    )


def test_resuming_has_a_deadline() -> None:
    story = Story(*UP, RunFailed(0, "killed")).wait(
        12.0,
        Withdraw(1),
        CloseCaller(1012, "the session was lost"),
        Report(State.LOST, "no supervisor could go on in time"),
    )
    story.then(Granted(1), Release(1))


def test_a_new_supervisor_that_does_not_begin_uses_the_same_deadline() -> None:
    story = Story(*UP, RunFailed(0, "killed"), Granted(1))
    story.wait(8.0, Fence(1, goes_on=True))
    story.wait(1.0, Reserve(2, (0, 1))).then(Granted(2), Run(2, resume=True))
    story.wait(
        3.0,
        Fence(2, goes_on=True),
        CloseCaller(1012, "the session was lost"),
        Report(State.LOST, "the supervisor did not begin in time"),
    )


def test_a_session_that_cannot_be_resumed_is_lost_at_once() -> None:
    story = Story(*UP, RunFailed(0, "killed"), Granted(1))
    story.then(
        RunFailed(1, "no checkpoint", final=True),
        Release(1),
        CloseCaller(1012, "the session was lost"),
        Report(State.LOST, "no checkpoint"),
    )


def test_too_many_losses_in_a_period_end_the_session() -> None:
    story = Story(*UP)
    for attempt in range(2):
        story.then(RunFailed(attempt, "killed")).then(Granted(attempt + 1))
        story.then(LineOpened(attempt + 1)).wait(10.0)
    story.then(
        RunFailed(2, "killed"),
        Release(2),
        CloseCaller(1012, "the session was lost"),
        Report(State.LOST, "3 supervisors lost within 60 s: killed"),
    )


def test_losses_that_are_far_apart_are_survived() -> None:
    story = Story(*UP)
    for attempt in range(10):
        story.then(RunFailed(attempt, "killed")).then(Granted(attempt + 1))
        story.then(LineOpened(attempt + 1)).wait(31.0)
    assert story.at(State.RUNNING)
    assert story.machine.resumed == 10


def test_a_session_that_is_handed_over_goes_on_and_that_is_no_loss() -> None:
    story = Story(*UP)
    for attempt in range(10):
        release, reserve = story.then(HandedOver(attempt)).last
        assert release == Release(attempt)
        assert isinstance(reserve, Reserve)
        assert attempt in reserve.avoid
        story.then(Granted(attempt + 1), Run(attempt + 1, resume=True))
        story.then(LineOpened(attempt + 1))
    assert story.at(State.RUNNING)


def test_a_caller_who_leaves_during_a_hand_over_ends_the_session() -> None:
    Story(*UP, CallerLeft(1005, "")).then(
        HandedOver(0), Release(0), Report(State.ENDED, "the caller left")
    )


@pytest.mark.parametrize(
    "events",
    [
        [RunFailed(0, "killed")],
        [RunFailed(0, "killed"), Refused(1, "full")],
        [RunFailed(0, "killed"), Granted(1)],
    ],
    ids=["asking", "pausing", "starting"],
)
def test_a_caller_who_leaves_meanwhile_ends_it(events: Sequence[Event]) -> None:
    story = Story(*UP, *events).then(CallerLeft(1006, ""))
    assert story.at(State.ENDED)
    assert story.machine.wake_at() is None
    story.then(Granted(1), Release(1))


# -- any order of events ------------------------------------------------------------------------

_ATTEMPTS = st.integers(0, 6)
_EVENTS = st.one_of(
    st.builds(Granted, _ATTEMPTS),
    st.builds(Refused, _ATTEMPTS, st.just("full"), st.none() | st.just(1.0)),
    st.builds(LineOpened, _ATTEMPTS),
    st.builds(LineLost, _ATTEMPTS, st.just("silent")),
    st.builds(RunEnded, _ATTEMPTS, st.integers(0, 1)),
    st.builds(RunFailed, _ATTEMPTS, st.just("killed"), st.booleans()),
    st.builds(BotHungUp, _ATTEMPTS),
    st.builds(HandedOver, _ATTEMPTS),
    st.builds(CallerLeft, st.just(1005), st.just("")),
    st.builds(HangUp, st.just(1013), st.just("busy")),
    st.builds(Tick),
)
_STEPS = st.lists(st.tuples(_EVENTS, st.sampled_from([0.0, 0.1, 1.0, 4.0, 9.0])), max_size=40)


def _possible(event: Event, story: Story) -> bool:
    """Whether an event can come: a place is granted or refused once, if it was asked for."""
    if not isinstance(event, Granted | Refused):
        return True
    asked = {action.attempt for action in story.all if isinstance(action, Reserve)} | {0}
    return event.attempt in asked


@given(_STEPS)
@settings(max_examples=400)
def test_whatever_happens_the_session_is_in_order(steps: list[tuple[Event, float]]) -> None:
    story = Story()
    answered: set[int] = set()
    granted: set[int] = set()
    for event, secs in steps:
        if isinstance(event, Granted | Refused):
            if event.attempt in answered or not _possible(event, story):
                continue
            answered.add(event.attempt)
            if isinstance(event, Granted):
                granted.add(event.attempt)
        story.then(event)
        story.wait(secs)
        _check(story, granted, at_end=False)
    # Nobody says anything any more, other than that the caller leaves at last.
    story.wait(1000.0)
    story.then(CallerLeft(1006, ""))
    story.wait(1000.0)
    for attempt in range(7):
        if attempt not in answered and _possible(Granted(attempt), story):
            granted.add(attempt)
            story.then(Granted(attempt))
    assert story.machine.state.final
    assert story.machine.wake_at() is None
    _check(story, granted, at_end=True)


def _check(story: Story, granted: set[int], *, at_end: bool) -> None:
    given_back = [a.attempt for a in story.all if isinstance(a, Release | Fence)]
    runs = [a for a in story.all if isinstance(a, Run)]
    assert len(given_back) == len(set(given_back))
    assert set(given_back) <= granted
    if at_end:
        assert set(given_back) == granted
    # Before another supervisor runs the session, the one before has been given back.
    for action in runs:
        before = story.all[: story.all.index(action)]
        back = {a.attempt for a in before if isinstance(a, Release | Fence)}
        assert {run.attempt for run in before if isinstance(run, Run)} <= back
    assert len([a for a in story.all if isinstance(a, Accept | Deny)]) <= 1
    assert len([a for a in story.all if isinstance(a, CloseCaller)]) <= 1
    reports = [a for a in story.all if isinstance(a, Report)]
    assert len(reports) == story.machine.state.final
    if reports:
        rest = story.all[story.all.index(reports[0]) + 1 :]
        assert all(isinstance(action, Release) for action in rest)
    if story.at(State.LOST):
        caller_left = not any(isinstance(a, CloseCaller) for a in story.all)
        assert reports[0].reason
        assert not caller_left
