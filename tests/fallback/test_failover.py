"""The state machine that decides which member answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.services.fallback.failover import (
    Abandon,
    Action,
    Failed,
    Failover,
    GiveUp,
    Health,
    Limits,
    NothingToSay,
    Probe,
    Recovered,
    Switch,
    Try,
)

LIMITS = Limits(
    attempt_secs=5.0, stall_secs=10.0, probe_secs=10.0, probe_limit_secs=60.0, jitter=0.0
)


def machine(members: int = 2, limits: Limits = LIMITS) -> Failover:
    return Failover(members, limits, lambda: 0.5)


def shown(actions: Sequence[Action]) -> list[str]:
    """The actions in short."""
    found = []
    for action in actions:
        match action:
            case Try(attempt=attempt):
                found.append(f"try {attempt.member}" + (" to go on" if attempt.resumes else ""))
            case Abandon(member=member) | Probe(member=member) | Recovered(member=member):
                found.append(f"{type(action).__name__.lower()} {member}")
            case Failed(member=member, reason=reason):
                found.append(f"failed {member}: {reason}")
            case Switch():
                found.append(f"switch {action.from_member} {action.to_member}: {action.reason}")
            case GiveUp(reasons=reasons):
                found.append(f"give up {dict(reasons)}")
            case _:
                assert isinstance(action, NothingToSay)
                found.append("nothing to say")
    return found


def failed_over(limits: Limits = LIMITS) -> Failover:
    """The first of two has failed at 1 s; the second has answered."""
    failover = machine(limits=limits)
    failover.begin(0.0)
    failover.fail(0, "down", 1.0)
    failover.finish()
    return failover


def test_a_healthy_member_answers() -> None:
    failover = machine()
    assert shown(failover.begin(0.0)) == ["try 0"]
    failover.expect(0.0)
    due = [failover.wake_at]
    assert failover.content(1.0) == []
    due.append(failover.wake_at)
    assert due == [5.0, None]
    assert failover.finish() == []
    assert failover.attempt is None


def test_one_that_fails_is_followed_by_the_next() -> None:
    failover = machine()
    failover.begin(0.0)
    assert shown(failover.fail(0, "down", 1.0)) == [
        "failed 0: down",
        "abandon 0",
        "switch 0 1: down",
        "try 1",
    ]
    assert failover.active == 1
    assert shown(failover.finish()) == []
    assert shown(failover.begin(2.0)) == ["try 1"]


@pytest.mark.parametrize(
    ("prepare", "late", "reason"),
    [
        (lambda one: one.expect(0.0), 5.0, "no answer in time"),
        (lambda one: (one.expect(0.0), one.expect_more(3.0)), 13.0, "no answer in time"),
        (lambda one: (one.content(2.0), one.expect_more(3.0)), 13.0, "stalled"),
        (lambda one: one.content(2.0), 20.0, "not done within 20 s"),
    ],
)
def test_deadlines(prepare: Callable[[Failover], object], late: float, reason: str) -> None:
    failover = machine(limits=replace(LIMITS, total_secs=20.0))
    failover.begin(0.0)
    prepare(failover)
    assert failover.wake_at == late
    assert failover.tick(late - 0.1) == []
    assert f"failed 0: {reason}" in shown(failover.tick(late))
    assert failover.attempt is not None
    assert failover.attempt.member == 1


def test_without_limits_nothing_is_due() -> None:
    failover = machine(limits=replace(LIMITS, stall_secs=None))
    failover.begin(0.0)
    failover.content(1.0)
    failover.expect_more(1.0)
    assert failover.wake_at is None
    assert failover.tick(1e9) == []


def test_all_fail() -> None:
    failover = machine(3)
    failover.begin(0.0)
    failover.fail(0, "a", 1.0)
    failover.fail(1, "b", 2.0)
    assert shown(failover.fail(2, "c", 3.0)) == [
        "failed 2: c",
        "abandon 2",
        "give up {0: 'a', 1: 'b', 2: 'c'}",
    ]
    # Better a failing member than none; the pauses before probes do not matter here.
    assert shown(failover.begin(3.1)) == ["switch 2 0: no member is healthy", "try 0"]
    assert shown(failover.finish()) == ["recovered 0"]


def test_an_answer_that_has_begun_is_continued() -> None:
    failover = machine()
    failover.begin(0.0)
    failover.content(1.0)
    assert shown(failover.fail(0, "cut", 2.0))[-1] == "try 1 to go on"


@pytest.mark.parametrize("final", [False, True])
def test_an_answer_that_must_not_be_continued(final: bool) -> None:
    failover = machine(limits=replace(LIMITS, resumes=final))
    failover.begin(0.0)
    failover.content(1.0, final=final)
    assert shown(failover.fail(0, "cut", 2.0)) == [
        "failed 0: cut",
        "abandon 0",
        "give up {0: 'cut'}",
        "switch 0 1: recovered",
    ]


def test_a_failing_member_is_probed_when_it_is_due() -> None:
    failover = failed_over()
    assert failover.probe_at(0) == 11.0
    assert shown(failover.begin(10.9)) == ["try 1"]
    failover.finish()
    assert shown(failover.begin(11.0)) == ["try 1", "probe 0"]
    assert failover.health(0) is Health.PROBING
    assert shown(failover.probe_passed()) == ["abandon 0", "recovered 0"]
    # Whoever answers now goes on.
    assert failover.active == 1
    assert shown(failover.finish()) == ["switch 1 0: recovered"]
    assert shown(failover.begin(12.0)) == ["try 0"]


def test_a_probe_that_passes_later_switches_at_once() -> None:
    failover = failed_over()
    failover.begin(11.0)
    failover.finish()
    assert shown(failover.probe_passed()) == ["abandon 0", "recovered 0", "switch 1 0: recovered"]


@pytest.mark.parametrize("by_time", [False, True])
def test_a_probe_that_fails_makes_the_pause_longer(by_time: bool) -> None:
    failover = failed_over()
    now = 11.0
    for pause in (20.0, 40.0, 60.0, 60.0):
        failover.begin(now)
        failover.expect(now)
        failover.finish()
        assert failover.wake_at == now + 5.0
        now += 5.0
        actions = failover.tick(now) if by_time else failover.fail(0, "no answer within 5 s", now)
        assert shown(actions) == ["failed 0: no answer within 5 s", "abandon 0"]
        assert failover.probe_at(0) == now + pause
        now += pause


def test_the_pause_is_forgotten_with_a_complete_answer_only() -> None:
    failover = failed_over()
    failover.begin(11.0)
    failover.probe_passed()
    failover.finish()
    failover.begin(12.0)
    failover.fail(0, "down", 12.0)
    assert failover.probe_at(0) == 32.0
    failover.finish()
    failover.begin(32.0)
    failover.probe_passed()
    failover.finish()
    failover.begin(33.0)
    failover.finish()
    failover.fail(0, "down", 40.0)
    assert failover.probe_at(0) == 50.0


def test_pauses_differ_at_random() -> None:
    for random, pause in ((0.0, 8.0), (0.5, 10.0), (1.0, 12.0)):
        failover = Failover(2, replace(LIMITS, jitter=0.2), lambda random=random: random)  # type: ignore[misc]
        failover.fail(0, "down", 0.0)
        assert failover.probe_at(0) == pytest.approx(pause)


def test_a_probed_member_that_is_needed_is_asked_anew() -> None:
    failover = failed_over()
    failover.begin(11.0)
    assert shown(failover.fail(1, "down", 12.0)) == [
        "failed 1: down",
        "abandon 1",
        "abandon 0",
        "switch 1 0: down",
        "try 0",
    ]
    assert failover.probing is None


def test_an_interruption_ends_request_and_probe_without_blame() -> None:
    failover = failed_over()
    failover.begin(11.0)
    assert failover.drop() == []
    assert failover.attempt is None
    assert failover.probing is None
    assert failover.health(0) is Health.FAILING
    assert failover.health(1) is Health.HEALTHY
    assert shown(failover.begin(11.5)) == ["try 1", "probe 0"]


def test_one_that_fails_by_itself() -> None:
    failover = machine()
    assert shown(failover.fail(0, "connection lost", 0.0)) == [
        "failed 0: connection lost",
        "switch 0 1: connection lost",
    ]
    assert failover.fail(0, "connection lost", 1.0) == []
    assert shown(failover.fail(1, "connection lost", 2.0)) == ["failed 1: connection lost"]
    assert failover.active == 1
    failover = machine()
    failover.begin(0.0)
    assert shown(failover.fail(1, "connection lost", 1.0)) == ["failed 1: connection lost"]
    assert failover.attempt is not None


def test_silence_is_a_failure_only_if_another_member_has_an_answer() -> None:
    failover = machine()
    failover.begin(0.0)
    failover.expect(0.0, certain=False)
    assert shown(failover.tick(5.0)) == ["abandon 0", "try 1"]
    assert failover.active == 0
    failover.expect(5.0, certain=False)
    assert shown(failover.tick(10.0)) == ["abandon 1", "nothing to say"]
    assert failover.health(0) is failover.health(1) is Health.HEALTHY

    failover.begin(20.0)
    failover.expect(20.0, certain=False)
    failover.tick(25.0)
    assert shown(failover.content(26.0)) == [
        "failed 0: no answer in time",
        "switch 0 1: no answer in time",
    ]


def test_a_new_request_ends_the_one_before() -> None:
    failover = machine()
    failover.begin(0.0)
    failover.fail(0, "down", 1.0)
    assert shown(failover.begin(2.0)) == ["try 1"]
    failover.fail(1, "down", 3.0)
    attempt = failover.attempt
    assert attempt is not None
    assert attempt.member == 0


# -- any order of events ---------------------------------------------------------------------------


class World:
    """A chain that does what the machine wants, and checks that it makes sense."""

    def __init__(self, members: int) -> None:
        self.failover = Failover(members, replace(LIMITS, total_secs=60.0), lambda: 0.5)
        self.members = members
        self.now = 0.0
        self.active = 0
        self.asked: int | None = None
        self.probed: int | None = None
        self.tried: list[int] = []
        self.under_way = False
        self.over: list[str] = []

    def perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Try(attempt=attempt):
                    assert self.under_way
                    assert self.asked is None, "two members answer one request"
                    assert attempt.member != self.probed, "it is answering already"
                    assert attempt.member not in self.tried, "it has failed at this request"
                    self.asked = attempt.member
                    self.tried.append(attempt.member)
                case Abandon(member=member):
                    assert member in (self.asked, self.probed)
                    if member == self.asked:
                        self.asked = None
                    else:
                        self.probed = None
                case Probe(member=member):
                    assert self.probed is None
                    assert member != self.asked
                    self.probed = member
                case Switch(from_member=before, to_member=now):
                    assert before == self.active != now
                    self.active = now
                case GiveUp(reasons=reasons):
                    assert list(reasons) == self.tried
                    self.end("gave up")
                case NothingToSay():
                    self.end("nothing to say")
                case Failed() | Recovered():
                    pass
        assert self.active == self.failover.active
        attempt_now = self.failover.attempt
        assert (attempt_now.member if attempt_now else None) == self.asked
        assert self.failover.probing == self.probed
        assert self.under_way == (self.asked is not None)

    def end(self, how: str) -> None:
        assert self.under_way
        self.under_way, self.asked = False, None
        self.over.append(how)

    def begin(self) -> None:
        if self.under_way:
            self.end("replaced")
            self.probed = None
        self.under_way, self.tried = True, []
        self.perform(self.failover.begin(self.now))

    def finish(self) -> None:
        if self.under_way:
            self.end("answered")
        self.perform(self.failover.finish())

    def drop(self) -> None:
        if self.under_way:
            self.end("dropped")
        self.probed = None
        self.perform(self.failover.drop())

    def fail(self, member: int, certain: bool) -> None:
        self.perform(self.failover.fail(member, "down", self.now, certain=certain))

    def wait(self, secs: float) -> None:
        """Lets time pass, deadline by deadline."""
        until = self.now + secs
        while (wake_at := self.failover.wake_at) is not None and wake_at <= until:
            self.now = max(self.now, wake_at)
            self.perform(self.failover.tick(self.now))
        self.now = until


STEPS = st.one_of(
    st.just(("begin",)),
    st.tuples(st.just("expect"), st.booleans()),
    st.just(("expect more",)),
    st.tuples(st.just("content"), st.booleans()),
    st.just(("settle",)),
    st.just(("finish",)),
    st.just(("drop",)),
    st.just(("probe passed",)),
    st.tuples(st.just("fail"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("wait"), st.floats(0.0, 40.0)),
)


def play(world: World, steps: Sequence[tuple[object, ...]]) -> None:
    for what, *details in steps:
        match what, details:
            case "begin", _:
                world.begin()
            case "expect", [bool(certain)]:
                world.failover.expect(world.now, certain=certain)
            case "expect more", _:
                world.failover.expect_more(world.now)
            case "content", [bool(final)]:
                world.perform(world.failover.content(world.now, final=final))
            case "settle", _:
                world.failover.settle()
            case "finish", _:
                world.finish()
            case "drop", _:
                world.drop()
            case "probe passed", _:
                world.perform(world.failover.probe_passed())
            case "fail", [int(member), bool(certain)] if member < world.members:
                world.fail(member, certain)
            case "wait", [float(secs)]:
                world.wait(secs)


@given(st.integers(1, 4), st.lists(STEPS, max_size=60))
def test_one_member_at_a_time_answers_and_every_request_ends(
    members: int, steps: list[tuple[object, ...]]
) -> None:
    world = World(members)
    play(world, steps)
    # Members that only ever fail: the request comes to its end, after every one of them.
    world.begin()
    for member in itertools.islice(iter(lambda: world.asked, None), members):
        assert member is not None
        world.failover.expect(world.now)
        world.wait(5.0)
    assert world.over[-1] == "gave up"
    assert sorted(world.tried) == list(range(members))


@given(st.integers(2, 4), st.lists(STEPS, max_size=60))
def test_the_preferred_member_answers_again_when_it_is_healthy(
    members: int, steps: list[tuple[object, ...]]
) -> None:
    world = World(members)
    play(world, steps)
    # From now on all is well: each probe passes, each request is answered.
    for _ in range(2 * members + 2):
        world.wait(100.0)
        world.begin()
        if world.probed is not None:
            world.perform(world.failover.probe_passed())
        world.finish()
    assert world.failover.health(0) is Health.HEALTHY
    assert world.active == 0
    world.begin()
    assert world.asked == 0
