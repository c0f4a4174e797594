"""How a process tells its agent, and that an actor, which model is meant; through Ray, never over a channel."""

from __future__ import annotations

from dataclasses import dataclass

import cloudpickle

from antiphon.errors import ConfigError
from antiphon.models.model import ModelSpec
from antiphon_actors.models.pools import Resources
from antiphon_actors.models.settings import ModelSettings, Scaling


@dataclass(frozen=True, slots=True)
class ModelWanted:
    """A model that a process asks its agent for.

    Attributes:
        key: `ModelSpec.key`.
        name: `ModelSpec.name`.
        spec: For the actors that are started; the agent does not look inside.
        resources: What each of them reserves.
        scaling: How many there are.
    """

    key: str
    name: str
    spec: bytes
    resources: Resources
    scaling: Scaling

    @classmethod
    def of(cls, spec: ModelSpec, settings: ModelSettings) -> ModelWanted:
        """A model as the settings want it.

        Raises:
            ConfigError: Its class cannot be had in another process.
        """
        rule = settings.rule_for(spec.model)
        resources = tuple(sorted((name, n) for name, n in rule.resources.items() if n))
        return cls(spec.key, spec.name, pickle_spec(spec), resources, rule.scaling)


def pickle_spec(spec: ModelSpec) -> bytes:
    """A spec for an actor, through Ray: never over a channel.

    Raises:
        ConfigError: The model's class cannot be had in another process.
    """
    try:
        data: bytes = cloudpickle.dumps(spec)
    except Exception as error:  # whatever the user's class raises when it is pickled
        raise ConfigError(f"the model {spec.name} cannot run in an actor: {error}") from error
    return data


def unpickle_spec(data: bytes) -> ModelSpec:
    """The spec that `pickle_spec` gave.

    Raises:
        ConfigError: Its class is not to be found here.
    """
    try:
        spec: ModelSpec = cloudpickle.loads(data)
    except Exception as error:  # whatever importing the user's module raises
        raise ConfigError(f"the model's class cannot be imported here: {error}") from error
    return spec
