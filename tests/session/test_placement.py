"""Where processors go, and why."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.session.conftest import Mover, Stay

from antiphon.frames.frames import Frame
from antiphon.pipeline.parallel_pipeline import ParallelPipeline
from antiphon.pipeline.pipeline import Pipeline
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameProcessor
from antiphon.testing import FakeLLMService, FakeTransport, FakeTTSService
from antiphon_actors.placement.movability import pickle_blueprint, unpickle_blueprint
from antiphon_actors.placement.plan import PlacedProcessor, Plan, make_plan
from antiphon_actors.placement.policy import Placement, Preset, Rule

DEDICATED = Placement("dedicated")


def place(processor: FrameProcessor, placement: Placement = DEDICATED) -> PlacedProcessor:
    [placed] = make_plan(Pipeline([processor]), placement).workers
    return placed


class Held(Mover):
    """May move, and holds whatever it is given."""

    movable = True

    def __init__(self, *held: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.held = held


class Unmarked(Mover):
    """A class of the bot that does not say that it may move, though its base does."""


class Fixed(Mover):
    movable = False


class Model(FakeLLMService):
    """A bot's own version of a service: its code may lean on the bot's module."""


async def own_function(frame: Frame) -> bool:
    return True


class Filter:
    def __call__(self, frame: Frame) -> bool:
        return True

    def method(self, frame: Frame) -> bool:
        return True


found: list[Frame] = []


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (own_function, "the bot's own function own_function"),
        (lambda frame: True, "the bot's own function"),
        (functools.partial(own_function), "the bot's own function own_function"),
        ({"filters": [own_function]}, "the bot's own function own_function"),
        (Filter().method, "the bot's own function Filter.method"),
        (Filter(), "the bot's own Filter"),
        (found.append, "the bot's own function list.append"),
        (OpenAILLMContext(), "the bot's conversation"),
        ([Stay(name="partner")], "the live object partner"),
    ],
)
def test_what_is_shared_with_the_bot_pins(held: Any, why: str) -> None:
    placed = place(Held(held))
    assert placed.where == "home"
    assert why in placed.why
    assert placed.blueprint == b""


async def test_asyncio_objects_pin() -> None:
    live: list[object] = [asyncio.Queue(), asyncio.Event(), asyncio.Lock()]
    for held in live:
        assert f"an asyncio {type(held).__name__}" in place(Held(held)).why


def test_what_cannot_be_pickled_pins() -> None:
    placed = place(Held(number for number in range(3)))
    assert placed.where == "home"
    assert "its constructor arguments cannot travel" in placed.why


@pytest.mark.parametrize(
    ("processor", "why"),
    [
        (Stay(), "the bot's own class; `movable = True` in the class lets it move"),
        (Unmarked(), "the bot's own class; `movable = True` in the class lets it move"),
        (Model(), "the bot's own class; `movable = True` in the class lets it move"),
        (Fixed(), "its class says movable = False"),
    ],
)
def test_classes_that_do_not_move(processor: FrameProcessor, why: str) -> None:
    assert place(processor).why == why


def test_services_move_and_what_the_bot_talks_through_does_not() -> None:
    transport = FakeTransport()
    llm, tts = FakeLLMService(["Hello."]), FakeTTSService()
    pair = llm.create_context_aggregator(OpenAILLMContext())
    parts = [transport.input(), pair.user(), llm, tts, transport.output(), pair.assistant()]
    plan = make_plan(Pipeline(parts), Placement())
    assert [placed.processor for placed in plan.moved] == [llm, tts]
    assert {placed.where for placed in plan.moved} == {"pooled"}
    assert [placed.processor for placed in plan.workers] == parts
    assert all(placed.why for placed in plan.processors)


def test_an_attribute_set_from_outside_pins() -> None:
    mover = Mover()
    mover._tag = "b"
    assert place(mover).why == "its attribute '_tag' was set after it was built"
    extra: Any = Mover()
    extra.note = 1
    assert "'note'" in place(extra).why


def test_a_recorded_call_does_not_hide_an_attribute_set_from_outside() -> None:
    mover: Any = Mover()
    mover.note = 1
    mover.set_tag("x")
    assert "'note'" in place(mover).why
    fine = Mover()
    fine.set_tag("x")
    fine.add_event_handler("on_text", lambda *_: None)
    assert place(fine).where == "dedicated"
    assert fine._journal is not None
    assert [call.method for call in fine._journal] == ["set_tag", "add_event_handler"]


def test_linking_does_not_pin() -> None:
    movers = [Mover(), Mover()]
    plan = make_plan(Pipeline([movers[0], ParallelPipeline([movers[1]], [Stay()])]), DEDICATED)
    assert [placed.processor for placed in plan.moved] == movers
    assert len({placed.pid for placed in plan.processors}) == len(plan.processors)


def test_a_processor_that_was_set_up_stays() -> None:
    mover = Mover()
    mover._journal = None
    mover._started = True
    assert place(mover).where == "home"


def test_rules() -> None:
    stay, named, other = Stay(), Mover(name="mine"), Mover()
    placement = Placement(
        "fused",
        (
            Rule("mine", "home"),
            Rule(Stay, "pooled", {"num_cpus": 1}),
            Rule("Mover", "dedicated"),
        ),
    )
    by_name = {
        placed.processor.name: placed
        for placed in make_plan(Pipeline([stay, named, other]), placement).workers
    }
    assert by_name["mine"].where == "home"
    assert by_name["mine"].why == "a rule for mine keeps it in the bot's process"
    assert by_name[stay.name].where == "pooled"
    assert by_name[stay.name].resources == {"num_cpus": 1}
    assert by_name[stay.name].why == "a rule for Stay asks for a pooled actor"
    assert by_name[other.name].where == "dedicated"


def test_a_rule_cannot_move_what_cannot_be_built_elsewhere() -> None:
    transport = FakeTransport()
    placed = place(transport.input(), Placement("dedicated", (Rule("_FakeInput", "dedicated"),)))
    assert placed.where == "home"
    assert "it was built with" in placed.why


@settings(deadline=None, max_examples=40)
@given(preset=st.sampled_from(["pooled", "dedicated", "fused"]), tags=st.lists(st.text(max_size=5)))
def test_every_processor_has_one_place_and_a_reason(preset: Preset, tags: list[str]) -> None:
    movers = [Mover(tag) for tag in tags]
    plan: Plan = make_plan(Pipeline([Stay(), *movers]), Placement(preset))
    assert [placed.pid for placed in plan.processors] == list(range(len(plan.processors)))
    assert len(plan.moved) == (0 if preset == "fused" else len(movers))
    for placed in plan.processors:
        assert placed.why
        assert bool(placed.blueprint) == (placed.where != "home")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.binary()
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=40)
@given(held=st.lists(plain, max_size=4))
def test_a_blueprint_builds_the_same(held: list[Any]) -> None:
    blueprint = unpickle_blueprint(pickle_blueprint(Held(*held, tag="t")))
    assert blueprint.cls is Held
    assert blueprint.args == tuple(held)
    assert blueprint.kwargs == {"tag": "t"}


def test_an_argument_that_holds_itself() -> None:
    held: list[Any] = []
    held.append(held)
    assert place(Held(held)).where == "dedicated"
