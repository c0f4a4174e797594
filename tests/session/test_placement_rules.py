"""What rules say about processors: resources, pools, neighbours, who is kept apart; and nonsense."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.session.conftest import Actors, LocalHost, Mover, Stay, pipeline_of, texts

from antiphon.errors import ConfigError, PlacementError
from antiphon.pipeline.parallel_pipeline import ParallelPipeline
from antiphon.pipeline.pipeline import Pipeline
from antiphon.processors.frame_processor import FrameProcessor
from antiphon_actors import agent_provider
from antiphon_actors.agent_client import AgentClient
from antiphon_actors.agent_types import ActorPlace, ActorWanted
from antiphon_actors.bot_program import BotError, read_bot_file
from antiphon_actors.neighbours import Node
from antiphon_actors.placement.plan import PlacedProcessor, Plan, demands, make_plan
from antiphon_actors.placement.policy import Placement, Preset, Rule
from antiphon_actors.plan_command import plan_bot
from antiphon_actors.processor_actor import ActorFacts
from antiphon_actors.session.home import Host


class Other(Mover):
    """Another kind of processor that may move."""

    movable = True


def plan(*processors: FrameProcessor, rules: tuple[Rule, ...], preset: Preset = "pooled") -> Plan:
    return make_plan(Pipeline(list(processors)), Placement(preset, rules))


def movers(count: int) -> list[Mover]:
    return [Mover(name=f"m{number}") for number in range(count)]


# One processor.


def test_a_rule_without_a_place_leaves_that_to_the_preset() -> None:
    rules = (Rule(Mover, resources={"num_gpus": 0.5}, labels={"zone": "a"}),)
    presets: tuple[Preset, ...] = ("pooled", "dedicated")
    for preset in presets:
        [placed] = plan(Mover(), rules=rules, preset=preset).workers
        assert placed.where == preset
        assert placed.place == f"{preset} actor (num_gpus=0.5, zone=a)"
        [demand] = demands([placed])
        assert demand.mode == preset
        assert demand.resources == {"num_gpus": 0.5}
        assert demand.labels == {"zone": "a"}
    [placed] = plan(Stay(), rules=(Rule(Stay, resources={"num_cpus": 1}),)).workers
    assert placed.where == "home"


def test_a_pool_is_shared_by_classes() -> None:
    rules = (Rule(Other, pool="light"), Rule("m0", pool="light"))
    one, two, three = plan(Other(), *movers(2), rules=rules, preset="fused").workers
    assert one.kind == two.kind == "pool light"
    assert one.why == "a rule for Other puts it into the pool 'light'"
    assert three.where == "home"
    assert len(demands([one, two])) == 2


# Neighbours.


def test_neighbours_share_a_place_and_what_it_reserves() -> None:
    rules = (
        Rule("m0", resources={"num_cpus": 1}, labels={"zone": "a"}),
        Rule("m1", resources={"num_cpus": 0.5, "slots": 2}, with_previous=True),
        Rule("m2", with_previous=True, labels={"disk": "ssd"}),
    )
    made = plan(*movers(4), rules=rules)
    first, second = demands(made.moved)
    workers = made.workers
    assert first.pids == tuple(placed.pid for placed in workers[:3])
    assert first.resources == {"num_cpus": 1.5, "slots": 2}
    assert first.labels == {"zone": "a", "disk": "ssd"}
    assert second.pids == (workers[3].pid,)
    assert first.kind == "+".join([second.kind] * 3)
    assert workers[1].why == "a rule for m1 has it run with m0"
    assert all(placed.blueprint for placed in workers)


def test_who_runs_with_somebody_at_home_stays_there() -> None:
    rules = (Rule(Mover, with_previous=True),)
    stay, mover = plan(Stay(name="here"), Mover(), rules=rules).workers
    assert (stay.where, mover.where) == ("home", "home")
    assert mover.why == "a rule for Mover has it run with here, which stays here"
    assert mover.blueprint == b""


def test_who_cannot_be_built_elsewhere_does_not_go_with_the_other() -> None:
    mover = Mover()
    mover._tag = "changed"
    mover._name = "changed"
    moved, stays = plan(Other(), mover, rules=(Rule("changed", with_previous=True),)).workers
    assert (moved.where, stays.where) == ("pooled", "home")
    assert "was set after it was built" in stays.why


def test_nobody_directly_before() -> None:
    rules = (Rule("m0", with_previous=True),)
    branches = ParallelPipeline([Mover(name="m0")], [Stay()])
    for processors in ([Mover(name="m0")], [Stay(), branches], [branches, Stay()]):
        with pytest.raises(PlacementError, match="m0 has no processor directly before it"):
            plan(*processors, rules=rules)


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (
            Rule("m0", "dedicated"),
            Rule("m1", "pooled", with_previous=True),
            r"m1 is to run with m0, and at a place of its own \(pooled actor\)",
        ),
        (
            Rule("m0", pool="a"),
            Rule("m1", pool="b", with_previous=True),
            "m1 is to run with m0, and at a place of its own",
        ),
        (
            Rule("m0", labels={"zone": "a"}),
            Rule("m1", labels={"zone": "b"}, with_previous=True),
            "their nodes need different labels zone",
        ),
        (
            Rule("m0", apart_from="m1"),
            Rule("m1", with_previous=True),
            "m0 is to be apart from m1, and both are in one place by a rule",
        ),
    ],
)
def test_neighbours_that_cannot_be_together(first: Rule, second: Rule, text: str) -> None:
    with pytest.raises(PlacementError, match=text):
        plan(*movers(2), rules=(first, second))


def test_neighbours_in_a_pool() -> None:
    rules = (Rule("m0", pool="a"), Rule("m1", pool="a", with_previous=True))
    one, two = plan(*movers(2), rules=rules).workers
    assert one.kind == two.kind == "pool a"
    assert two.leader == one.pid


# Apart.


def test_those_kept_apart_have_kinds_of_their_own() -> None:
    free, one, two, three = plan(*movers(4), rules=(Rule("m1", apart_from=("m2", "m3")),)).workers
    assert free.kind == one.kind
    assert two.kind == three.kind == f"{one.kind} #2"
    each = plan(*movers(3), rules=(Rule(Mover, apart_from=Mover),)).workers
    assert len({placed.kind for placed in each}) == 3
    again = plan(*movers(3), rules=(Rule(Mover, apart_from=Mover),)).workers
    assert [placed.kind for placed in again] == [placed.kind for placed in each]


def test_those_that_share_nothing_anyway_keep_their_kinds() -> None:
    rules = (Rule(Other, "dedicated", apart_from=Mover), Rule("m0", apart_from="Stay"))
    stay, other, mover = plan(Stay(), Other(), *movers(1), rules=rules).workers
    assert mover.kind == plan(*movers(1), rules=()).workers[0].kind
    assert (stay.where, other.where) == ("home", "dedicated")


def test_groups_are_kept_apart_whole() -> None:
    rules = (Rule("m1", with_previous=True, apart_from="m3"), Rule("m3", with_previous=True))
    one, two, three, four = plan(*movers(4), rules=rules).workers
    assert one.kind == two.kind
    assert three.kind == four.kind == f"{one.kind} #2"


def test_those_that_both_stay_cannot_be_apart() -> None:
    with pytest.raises(PlacementError, match="a is to be apart from b, and both are in the bot's"):
        plan(Stay(name="a"), Stay(name="b"), rules=(Rule("a", apart_from="b"),))


# Nonsense.


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"place": "elsewhere"}, "none of home, dedicated, pooled"),
        ({"place": "home", "resources": {"num_cpus": 1}}, "leaves no actor"),
        ({"place": "home", "with_previous": True}, "leaves no actor"),
        ({"place": "dedicated", "pool": "a"}, "in no pool"),
        ({"pool": ""}, "a pool has a name"),
        ({"resources": {"gpus": 1}}, "it is called 'num_gpus'"),
        ({"resources": {"num_tpus": 1}}, "there are num_cpus, num_gpus, memory"),
        ({"resources": {"num_cpus": -1}}, "is no amount"),
        ({"resources": {"num_cpus": True}}, "is no amount"),
        ({"resources": {"num_cpus": float("nan")}}, "is no amount"),
        ({"resources": {"num_gpus": 1.5}}, "only whole ones"),
        ({"labels": {"zone": 1}}, "not made of texts"),
    ],
)
def test_rules_that_contradict_themselves(rule: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        Rule("Mover", **rule)
    assert "the rule for Mover" in str(caught.value)


@pytest.mark.parametrize(
    ("preset", "rules", "text"),
    [
        ("poled", (), "none of pooled, dedicated, fused"),
        ("fused", (Rule(Mover, resources={"num_gpus": 1}),), "give the rule a place"),
        (
            "pooled",
            (Rule(Mover, pool="a"), Rule(Other, pool="a", resources={"num_gpus": 1})),
            "the rule for Mover and the rule for Other ask for different actors in one pool, 'a'",
        ),
    ],
)
def test_placements_that_contradict_themselves(preset: Any, rules: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Placement(preset, rules)


def test_all_contradictions_are_told_at_once() -> None:
    rules = (Rule("m0", with_previous=True), Rule(Stay, apart_from=Stay))
    with pytest.raises(PlacementError) as caught:
        plan(Mover(name="m0"), Stay(name="a"), Stay(name="b"), rules=rules)
    assert str(caught.value).count(";") == 2


def test_what_the_pipeline_does_not_have() -> None:
    rules = (Rule("Movre", "home"), Rule("m0", apart_from=("Stay", "Sty")))
    assert plan(*movers(1), Stay(), rules=rules).unknown == ["Movre", "Sty"]


BOT = """
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.testing import FakeLLMService, FakeTTSService
from antiphon_actors.placement.policy import Placement, Rule

placement = Placement(rules=({rules},))

async def bot(runner_args):
    task = PipelineTask(Pipeline([FakeLLMService(["Hello."]), FakeTTSService()]))
    await PipelineRunner(handle_sigint=False).run(task)
"""


@pytest.mark.parametrize(
    ("rules", "error", "text"),
    [
        ("Rule('FakeLLM', 'home')", ConfigError, "rules name FakeLLM, which the pipeline does not"),
        ("Rule('FakeLLMService', with_previous=True)", BotError, "no processor directly before"),
        ("Rule('FakeLLMService', resources={'gpu': 1})", BotError, "it is called 'num_gpus'"),
    ],
)
async def test_the_plan_shows_what_is_wrong(
    rules: str, error: type[Exception], text: str, tmp_path: Path
) -> None:
    path = tmp_path / "bot.py"
    path.write_text(BOT.format(rules=rules))
    with pytest.raises(error, match=text):
        await plan_bot(read_bot_file(str(path)), None)


async def test_the_plan_shows_groups(tmp_path: Path) -> None:
    path = tmp_path / "bot.py"
    path.write_text(BOT.format(rules="Rule('FakeTTSService', with_previous=True)"))
    made = await plan_bot(read_bot_file(str(path)), None)
    assert len(demands(made.moved)) == 1


# And in a session.


class FakeAgent:
    """Gives a place in an actor of its own to each that is wanted."""

    def __init__(self) -> None:
        self.acquire_all = self
        self.wanted: list[ActorWanted] = []

    async def remote(
        self, session_id: str, wanted: list[ActorWanted], avoid: list[str]
    ) -> list[ActorPlace]:
        assert avoid == []
        self.wanted = wanted
        return [
            ActorPlace(number, f"actor{number}", ActorFacts(f"unix:///{number}", 1, 0, "node"))
            for number, _ in enumerate(wanted)
        ]


async def test_the_agent_is_asked_for_places_not_for_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent_provider, "_LeasedHost", lambda place, _: place)
    rules = (
        Rule("m1", with_previous=True, resources={"num_cpus": 1}, labels={"zone": "a"}),
        Rule("m2", "dedicated"),
    )
    made, agent = plan(*movers(3), rules=rules), FakeAgent()
    client = AgentClient(agent)
    hosts: list[Any] = await agent_provider.AgentProvider(client, "s").acquire("s", made.moved)
    assert [host.actor_id for host in hosts] == ["actor0", "actor0", "actor1"]
    kind = made.workers[2].kind
    assert agent.wanted == [
        ActorWanted(f"{kind}+{kind}", "pooled", {"num_cpus": 1}, {"zone": "a"}),
        ActorWanted(kind, "dedicated"),
    ]


@pytest.mark.parametrize(
    ("labels", "could"), [({}, True), ({"zone": "a"}, True), ({"zone": "b"}, False)]
)
def test_a_node_serves_those_that_want_its_labels(labels: dict[str, str], could: bool) -> None:
    node = Node("n", {"CPU": 2.0}, {"zone": "a", "ray.io/node-id": "n"})
    assert node.could_serve(ActorWanted("X", labels=labels)) is could


class Places(Actors):
    """Gives a process to each demand, as the agents of nodes do."""

    async def acquire(  # type: ignore[override]
        self, session_id: str, moved: list[PlacedProcessor], avoid: Sequence[Host] = ()
    ) -> list[LocalHost]:
        hosts: dict[int, LocalHost] = {}
        for demand in demands(moved):
            host = LocalHost(f"host{len(self.hosts)}", self._directory)
            self.hosts.append(host)
            await host.host.start()
            hosts |= dict.fromkeys(demand.pids, host)
        self.by_processor |= {placed.processor.name: hosts[placed.pid] for placed in moved}
        return [hosts[placed.pid] for placed in moved]


async def test_neighbours_hand_frames_over_in_one_process(actors: Actors, tmp_path: Path) -> None:
    places = Places(tmp_path / "places")
    (tmp_path / "places").mkdir(mode=0o700)
    await places.start()
    try:
        one, two, three = Mover("1", name="one"), Mover("2", name="two"), Mover("3", name="three")
        end = Stay()
        task = pipeline_of(one, two, three, end)
        await task.queue_frames(texts("a", "b"))
        await places.run(task, Placement("dedicated", (Rule("two", with_previous=True),)))
        assert end.texts == ["a123", "b123"]
        assert places.by_processor["one"] is places.by_processor["two"]
        assert places.by_processor["one"] is not places.by_processor["three"]
        assert [len(host.specs[0].processors) for host in places.hosts] == [2, 1]
    finally:
        await places.aclose()


async def test_contradictions_end_a_session_with_their_reason(actors: Actors) -> None:
    task = pipeline_of(Mover(name="m0"), Stay())
    await task.queue_frames(texts("a"))
    with pytest.raises(PlacementError, match="no processor directly before it"):
        await actors.run(task, Placement(rules=(Rule("m0", with_previous=True),)))
