"""What makes a node agent one of several: its node's certificate, and the agents of other nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
from loguru import logger
from ray.exceptions import RayError, RayTaskError

from antiphon_actors import ray_internal
from antiphon_actors.agent_store import KeptElsewhere
from antiphon_actors.agent_types import AgentSettings, NetworkSettings
from antiphon_actors.channels.errors import CredentialsError
from antiphon_actors.errors import NoActorError
from antiphon_actors.evacuation import ANSWER_SECS
from antiphon_actors.issuer import Certified, Issuer, NodeCertificate
from antiphon_actors.models.specs import ModelWanted
from antiphon_actors.models.wire import Member
from antiphon_actors.neighbours import AcquireHere, AttachHere, Neighbours, could_have, living_nodes
from antiphon_actors.session.network import Network


class NodeNetwork:
    """A node agent's part in a cluster of several nodes.

    Attributes:
        network: What the processes of the node need to know.
        neighbours: The agents of other nodes; None if this is not the first agent.
    """

    def __init__(
        self,
        node_id: str,
        hub_dir: str,
        settings: AgentSettings,
        *,
        create: Callable[[AgentSettings, str], Any],
        acquire_here: AcquireHere,
        attach_here: AttachHere,
        release_here: Callable[[Iterable[int]], None],
        changed: Callable[[], None],
        lost: Callable[[KeptElsewhere], None],
    ) -> None:
        """Makes it; the authority too, if this is the first agent.

        Args:
            node_id: Ray's id of the node, which is its name in certificates.
            hub_dir: The directory of the node's processes.
            settings: Of the agent; `network` is set.
            create: Makes an agent on another node.
            acquire_here: See `Neighbours`, as for the others.
            attach_here: As there.
            release_here: As there.
            changed: As there.
            lost: As there.

        Raises:
            CredentialsError: The authority that is kept in `authority_dir` cannot be used.
        """
        assert settings.network is not None
        self._settings = settings
        self._cluster: NetworkSettings = settings.network
        address = ray_internal.node_address(node_id)
        if address is None:
            raise CredentialsError(f"the address of node {node_id} is not known")
        self.network = Network(
            self._cluster.cluster, node_id, address.host, Path(hub_dir) / "certificate"
        )
        self._certificate = NodeCertificate(self.network.directory, self._have_certified)
        self._issuer: Issuer | None = None
        self.neighbours: Neighbours | None = None
        if self._cluster.first is None:
            # A restarted agent has to be trusted by those whom the one before has certified.
            default = Path(hub_dir) / "authority" if settings.detached else None
            self._issuer = Issuer(
                self._cluster.cluster,
                directory=self._cluster.authority_dir or default,
                validity=timedelta(seconds=self._cluster.certificate_secs),
            )
            self.neighbours = Neighbours(
                node_id,
                nodes=living_nodes,
                make=lambda other: create(self._settings_of_others(), other),
                acquire_here=acquire_here,
                attach_here=attach_here,
                release_here=release_here,
                changed=changed,
                lost=lost,
            )

    async def ready(self) -> None:
        """Sees to it that processes started now find a certificate.

        Raises:
            CredentialsError: There is none; why.
        """
        await self._certificate.ready()

    async def renew(self) -> None:
        """Replaces the node's certificate now, and those of the neighbours; links go on.

        Raises:
            CredentialsError: One stays as it is; why.
        """
        await self._certificate.renew()
        if self.neighbours is not None:
            await self.neighbours.renew_certificates()

    def certify(self, node_id: str, host: str, public_key_pem: bytes) -> Certified:
        """Issues a certificate to a node, if this is the first agent.

        Raises:
            CredentialsError: It is not, or the request cannot be granted.
        """
        if self._issuer is None:
            raise CredentialsError("this agent issues no certificates: it is not the first")
        try:
            return self._issuer.certify(node_id, host, public_key_pem)
        except ValueError as error:
            raise CredentialsError(f"no certificate for node {node_id}: {error}") from error

    async def acquire_model(
        self, wanted: ModelWanted, avoid: Sequence[str], *, drained: bool
    ) -> list[Member] | None:
        """The actors of a model on another node, if this one could never have them; None if it could.

        Args:
            wanted: The model.
            avoid: Ids of actors that the process has lost.
            drained: Whether this node takes no models any more, whatever it could have.

        Raises:
            NoActorError: No node could, or the one that could has no room.
        """
        if self.neighbours is not None:
            return await self.neighbours.acquire_model(wanted, avoid, drained=drained)
        if not drained and await could_have(self.network.node, wanted):
            return None
        try:
            found: list[Member] = await self._cluster.first.acquire_model.remote(wanted, avoid)
        except RayTaskError as error:
            if isinstance(error.cause, NoActorError):
                raise error.cause from None
            raise
        return found

    async def evacuate(
        self, uris: Sequence[str], sessions: Sequence[str], reason: str, deadline_secs: float
    ) -> list[str]:
        """Has sessions that the first agent's node supervises moved off processes of this node.

        Returns:
            Those that could not be moved.
        """
        if self._cluster.first is None:
            return list(sessions)
        try:
            async with asyncio.timeout(deadline_secs + ANSWER_SECS):
                left: list[str] = await self._cluster.first.evacuate.remote(
                    list(uris), list(sessions), reason, deadline_secs
                )
        except (RayError, TimeoutError) as error:
            logger.warning("the first agent did not move sessions", error=repr(error))
            return list(sessions)
        return left

    def statistics(self) -> dict[str, object]:
        """Facts for tables."""
        return {
            "node": self.network.node,
            "certificate_expires": self._certificate.expires,
            "neighbours": self.neighbours.node_ids if self.neighbours is not None else [],
        }

    async def shutdown(self, wait_secs: float) -> None:
        """Ends the agents of other nodes, and renews no more."""
        if self.neighbours is not None:
            await self.neighbours.shutdown(wait_secs)
        await self._certificate.aclose()

    async def _have_certified(self, public_key_pem: bytes) -> Certified:
        node_id, host = self.network.node, self.network.host
        if self._cluster.first is None:
            return self.certify(node_id, host, public_key_pem)
        try:
            certified: Certified = await self._cluster.first.certify.remote(
                node_id, host, public_key_pem
            )
        except RayError as error:
            raise CredentialsError(f"the cluster's first agent did not answer: {error}") from error
        return certified

    def _settings_of_others(self) -> AgentSettings:
        me = ray.get_runtime_context().current_actor
        return replace(self._settings, hub_dir="", network=replace(self._cluster, first=me))
