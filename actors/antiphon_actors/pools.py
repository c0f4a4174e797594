"""Which actor serves which session on one node: a state machine without Ray and without I/O.

The node agent feeds it what happened (a session asks, an actor started or died, time passed) with
the time it happened, and performs the actions it returns. Nothing here waits, reads a clock or
knows what an actor is, so every rule of capacity and back-off can be tested in microseconds.

The life of an actor: STARTING, then READY; a READY actor belongs to a pool (it serves sessions
of one kind in slots), to one session alone (a pool of one slot that is never shared), or to nobody yet:
the reserve, from which sessions are served without starting a process.
"""

from __future__ import annotations

import enum
import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from antiphon_actors.pool_types import (
    Action,
    Grant,
    KillActor,
    Mode,
    PoolKey,
    PoolSettings,
    Refuse,
    ReportDeath,
    Role,
    StartActor,
)


class State(enum.StrEnum):
    """Where an actor is in its life."""

    STARTING = "starting"
    READY = "ready"


# Actors of one class are started alike, so they fail alike.
_StartClass = tuple[Role, tuple[tuple[str, float], ...]]
_GENERIC: _StartClass = (Role.PROCESSOR, ())


@dataclass(slots=True)
class _Breaker:
    """Failed starts in a row of one class of actors, and when the next may be tried."""

    failures: int = 0
    reason: str = ""
    retry_at: float = 0.0


@dataclass(slots=True)
class _Actor:
    number: int
    start_class: _StartClass
    state: State = State.STARTING
    key: PoolKey | None = None
    dedicated: bool = False
    slots: int = 1
    leases: dict[int, str] = field(default_factory=dict)
    idle_since: float = 0.0

    @property
    def spare(self) -> bool:
        """Whether it is ready and nobody's yet."""
        return self.state is State.READY and self.key is None

    @property
    def unused(self) -> bool:
        return self.state is State.READY and not self.leases

    def takes(self, key: PoolKey) -> bool:
        return (
            self.key == key
            and not self.dedicated
            and self.state is State.READY
            and len(self.leases) < self.slots
        )


@dataclass(slots=True)
class _Request:
    number: int
    session: str
    key: PoolKey
    mode: Mode
    deadline: float
    avoid: frozenset[int]


class NodePools:
    """The actors of one node and who uses them.

    Every method that takes `now` (seconds of any monotonic clock) returns the actions to
    perform, in order. Between calls, `wake_at` says when `tick` is due.

    Args:
        settings: Sizes and limits.
    """

    def __init__(self, settings: PoolSettings | None = None) -> None:
        self.settings = settings or PoolSettings()
        self._actors: dict[int, _Actor] = {}
        # Bounded by max_waiting.
        self._waiting: deque[_Request] = deque()
        self._numbers = itertools.count(1)
        # Only classes whose last start failed, so bounded by the requests that wait.
        self._breakers: dict[_StartClass, _Breaker] = {}
        self._closed = ""

    # --- events ---------------------------------------------------------------------------------

    def acquire(
        self,
        session: str,
        key: PoolKey,
        mode: Mode,
        now: float,
        *,
        avoid: Iterable[int] = (),
    ) -> tuple[int, list[Action]]:
        """A session asks for a place.

        Args:
            session: Its id.
            key: What kind of place.
            mode: Alone or shared.
            now: The time.
            avoid: Actors that must not be chosen.

        Returns:
            The number of the request, which a Grant or a Refuse will name, perhaps in the
            actions that come with it.
        """
        request = _Request(
            number=next(self._numbers),
            session=session,
            key=key,
            mode=mode,
            deadline=now + self.settings.acquire_deadline_secs,
            avoid=frozenset(avoid),
        )
        if self._closed:
            return request.number, [self._refuse(request, self._closed, overloaded=False)]
        granted = self._serve(request, now)
        if granted is not None:
            return request.number, [granted, *self._start_needed(now)]
        evicted = self._make_room(request)
        refused = self._reason_to_refuse(request, now)
        if refused is not None:
            return request.number, [refused]
        self._waiting.append(request)
        return request.number, [*evicted, *self._start_needed(now)]

    def cancel(self, request: int, now: float) -> list[Action]:
        """Who asked does not wait any more; a lease granted meanwhile must be released by it."""
        self._waiting = deque(item for item in self._waiting if item.number != request)
        return self._start_needed(now)

    def release(self, session: str, now: float) -> list[Action]:
        """A session is over: frees all it holds, refuses what it waits for."""
        actions: list[Action] = [
            self._refuse(item, "the session was released", overloaded=False)
            for item in self._waiting
            if item.session == session
        ]
        self._waiting = deque(item for item in self._waiting if item.session != session)
        for actor in list(self._actors.values()):
            for lease in [number for number, owner in actor.leases.items() if owner == session]:
                actions += self._free(actor, lease, now)
        return actions + self._serve_waiting(now)

    def release_lease(self, lease: int, now: float) -> list[Action]:
        """One place is not needed any more; unknown leases are ignored."""
        for actor in list(self._actors.values()):
            if lease in actor.leases:
                return self._free(actor, lease, now) + self._serve_waiting(now)
        return []

    def started(self, actor: int, now: float) -> list[Action]:
        """An actor is ready to work."""
        found = self._actors.get(actor)
        if found is None:
            return [KillActor(actor, "no longer wanted")]
        found.state = State.READY
        found.idle_since = now
        self._breakers.pop(found.start_class, None)
        return self._serve_waiting(now)

    def start_failed(self, actor: int, reason: str, now: float) -> list[Action]:
        """An actor did not become ready; after several in a row, starting pauses."""
        found = self._actors.pop(actor, None)
        if found is None:
            return []
        breaker = self._breakers.setdefault(found.start_class, _Breaker())
        breaker.failures += 1
        breaker.reason = reason
        pause = self.settings.backoff_first_secs * 2.0 ** (breaker.failures - 1)
        breaker.retry_at = now + min(pause, self.settings.backoff_limit_secs)
        actions: list[Action] = []
        if breaker.failures >= self.settings.failures_to_open:
            hopeless = [i for i in self._waiting if i.key.start_class == found.start_class]
            actions += [self._refuse_broken(item, breaker, now) for item in hopeless]
            self._waiting = deque(item for item in self._waiting if item not in hopeless)
        return actions + self._start_needed(now)

    def died(self, actor: int, reason: str, now: float) -> list[Action]:
        """An actor is gone without our doing; those we killed ourselves are ignored."""
        found = self._actors.get(actor)
        if found is None:
            return []
        if found.state is State.STARTING:
            return self.start_failed(actor, reason, now)
        del self._actors[actor]
        report = ReportDeath(
            actor=actor,
            role=found.start_class[0],
            kind=found.key.kind if found.key is not None else "",
            sessions=tuple(dict.fromkeys(found.leases.values())),
            reason=reason,
        )
        return [report, *self._start_needed(now)]

    def tick(self, now: float) -> list[Action]:
        """Time has passed: refuses the overdue, kills the idle, retries, refills the reserve."""
        actions: list[Action] = []
        for item in [item for item in self._waiting if item.deadline <= now]:
            self._waiting.remove(item)
            waited = self.settings.acquire_deadline_secs
            actions.append(
                self._refuse(item, f"no actor became free within {waited:g} s", overloaded=True)
            )
        for actor in self._disposable():
            if actor.idle_since + self.settings.idle_secs <= now:
                del self._actors[actor.number]
                actions.append(KillActor(actor.number, "idle"))
        return actions + self._start_needed(now)

    def close(self, reason: str) -> list[Action]:
        """The node stops: refuses everything, now and from now on, and kills all actors."""
        self._closed = reason
        actions: list[Action] = [
            self._refuse(item, reason, overloaded=False) for item in self._waiting
        ]
        self._waiting.clear()
        actions += [KillActor(actor, reason) for actor in self._actors]
        self._actors.clear()
        return actions

    # --- questions ------------------------------------------------------------------------------

    def wake_at(self, now: float) -> float | None:
        """When `tick` is due next; None while nothing depends on time."""
        times = [item.deadline for item in self._waiting]
        times += [actor.idle_since + self.settings.idle_secs for actor in self._disposable()]
        if not self._closed:
            # One that is over has been acted upon: its next start is under way, or not wanted.
            times += [b.retry_at for b in self._breakers.values() if b.retry_at > now]
        return min(times, default=None)

    @property
    def hurried(self) -> bool:
        """Whether requests wait for actors, rather than only the reserve lacking some."""
        return bool(self._waiting)

    @property
    def starting(self) -> int:
        """How many actors are being started."""
        return sum(actor.state is State.STARTING for actor in self._actors.values())

    def knows(self, actor: int) -> bool:
        """Whether an actor is still wanted."""
        return actor in self._actors

    def used_slots(self, actor: int) -> int:
        """How many leases an actor carries; 0 for an unknown one."""
        found = self._actors.get(actor)
        return len(found.leases) if found is not None else 0

    def statistics(self) -> dict[str, object]:
        """Numbers for tables and metrics."""
        actors = self._actors.values()
        kinds: dict[str, dict[str, int]] = {}
        for actor in actors:
            if actor.key is None:
                continue
            name = f"{actor.key.role}:{actor.key.kind}"
            entry = kinds.setdefault(name, {"actors": 0, "dedicated": 0, "used": 0, "slots": 0})
            entry["actors"] += 1
            entry["dedicated"] += actor.dedicated
            entry["used"] += len(actor.leases)
            entry["slots"] += actor.slots
        return {
            "actors": len(self._actors),
            "starting": self.starting,
            "reserve": sum(actor.spare for actor in actors),
            "waiting": len(self._waiting),
            "failures": sum(breaker.failures for breaker in self._breakers.values()),
            "last_failure": next((b.reason for b in self._breakers.values()), ""),
            "kinds": kinds,
        }

    # --- rules ----------------------------------------------------------------------------------

    def _serve(self, request: _Request, now: float) -> Grant | None:
        """Gives a request a place that exists, the fullest pooled actor first.

        Filling up actors keeps others empty, so that a node can shrink.
        """
        candidates = [actor for actor in self._actors.values() if actor.number not in request.avoid]
        chosen: _Actor | None = None
        if request.mode is Mode.POOLED:
            chosen = max(
                (actor for actor in candidates if actor.takes(request.key)),
                key=lambda actor: len(actor.leases),
                default=None,
            )
        if chosen is None:
            wanted = request.key.start_class
            chosen = next((a for a in candidates if a.spare and a.start_class == wanted), None)
            if chosen is None:
                return None
            chosen.key = request.key
            chosen.dedicated = request.mode is Mode.DEDICATED
            chosen.slots = 1 if chosen.dedicated else self._slots_of(request.key)
        lease = next(self._numbers)
        chosen.leases[lease] = request.session
        chosen.idle_since = now
        return Grant(request.number, lease, chosen.number, request.session)

    def _serve_waiting(self, now: float) -> list[Action]:
        actions: list[Action] = []
        still: deque[_Request] = deque()
        for request in self._waiting:
            granted = self._serve(request, now)
            if granted is None:
                still.append(request)
            else:
                actions.append(granted)
        self._waiting = still
        return actions + self._start_needed(now)

    def _start_needed(self, now: float) -> list[Action]:
        """Starts what the waiting requests and the reserve lack, a few at a time."""
        if self._closed:
            return []
        actions: list[Action] = []
        for start_class, count in self._wanted():
            starting = [a for a in self._actors.values() if a.state is State.STARTING]
            under_way = sum(actor.start_class == start_class for actor in starting)
            room = min(
                count - under_way,
                self.settings.max_starts - len(starting),
                self.settings.max_actors - len(self._actors),
            )
            breaker = self._breakers.get(start_class)
            if breaker is not None:
                # After a failure one start at a time tells whether the trouble is over.
                room = 0 if now < breaker.retry_at else min(room, 1 - under_way)
            for _ in range(room):
                actor = _Actor(next(self._numbers), start_class)
                self._actors[actor.number] = actor
                actions.append(StartActor(actor.number, *start_class))
        return actions

    def _wanted(self) -> list[tuple[_StartClass, int]]:
        """Counts the actors to start for those who wait (first come first), then the reserve."""
        wanted: dict[_StartClass, int] = {}
        sharing: dict[PoolKey, int] = {}
        for request in self._waiting:
            if request.mode is Mode.POOLED:
                # One actor serves as many of a kind as it has slots.
                before = sharing.get(request.key, 0)
                sharing[request.key] = before + 1
                if before % self._slots_of(request.key):
                    continue
            wanted[request.key.start_class] = wanted.get(request.key.start_class, 0) + 1
        spare = sum(a.spare and a.start_class == _GENERIC for a in self._actors.values())
        reserve = wanted.get(_GENERIC, 0) + self.settings.reserve - spare
        return [*wanted.items(), (_GENERIC, reserve)]

    def _disposable(self) -> list[_Actor]:
        """Lists the unused actors beyond the reserve, the longest idle first."""
        unused = sorted(
            (actor for actor in self._actors.values() if actor.unused),
            key=lambda actor: actor.idle_since,
        )
        # The youngest of the generic spares are the reserve.
        spares = [actor for actor in unused if actor.spare and actor.start_class == _GENERIC]
        kept = spares[max(len(spares) - self.settings.reserve, 0) :]
        return [actor for actor in unused if actor not in kept]

    def _make_room(self, request: _Request) -> list[Action]:
        """Gives up an idle actor of another kind when the node is full."""
        if len(self._actors) < self.settings.max_actors:
            return []
        victim = next(iter(self._disposable()), None)
        if victim is None and request.key.start_class != _GENERIC:
            victim = next((actor for actor in self._actors.values() if actor.spare), None)
        if victim is None:
            return []
        del self._actors[victim.number]
        return [KillActor(victim.number, "its place is needed")]

    def _reason_to_refuse(self, request: _Request, now: float) -> Refuse | None:
        breaker = self._breakers.get(request.key.start_class)
        if (
            breaker is not None
            and now < breaker.retry_at
            and breaker.failures >= self.settings.failures_to_open
        ):
            return self._refuse_broken(request, breaker, now)
        if len(self._waiting) >= self.settings.max_waiting:
            return self._refuse(
                request, f"{len(self._waiting)} requests wait for an actor", overloaded=True
            )
        if len(self._actors) >= self.settings.max_actors and not self._room_coming(request):
            limit = self.settings.max_actors
            return self._refuse(request, f"the node has its {limit} actors", overloaded=True)
        return None

    def _room_coming(self, request: _Request) -> bool:
        """Whether an actor that is being started may serve it, those before it served."""
        wanted = request.key.start_class
        coming = sum(
            actor.state is State.STARTING and actor.start_class == wanted
            for actor in self._actors.values()
        )
        ahead = sum(item.key.start_class == wanted for item in self._waiting)
        return coming > ahead

    def _free(self, actor: _Actor, lease: int, now: float) -> list[Action]:
        del actor.leases[lease]
        actor.idle_since = now
        if actor.dedicated:
            # What a session's code did to a process is not known, so no other session gets it.
            del self._actors[actor.number]
            return [KillActor(actor.number, "its session is over")]
        return []

    @staticmethod
    def _refuse_broken(request: _Request, breaker: _Breaker, now: float) -> Refuse:
        return Refuse(
            request=request.number,
            reason=f"actors do not start ({breaker.failures} times in a row): {breaker.reason}",
            overloaded=False,
            retry_after_secs=max(breaker.retry_at - now, 0.0),
        )

    @staticmethod
    def _refuse(request: _Request, reason: str, *, overloaded: bool) -> Refuse:
        return Refuse(request.number, reason, overloaded, 1.0)

    def _slots_of(self, key: PoolKey) -> int:
        if key.role is Role.SUPERVISOR:
            return self.settings.supervisor_slots
        return self.settings.slots_per_actor
