"""The Ray actor around a gateway: detached, one on each node."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from loguru import logger
from ray.exceptions import RayError

from antiphon.errors import AntiphonError
from antiphon_actors.agent_types import NAMESPACE
from antiphon_actors.agents import find_agent, lasting_options
from antiphon_actors.errors import ClusterError, reason_of
from antiphon_actors.gateway.cluster_supervisors import ClusterSupervisors
from antiphon_actors.gateway.gateway import Gateway
from antiphon_actors.gateway.http import make_application
from antiphon_actors.gateway.registry import Registry
from antiphon_actors.gateway.server import GatewayServer
from antiphon_actors.gateway.settings import GatewaySettings
from antiphon_actors.neighbours import living_nodes
from antiphon_actors.processor_actor import WatchedActor, remote_class
from antiphon_actors.session import console
from antiphon_actors.session.endpoint import Endpoint
from antiphon_actors.supervisor import Failure, Output

_RESTART_PAUSE_SECS = 1.0
_RESTART_PAUSE_LIMIT_SECS = 30.0


@dataclass(frozen=True, slots=True)
class GatewayFacts:
    """Where a gateway is.

    Attributes:
        node_id: Ray's id of its node.
        pid: Its process.
        host: Where it listens.
        port: Where it listens.
    """

    node_id: str
    pid: int
    host: str
    port: int


class GatewayActor(WatchedActor):
    """A gateway of a cluster; see the package.

    It starts by itself and reads what is deployed, also where Ray has restarted it.

    Args:
        settings: How it works.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        super().__init__()
        self._settings = settings
        self._starting = asyncio.Lock()
        self._endpoint: Endpoint | None = None
        self._gateway: Gateway | None = None
        self._server: GatewayServer | None = None
        self._registry = Registry()
        context = ray.get_runtime_context()
        self._node_id = context.get_node_id()
        # Nobody else will after a restart. It runs when this constructor has returned.
        context.current_actor.keep_starting.remote()

    async def start(self) -> GatewayFacts:
        """Begins to listen; later calls only answer.

        Raises:
            ClusterError: Its node has no agent, or that does not answer.
            ConfigError: It cannot listen there.
        """
        async with self._starting:
            if self._server is None:
                self.adopt_loop()
                console.configure_logging("INFO")
                await self._open()
            assert self._server is not None
            host, port = self._server.address
            return GatewayFacts(self._node_id, os.getpid(), host, port)

    async def keep_starting(self) -> None:
        """Starts, however long it takes until that is possible."""
        pause = _RESTART_PAUSE_SECS
        while True:
            try:
                await self.start()
            except (AntiphonError, OSError) as error:  # a TimeoutError is one of the latter
                logger.error("the gateway does not start", error=str(error) or repr(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _RESTART_PAUSE_LIMIT_SECS)
            else:
                return

    async def reload(self) -> None:
        """Reads what is deployed."""
        self._running().set_apps(await self._registry.apps())

    async def drain(self, reason: str) -> int:
        """Lets no more sessions begin; returns how many there are."""
        return self._running().drain(reason)

    async def status(self) -> dict[str, Any]:
        """Numbers for tables."""
        gateway, server = self._running(), self._server
        assert server is not None
        address = "{}:{}".format(*server.address)
        return {
            "node_id": self._node_id,
            "pid": os.getpid(),
            "address": address,
            "connections": server.connections,
            **gateway.status(),
        }

    def statistics(self) -> dict[str, Any]:
        """Numbers for the health check."""
        if self._gateway is None or self._endpoint is None:
            return {}
        sessions = len(self._gateway.status()["sessions"])
        return {"sessions": sessions, "links": self._endpoint.statistics()}

    async def stop(self) -> None:
        """Ends every session and stops listening; the process stays until it is killed."""
        async with self._starting:
            await self._close()

    async def _open(self) -> None:
        try:
            agent = find_agent(self._node_id)
            introduction = await agent.introduce.remote()
        except (ValueError, RayError) as error:
            raise ClusterError(f"no node agent on {self._node_id}: {reason_of(error)}") from error
        endpoint = self._endpoint = Endpoint(f"gateway-{os.getpid()}", introduction.network)
        try:
            await endpoint.start(f"unix://{introduction.hub_dir}/gateway-{os.getpid()}.sock")
            supervisors = ClusterSupervisors(agent, lambda: _agents_of_others(self._node_id))
            self._gateway = Gateway(self._settings, endpoint, supervisors, _print)
            self._gateway.set_apps(await self._registry.apps())
            self._server = GatewayServer(make_application(self._gateway), self._settings)
            await self._server.start()
        except BaseException:
            await self._close()
            raise

    async def _close(self) -> None:
        gateway, server, endpoint = self._gateway, self._server, self._endpoint
        self._gateway = self._server = self._endpoint = None
        if gateway is not None:
            await gateway.aclose()
        if server is not None:
            await server.aclose()
        if endpoint is not None:
            await endpoint.aclose()

    def _running(self) -> Gateway:
        if self._gateway is None:
            raise ClusterError("the gateway has not been started, or has been stopped")
        return self._gateway


def gateway_name(node_id: str) -> str:
    """Returns the name of a node's gateway in the namespace "antiphon"."""
    return f"antiphon-gateway-{node_id}"


def create_gateway(settings: GatewaySettings, node_id: str) -> Any:
    """Creates the gateway of a node, or finds it, and returns its handle; call `start` on it."""
    options = lasting_options(node_id, gateway_name(node_id))
    return remote_class(GatewayActor).options(**options).remote(settings)


def find_gateway(node_id: str) -> Any:
    """Returns the handle of a node's gateway.

    Raises:
        ValueError: There is none.
    """
    return ray.get_actor(gateway_name(node_id), namespace=NAMESPACE)


def _agents_of_others(node_id: str) -> Sequence[Any]:
    found = []
    for node in living_nodes():
        if node.node_id != node_id:
            try:
                found.append(find_agent(node.node_id))
            except ValueError:
                logger.debug("a node has no agent", node_id=node.node_id)
    return found


def _print(session_id: str, item: Output | Failure) -> None:
    """Sends what bots print where the process's own output goes: its log, which Ray keeps."""
    if isinstance(item, Failure):
        logger.warning("failure in a session", session_id=session_id, failure=item.text)
        return
    item.show()
