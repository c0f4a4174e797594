"""What the node agent is told and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from antiphon_actors.models.settings import ModelSettings
from antiphon_actors.pool_types import PoolSettings
from antiphon_actors.processor_actor import DEFAULT_HOST, ActorFacts
from antiphon_actors.session.network import Network

NAMESPACE = "antiphon"
"""Ray namespace of detached agents and their actors."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How sessions may use several nodes.

    Attributes:
        cluster: Name of the cluster in certificates; up to 63 letters, digits and `.`, `_`, `-`.
        authority_dir: Where the cluster's authority is kept, on the node of the first agent; made
            with mode 0700 if needed. None keeps it in that agent's memory.
        certificate_secs: How long certificates are valid; they are renewed before.
        scratch_dir: Where agents on other nodes make their directories; None for the system's
            temporary directory there.
        first: Handle of the first agent, which has the authority; None for that agent itself.
    """

    cluster: str
    authority_dir: Path | None = None
    certificate_secs: float = 24 * 3600.0
    scratch_dir: Path | None = None
    first: Any = None


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """How a node agent works.

    Attributes:
        hub_dir: Directory for the Unix sockets of the node's actors; must exist, mode 0700. Empty:
            the agent makes one, and removes it when it shuts down. A detached agent keeps its state there.
        pools: Capacity rules.
        warm_workers: Blank workers kept started, beyond the reserve of actors.
        start_deadline_secs: How long an actor may take to be ready.
        host: "module:Class" of the host in processor actors.
        supervisor: "module:Class" of the supervisor actor: `WatchedActor` with
            `__init__(hub_dir, agent, **supervisor_arguments)` and `async start() -> ActorFacts`.
        supervisor_arguments: Further keyword arguments of its constructor.
        network: How sessions may use other nodes; None if each stays on one. With it hosts and
            supervisors are constructed with `network=Network(...)`.
        detached: The agent and its actors outlive the job that made it, and one another: see `create_agent`.
        models: How models that sessions share run. If they are not the default, actors are constructed with
            `models=ModelSettings(...)`.
        orphaned_secs: How long actors wait for the return of an agent that is gone, before they end.
        unused_secs: How long after its restart an agent frees the places that nobody uses: who was given one,
            or was to free it, has had its time by then.
    """

    hub_dir: str
    pools: PoolSettings = field(default_factory=PoolSettings)
    warm_workers: int = 2
    start_deadline_secs: float = 30.0
    host: str = DEFAULT_HOST
    supervisor: str = "antiphon_actors.supervisor:SupervisorActor"
    supervisor_arguments: Mapping[str, Any] = field(default_factory=dict)
    network: NetworkSettings | None = None
    detached: bool = False
    models: ModelSettings = field(default_factory=ModelSettings)
    orphaned_secs: float = 60.0
    unused_secs: float = 30.0


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a process that is not the agent's needs to know to talk to those that are.

    Attributes:
        hub_dir: The directory of the node's sockets.
        network: The node's place among others; None if sessions stay on one node.
    """

    hub_dir: str
    network: Network | None


@dataclass(frozen=True, slots=True)
class ActorWanted:
    """A place in a processor actor that a session asks for.

    Attributes:
        kind: Class of processor; pooled actors host one kind each.
        mode: An actor for this one alone, or a slot in a shared one.
        resources: Ray resources the actor must reserve (`num_cpus`, `num_gpus`, `memory`,
            custom ones); with any, no actor of the reserve fits and one is started.
        labels: Labels that its node must have.
    """

    kind: str
    mode: Literal["dedicated", "pooled"] = "pooled"
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActorPlace:
    """A session's place in an actor.

    Attributes:
        lease_id: Names the place in `release_lease` and `attach`.
        actor_id: Ray's id of the actor, hexadecimal.
        facts: Its hub's URI, process, frame id prefix and node.
    """

    lease_id: int
    actor_id: str
    facts: ActorFacts


@dataclass(frozen=True, slots=True)
class ActorLease(ActorPlace):
    """A place, and the actor's handle.

    Attributes:
        handle: To call it with. A process that is given one connects to that actor, which takes
            it milliseconds.
    """

    handle: Any


@dataclass(frozen=True, slots=True)
class ActorDeath:
    """An actor ended that nobody told to.

    Attributes:
        actor_id: Ray's id, hexadecimal.
        role: "processor" or "supervisor".
        kind: Its kind; empty in the reserve.
        sessions: Sessions that had a place in it.
        reason: What Ray says about it.
    """

    actor_id: str
    role: str
    kind: str
    sessions: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Deaths:
    """Answer of `NodeAgent.deaths`.

    Attributes:
        cursor: What to pass as `since` next time.
        deaths: In order.
        missed: The caller was away for so long that older deaths are forgotten; it should look at all
            its actors.
    """

    cursor: int
    deaths: tuple[ActorDeath, ...]
    missed: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Answer of `NodeAgent.suspect`.

    Attributes:
        finding: "alive": nothing is wrong with it. "stuck": its event loop does nothing; its sessions are
            being moved off, and it is killed then. "frozen": its process did nothing; it has been killed.
            "dead": it is gone. The last two are, or were, reported by `NodeAgent.deaths`.
        text: What was found, for people.
    """

    finding: Literal["alive", "stuck", "frozen", "dead"]
    text: str
