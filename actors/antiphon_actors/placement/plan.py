"""The plan of one session: where each processor goes, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from antiphon.pipeline.base_pipeline import BasePipeline, walk
from antiphon.pipeline.pipeline import PipelineSink, PipelineSource
from antiphon.processors.frame_processor import FrameProcessor
from antiphon_actors.placement.movability import Unmovable, class_may_move, pickle_blueprint
from antiphon_actors.placement.policy import Placement

Where = Literal["home", "dedicated", "pooled"]


@dataclass(frozen=True)
class PlacedProcessor:
    """One processor's place.

    Attributes:
        pid: Its number in the session, in pipeline order.
        processor: The object the bot built.
        where: ``home`` (the bot's process), or an actor: ``dedicated`` or ``pooled``.
        why: The reason, for people.
        kind: Which actors suit it: its class.
        resources: What its actor asks of the cluster.
        blueprint: How to build it there; empty at home.
    """

    pid: int
    processor: FrameProcessor
    where: Where
    why: str
    kind: str
    resources: Mapping[str, float] = field(default_factory=dict)
    blueprint: bytes = b""

    @property
    def structural(self) -> bool:
        """Whether it is a joint of the pipeline and no worker."""
        return isinstance(self.processor, (BasePipeline, PipelineSource, PipelineSink))


@dataclass(frozen=True)
class Plan:
    """Where each processor of a pipeline goes.

    Attributes:
        placement: What the plan was made from.
        processors: Every processor, in pipeline order.
    """

    placement: Placement
    processors: Sequence[PlacedProcessor]

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
    """Decides where each processor of a pipeline goes; builds and starts nothing."""
    return Plan(
        placement,
        [_place(pid, processor, placement) for pid, processor in enumerate(walk(pipeline))],
    )


def _place(pid: int, processor: FrameProcessor, placement: Placement) -> PlacedProcessor:
    kind = kind_of(processor)

    def home(why: str) -> PlacedProcessor:
        return PlacedProcessor(pid, processor, "home", why, kind)

    if isinstance(processor, (BasePipeline, PipelineSource, PipelineSink)):
        return home("a joint of the pipeline")
    rule = placement.rule_for(processor)
    if rule is not None and rule.place == "home":
        return home(f"a rule for {_match_name(rule.match)} keeps it in the bot's process")
    if rule is None:
        if placement.preset == "fused":
            return home("the placement is 'fused'")
        reason = class_may_move(type(processor))
        if reason is not None:
            return home(reason)
    try:
        blueprint = pickle_blueprint(processor)
    except Unmovable as error:
        return home(str(error))
    where: Where
    if rule is not None:
        where = "pooled" if rule.place == "pooled" else "dedicated"
        why = f"a rule for {_match_name(rule.match)} asks for a {where} actor"
    elif placement.preset == "pooled":
        where, why = "pooled", "can be built anywhere; shares an actor of its kind"
    else:
        where, why = "dedicated", "can be built anywhere; has an actor of its own"
    resources = rule.resources if rule is not None else {}
    return PlacedProcessor(pid, processor, where, why, kind, resources, blueprint)


def _match_name(match: type | str) -> str:
    return match if isinstance(match, str) else match.__name__
