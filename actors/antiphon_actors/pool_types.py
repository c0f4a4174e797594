"""The vocabulary of `antiphon_actors.pools`: settings, requests and actions."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Mode(enum.StrEnum):
    """How a session uses an actor."""

    DEDICATED = "dedicated"
    POOLED = "pooled"


class Role(enum.StrEnum):
    """What runs in an actor."""

    PROCESSOR = "processor"
    SUPERVISOR = "supervisor"


# Actors of one class are started alike, so they fail alike: their role and their Ray resources.
StartClass = tuple[Role, tuple[tuple[str, float], ...]]


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Sizes, limits and times of one node's actors.

    Attributes:
        reserve: Started processor actors kept for whoever asks next.
        supervisor_reserve: Started supervisors kept for whoever asks next.
        slots_per_actor: Processors one pooled actor hosts.
        supervisor_slots: Sessions one pooled supervisor carries; 1 gives each its own.
        max_starts: Actors being started at once; more only slow each other down.
        max_actors: Actors on the node, all roles, those being started included.
        max_sessions: Sessions on the node, by their places in supervisors; so supervisors never take
            the room that the processors of their sessions need.
        max_waiting: Requests that may wait for an actor; more are refused at once.
        acquire_deadline_secs: How long a request waits before it is refused.
        idle_secs: How long an unused pooled actor is kept. Places are given in the fullest actor
            first, so a pool keeps as many actors as its busiest moment of that long needed.
        failures_to_open: Failed starts in a row after which starting stops for a while and
            requests are refused with the reason.
        backoff_first_secs: Pause after the first failed start; doubles with each further one.
        backoff_limit_secs: Longest pause.
        max_deaths: Actors of one kind that may die in use within `deaths_period_secs`; then no more of them
            are started, and what needs one is refused, until fewer have died within that time.
        deaths_period_secs: See `max_deaths`.
        max_lag_ms: An actor whose event loop does nothing for so long, beyond what it waited for a processor,
            is stuck: it gets no new sessions, and its sessions are moved at once.
        begin_secs: So long after a place in an actor was given away it may be slow: what comes there loads what
            it needs.
        max_silence_secs: An actor without a sign of life for so long is looked at.
        max_sessions_per_actor: Places in one pooled actor after which it is replaced; 0 for no limit.
        max_growth_bytes: Memory (resident) that a pooled actor may gain since it had served
            `settled_sessions`; one that has gained more is replaced. 0 for no limit.
        settled_sessions: Places after which what an actor needs has been imported and its caches are warm.
        recycle_patience_secs: How long the sessions of an actor that is to be replaced may take to end by
            themselves before they are moved.
        evacuate_secs: How long the sessions of a stuck actor may take to move before it is killed.
    """

    reserve: int = 3
    supervisor_reserve: int = 1
    slots_per_actor: int = 8
    supervisor_slots: int = 8
    max_starts: int = 2
    max_actors: int = 256
    max_sessions: int = 256
    max_waiting: int = 256
    acquire_deadline_secs: float = 20.0
    idle_secs: float = 60.0
    failures_to_open: int = 3
    backoff_first_secs: float = 0.25
    backoff_limit_secs: float = 30.0
    max_deaths: int = 10
    deaths_period_secs: float = 30.0
    max_lag_ms: float = 500.0
    begin_secs: float = 3.0
    max_silence_secs: float = 0.75
    max_sessions_per_actor: int = 5000
    max_growth_bytes: int = 256 * 1024 * 1024
    settled_sessions: int = 16
    recycle_patience_secs: float = 300.0
    evacuate_secs: float = 2.0


@dataclass(frozen=True, slots=True)
class PoolKey:
    """What makes two requests servable by one actor.

    Attributes:
        role: Class of actor.
        kind: Class of processor, or a name the caller gives its supervisors.
        resources: Ray resources the actor reserves, sorted.
    """

    role: Role
    kind: str
    resources: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, role: Role, kind: str, resources: Mapping[str, float] | None = None) -> PoolKey:
        """Builds a key; resources of zero count as none."""
        wanted = (resources or {}).items()
        return cls(role, kind, tuple(sorted((name, amount) for name, amount in wanted if amount)))

    @property
    def start_class(self) -> StartClass:
        """What an actor must be started as to serve it."""
        return self.role, self.resources


def is_part(name: str, session: str) -> bool:
    """Whether a name is that of a session, or of a part of it ("ID/...")."""
    return name == session or name.startswith(f"{session}/")


def is_of_pool(kind: str, name: str) -> bool:
    """Whether actors of a kind are what people call by a name.

    Args:
        kind: As placement makes it: "MODULE:CLASS", several of them joined by "+", or "pool POOL", perhaps
            with " #NUMBER".
        name: A kind, a class with or without its module, or the pool of a rule.
    """
    base = kind.partition(" #")[0]
    classes = base.split("+")
    return (
        name in (kind, *classes)
        or base == f"pool {name}"
        or any(each.rpartition(":")[2] == name for each in classes)
    )


def is_version(kind: str, app: str) -> bool:
    """Whether supervisors of a kind run an app ("NAME"), or a version of it ("NAME@VERSION")."""
    return kind == app or kind.startswith(f"{app}@")


@dataclass(frozen=True, slots=True)
class Want:
    """A place a session asks for.

    Attributes:
        key: What kind of actor.
        mode: Alone in it, or a slot of a shared one.
    """

    key: PoolKey
    mode: Mode = Mode.POOLED


@dataclass(frozen=True, slots=True)
class Place:
    """A place in an actor, under a lease."""

    lease: int
    actor: int


@dataclass(frozen=True, slots=True)
class StartActor:
    """Start an actor; answer with `started` or `start_failed`."""

    actor: int
    role: Role
    resources: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class KillActor:
    """Kill an actor; it is forgotten already."""

    actor: int
    reason: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Answer a request: its places, in the order they were asked for."""

    request: int
    session: str
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a request: no place at all, and why.

    Attributes:
        overloaded: The request may succeed `retry_after_secs` later.
    """

    request: int
    reason: str
    overloaded: bool
    retry_after_secs: float


@dataclass(frozen=True, slots=True)
class ReportDeath:
    """Tell those who watch: an actor died by itself, and these sessions were in it.

    Attributes:
        orphans: Those of them that are over, as nobody carries them on; what they had here is freed.
    """

    actor: int
    role: Role
    kind: str
    sessions: tuple[str, ...]
    reason: str
    orphans: tuple[str, ...] = ()


# What the state machine wants done, in the order it wants it.
Action = StartActor | KillActor | Grant | Refuse | ReportDeath
