"""Serves one bot from this process, as long as the command runs."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loguru import logger

from antiphon_actors.gateway.cluster_supervisors import ClusterSupervisors
from antiphon_actors.gateway.gateway import Gateway
from antiphon_actors.gateway.http import make_application
from antiphon_actors.gateway.server import GatewayServer
from antiphon_actors.gateway.settings import AppSpec, GatewaySettings
from antiphon_actors.models.settings import ModelSettings
from antiphon_actors.pool_types import PoolSettings
from antiphon_actors.progress import Progress
from antiphon_actors.run import connected, own_agent
from antiphon_actors.session.endpoint import Endpoint
from antiphon_actors.supervisor import Failure, Output

# With the end of the agent and of a private cluster it stays below what an interrupted command has.
_END_SECS = 1.5


@dataclass(frozen=True)
class ServeOptions:
    """What to serve, and how.

    Attributes:
        app: The bot.
        settings: Of the gateway.
        max_sessions: Sessions at once; None for as many as is usual.
        models: How models that sessions share run; None for what is usual.
        address: A running cluster to join; None for a private one on this machine.
        on_ready: Told the address when callers can come.
        on_failure: Told what goes wrong in sessions.
    """

    app: AppSpec
    settings: GatewaySettings
    max_sessions: int | None
    models: ModelSettings | None
    address: str | None
    on_ready: Callable[[str], None]
    on_failure: Callable[[str], None]


async def serve(options: ServeOptions, progress: Progress) -> None:
    """Serves a bot until this is cancelled; nothing of it is left then.

    Raises:
        AntiphonError: If the cluster or its actors cannot be had, or the gateway cannot listen.
    """
    settings = options.settings
    pools = PoolSettings()
    if options.max_sessions is not None:
        pools = replace(pools, max_sessions=options.max_sessions)
    async with (
        connected(options.address, progress) as directory,
        own_agent(directory, progress, pools, across_nodes=None, models=options.models) as agent,
        gateway_here(agent, settings, options.on_failure) as (gateway, server),
    ):
        gateway.set_apps([options.app])
        progress.done()
        options.on_ready("{}:{}".format(*server.address))
        if not is_loopback(settings.host):
            logger.warning(
                "callers are served without TLS: put a proxy in front that has it",
                host=settings.host,
            )
        await asyncio.Event().wait()


@asynccontextmanager
async def gateway_here(
    agent: Any, settings: GatewaySettings, on_failure: Callable[[str], None]
) -> AsyncIterator[tuple[Gateway, GatewayServer]]:
    """A gateway in this process, which is on the agent's node.

    Args:
        agent: The node's agent.
        settings: How it works.
        on_failure: Told what goes wrong in sessions.

    Raises:
        ConfigError: It cannot listen there.
        ChannelError: It has no way to the agent's actors.
    """

    def show(session_id: str, item: Output | Failure) -> None:
        if isinstance(item, Failure):
            on_failure(f"{session_id}: {item.text}")
            return
        item.show()

    introduction = await agent.introduce.remote()
    async with AsyncExitStack() as stack:
        name = f"gateway-{os.getpid()}"
        endpoint = Endpoint(name, introduction.network)
        stack.push_async_callback(endpoint.aclose)
        await endpoint.start(f"unix://{introduction.hub_dir}/{name}.sock")
        gateway = Gateway(settings, endpoint, ClusterSupervisors(agent), show)
        server = GatewayServer(make_application(gateway), settings)
        stack.push_async_callback(server.aclose)
        stack.push_async_callback(gateway.aclose, _END_SECS)
        await server.start()
        yield gateway, server


def name_of(bot: Path) -> str:
    """Returns the name under which a bot file is served that is given none."""
    return re.sub(r"[^a-z0-9._-]+", "-", bot.stem.lower()).strip("-._") or "bot"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
