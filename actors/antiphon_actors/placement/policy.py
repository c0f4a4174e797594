"""What a bot or an operator may say about placement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from antiphon.errors import ConfigError
from antiphon.processors.frame_processor import FrameProcessor
from antiphon_actors.placement.supervision import Match, Supervision

Preset = Literal["pooled", "dedicated", "fused"]
DEFAULT_SUPERVISION = Supervision()

PRESETS: tuple[Preset, ...] = ("pooled", "dedicated", "fused")

_RAY_RESOURCES = ("num_cpus", "num_gpus", "memory")
# What people write for those, and what Ray would take for a resource of the user's own.
_MISTAKEN_RESOURCES = {
    "CPU": "num_cpus",
    "cpu": "num_cpus",
    "cpus": "num_cpus",
    "num_cpu": "num_cpus",
    "GPU": "num_gpus",
    "gpu": "num_gpus",
    "gpus": "num_gpus",
    "num_gpu": "num_gpus",
}


def matches(match: Match, processor: FrameProcessor) -> bool:
    """Whether `match` (a class, the name of a class or of a processor) is about a processor."""
    if isinstance(match, str):
        names = {cls.__name__ for cls in type(processor).__mro__}
        return match == processor.name or match in names
    return isinstance(processor, match)


def name_of(match: Match) -> str:
    """How a message calls it."""
    return match if isinstance(match, str) else match.__name__


@dataclass(frozen=True)
class Rule:
    """Overrides the preset for some processors.

    Attributes:
        match: A processor class, the name of one, or the name of a processor.
        place: ``home`` keeps it in the bot's process; ``dedicated`` and ``pooled`` give it an
            actor of its own or a shared one, also if its class would stay home by default. None
            leaves that to the preset.
        resources: What its actor reserves on the cluster: ``num_cpus``, ``num_gpus``, ``memory``
            (bytes), or the cluster's own.
        pool: Processors with the same name here share actors, whatever their class.
        with_previous: Runs in the same process as the processor directly before it; frames between
            the two stay in memory.
        apart_from: Processors of its session that it never shares an actor with: a class or a name
            as for ``match``, or several.
        labels: Labels that the node of its actor must have.
    """

    match: Match
    place: Literal["home", "dedicated", "pooled"] | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    pool: str | None = None
    with_previous: bool = False
    apart_from: Match | tuple[Match, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses a rule that contradicts itself.

        Raises:
            ConfigError: It does, or a value of it cannot be.
        """
        if self.place not in (None, "home", "dedicated", "pooled"):
            raise self._wrong(f"place={self.place!r} is none of home, dedicated, pooled")
        if self.place == "home" and (self.wants_actor or self.with_previous):
            raise self._wrong("place='home' leaves no actor for what else it asks for")
        if self.pool is not None:
            if not self.pool:
                raise self._wrong("a pool has a name")
            if self.place == "dedicated":
                raise self._wrong("an actor of its own is in no pool: place='dedicated' and pool")
        for name, amount in self.resources.items():
            self._check_resource(name, amount)
        texts: list[object] = [*self.labels, *self.labels.values()]
        if not all(isinstance(text, str) for text in texts):
            raise self._wrong(f"labels {dict(self.labels)!r} are not made of texts")

    @property
    def wants_actor(self) -> bool:
        """Whether it asks for something that only an actor has."""
        return bool(self.resources or self.labels or self.pool)

    @property
    def apart(self) -> tuple[Match, ...]:
        """What `apart_from` names, one by one."""
        return self.apart_from if isinstance(self.apart_from, tuple) else (self.apart_from,)

    def matches(self, processor: FrameProcessor) -> bool:
        """Whether the rule is about this processor."""
        return matches(self.match, processor)

    def __str__(self) -> str:
        return f"the rule for {name_of(self.match)}"

    def _wrong(self, why: str) -> ConfigError:
        return ConfigError(f"placement: {self}: {why}")

    def _check_resource(self, name: str, amount: object) -> None:
        if name in _MISTAKEN_RESOURCES:
            raise self._wrong(
                f"{name!r} is no resource; it is called {_MISTAKEN_RESOURCES[name]!r}"
            )
        if name.startswith("num_") and name not in _RAY_RESOURCES:
            raise self._wrong(f"{name!r} is no resource; there are {', '.join(_RAY_RESOURCES)}")
        if (
            isinstance(amount, bool)
            or not isinstance(amount, int | float)
            or not (0 <= amount < math.inf)
        ):
            raise self._wrong(f"{name}={amount!r} is no amount")
        if amount > 1 and amount != int(amount) and name not in ("num_cpus", "memory"):
            raise self._wrong(f"{name}={amount!r}: above one, only whole ones can be reserved")


@dataclass(frozen=True)
class Placement:
    """How the processors of a session are placed.

    Attributes:
        preset: ``pooled``: each processor runs in an actor of its kind, shared by sessions.
            ``dedicated``: each in an actor of its own. ``fused``: all in the bot's process.
        rules: Exceptions; the first that matches a processor counts.
        supervision: What happens when processors are lost with their actors; the first that matches
            one counts, and those that none matches are replaced one for one.
        apology: What the bot says, if it still can, when a session has to end because a lost processor
            could not be replaced.
    """

    preset: Preset = "pooled"
    rules: tuple[Rule, ...] = ()
    supervision: tuple[Supervision, ...] = ()
    apology: str = ""

    def __post_init__(self) -> None:
        """Refuses rules that contradict the preset or one another.

        Raises:
            ConfigError: They do.
        """
        if self.preset not in PRESETS:
            raise ConfigError(f"placement {self.preset!r} is none of {', '.join(PRESETS)}")
        pools: dict[str, Rule] = {}
        for rule in self.rules:
            if self.preset == "fused" and rule.wants_actor and rule.place is None and not rule.pool:
                raise ConfigError(
                    f"placement: {rule} reserves something in an actor, but the placement is 'fused': "
                    "give the rule a place"
                )
            if rule.pool is None:
                continue
            first = pools.setdefault(rule.pool, rule)
            if (first.resources, first.labels) != (rule.resources, rule.labels):
                raise ConfigError(
                    f"placement: {first} and {rule} ask for different actors in one pool, "
                    f"{rule.pool!r}"
                )

    def supervision_for(self, processor: FrameProcessor) -> Supervision:
        """What is to happen when this processor is lost."""
        found = (
            each
            for each in self.supervision
            if not each.match or any(matches(match, processor) for match in each.match)
        )
        return next(found, DEFAULT_SUPERVISION)

    def rule_for(self, processor: FrameProcessor) -> Rule | None:
        """The first rule about this processor."""
        return next((rule for rule in self.rules if rule.matches(processor)), None)
