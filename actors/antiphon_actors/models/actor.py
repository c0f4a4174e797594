"""The Ray actor that has a model: a thin shell around `ModelHost`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import ray

from antiphon_actors.models.host import ModelHost
from antiphon_actors.models.pools import Report
from antiphon_actors.models.specs import unpickle_spec
from antiphon_actors.models.wire import Member
from antiphon_actors.processor_actor import ActorFacts, WatchedActor
from antiphon_actors.session import console
from antiphon_actors.session.network import Network


class ModelActor(WatchedActor):
    """Has one model, for all processes that link to it; see `ModelHost`.

    Args:
        hub_dir: Directory for its Unix socket.
        spec: The model, pickled (`pickle_spec`).
        network: The node's place among others; None if sessions stay on one node.
    """

    def __init__(self, hub_dir: str, spec: bytes, network: Network | None = None) -> None:
        super().__init__()
        self._hub_dir = hub_dir
        self._spec = spec
        self._network = network
        self._host: ModelHost | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> ActorFacts:
        """Loads the model and lets users in when it is warm; later calls return the same facts.

        Raises:
            AntiphonError: The model cannot be loaded.
        """
        async with self._starting:
            if self._facts is None:
                self.adopt_loop()
                # Without the values of variables: they may be what somebody said.
                console.configure_logging("WARNING")
                self._host = ModelHost(unpickle_spec(self._spec), self._hub_dir, self._network)
                self._facts = ActorFacts(
                    uri=await self._host.start(),
                    pid=os.getpid(),
                    prefix=0,
                    node_id=ray.get_runtime_context().get_node_id(),
                )
            return self._facts

    async def set_members(self, version: int, members: Sequence[Member], leaving: bool) -> None:
        """Tells the model's users who has it; see `ModelHost.set_members`."""
        self._running().set_members(version, members, leaving=leaving)

    async def report(self) -> Report:
        """How it was since this was last asked."""
        return self._running().report()

    async def stop(self) -> None:
        """Ends every link and frees the model; the process stays until it is killed."""
        host, self._host = self._host, None
        if host is not None:
            await host.aclose()

    def statistics(self) -> dict[str, Any]:
        """Numbers of the host."""
        return self._host.statistics() if self._host is not None else {}

    def _running(self) -> ModelHost:
        if self._host is None:
            raise RuntimeError("the actor has not been started, or has been stopped")
        return self._host
