"""Where models run and how many of them: what an operator says.

The fields of these classes are the keys of an operator's file: see `settings_file`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from antiphon.errors import ConfigError
from antiphon.models.model import Model, ModelSpec


def _check_numbers(where: str, settings: Any, *names: str) -> None:
    for name in names:
        _check_number(where + name, getattr(settings, name))


def _check_number(name: str, number: float) -> None:
    if not (math.isfinite(number) and number >= 0):
        raise ConfigError(f"{name} is 0 or more, not {number:g}")


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many actors a model has.

    Attributes:
        least: While anybody uses it.
        most: At most.
        queue_secs: Another one is started when requests wait longer than this on average, or are refused,
            for `up_secs`.
        idle_share: One is ended when those that are left would be busy for less than this share of the
            time, and requests wait less than a quarter of `queue_secs`, for `down_secs`.
        up_secs: See `queue_secs`.
        down_secs: See `idle_share`.
    """

    least: int = 1
    most: int = 1
    queue_secs: float = 0.05
    idle_share: float = 0.5
    up_secs: float = 2.0
    down_secs: float = 60.0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ConfigError(
                f"scaling: least is 1 or more, and most no less: not {self.least} and {self.most}"
            )
        _check_numbers("scaling: ", self, "queue_secs", "idle_share", "up_secs", "down_secs")


@dataclass(frozen=True, slots=True)
class ModelRule:
    """How a model is to run.

    Attributes:
        match: Name of the model's class, or of one of its bases: "Model" matches all.
        place: In actors, or in each process that uses it; None for what its class says (`Model.in_actor`).
        resources: What each actor reserves on the cluster: `num_cpus`, `num_gpus` (fractions too), `memory`,
            or the cluster's own.
        scaling: How many actors.
    """

    match: str
    place: Literal["actor", "process"] | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    scaling: Scaling = Scaling()

    def __post_init__(self) -> None:
        for name, amount in self.resources.items():
            _check_number(f"resources: {name}", amount)


_ANY = ModelRule("Model")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How the models of a cluster run.

    Attributes:
        rules: For each model the first that matches counts.
        preload: Models whose actors are started with the node agent, and stay.
        max_actors: Actors with models on a node, those being started included.
        max_starts: Of them started at once.
        load_secs: How long an actor may take to load its model; downloading it counts.
        idle_secs: How long a model that nobody uses is kept.
        report_secs: How often actors are asked how busy they are.
        stuck_secs: An actor that works longer than this on one batch is replaced.
        failures_to_open: Failed starts in a row after which who asks is refused at once, with the reason.
        backoff_first_secs: Pause after the first failed start; doubles with each further one.
        backoff_limit_secs: Longest pause.
    """

    rules: tuple[ModelRule, ...] = ()
    preload: tuple[ModelSpec, ...] = ()
    max_actors: int = 16
    max_starts: int = 2
    load_secs: float = 600.0
    idle_secs: float = 120.0
    report_secs: float = 1.0
    stuck_secs: float = 120.0
    failures_to_open: int = 3
    backoff_first_secs: float = 0.25
    backoff_limit_secs: float = 30.0

    def __post_init__(self) -> None:
        for name in ("max_actors", "max_starts", "failures_to_open"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is 1 or more, not {getattr(self, name)}")
        _check_numbers("", self, "load_secs", "idle_secs", "report_secs", "stuck_secs")
        _check_numbers("", self, "backoff_first_secs", "backoff_limit_secs")

    def rule_for(self, model: type[Model]) -> ModelRule:
        """The rule that counts for a model."""
        names = {base.__name__ for base in model.__mro__}
        return next((rule for rule in self.rules if rule.match in names), _ANY)

    def in_actor(self, model: type[Model]) -> bool:
        """Whether a model runs in actors."""
        place = self.rule_for(model).place
        return model.in_actor if place is None else place == "actor"
