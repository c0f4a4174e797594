"""The queue of a model as a state machine: who is worked on together, when, and who is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.models.batching import Batcher, BatchTimes, Limits, Request
from antiphon.models.model import SessionState

LIMITS = Limits(max_batch=4, max_queued=8)
FAR = 1000.0


def request(
    name: str = "", deadline: float = FAR, *, session: SessionState | None = None, group: str = ""
) -> Request:
    made = Request(name, deadline, session=session)
    made.group_key = group
    return made


def added(batcher: Batcher, *requests: Request, now: float = 0.0) -> None:
    for each in requests:
        assert batcher.add(each, now) is None


def names(requests: Sequence[Request]) -> list[str]:
    return [each.payload for each in requests]


def taken(batcher: Batcher, now: float = 0.0) -> list[str]:
    batch, late = batcher.take(now)
    assert not late
    return names(batch)


def learned(batcher: Batcher, fixed: float, each: float) -> Batcher:
    """Shows it batches that take so long."""
    for size in (1, 2, 4, 3):
        batcher.times.add(size, fixed + each * size)
    return batcher


# --- batches --------------------------------------------------------------------------------------


def test_a_request_alone_is_worked_on_at_once() -> None:
    batcher = Batcher(LIMITS)
    added(batcher, request("a"))
    assert taken(batcher) == ["a"]
    assert (batcher.queued, batcher.running) == (0, 1)


def test_those_who_come_meanwhile_are_the_next_batch() -> None:
    batcher = Batcher(LIMITS)
    added(batcher, request("a"))
    assert taken(batcher) == ["a"]
    added(batcher, *(request(name) for name in "bcdefg"))
    assert taken(batcher) == []
    assert names(batcher.finished(1.0, 1.0)) == ["a"]
    assert taken(batcher, 1.0) == ["b", "c", "d", "e"]
    batcher.finished(2.0, 1.0)
    assert taken(batcher, 2.0) == ["f", "g"]


def test_groups_do_not_mix_and_the_oldest_goes_first() -> None:
    batcher = Batcher(LIMITS)
    for at, (name, group) in enumerate([("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")]):
        added(batcher, request(name, group=group), now=float(at))
    assert taken(batcher, 4.0) == ["a", "c"]
    batcher.finished(5.0, 1.0)
    assert taken(batcher, 5.0) == ["b", "d"]


def test_one_session_has_one_request_in_a_batch_and_they_keep_their_order() -> None:
    batcher = Batcher(LIMITS)
    one, two = SessionState(), SessionState()
    added(batcher, *(request(name, session=one) for name in "abc"), request("x", session=two))
    assert taken(batcher) == ["a", "x"]
    batcher.finished(1.0, 1.0)
    assert taken(batcher, 1.0) == ["b"]
    batcher.finished(2.0, 1.0)
    assert taken(batcher, 2.0) == ["c"]


# --- waiting for others ---------------------------------------------------------------------------


def waiting_batcher() -> Batcher:
    limits = Limits(max_batch=4, max_queued=8, longest_wait_secs=0.5)
    return learned(Batcher(limits), fixed=0.2, each=0.1)


def test_nobody_waits_where_requests_are_rare() -> None:
    batcher = waiting_batcher()
    for now in (0.0, 1.0, 2.0):
        added(batcher, request(), now=now)
        assert len(taken(batcher, now)) == 1
        batcher.finished(now + 0.3, 0.3)


def test_where_requests_are_dense_the_next_is_waited_for() -> None:
    batcher = waiting_batcher()
    added(batcher, request("a"), now=0.0)
    assert taken(batcher, 0.0) == ["a"]
    added(batcher, request("b"), now=0.05)  # 50 ms after, where a batch costs 200 ms in any case
    batcher.finished(0.06, 0.3)
    assert taken(batcher, 0.06) == []
    assert batcher.wake_at(0.06) == pytest.approx(0.25)
    added(batcher, *(request(name) for name in "cde"), now=0.1)
    assert taken(batcher, 0.1) == ["b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("deadline", "longest", "until"), [(FAR, 0.5, 0.25), (FAR, 0.1, 0.15), (0.62, 0.5, 0.22)]
)
def test_waiting_ends_when_it_does_not_pay_or_at_its_limit_or_for_a_deadline(
    deadline: float, longest: float, until: float
) -> None:
    limits = Limits(max_batch=4, max_queued=8, longest_wait_secs=longest)
    batcher = learned(Batcher(limits), fixed=0.2, each=0.1)
    added(batcher, request("a"), now=0.0)
    batcher.take(0.0)
    added(batcher, request("b", deadline), now=0.05)
    batcher.finished(0.05, 0.3)
    due = batcher.wake_at(0.05)
    assert due == pytest.approx(until)
    assert due is not None
    assert taken(batcher, due + 1e-6) == ["b"]


def test_without_a_longest_wait_nobody_waits() -> None:
    batcher = learned(Batcher(LIMITS), fixed=10.0, each=0.1)
    added(batcher, request("a"), now=0.0)
    batcher.take(0.0)
    added(batcher, request("b"), now=0.001)
    batcher.finished(0.002, 0.002)
    assert taken(batcher, 0.002) == ["b"]


# --- the size of a batch --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch_secs", "deadline", "size"),
    [
        (None, FAR, 4),
        (0.35, FAR, 2),  # 0.1 + 2 x 0.1 fits, 0.1 + 3 x 0.1 does not
        (0.01, FAR, 1),  # nothing fits, and something has to be done
        (None, 0.42, 3),
        (0.35, 0.42, 2),
    ],
)
def test_a_batch_is_as_large_as_time_allows(
    batch_secs: float | None, deadline: float, size: int
) -> None:
    limits = Limits(max_batch=4, max_queued=8, batch_secs=batch_secs)
    batcher = Batcher(limits)
    added(batcher, request(deadline=deadline), *(request() for _ in range(3)))
    learned(batcher, fixed=0.1, each=0.1)
    assert len(taken(batcher)) == size


# --- refusals, deadlines, cancellation ------------------------------------------------------------


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    batcher = learned(Batcher(LIMITS), fixed=0.2, each=0.1)
    added(batcher, request())
    batcher.take(0.0)
    added(batcher, *(request() for _ in range(8)))
    # One runs for 0.3 s, and nine more would take three batches: when half of that is done.
    assert batcher.add(request(), 0.0) == pytest.approx((0.3 + 3 * 0.2 + 9 * 0.1) / 2)
    assert batcher.add(request(), 0.25) == pytest.approx((0.05 + 3 * 0.2 + 9 * 0.1) / 2)
    batcher.finished(0.3, 0.3)
    assert len(taken(batcher, 0.3)) == 4
    assert batcher.add(request(), 0.3) is None


def test_what_cannot_be_done_in_time_is_refused_before_it_waits() -> None:
    batcher = learned(Batcher(LIMITS), fixed=0.2, each=0.1)
    assert batcher.add(request(deadline=0.2), 0.0) == pytest.approx(0.15)
    assert batcher.add(request(deadline=0.4), 0.0) is None


def test_nothing_is_refused_before_anything_is_known() -> None:
    assert Batcher(LIMITS).add(request(deadline=0.001), 0.0) is None


def test_whose_time_is_over_is_not_worked_on() -> None:
    batcher = Batcher(LIMITS)
    session = SessionState()
    added(batcher, request("a"))
    batcher.take(0.0)
    added(
        batcher,
        request("b", 0.5, session=session),
        request("c", session=session),
        request("d", 0.7),
        request("e"),
    )
    batcher.finished(1.0, 1.0)
    batch, late = batcher.take(1.0)
    assert (names(batch), names(late)) == (["e", "c"], ["b", "d"])


def test_if_all_are_late_nothing_runs() -> None:
    batcher = Batcher(LIMITS)
    added(batcher, request("a", 0.5), request("b", 0.5, group="other"))
    batch, late = batcher.take(1.0)
    assert (names(batch), names(late)) == ([], ["a", "b"])
    assert (batcher.queued, batcher.running, batcher.wake_at(1.0)) == (0, 0, None)


def test_cancelled_requests_leave_the_queue() -> None:
    batcher = Batcher(LIMITS)
    session = SessionState()
    one, two, three = (request(name, session=session) for name in "abc")
    added(batcher, one, two, three)
    assert batcher.cancel(two)  # behind
    assert batcher.cancel(one)  # in line
    assert batcher.queued == 1
    assert taken(batcher) == ["c"]
    assert not batcher.cancel(three)  # being worked on
    assert three.cancelled
    assert not batcher.cancel(request("never seen"))


def test_clearing_gives_back_all_that_wait_and_leaves_what_runs() -> None:
    batcher = Batcher(LIMITS)
    session = SessionState()
    added(batcher, request("a", session=session), request("b", session=session), request("c"))
    batcher.take(0.0)
    added(batcher, request("d", session=session))
    assert sorted(names(batcher.clear())) == ["b", "d"]
    assert (batcher.queued, batcher.running) == (0, 2)
    added(batcher, request("e", session=session))
    assert names(batcher.finished(1.0, 1.0)) == ["a", "c"]
    assert taken(batcher, 1.0) == ["e"]


# --- what is learned ------------------------------------------------------------------------------


def test_times_are_a_line() -> None:
    times = BatchTimes()
    assert not times.known
    for size in (1, 8, 3, 5):
        times.add(size, 0.07 + 0.03 * size)
    assert times.fixed == pytest.approx(0.07)
    assert times.each == pytest.approx(0.03)
    assert times.of(10) == pytest.approx(0.37)


def test_of_batches_of_one_size_all_time_is_that_of_the_requests() -> None:
    times = BatchTimes()
    times.add(4, 0.4)
    times.add(4, 0.4)
    assert times.fixed == pytest.approx(0.0)
    assert times.each == pytest.approx(0.1)


def test_times_follow_a_machine_that_becomes_slower() -> None:
    times = BatchTimes()
    for number in range(200):
        times.add(1 + number % 4, 0.01 * (1 + number % 4))
    for number in range(200):
        times.add(1 + number % 4, 0.02 * (1 + number % 4))
    assert times.each == pytest.approx(0.02, rel=0.05)


def test_parts_are_never_negative() -> None:
    times = BatchTimes()
    for size, secs in ((1, 1.0), (8, 0.1)):  # a first batch is slow
        times.add(size, secs)
    assert times.each >= 0
    assert times.fixed >= 0


# --- whatever happens -----------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3), st.floats(0.0, 3.0)),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.just(0.0)),
        st.tuples(st.just("done"), st.just(0), st.floats(0.0, 1.0)),
        st.tuples(st.just("wait"), st.just(0), st.floats(0.0, 0.5)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.floats(0.0, 0.2), st.sampled_from([None, 0.3]))
def test_every_request_is_answered_once_in_order_within_the_bounds(
    steps: list[tuple[str, int, float]], longest_wait: float, batch_secs: float | None
) -> None:
    limits = Limits(3, 6, longest_wait, batch_secs)
    batcher = Batcher(limits)
    sessions = [None, None, SessionState(), SessionState()]
    now = 0.0
    made: list[Request] = []
    over: list[Request] = []  # in the order they were over, refused ones apart
    refused: list[Request] = []
    running: list[Request] = []

    def look() -> None:
        nonlocal running
        batch, late = batcher.take(now)
        over.extend(late)
        assert all(each.deadline <= now for each in late)
        if not batch:
            return
        assert not running
        assert len(batch) <= limits.max_batch
        assert len({each.group_key for each in batch}) == 1
        held = [each.session for each in batch if each.session is not None]
        assert len(held) == len(set(held))
        assert not any(each.cancelled or each.deadline <= now for each in batch)
        running = batch

    def finish(secs: float) -> None:
        nonlocal running, now
        now += secs
        assert batcher.finished(now, secs) == running
        over.extend(running)
        running = []

    for what, which, secs in steps:
        if what == "add":
            each = Request(len(made), now + secs, session=sessions[which])
            each.group_key = which % 2
            made.append(each)
            before = batcher.queued
            again = batcher.add(each, now)
            if again is not None:
                assert again > 0
                refused.append(each)
                assert batcher.queued == before
        elif what == "cancel" and which < len(made):
            if batcher.cancel(made[which]):
                over.append(made[which])
        elif what == "done" and running:
            finish(secs)
        elif what == "wait":
            now += secs
        look()
        assert batcher.queued <= limits.max_queued
        due = batcher.wake_at(now)
        assert (due is None) == (bool(running) or batcher.queued == 0)
        if due is not None:
            assert now < due <= now + longest_wait

    for _ in range(3 * len(made) + 3):  # and then to its end
        if running:
            finish(0.1)
        elif (due := batcher.wake_at(now)) is not None:
            now = max(now, math.nextafter(due, math.inf))
        look()
    assert batcher.queued == 0
    assert sorted(each.payload for each in over + refused) == list(range(len(made)))
    for session in sessions[2:]:
        worked_on = [each.payload for each in over if each.session is session and each.started]
        assert worked_on == sorted(worked_on)
