"""The plan of one session: where each processor goes, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loguru import logger

from antiphon.errors import PlacementError
from antiphon.pipeline.base_pipeline import walk
from antiphon.processors.frame_processor import FrameProcessor
from antiphon_actors.placement.movability import (
    Unmovable,
    class_cannot_move,
    class_may_move,
    pickle_blueprint,
)
from antiphon_actors.placement.places import Demand, PlacedProcessor, Where, demands, is_structural
from antiphon_actors.placement.policy import Placement, Rule, matches, name_of
from antiphon_actors.placement.together import join_neighbours, keep_apart

__all__ = ["Demand", "PlacedProcessor", "Plan", "demands", "kind_of", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """Where each processor of a pipeline goes.

    Attributes:
        placement: What the plan was made from.
        processors: Every processor, in pipeline order.
        unknown: What the rules name and the pipeline does not have.
    """

    placement: Placement
    processors: Sequence[PlacedProcessor]
    unknown: Sequence[str] = ()

    @property
    def moved(self) -> list[PlacedProcessor]:
        """Those that run in actors."""
        return [placed for placed in self.processors if placed.where != "home"]

    @property
    def workers(self) -> list[PlacedProcessor]:
        """Those that are no joints of the pipeline."""
        return [placed for placed in self.processors if not placed.structural]


def kind_of(processor: FrameProcessor) -> str:
    """Name of the kind of actor that suits a processor."""
    return f"{type(processor).__module__}:{type(processor).__qualname__}"


def make_plan(pipeline: FrameProcessor, placement: Placement) -> Plan:
    """Decides where each processor of a pipeline goes; builds and starts nothing.

    A rule about what the pipeline does not have is logged: a bot may have several pipelines.

    Raises:
        PlacementError: The rules contradict one another in this pipeline.
    """
    processors = [_place(pid, processor, placement) for pid, processor in enumerate(walk(pipeline))]
    problems: list[str] = []
    processors = join_neighbours(processors, placement, problems)
    processors = keep_apart(processors, placement, problems)
    if problems:
        raise PlacementError("placement: " + "; ".join(problems))
    plan = Plan(placement, processors, _unknown(processors, placement))
    if plan.unknown:
        logger.warning("placement rules about nothing here", unknown=list(plan.unknown))
    return plan


def _place(pid: int, processor: FrameProcessor, placement: Placement) -> PlacedProcessor:
    kind = kind_of(processor)

    def home(why: str) -> PlacedProcessor:
        return PlacedProcessor(pid, processor, "home", why, kind)

    if is_structural(processor):
        return home("a joint of the pipeline")
    rule = placement.rule_for(processor) or Rule(type(processor))
    name = name_of(rule.match)
    if rule.place == "home":
        return home(f"a rule for {name} keeps it in the bot's process")
    asked = rule.place or ("pooled" if rule.pool else None)
    if asked is None and not rule.with_previous:
        if placement.preset == "fused":
            return home("the placement is 'fused'")
        reason = class_may_move(type(processor))
        if reason is not None:
            return home(reason)
    try:
        blueprint = pickle_blueprint(processor)
    except Unmovable as error:
        return home(str(error))
    reason = class_cannot_move(type(processor))
    if reason is not None:
        return home(reason)
    where: Where
    if rule.pool is not None:
        where, why = "pooled", f"a rule for {name} puts it into the pool {rule.pool!r}"
        kind = f"pool {rule.pool}"
    elif asked is not None:
        where, why = asked, f"a rule for {name} asks for a {asked} actor"
    elif placement.preset == "dedicated":
        where, why = "dedicated", "can be built anywhere; has an actor of its own"
    else:
        where, why = "pooled", "can be built anywhere; shares an actor of its kind"
    return PlacedProcessor(pid, processor, where, why, kind, rule.resources, rule.labels, blueprint)


def _unknown(processors: Sequence[PlacedProcessor], placement: Placement) -> list[str]:
    workers = [placed.processor for placed in processors if not placed.structural]
    unknown: list[str] = []
    for rule in placement.rules:
        for match in (rule.match, *rule.apart):
            name = name_of(match)
            if name not in unknown and not any(matches(match, worker) for worker in workers):
                unknown.append(name)
    return unknown
