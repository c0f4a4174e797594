"""Which actors have which models: the state machine, without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.errors import ConfigError
from antiphon_actors.models.pools import (
    LEAVE_SECS,
    Action,
    AnswerMembers,
    KillReplica,
    ModelKey,
    ModelPools,
    RefuseModel,
    Report,
    StartReplica,
    TellMembers,
    needed,
)
from antiphon_actors.models.settings import ModelSettings, Scaling

T = TypeVar("T")

WHISPER, PIPER = ModelKey("whisper:{}", "Whisper"), ModelKey("piper:{}", "Piper")
ONE = Scaling()
UP_TO_3 = Scaling(least=1, most=3, queue_secs=0.1, idle_share=0.5, up_secs=2.0, down_secs=10.0)
SETTINGS = ModelSettings(
    max_actors=4,
    max_starts=2,
    load_secs=100.0,
    idle_secs=30.0,
    failures_to_open=3,
    backoff_first_secs=1.0,
    backoff_limit_secs=3.0,
    stuck_secs=60.0,
)
USED = Report(users=1)


def of(kind: type[T], actions: Sequence[Action]) -> list[T]:
    return [action for action in actions if isinstance(action, kind)]


class Node:
    """A node whose actors start when they are told to.

    Attributes:
        pools: Its state machine.
        now: The time.
        done: All actions so far.
    """

    def __init__(self, given: ModelSettings = SETTINGS) -> None:
        self.pools = ModelPools(given)
        self.now = 0.0
        self.done: list[Action] = []

    def ask(
        self,
        model: ModelKey = WHISPER,
        scaling: Scaling = ONE,
        resources: tuple[tuple[str, float], ...] = (),
        avoid: Sequence[int] = (),
    ) -> list[Action]:
        _, actions = self.pools.ask(model, resources, scaling, self.now, avoid=avoid)
        return self.take(actions)

    def take(self, actions: list[Action]) -> list[Action]:
        self.done += actions
        return actions

    def started(self, actor: int) -> list[Action]:
        return self.take(self.pools.started(actor, self.now))

    def report(self, actor: int, report: Report = USED) -> list[Action]:
        return self.take(self.pools.reported(actor, report, self.now))

    def wait(self, secs: float) -> list[Action]:
        self.now += secs
        return self.take(self.pools.tick(self.now))

    def ready(self, model: ModelKey = WHISPER, scaling: Scaling = ONE) -> list[int]:
        """Has a model's actors started; returns them."""
        pending = [each.actor for each in of(StartReplica, self.ask(model, scaling))]
        begun: list[int] = []
        while pending:
            actor = pending.pop(0)
            begun.append(actor)
            pending += [each.actor for each in of(StartReplica, self.started(actor))]
        for actor in begun:
            self.report(actor)
        return begun


def test_the_first_to_ask_has_an_actor_started_and_all_get_it() -> None:
    node = Node()
    (start,) = of(StartReplica, node.ask(resources=(("num_gpus", 0.5),)))
    assert start == StartReplica(start.actor, WHISPER, (("num_gpus", 0.5),))
    assert node.ask() == []
    told, one, two = node.started(start.actor)
    assert isinstance(told, TellMembers)
    assert isinstance(one, AnswerMembers)
    assert isinstance(two, AnswerMembers)
    assert one.members == two.members == told.members
    (third,) = node.ask()
    assert isinstance(third, AnswerMembers)
    assert third.members == told.members


def test_models_are_apart_and_so_many_start_at_once() -> None:
    node = Node()
    (first,) = of(StartReplica, node.ask(WHISPER))
    (second,) = of(StartReplica, node.ask(PIPER))
    assert node.ask(ModelKey("third", "Third")) == []
    actions = node.started(first.actor)
    assert [each.model.name for each in of(StartReplica, actions)] == ["Third"]
    assert second.model == PIPER


def test_a_full_node_refuses() -> None:
    node = Node()
    for number in range(4):
        node.ready(ModelKey(f"model {number}", "M"))
    (refused,) = node.ask(WHISPER)
    assert isinstance(refused, RefuseModel)
    assert refused.overloaded
    assert "has its 4 actors with models" in refused.reason


def test_a_full_node_ends_the_model_that_was_used_the_longest_ago() -> None:
    node = Node()
    keys = [ModelKey(f"model {number}", "M") for number in range(4)]
    actors = [node.ready(key)[0] for key in keys]
    for number in (2, 1):
        node.now += 1.0
        node.report(actors[number])
        node.report(actors[number], Report(users=0))
    killed, start = node.ask(WHISPER)
    assert killed == KillReplica(actors[2], "its place is needed")
    assert isinstance(start, StartReplica)


def test_several_at_least_are_started_and_the_first_answers() -> None:
    node = Node()
    starts = of(StartReplica, node.ask(scaling=Scaling(least=2, most=2)))
    assert len(starts) == 2
    assert of(AnswerMembers, node.started(starts[1].actor))[0].members == (starts[1].actor,)
    (told,) = node.started(starts[0].actor)
    assert isinstance(told, TellMembers)
    assert sorted(told.members) == sorted(each.actor for each in starts)


# --- failures -------------------------------------------------------------------------------------


def test_failed_starts_pause_and_then_refuse_with_the_reason() -> None:
    node = Node()
    (start,) = of(StartReplica, node.ask())
    assert node.take(node.pools.start_failed(start.actor, "no GPU", node.now)) == []
    assert node.pools.wake_at(node.now) == 1.0
    assert node.wait(0.5) == []
    (start,) = of(StartReplica, node.wait(0.5))
    assert node.take(node.pools.start_failed(start.actor, "no GPU", node.now)) == []
    (start,) = of(StartReplica, node.wait(2.0))
    (refused,) = node.take(node.pools.start_failed(start.actor, "no GPU", node.now))
    assert isinstance(refused, RefuseModel)
    assert refused.reason == "actors for Whisper do not start (3 times in a row): no GPU"
    assert refused.retry_after_secs == 3.0
    assert not refused.overloaded
    # At once, until the pause is over; then one start shows whether the trouble is.
    (again,) = node.ask()
    assert isinstance(again, RefuseModel)
    node.now += 3.0
    (start,) = of(StartReplica, node.ask())
    assert of(AnswerMembers, node.started(start.actor))
    assert node.pools.statistics(node.now)[0]["failures"] == 0


def test_a_dead_actor_is_replaced_and_the_others_are_told() -> None:
    node = Node()
    one, two = node.ready(scaling=Scaling(least=2, most=2))
    node.now = 50.0
    told, start = node.take(node.pools.died(one, "killed", node.now))
    assert told == TellMembers((two,), ())
    assert isinstance(start, StartReplica)
    assert node.take(node.pools.died(one, "again", node.now)) == []


def test_who_has_lost_an_actor_gets_another_even_before_its_death_is_known() -> None:
    node = Node()
    (one,) = node.ready()
    node.now = 50.0
    (start,) = node.ask(avoid=[one])
    assert isinstance(start, StartReplica)
    assert node.take(node.pools.died(one, "killed", node.now)) == []  # its successor is on its way
    assert of(AnswerMembers, node.started(start.actor))[0].members == (start.actor,)
    assert node.pools.actors == 1


def test_one_that_dies_as_soon_as_it_is_ready_counts_as_not_started() -> None:
    node = Node()
    (start,) = of(StartReplica, node.ask())
    node.started(start.actor)
    node.now += 0.5
    assert of(StartReplica, node.take(node.pools.died(start.actor, "crash", node.now))) == []
    assert of(StartReplica, node.wait(1.0))


def test_a_stuck_actor_is_killed_and_replaced() -> None:
    node = Node()
    (one,) = node.ready()
    killed, start = node.report(one, Report(users=1, batch_secs=61.0))
    assert killed == KillReplica(one, "stuck in a batch for 61 s")
    assert isinstance(start, StartReplica)


def test_who_waits_too_long_is_refused() -> None:
    node = Node()
    node.ask()
    assert node.pools.wake_at(node.now) == 100.0
    (refused,) = node.wait(100.0)
    assert isinstance(refused, RefuseModel)
    assert refused.reason == "Whisper was not ready within 100 s"


def test_who_does_not_wait_any_more_gets_no_answer() -> None:
    node = Node()
    request, actions = node.pools.ask(WHISPER, (), ONE, 0.0)
    node.pools.cancel(request)
    (start,) = of(StartReplica, actions)
    assert of(AnswerMembers, node.started(start.actor)) == []


# --- growing, shrinking, ending -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([Report(queue_secs=0.2)], 1),
        ([Report(refused=1)], 1),
        ([Report(queue_secs=0.05, busy=1.0)], 0),
        ([Report(queue_secs=0.0, busy=0.0)], 0),  # the last one stays
        ([Report(busy=0.2), Report(busy=0.2)], -1),  # the other one would be busy for 40 %
        ([Report(busy=0.3), Report(busy=0.3)], 0),
        ([Report(queue_secs=0.03), Report(queue_secs=0.03)], 0),
        ([Report(queue_secs=0.5)] * 3, 0),  # there may be no more
        ([Report(busy=0.3)] * 3, -1),
    ],
)
def test_when_there_are_too_few_or_too_many(reports: list[Report], expected: int) -> None:
    assert needed(reports, UP_TO_3) == expected


def test_a_wait_that_lasts_brings_another_actor() -> None:
    node = Node()
    (one,) = node.ready(scaling=UP_TO_3)
    busy = Report(users=1, queue_secs=0.5)
    assert node.report(one, busy) == []
    node.now += 1.0
    assert node.report(one, Report(users=1)) == []  # it was a moment
    for _ in range(2):
        node.now += 1.0
        assert node.report(one, busy) == []
    node.now += 1.0
    (start,) = node.report(one, busy)
    assert isinstance(start, StartReplica)
    assert node.report(one, busy) == []  # not two at a time
    (told,) = node.started(start.actor)
    assert told == TellMembers((one, start.actor), ())


def test_an_actor_too_many_leaves_and_ends_when_its_users_have_gone() -> None:
    node = Node()
    one, two = node.ready(scaling=Scaling(least=2, most=2))
    pool = node.pools._pools[WHISPER]
    pool.scaling = UP_TO_3
    idle, holding = Report(users=1), Report(users=1, sessions=2)
    node.report(one, holding)
    for _ in range(11):
        node.now += 1.0
        node.report(two, idle)
        node.report(one, holding)
    assert of(TellMembers, node.done)[-1] == TellMembers((one,), (two,))
    assert of(KillReplica, node.done) == []
    assert node.report(two, idle) == []
    assert node.report(two, Report()) == [KillReplica(two, "it has left")]
    assert node.pools.actors == 1


def test_one_that_does_not_get_rid_of_its_users_is_ended_all_the_same() -> None:
    node = Node()
    (one,) = node.ready()
    assert node.take(node.pools.drain(node.now)) == [TellMembers((), (one,))]
    assert node.wait(LEAVE_SECS - 1) == []
    assert node.pools.wake_at(node.now) == LEAVE_SECS
    assert node.wait(1.0) == [KillReplica(one, "it has left")]


def test_a_model_that_nobody_uses_ends_after_a_while() -> None:
    node = Node()
    (one,) = node.ready()
    node.now = 20.0
    node.report(one, Report(users=0))
    assert node.pools.wake_at(node.now) == 30.0
    node.now = 25.0
    node.ask()  # used again
    assert node.wait(29.0) == []
    assert node.wait(1.0) == [KillReplica(one, "idle")]
    assert node.pools.statistics(node.now) == []
    assert node.started(one) == [KillReplica(one, "no longer wanted")]


def test_a_model_that_is_kept_stays_and_is_there_before_anybody_asks() -> None:
    node = Node()
    (start,) = node.take(node.pools.keep(WHISPER, (), ONE, 0.0))
    assert isinstance(start, StartReplica)
    node.started(start.actor)
    node.report(start.actor, Report(users=0))
    assert node.wait(1000.0) == []
    assert [type(each) for each in node.take(node.pools.died(start.actor, "killed", node.now))] == [
        StartReplica
    ]


def test_a_dead_actor_of_a_model_that_nobody_uses_is_not_replaced() -> None:
    node = Node()
    (one,) = node.ready()
    node.report(one, Report(users=0))
    node.now = 40.0
    assert of(StartReplica, node.take(node.pools.died(one, "killed", node.now))) == []


def test_draining_refuses_and_lets_all_leave() -> None:
    node = Node()
    (one,) = node.ready()
    (starting,) = of(StartReplica, node.ask(PIPER))
    actions = node.take(node.pools.drain(node.now))
    assert of(KillReplica, actions) == [KillReplica(starting.actor, "the node is being drained")]
    assert len(of(RefuseModel, actions)) == 1
    assert TellMembers((), (one,)) in actions
    assert isinstance(node.ask()[0], RefuseModel)


def test_a_node_that_is_not_left_after_all_starts_actors_again() -> None:
    node = Node()
    node.ready()
    node.take(node.pools.drain(node.now))
    assert node.pools.drained
    assert len(of(StartReplica, node.take(node.pools.reopen(node.now)))) == 1
    # Not after the end.
    node.take(node.pools.drain(node.now))
    node.take(node.pools.close("over"))
    node.take(node.pools.reopen(node.now))
    assert isinstance(node.ask()[0], RefuseModel)


def test_closing_ends_everything() -> None:
    node = Node()
    (one,) = node.ready()
    (starting,) = of(StartReplica, node.ask(PIPER))
    actions = node.take(node.pools.close("over"))
    assert {each.actor for each in of(KillReplica, actions)} == {one, starting.actor}
    assert len(of(RefuseModel, actions)) == 1
    assert node.pools.actors == 0
    assert node.pools.wake_at(node.now) is None


# --- whatever happens -----------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask lost", "started", "failed", "died", "report", "wait"]),
        st.integers(0, 5),
        st.sampled_from([0.0, 0.3, 2.0, 40.0]),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_every_request_is_answered_with_actors_that_live(
    steps: list[tuple[str, int, float]],
) -> None:
    node = Node()
    living: dict[int, str] = {}  # "starting" or "ready"
    asked: dict[int, frozenset[int]] = {}

    def look(actions: list[Action]) -> None:
        for action in actions:
            match action:
                case StartReplica():
                    assert action.actor not in living
                    living[action.actor] = "starting"
                    assert len(living) <= SETTINGS.max_actors
                case KillReplica():
                    living.pop(action.actor, None)
                case TellMembers():
                    assert action.members or action.leaving
                case AnswerMembers():
                    lost = asked.pop(action.request)
                    assert action.members
                    assert all(living[actor] == "ready" for actor in action.members)
                    assert not lost & set(action.members)
                case RefuseModel():
                    del asked[action.request]
        starting = sum(state == "starting" for state in living.values())
        assert starting <= SETTINGS.max_starts

    def pick(state: str, which: int) -> int | None:
        found = [actor for actor, is_state in living.items() if is_state == state]
        return found[which % len(found)] if found else None

    for what, which, secs in steps:
        node.now += secs
        if what.startswith("ask"):
            lost = frozenset(living) if what == "ask lost" else frozenset()
            model = (WHISPER, PIPER)[which % 2]
            request, actions = node.pools.ask(model, (), UP_TO_3, node.now, avoid=lost)
            asked[request] = lost
            look(actions)
        elif what in ("started", "failed") and (actor := pick("starting", which)) is not None:
            if what == "started":
                living[actor] = "ready"
                look(node.pools.started(actor, node.now))
            else:
                del living[actor]
                look(node.pools.start_failed(actor, "no", node.now))
        elif what == "died" and living:
            actor = list(living)[which % len(living)]
            del living[actor]
            look(node.pools.died(actor, "killed", node.now))
        elif what == "report" and (actor := pick("ready", which)) is not None:
            report = Report(queue_secs=secs, users=which % 2, busy=secs / 40, batch_secs=secs)
            look(node.pools.reported(actor, report, node.now))
        elif what == "wait":
            look(node.pools.tick(node.now))

    for _ in range(200):  # and then all starts succeed
        actor = pick("starting", 0)
        if actor is not None:
            living[actor] = "ready"
            look(node.pools.started(actor, node.now))
            continue
        due = node.pools.wake_at(node.now)
        if not asked or due is None:
            break
        node.now = max(node.now, due) + 1e-6
        look(node.pools.tick(node.now))
    assert not asked


# --- settings -------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_counts() -> None:
    from tests.models.stand_ins import Counting, Shouting

    from antiphon.audio.vad._silero_model import SileroModel
    from antiphon_actors.models.settings import ModelRule

    given = ModelSettings(
        rules=(
            ModelRule("Shouting", "process"),
            ModelRule("SileroModel", "actor", {"num_cpus": 1}),
            ModelRule("Model", resources={"num_gpus": 0.25}),
        )
    )
    assert not given.in_actor(Shouting)
    assert given.in_actor(Counting)
    assert given.in_actor(SileroModel)
    assert given.rule_for(SileroModel).resources == {"num_cpus": 1}
    assert given.rule_for(Counting).resources == {"num_gpus": 0.25}
    assert not ModelSettings().in_actor(SileroModel)  # by its class
    assert ModelSettings().in_actor(Counting)


@pytest.mark.parametrize("numbers", [{"least": 0}, {"least": 2, "most": 1}])
def test_impossible_numbers_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="least is 1 or more"):
        Scaling(**numbers)
