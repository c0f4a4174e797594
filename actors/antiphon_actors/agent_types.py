"""What the node agent is told and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from antiphon_actors.pool_types import PoolSettings
from antiphon_actors.processor_actor import DEFAULT_HOST, ActorFacts


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """How a node agent works.

    Attributes:
        hub_dir: Directory for the Unix sockets of the node's actors; must exist, mode 0700.
        pools: Capacity rules.
        warm_workers: Blank workers kept started, beyond the reserve of actors.
        start_deadline_secs: How long an actor may take to be ready.
        host: "module:Class" of the host in processor actors.
        supervisor: "module:Class" of the supervisor actor: `WatchedActor` with
            `__init__(hub_dir, agent, **supervisor_arguments)` and `async start() -> ActorFacts`.
        supervisor_arguments: Further keyword arguments of its constructor.
    """

    hub_dir: str
    pools: PoolSettings = field(default_factory=PoolSettings)
    warm_workers: int = 2
    start_deadline_secs: float = 30.0
    host: str = DEFAULT_HOST
    supervisor: str = "antiphon_actors.supervisor:SupervisorActor"
    supervisor_arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActorLease:
    """A session's place in an actor.

    Attributes:
        lease_id: Names the place in `release_lease`.
        actor_id: Ray's id of the actor, hexadecimal.
        handle: To call it with.
        facts: Its hub's URI, process, frame id prefix and node.
    """

    lease_id: int
    actor_id: str
    handle: Any
    facts: ActorFacts


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
