"""What is deployed on a cluster, in the cluster's own store: gateways that start again find it there."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from loguru import logger
from ray.exceptions import RayError

from antiphon.errors import ConfigError
from antiphon_actors.errors import ClusterError
from antiphon_actors.gateway.settings import AppSpec
from antiphon_actors.models.settings import ModelSettings
from antiphon_actors.models.settings_file import settings_of_plain, settings_to_plain
from antiphon_actors.ray_internal import ClusterKeys

T = TypeVar("T")

_NAMESPACE = "antiphon"
_APP = "app:"
_DEPLOYMENT = "deployment"


@dataclass(frozen=True, slots=True)
class Deployment:
    """What all gateways and agents of a cluster have in common.

    Attributes:
        cluster: Name of the cluster in certificates.
        first_node: The node whose agent issues them.
        host: Where each gateway listens.
        port: Where each gateway listens.
        key_hash: Of the API key.
        secret: Of the tickets.
        public_url: See `GatewaySettings`.
        max_sessions: Sessions that each node runs at once.
        models: How models that sessions share run.
    """

    cluster: str
    first_node: str
    host: str
    port: int
    key_hash: str
    secret: str
    public_url: str
    max_sessions: int
    models: ModelSettings = field(default_factory=ModelSettings)

    def to_json(self) -> str:
        """Its form in the registry.

        Raises:
            ConfigError: A model's class cannot be imported by others.
        """
        plain = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({**plain, "models": settings_to_plain(self.models)})

    @classmethod
    def from_json(cls, text: str | bytes) -> Deployment:
        """Reads it.

        Raises:
            ConfigError: It is malformed.
        """
        try:
            plain: dict[str, Any] = json.loads(text)
            models = settings_of_plain(plain.pop("models", {}))
            return cls(**plain, models=models)
        except (ValueError, TypeError, AttributeError, ConfigError) as error:
            raise ConfigError(f"the deployment of this cluster cannot be read: {error}") from error


class Registry:
    """The deployed bots of the cluster that this process is connected to.

    Raises:
        ClusterError: From every method: the store cannot be used.
        ConfigError: From the methods that read: something in it cannot be read.
    """

    def __init__(self) -> None:
        self._store = ClusterKeys(_NAMESPACE)

    async def apps(self) -> list[AppSpec]:
        """The bots; what cannot be read is logged and left out."""
        found = []
        for key in sorted(await self._call(self._store.list(_APP))):
            try:
                text = await self._call(self._store.get(key))
                if text is not None:
                    found.append(AppSpec.from_json(text.decode()))
            except ConfigError as error:
                logger.error("a deployed bot is left out", key=key, error=str(error))
        return found

    async def put_app(self, app: AppSpec) -> None:
        """Adds a bot, in place of one of that name."""
        await self._call(self._store.put(_APP + app.name, app.to_json().encode()))

    async def remove_app(self, name: str) -> None:
        """Removes a bot; one that is not there is ignored."""
        await self._call(self._store.delete(_APP + name))

    async def deployment(self) -> Deployment | None:
        """What the gateways have in common; None if nothing is deployed."""
        text = await self._call(self._store.get(_DEPLOYMENT))
        return Deployment.from_json(text) if text is not None else None

    async def put_deployment(self, deployment: Deployment | None) -> None:
        """Says what they have in common; None when nothing is deployed any more."""
        if deployment is None:
            await self._call(self._store.delete(_DEPLOYMENT))
        else:
            text = deployment.to_json()
            await self._call(self._store.put(_DEPLOYMENT, text.encode()))

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except (RuntimeError, RayError) as error:
            raise ClusterError(f"the cluster's store cannot be used: {error}") from error
