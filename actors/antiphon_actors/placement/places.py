"""A processor's place, and what a session needs of the cluster for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from antiphon.pipeline.base_pipeline import BasePipeline
from antiphon.pipeline.pipeline import PipelineSink, PipelineSource
from antiphon.processors.frame_processor import FrameProcessor

Where = Literal["home", "dedicated", "pooled"]


@dataclass(frozen=True)
class PlacedProcessor:
    """One processor's place.

    Attributes:
        pid: Its number in the session, in pipeline order.
        processor: The object the bot built.
        where: ``home`` (the bot's process), or an actor: ``dedicated`` or ``pooled``.
        why: The reason, for people.
        kind: Which pooled actors suit it: its class, unless rules say otherwise.
        resources: What its actor asks of the cluster.
        labels: What labels the node of its actor has.
        blueprint: How to build it there; empty at home.
        leader: Number of the processor whose place it shares by a rule; its own otherwise.
    """

    pid: int
    processor: FrameProcessor
    where: Where
    why: str
    kind: str
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    blueprint: bytes = b""
    leader: int = -1

    def __post_init__(self) -> None:
        if self.leader < 0:
            object.__setattr__(self, "leader", self.pid)

    @property
    def structural(self) -> bool:
        """Whether it is a joint of the pipeline and no worker."""
        return is_structural(self.processor)

    @property
    def place(self) -> str:
        """The place in words."""
        if self.where == "home":
            return "the bot's process"
        asks = [f"{name}={amount:g}" for name, amount in self.resources.items()]
        asks += [f"{key}={value}" for key, value in self.labels.items()]
        return f"{self.where} actor" + (f" ({', '.join(asks)})" if asks else "")


@dataclass(frozen=True, slots=True)
class Demand:
    """A place in an actor that a session needs.

    Attributes:
        pids: Of the processors that go there: one, or neighbours that a rule keeps together.
        kind: What pooled actors host: places of one kind may share an actor, others never do.
        mode: An actor for this place alone, or one shared with others.
        resources: What the actor reserves.
        labels: What labels its node has.
    """

    pids: tuple[int, ...]
    kind: str
    mode: Literal["dedicated", "pooled"]
    resources: Mapping[str, float]
    labels: Mapping[str, str]


def demands(moved: Iterable[PlacedProcessor]) -> list[Demand]:
    """The places that processors in actors need, in pipeline order."""
    groups: dict[int, list[PlacedProcessor]] = {}
    for placed in moved:
        groups.setdefault(placed.leader, []).append(placed)
    return [
        Demand(
            tuple(placed.pid for placed in group),
            group[0].kind,
            "dedicated" if group[0].where == "dedicated" else "pooled",
            group[0].resources,
            group[0].labels,
        )
        for group in groups.values()
    ]


def is_structural(processor: FrameProcessor) -> bool:
    """Whether a processor is a joint of the pipeline and no worker."""
    return isinstance(processor, (BasePipeline, PipelineSource, PipelineSink))
