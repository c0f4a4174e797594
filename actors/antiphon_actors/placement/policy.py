"""What a bot or an operator may say about placement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from antiphon.processors.frame_processor import FrameProcessor

Preset = Literal["pooled", "dedicated", "fused"]

PRESETS: tuple[Preset, ...] = ("pooled", "dedicated", "fused")


@dataclass(frozen=True)
class Rule:
    """Overrides the preset for some processors.

    Attributes:
        match: A processor class, the name of one, or the name of a processor.
        place: ``home`` keeps it in the bot's process; ``dedicated`` and ``pooled`` give it an
            actor of its own or a shared one, also if its class would stay home by default.
        resources: What its actor asks of the cluster, e.g. ``{"num_cpus": 1}``.
    """

    match: type[FrameProcessor] | str
    place: Literal["home", "dedicated", "pooled"]
    resources: Mapping[str, float] = field(default_factory=dict)

    def matches(self, processor: FrameProcessor) -> bool:
        """Whether the rule is about this processor."""
        if isinstance(self.match, str):
            names = {cls.__name__ for cls in type(processor).__mro__}
            return self.match == processor.name or self.match in names
        return isinstance(processor, self.match)


@dataclass(frozen=True)
class Placement:
    """How the processors of a session are placed.

    Attributes:
        preset: ``pooled``: each processor runs in an actor of its kind, shared by sessions.
            ``dedicated``: each in an actor of its own. ``fused``: all in the bot's process.
        rules: Exceptions; the first that matches a processor counts.
    """

    preset: Preset = "pooled"
    rules: tuple[Rule, ...] = ()

    def rule_for(self, processor: FrameProcessor) -> Rule | None:
        """The first rule about this processor."""
        return next((rule for rule in self.rules if rule.matches(processor)), None)
