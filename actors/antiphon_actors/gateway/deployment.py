"""Puts bots on a running cluster, takes them off again, and tells what is there."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from loguru import logger
from ray.exceptions import RayError, RayTaskError

from antiphon.errors import ConfigError
from antiphon_actors.agent_client import end_agent
from antiphon_actors.agent_types import AgentSettings, NetworkSettings
from antiphon_actors.agents import create_agent, find_agent
from antiphon_actors.errors import ClusterError, reason_of
from antiphon_actors.gateway.access import hash_key, new_key, new_secret
from antiphon_actors.gateway.actor import GatewayFacts, create_gateway, find_gateway
from antiphon_actors.gateway.registry import Deployment, Registry
from antiphon_actors.gateway.settings import AppSpec, GatewaySettings
from antiphon_actors.models.settings import ModelSettings
from antiphon_actors.neighbours import living_nodes
from antiphon_actors.pool_types import PoolSettings

START_DEADLINE_SECS = 60.0
"""How long agent and gateway of a node may take to start."""
ANSWER_DEADLINE_SECS = 5.0
END_DEADLINE_SECS = 5.0

_POLL_SECS = 0.25


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a deployment is asked for; None leaves it as it is, or as is usual.

    Attributes:
        host: Where the gateways listen.
        port: Where the gateways listen.
        api_key: What callers need.
        public_url: See `GatewaySettings`.
        max_sessions: Sessions on each node.
        models: How models that sessions share run.
    """

    host: str | None = None
    port: int | None = None
    api_key: str | None = None
    public_url: str | None = None
    max_sessions: int | None = None
    models: ModelSettings | None = None


@dataclass(frozen=True, slots=True)
class Deployed:
    """What came of it.

    Attributes:
        app: The bot.
        gateways: Where it can be called.
        new_key: The API key, if it was made now: nobody can tell it again.
    """

    app: AppSpec
    gateways: Sequence[GatewayFacts]
    new_key: str | None


async def deploy(app: AppSpec, wishes: Wishes) -> Deployed:
    """Puts a bot on the cluster that this process is connected to, or a new version of it.

    Every living node gets an agent and a gateway, if it has none. Sessions that run go on with the
    version they began with.

    Raises:
        ConfigError: The wishes contradict what is deployed already, or a gateway cannot listen there.
        ClusterError: Something does not start.
    """
    registry = Registry()
    deployment = await registry.deployment()
    if deployment is not None:
        _check(deployment, wishes)
        return await _deploy(app, deployment, registry, None)
    key = None if wishes.api_key is not None else new_key()
    deployment = _new_deployment(wishes, key or wishes.api_key or "")
    # First: gateways that were started and then forgotten would ask for a key that nobody knows.
    await registry.put_deployment(deployment)
    try:
        return await _deploy(app, deployment, registry, key)
    except BaseException:
        await _end_everything(registry)
        raise


async def _deploy(
    app: AppSpec, deployment: Deployment, registry: Registry, key: str | None
) -> Deployed:
    facts = await start_everywhere(deployment)
    await registry.put_app(app)
    for one in facts:
        await _ask(one.node_id, "reload")
    return Deployed(app, facts, key)


async def start_everywhere(deployment: Deployment) -> list[GatewayFacts]:
    """Sees to it that every living node has an agent and a gateway.

    Raises:
        ConfigError: A gateway cannot listen there.
        ClusterError: Something does not start.
    """
    nodes = [node.node_id for node in living_nodes()]
    # The others' agents ask that of this node for their certificates.
    nodes.sort(key=lambda node_id: node_id != deployment.first_node)
    if not nodes or nodes[0] != deployment.first_node:
        raise ClusterError(
            f"node {deployment.first_node}, whose agent issues the certificates, is gone: take every "
            "bot off with `antiphon undeploy`, and deploy them again"
        )
    return [await _start_on(node_id, deployment) for node_id in nodes]


async def undeploy(name: str, grace_secs: float) -> bool:
    """Takes a bot off; with the last one gateways and agents end, too.

    Sessions that run go on; when gateways end, for at most `grace_secs`.

    Returns:
        Whether that was the last one.

    Raises:
        ConfigError: There is no such bot.
        ClusterError: The cluster's store cannot be used.
    """
    registry = Registry()
    apps = await registry.apps()
    if name not in {app.name for app in apps}:
        names = ", ".join(sorted(app.name for app in apps)) or "none"
        raise ConfigError(f"{name} is not deployed here; deployed: {names}")
    await registry.remove_app(name)
    nodes = [node.node_id for node in living_nodes()]
    for node_id in nodes:
        await _ask(node_id, "reload")
    if len(apps) > 1:
        return False
    await _wait_for_calls(nodes, grace_secs)
    await _end_everything(registry)
    return True


async def statuses() -> list[dict[str, Any]]:
    """The status of the gateway of each node; only `node_id` and `error` where there is none."""
    return [await _status(node.node_id) for node in living_nodes()]


def _new_deployment(wishes: Wishes, key: str) -> Deployment:
    usual = GatewaySettings()
    return Deployment(
        cluster=f"antiphon-{secrets.token_hex(8)}",
        first_node=ray.get_runtime_context().get_node_id(),
        host=wishes.host if wishes.host is not None else usual.host,
        port=wishes.port if wishes.port is not None else usual.port,
        key_hash=hash_key(key),
        secret=new_secret(),
        public_url=wishes.public_url or "",
        max_sessions=wishes.max_sessions or PoolSettings().max_sessions,
        models=wishes.models or ModelSettings(),
    )


def _check(deployment: Deployment, wishes: Wishes) -> None:
    key_hash = hash_key(wishes.api_key) if wishes.api_key is not None else None
    for option, wanted, there in (
        ("--host", wishes.host, deployment.host),
        ("--port", wishes.port, deployment.port),
        ("--api-key", key_hash, deployment.key_hash),
        ("--public-url", wishes.public_url, deployment.public_url),
        ("--max-sessions", wishes.max_sessions, deployment.max_sessions),
        ("--models", wishes.models, deployment.models),
    ):
        if wanted is not None and wanted != there:
            raise ConfigError(
                f"{option} differs from what the gateways of this cluster were started with: leave "
                "it out, or take every bot off with `antiphon undeploy` first"
            )


def gateway_settings(deployment: Deployment) -> GatewaySettings:
    """How the gateways of a deployment work."""
    return GatewaySettings(
        host=deployment.host,
        port=deployment.port,
        key_hash=deployment.key_hash,
        secret=deployment.secret,
        public_url=deployment.public_url,
    )


async def _start_on(node_id: str, deployment: Deployment) -> GatewayFacts:
    network = NetworkSettings(cluster=deployment.cluster)
    if node_id != deployment.first_node:
        network = replace(network, first=find_agent(deployment.first_node))
    settings = AgentSettings(
        hub_dir="",
        pools=PoolSettings(max_sessions=deployment.max_sessions),
        network=network,
        models=deployment.models,
    )
    try:
        async with asyncio.timeout(START_DEADLINE_SECS):
            await create_agent(settings, node_id=node_id, detached=True).start.remote()
            gateway = create_gateway(gateway_settings(deployment), node_id)
            facts: GatewayFacts = await gateway.start.remote()
    except RayTaskError as error:
        if isinstance(error.cause, ConfigError):
            raise error.cause from None
        raise ClusterError(f"node {node_id} did not start: {error.cause}") from error
    except RayError as error:
        raise ClusterError(f"node {node_id} did not start: {reason_of(error)}") from error
    except TimeoutError as error:
        raise ClusterError(
            f"node {node_id} did not start within {START_DEADLINE_SECS:g} s"
        ) from error
    return facts


async def _wait_for_calls(nodes: Sequence[str], grace_secs: float) -> None:
    """Waits until the gateways of nodes have no calls, or the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_secs):
            while any([(await _status(node_id)).get("sessions") for node_id in nodes]):  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECS)


async def _end_everything(registry: Registry) -> None:
    nodes = [node.node_id for node in living_nodes()]
    for node_id in nodes:
        await _end_gateway(node_id)
    for node_id in nodes:
        await _end_agent(node_id)
    for app in await registry.apps():
        await registry.remove_app(app.name)
    await registry.put_deployment(None)


async def _status(node_id: str) -> dict[str, Any]:
    found = await _ask(node_id, "status")
    if isinstance(found, dict):
        return found
    return {"node_id": node_id, "error": "no gateway answers there"}


async def _ask(node_id: str, method: str) -> Any:
    """Calls a gateway; None if there is none, or it does not answer."""
    try:
        async with asyncio.timeout(ANSWER_DEADLINE_SECS):
            return await getattr(find_gateway(node_id), method).remote()
    except (ValueError, RayError, TimeoutError) as error:
        logger.warning("a gateway does not answer", node_id=node_id, error=reason_of(error))
        return None


async def _end_gateway(node_id: str) -> None:
    with contextlib.suppress(ValueError):
        gateway = find_gateway(node_id)
        try:
            async with asyncio.timeout(END_DEADLINE_SECS):
                await gateway.stop.remote()
        except (RayError, TimeoutError) as error:
            logger.debug("a gateway did not end in order", error=reason_of(error))
        finally:
            ray.kill(gateway)


async def _end_agent(node_id: str) -> None:
    with contextlib.suppress(ValueError):
        await end_agent(find_agent(node_id), END_DEADLINE_SECS)
