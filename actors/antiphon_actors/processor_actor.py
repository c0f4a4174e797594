"""The Ray actor that hosts processors: a thin shell around `ProcessorHost`.

What it does is written without Ray in `antiphon_actors.processor_host`. The shell adds what
only an actor can: a second thread (the concurrency group "ctl") that answers while the first is busy,
and a call that ends only when the process does, by which its owner notices its death within
10 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import ray
from loguru import logger
from ray.exceptions import ActorUnavailableError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from antiphon_actors.agent_client import AgentClient
from antiphon_actors.errors import reason_of
from antiphon_actors.pulse import PulseAddress, PulseSender
from antiphon_actors.session import console
from antiphon_actors.session.network import Network

if TYPE_CHECKING:
    from antiphon_actors.models.settings import ModelSettings

CONTROL_GROUP = "ctl"
# One call is the owner's watch, the rest are health checks and statistics.
CONTROL_CONCURRENCY = 8
# How long a health check waits for the main loop before it reports it as stuck.
LAG_PROBE_SECS = 0.5
STOP_DEADLINE_SECS = 2.0
"""How long an actor that ends by itself may take to close what it has open."""

# Calls to attach whose outcome is remembered, for who did not hear it.
_ATTACHMENTS_KEPT = 64
DEFAULT_HOST = "antiphon_actors.processor_host:ProcessorHost"


class Host(Protocol):
    """What the shell needs of a `ProcessorHost`."""

    async def start(self) -> str:
        """Opens the channel hub and returns its URI."""

    async def attach(self, spec: Any) -> Any:
        """Builds one processor of a session."""

    async def detach(self, session_id: str) -> Any:
        """Removes all processors of a session."""

    def statistics(self) -> dict[str, Any]:
        """Numbers for tables and metrics."""

    @property
    def session_ids(self) -> list[str]:
        """The sessions that have processors here."""

    async def aclose(self) -> None:
        """Ends all processors and closes the hub."""


@dataclass(frozen=True, slots=True)
class ActorFacts:
    """Where a started actor is.

    Attributes:
        uri: Of its channel hub; empty for an actor without one.
        pid: Its process.
        prefix: Process prefix of the ids of frames made there, 0 where the host tells none.
        node_id: Ray's id of its node, hexadecimal.
    """

    uri: str
    pid: int
    prefix: int
    node_id: str


@dataclass(frozen=True, slots=True)
class ActorHealth:
    """How an actor is.

    Attributes:
        lag_ms: How long its main event loop took to run something new; the probe's limit if it did
            not.
        stuck: Whether it did not within the limit.
        statistics: Numbers of the host.
        sessions: The sessions that are there, by the names under which they run; None if it is stuck.
    """

    lag_ms: float
    stuck: bool
    statistics: dict[str, Any]
    sessions: list[str] | None


class WatchedActor:
    """What the node agent needs of every actor it owns: a base for actor classes.

    Attributes:
        role: What runs in it, as in `pool_types.Role`.
    """

    role: ClassVar[str] = ""

    def __init__(self) -> None:
        # Set by `start`.
        self._facts: ActorFacts | None = None
        self._main_loop: asyncio.AbstractEventLoop | None = None
        self._pulse: PulseSender | None = None

    def adopt_loop(self) -> None:
        """Remembers the running loop as the one whose lag is measured."""
        self._main_loop = asyncio.get_running_loop()

    async def settle(self, pulse: PulseAddress | None = None) -> None:
        """Begins to give signs of life; called once the actor has started.

        Spares what the process has imported from garbage collection: each full collection would go through
        all of it, and stop every session here for 60 ms.

        Args:
            pulse: Where signs of life go; None for nowhere.
        """
        gc.freeze()
        if pulse is not None and self._pulse is None and self._main_loop is not None:
            self._pulse = PulseSender(pulse, self._main_loop, on_orphaned=self._end_process)
            self._pulse.start()

    async def stop(self) -> None:
        """Ends what runs here and closes what is open; the process stays until it is killed."""

    def statistics(self) -> dict[str, Any]:
        """Numbers for `ctl_health`; called on the main loop."""
        return {}

    def session_names(self) -> list[str]:
        """The sessions that are here, by the names under which they run; called on the main loop."""
        return []

    def agent_returned(self) -> None:
        """The node agent has been restarted: calls that are under way to it are lost; on the main loop."""

    @ray.method(concurrency_group=CONTROL_GROUP)  # type: ignore[untyped-decorator, unused-ignore]
    async def ctl_closed(self) -> None:
        """Never returns: ends with an error when this process dies."""
        await asyncio.Event().wait()

    @ray.method(concurrency_group=CONTROL_GROUP)  # type: ignore[untyped-decorator, unused-ignore]
    async def ctl_pid(self) -> int:
        """The process id, from the control thread."""
        return os.getpid()

    @ray.method(concurrency_group=CONTROL_GROUP)  # type: ignore[untyped-decorator, unused-ignore]
    async def ctl_identity(self) -> tuple[str, ActorFacts | None]:
        """What this is, and where; without the latter it has not started."""
        return self.role, self._facts

    @ray.method(concurrency_group=CONTROL_GROUP)  # type: ignore[untyped-decorator, unused-ignore]
    async def ctl_health(self) -> ActorHealth:
        """Measures the lag of the main loop, from the control thread."""
        started = time.monotonic()
        found: tuple[dict[str, Any], list[str]] | None = ({}, [])
        if self._main_loop is not None:
            probe = asyncio.run_coroutine_threadsafe(self._probe(), self._main_loop)
            try:
                found = await asyncio.wait_for(asyncio.wrap_future(probe), LAG_PROBE_SECS)
            except TimeoutError:
                found = None
        statistics, sessions = found or ({}, None)
        lag_ms = (time.monotonic() - started) * 1000
        return ActorHealth(lag_ms, found is None, statistics, sessions)

    @ray.method(concurrency_group=CONTROL_GROUP)  # type: ignore[untyped-decorator, unused-ignore]
    async def ctl_agent_returned(self, pulse: PulseAddress) -> None:
        """Says that the node agent has been restarted and has adopted this actor."""
        if self._pulse is not None:
            self._pulse.move(pulse)
        if self._main_loop is not None:
            self._main_loop.call_soon_threadsafe(self.agent_returned)

    async def _probe(self) -> tuple[dict[str, Any], list[str]]:
        return self.statistics(), self.session_names()

    def _end_process(self) -> None:
        """Ends this process, whose agent does not come back; in the thread of its signs of life."""
        logger.error("the node agent is gone and nobody else owns this actor: it ends")
        if self._main_loop is not None:
            stopping = asyncio.run_coroutine_threadsafe(self.stop(), self._main_loop)
            with contextlib.suppress(Exception):  # it ends all the same
                stopping.result(STOP_DEADLINE_SECS)
        os._exit(1)


def remote_class(actor_class: type[WatchedActor]) -> Any:
    """Returns the Ray actor class of a watched actor, with its control thread."""
    return ray.remote(concurrency_groups={CONTROL_GROUP: CONTROL_CONCURRENCY})(actor_class)


async def until_gone(handle: Any) -> str:
    """Waits for the death of a watched actor, known within about 10 ms; returns what Ray says of it."""
    while True:
        try:
            await handle.ctl_closed.remote()
            return "it left its watch"
        except ActorUnavailableError:
            # Not known to be dead: ask again.
            await asyncio.sleep(0.1)
        except RayError as error:
            return reason_of(error)


def actor_options(node_id: str, resources: Mapping[str, float]) -> dict[str, Any]:
    """Returns the Ray options of an actor of ours on one node.

    Args:
        node_id: The node; the actor fails rather than go elsewhere.
        resources: `num_cpus`, `num_gpus`, `memory`, and custom resources; none are reserved unless named.
    """
    custom = dict(resources)
    return {
        "num_cpus": custom.pop("num_cpus", 0),
        "num_gpus": custom.pop("num_gpus", 0),
        "memory": custom.pop("memory", None),
        "resources": custom,
        "max_restarts": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
    }


class ProcessorActor(WatchedActor):
    """Hosts processors of one or many sessions; see `ProcessorHost` for what that means.

    Args:
        hub_dir: Directory of the host's Unix sockets.
        host: "module:Class" of the host.
        network: The node's place among others; None if sessions stay on one node.
        agent: The node agent, from which the processors get their models; None if they have them here.
        models: How those run.
    """

    role = "processor"

    def __init__(
        self,
        hub_dir: str,
        host: str = DEFAULT_HOST,
        network: Network | None = None,
        agent: Any = None,
        models: ModelSettings | None = None,
    ) -> None:
        super().__init__()
        self._hub_dir = hub_dir
        self._arguments = {"network": network} if network is not None else {}
        self._host_class = host
        self._host: Host | None = None
        self._starting = asyncio.Lock()
        self._agent = AgentClient(agent) if agent is not None else None
        self._models = models
        self._using_models = ExitStack()
        self._attachments: dict[str, asyncio.Task[Any]] = {}

    async def start(self) -> ActorFacts:
        """Imports and starts the host; later calls return the same facts."""
        async with self._starting:
            if self._facts is None:
                self.adopt_loop()
                # Without the values of variables: they may be what somebody said.
                console.configure_logging("WARNING")
                module, _, name = self._host_class.partition(":")
                factory = getattr(importlib.import_module(module), name)
                self._host = factory(f"processors-{os.getpid()}", self._hub_dir, **self._arguments)
                self._facts = ActorFacts(
                    uri=await self._running_host().start(),
                    pid=os.getpid(),
                    prefix=int(getattr(self._host, "prefix", 0)),
                    node_id=ray.get_runtime_context().get_node_id(),
                )
                endpoint = getattr(self._host, "endpoint", None)
                if self._agent is not None and endpoint is not None:
                    # Here, because what it imports uses this module.
                    from antiphon_actors.models.provider import use_actors_for_models
                    from antiphon_actors.models.settings import ModelSettings

                    settings = self._models or ModelSettings()
                    self._using_models = use_actors_for_models(endpoint, self._agent, settings)
            return self._facts

    async def attach(self, spec: Any, call: str = "") -> Any:
        """Builds one processor of a session; what the host answers.

        Args:
            spec: What to build.
            call: Names this call: one that is repeated, as its answer was lost with the agent that
                passed it on, gets the answer of the first.
        """
        if not call:
            return await self._running_host().attach(spec)
        task = self._attachments.get(call)
        if task is None:
            work = self._running_host().attach(spec)
            task = self._attachments[call] = asyncio.get_running_loop().create_task(work)
            while len(self._attachments) > _ATTACHMENTS_KEPT:
                del self._attachments[next(iter(self._attachments))]
        return await asyncio.shield(task)

    async def detach(self, session_id: str) -> Any:
        """Removes all processors of a session; what the host answers."""
        return await self._running_host().detach(session_id)

    async def stop(self) -> None:
        """Ends all processors and closes the hub; the process stays until it is killed."""
        host, self._host = self._host, None
        if host is not None:
            await host.aclose()
        self._using_models.close()

    def statistics(self) -> dict[str, Any]:
        """Numbers of the host."""
        return self._host.statistics() if self._host is not None else {}

    def session_names(self) -> list[str]:
        """Those of the host."""
        return self._host.session_ids if self._host is not None else []

    def agent_returned(self) -> None:
        """Repeats what models were asked for."""
        if self._agent is not None:
            self._agent.returned()

    def _running_host(self) -> Host:
        if self._host is None:
            raise RuntimeError("the actor has not been started, or has been stopped")
        return self._host
