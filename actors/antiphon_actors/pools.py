"""Which actor serves which session on one node: a state machine without Ray and without I/O.

The node agent feeds it what happened (a session asks, an actor started or died, time passed) with
the time it happened, and performs the actions it returns. Nothing here waits, reads a clock or
knows what an actor is, so every rule of capacity and back-off can be tested in microseconds.

The life of an actor: STARTING, then READY; a READY actor belongs to a pool (it serves sessions
of one kind in slots), to one session alone (a pool of one slot that is never shared), or to nobody yet:
the reserve, from which sessions are served without starting a process. One that retires gets no more
sessions, and ends when it has lost the last.

A session asks for all its places at once and gets all or none. What is free is reserved for it at
once, and it waits only for actors there is room for; so no session is let in at another's expense,
and two that wait never hold what the other lacks.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from antiphon_actors.admission import Admission
from antiphon_actors.breakers import DeathIntensity, StartBreakers
from antiphon_actors.pool_state import PoolActor, Request, State
from antiphon_actors.pool_types import (
    Action,
    Grant,
    KillActor,
    Mode,
    Place,
    PoolKey,
    PoolSettings,
    Refuse,
    ReportDeath,
    Role,
    StartActor,
    StartClass,
    Want,
    is_part,
)

_PROCESSORS: StartClass = (Role.PROCESSOR, ())
_SUPERVISORS: StartClass = (Role.SUPERVISOR, ())


MAX_SUCCESSORS = 4
"""How many actors may be there beyond `max_actors`, in place of such as retire."""


class NodePools:
    """The actors of one node and who uses them.

    Every method that takes `now` (seconds of any monotonic clock) returns the actions to
    perform, in order. Between calls, `wake_at` says when `tick` is due.

    Args:
        settings: Sizes and limits.
        first_number: The first of the numbers of actors, leases and requests.

    Attributes:
        settings: Sizes and limits.
        admission: Which new sessions are refused for now.
    """

    def __init__(self, settings: PoolSettings | None = None, *, first_number: int = 1) -> None:
        self.settings = settings or PoolSettings()
        self.admission = Admission()
        self._actors: dict[int, PoolActor] = {}
        # Bounded by max_waiting.
        self._waiting: deque[Request] = deque()
        self._numbers = itertools.count(first_number)
        self._breakers = StartBreakers(self.settings)
        self._intensity = DeathIntensity(self.settings)
        self._overloads = 0
        self._closed = ""

    # --- events ---------------------------------------------------------------------------------

    def acquire(
        self, session: str, wanted: Sequence[Want], now: float, *, avoid: Iterable[int] = ()
    ) -> tuple[int, list[Action]]:
        """A session asks for places; it gets all of them or none.

        Args:
            session: Its id.
            wanted: The places.
            now: The time.
            avoid: Actors that must not be chosen.

        Returns:
            The number of the request, which a Grant or a Refuse will name, perhaps in the
            actions that come with it.
        """
        request = Request(
            number=next(self._numbers),
            session=session,
            wanted=tuple(wanted),
            deadline=now + self.settings.acquire_deadline_secs,
            avoid=frozenset(avoid),
        )
        if self._closed:
            return request.number, [self._refuse(request, self._closed, overloaded=False)]
        objection = self.admission.objection(request, carried=self.carrier_of(session) is not None)
        if objection:
            return request.number, [self._refuse(request, objection, overloaded=True)]
        if self._too_many_sessions(request):
            reason = f"the node has its {self.settings.max_sessions} sessions"
            return request.number, [self._refuse(request, reason, overloaded=True)]
        if self._fill(request, now):
            return request.number, [self._grant(request, now), *self._start_needed(now)]
        victims = self._victims(request)
        refused = self._reason_to_refuse(request, len(victims), now)
        if refused is not None:
            self._take_back(request)
            return request.number, [refused]
        evicted: list[Action] = []
        for actor in victims[: self._lacking_room(request)]:
            del self._actors[actor.number]
            evicted.append(KillActor(actor.number, "its place is needed"))
        self._waiting.append(request)
        return request.number, [*evicted, *self._start_needed(now)]

    def cancel(self, request: int, now: float) -> list[Action]:
        """Who asked does not wait any more; leases granted meanwhile must be released by it."""
        for item in [item for item in self._waiting if item.number == request]:
            self._waiting.remove(item)
            self._take_back(item)
        return self._serve_waiting(now)

    def release(self, session: str, now: float) -> list[Action]:
        """A session is over: frees all it holds, refuses what it waits for.

        So with all whose names begin with its own and a slash: they are parts of it.
        """
        return self._drop_session(session, now) + self._serve_waiting(now)

    def _drop_session(self, session: str, now: float) -> list[Action]:
        actions: list[Action] = [
            self._give_up(self._refuse(item, "the session was released", overloaded=False))
            for item in list(self._waiting)
            if is_part(item.session, session)
        ]
        for actor in list(self._actors.values()):
            for lease in [n for n, owner in actor.leases.items() if is_part(owner, session)]:
                actions += self._free(actor, lease, now)
        return actions

    def hold(self, session: str, actors: Iterable[int], holder: str) -> bool:
        """Keeps a session's places in pooled actors from being freed with it: they are another's then.

        Args:
            session: The session.
            actors: The actors.
            holder: To whom the places go; releasing that frees them.

        Returns:
            Whether there are such places.
        """
        held = False
        for actor in [self._actors[number] for number in actors if self.is_pooled(number)]:
            for lease in [n for n, owner in actor.leases.items() if is_part(owner, session)]:
                actor.leases[lease] = holder
                held = True
        return held

    def release_leases(self, leases: Iterable[int], now: float) -> list[Action]:
        """Places are not needed any more; unknown leases are ignored."""
        actions: list[Action] = []
        for lease in leases:
            for actor in list(self._actors.values()):
                if lease in actor.leases:
                    actions += self._free(actor, lease, now)
        return actions + self._serve_waiting(now)

    def started(self, actor: int, now: float) -> list[Action]:
        """An actor is ready to work."""
        found = self._actors.get(actor)
        if found is None:
            return [KillActor(actor, "no longer wanted")]
        found.state = State.READY
        found.idle_since = now
        self._breakers.started(found.start_class, now)
        return self._serve_waiting(now)

    def start_failed(self, actor: int, reason: str, now: float) -> list[Action]:
        """An actor did not become ready; after several in a row, starting pauses."""
        found = self._actors.pop(actor, None)
        if found is None:
            return []
        self._breakers.failed(found.start_class, reason, now)
        actions: list[Action] = []
        if self._breakers.is_broken(found.start_class):
            actions += [
                self._give_up(self._refuse_broken(item, found.start_class, now))
                for item in list(self._waiting)
                if any(want.key.start_class == found.start_class for want in item.missing)
            ]
        return actions + self._serve_waiting(now)

    def died(self, actor: int, reason: str, now: float) -> list[Action]:
        """An actor is gone without our doing; those we killed ourselves are ignored.

        The sessions that a supervisor carried are over with it, and are released.
        """
        found = self._actors.get(actor)
        if found is None:
            return []
        if found.state is State.STARTING:
            return self.start_failed(actor, reason, now)
        self._unreserve(found)
        report = ReportDeath(
            actor=actor,
            role=found.start_class[0],
            kind=found.key.kind if found.key is not None else "",
            sessions=tuple(dict.fromkeys(found.leases.values())),
            reason=reason,
            orphans=self._orphans(found),
        )
        if not found.used:
            # One that dies before anybody uses it is no better than one that does not start.
            return [report, *self.start_failed(actor, reason, now)]
        del self._actors[actor]
        actions: list[Action] = [report]
        for session in report.orphans:
            actions += self._drop_session(session, now)
        if found.key is not None:
            self._intensity.died(found.key, reason, now)
            actions += [
                self._give_up(self._refuse_dying(item, found.key, now))
                for item in list(self._waiting)
                if any(want.key == found.key for want in item.missing)
                and self._intensity.retry_at(found.key, now) is not None
            ]
        return actions + self._serve_waiting(now)

    def retire(self, actor: int, reason: str, now: float) -> list[Action]:
        """An actor gets no more sessions, and is killed when it has lost the last it has.

        Those it has stay until they end, or are moved and give their places up.
        """
        found = self._actors.get(actor)
        if found is None or found.retiring:
            return []
        self._unreserve(found)
        if found.leases:
            found.retiring = reason
            return self._serve_waiting(now)
        del self._actors[actor]
        return [KillActor(actor, reason), *self._serve_waiting(now)]

    def adopt(self, actors: Iterable[PoolActor], now: float) -> None:
        """Takes over actors that another agent of the node has left."""
        for actor in actors:
            actor.idle_since = now
            self._actors[actor.number] = actor

    def _unreserve(self, actor: PoolActor) -> None:
        """Takes back what is reserved in an actor for those who wait: it is looked for again.

        Nobody was told of these places.
        """
        for request in self._waiting:
            for index, place in list(request.places.items()):
                if place.actor == actor.number:
                    del request.places[index], actor.leases[place.lease]

    def _orphans(self, dead: PoolActor) -> tuple[str, ...]:
        """Lists the sessions that have no supervisor without an actor, and do not wait for one."""
        if dead.start_class[0] is not Role.SUPERVISOR:
            return ()
        carried = {item.session for item in self._waiting if _supervisors_of(item.wanted)}
        for actor in self._actors.values():
            if actor is not dead and actor.start_class[0] is Role.SUPERVISOR:
                carried.update(actor.leases.values())
        return tuple(name for name in dict.fromkeys(dead.leases.values()) if name not in carried)

    def tick(self, now: float) -> list[Action]:
        """Time has passed: refuses the overdue, kills the idle, retries, refills the reserve."""
        waited = f"no actor became free within {self.settings.acquire_deadline_secs:g} s"
        actions: list[Action] = [
            self._give_up(self._refuse(item, waited, overloaded=True))
            for item in list(self._waiting)
            if item.deadline <= now
        ]
        for actor in self._disposable():
            if actor.idle_since + self.settings.idle_secs <= now:
                del self._actors[actor.number]
                actions.append(KillActor(actor.number, "idle"))
        return actions + self._serve_waiting(now)

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
            times += self._breakers.due(now)
        return min(times, default=None)

    @property
    def numbers(self) -> Iterator[int]:
        """Fresh numbers of actors, leases and requests."""
        return self._numbers

    @property
    def hurried(self) -> bool:
        """Whether requests wait for actors, rather than only the reserve lacking some."""
        return bool(self._waiting)

    @property
    def starting(self) -> int:
        """How many actors are being started."""
        return sum(actor.state is State.STARTING for actor in self._actors.values())

    def ready(self) -> list[PoolActor]:
        """Copies of the actors that are ready, without what is only reserved in them."""
        reserved = {place.lease for item in self._waiting for place in item.places.values()}
        found = []
        for actor in self._actors.values():
            if actor.state is State.READY:
                leases = {n: owner for n, owner in actor.leases.items() if n not in reserved}
                found.append(replace(actor, leases=leases))
        return found

    def knows(self, actor: int) -> bool:
        """Whether an actor is still wanted."""
        return actor in self._actors

    def actor_of(self, lease: int) -> int | None:
        """The actor of a place; None if it was freed or its actor is gone."""
        return next((a.number for a in self._actors.values() if lease in a.leases), None)

    def carrier_of(self, session: str) -> int | None:
        """The actor of the supervisor of a session, or of the one that a session is a part of."""
        for actor in self._actors.values():
            if actor.start_class[0] is Role.SUPERVISOR:
                if any(is_part(session, owner) for owner in actor.leases.values()):
                    return actor.number
        return None

    def leases_of(self, actor: int) -> dict[int, str]:
        """The leases of an actor, each with its session; none of an unknown one."""
        found = self._actors.get(actor)
        return dict(found.leases) if found is not None else {}

    def served(self, actor: int) -> int:
        """How many places in an actor have been given away, ever; 0 for an unknown one."""
        found = self._actors.get(actor)
        return found.served if found is not None else 0

    def assigned_at(self, actor: int) -> float:
        """When a place in an actor was given away last; long ago for an unknown one."""
        found = self._actors.get(actor)
        at = found.assigned_at if found is not None else None
        return at if at is not None else -math.inf

    def kind_of(self, actor: int) -> str:
        """What an actor serves; empty while it serves nobody."""
        found = self._actors.get(actor)
        return found.key.kind if found is not None and found.key is not None else ""

    def is_pooled(self, actor: int) -> bool:
        """Whether an actor serves sessions of its kind one after another."""
        found = self._actors.get(actor)
        return found is not None and found.key is not None and not found.dedicated

    def used_slots(self, actor: int) -> int:
        """How many leases an actor carries; 0 for an unknown one."""
        found = self._actors.get(actor)
        return len(found.leases) if found is not None else 0

    def statistics(self, now: float) -> dict[str, object]:
        """Numbers for tables and metrics; `breakers` says which actors do not start, and why."""
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
            "reserve": self._spares(_PROCESSORS),
            "supervisor_reserve": self._spares(_SUPERVISORS),
            "waiting": len(self._waiting),
            "overloads": self._overloads,
            "breakers": self._breakers.statistics(now),
            "dying": self._intensity.statistics(now),
            "retiring": sum(bool(actor.retiring) for actor in actors),
            "refusing": self.admission.reasons,
            "kinds": kinds,
        }

    # --- places ---------------------------------------------------------------------------------

    def _fill(self, request: Request, now: float) -> bool:
        """Reserves what there is for a request; whether that is all it wants."""
        for index, want in enumerate(request.wanted):
            if index not in request.places:
                place = self._place(request, want, now)
                if place is not None:
                    request.places[index] = place
        return len(request.places) == len(request.wanted)

    def _place(self, request: Request, want: Want, now: float) -> Place | None:
        """Finds a place that exists, the fullest pooled actor first.

        Filling up actors keeps others empty, so that a node can shrink.
        """
        candidates = [actor for actor in self._actors.values() if actor.number not in request.avoid]
        chosen: PoolActor | None = None
        if want.mode is Mode.POOLED:
            chosen = max(
                (actor for actor in candidates if actor.takes(want.key)),
                key=lambda actor: len(actor.leases),
                default=None,
            )
        if chosen is None:
            wanted = want.key.start_class
            chosen = next((a for a in candidates if a.spare and a.start_class == wanted), None)
            if chosen is None or self._intensity.retry_at(want.key, now) is not None:
                return None
            chosen.key = want.key
            chosen.dedicated = want.mode is Mode.DEDICATED
            chosen.slots = 1 if chosen.dedicated else self._slots_of(want.key)
        lease = next(self._numbers)
        chosen.leases[lease] = request.session
        chosen.idle_since = now
        return Place(lease, chosen.number)

    def _grant(self, request: Request, now: float) -> Grant:
        places = tuple(request.places[index] for index in range(len(request.wanted)))
        for place in places:
            actor = self._actors[place.actor]
            actor.served += 1
            actor.assigned_at = now
            self._breakers.used(actor.start_class)
        return Grant(request.number, request.session, places)

    def _take_back(self, request: Request) -> None:
        """Frees what was reserved for a request; nobody was told of it."""
        for place in request.places.values():
            actor = self._actors[place.actor]
            del actor.leases[place.lease]
            if not actor.used and not actor.leases:
                actor.key, actor.dedicated, actor.slots = None, False, 1
        request.places.clear()

    def _free(self, actor: PoolActor, lease: int, now: float) -> list[Action]:
        del actor.leases[lease]
        actor.idle_since = now
        if actor.dedicated:
            # What a session's code did to a process is not known, so no other session gets it.
            del self._actors[actor.number]
            return [KillActor(actor.number, "its session is over")]
        if actor.retiring and not actor.leases:
            del self._actors[actor.number]
            return [KillActor(actor.number, actor.retiring)]
        return []

    def _serve_waiting(self, now: float) -> list[Action]:
        actions: list[Action] = []
        still: deque[Request] = deque()
        for request in self._waiting:
            if self._fill(request, now):
                actions.append(self._grant(request, now))
            else:
                still.append(request)
        self._waiting = still
        return actions + self._start_needed(now)

    # --- actors to start ------------------------------------------------------------------------

    def _start_needed(self, now: float) -> list[Action]:
        """Starts what the waiting requests and the reserve lack, a few at a time."""
        if self._closed:
            return []
        demand = self._demand(self._waiting)
        actions: list[Action] = []
        for start_class, count in demand.items():
            actions += self._start(start_class, count, self._room(), now)
        if self.admission.closed:
            # Nobody will ask for it.
            return actions
        # The reserve takes no room that was promised to those who wait.
        left = self._room() - self._short_of(demand)
        for start_class, size in self._reserves().items():
            count = demand.get(start_class, 0) + size - self._spares(start_class)
            begun = self._start(start_class, count, left, now)
            left -= len(begun)
            actions += begun
        return actions

    def _start(
        self, start_class: StartClass, count: int, room: int, now: float
    ) -> list[StartActor]:
        """Starts actors of a class until so many are under way, where that is possible now."""
        under_way = self._under_way(start_class)
        number = min(count - under_way, self.settings.max_starts - self.starting, room)
        number = self._breakers.limit(start_class, number, under_way, now)
        begun = []
        for _ in range(number):
            actor = PoolActor(next(self._numbers), start_class)
            self._actors[actor.number] = actor
            begun.append(StartActor(actor.number, *start_class))
        return begun

    def _demand(self, requests: Iterable[Request]) -> Counter[StartClass]:
        """Counts the actors that requests have to wait for, first come first."""
        demand: Counter[StartClass] = Counter()
        sharing: Counter[PoolKey] = Counter()
        for request in requests:
            for want in request.missing:
                if want.mode is Mode.POOLED:
                    # One actor serves as many of a kind as it has slots.
                    sharing[want.key] += 1
                    if (sharing[want.key] - 1) % self._slots_of(want.key):
                        continue
                demand[want.key.start_class] += 1
        return demand

    def _short_of(self, demand: Counter[StartClass]) -> int:
        """Counts the actors that those who wait need and that are not being started yet."""
        return sum(max(count - self._under_way(kind), 0) for kind, count in demand.items())

    def _under_way(self, start_class: StartClass) -> int:
        return sum(
            actor.state is State.STARTING and actor.start_class == start_class
            for actor in self._actors.values()
        )

    def _room(self) -> int:
        # Those that retire have successors beside them until their sessions have moved: a few.
        retiring = sum(bool(actor.retiring) for actor in self._actors.values())
        return self.settings.max_actors - len(self._actors) + min(retiring, MAX_SUCCESSORS)

    def _reserves(self) -> dict[StartClass, int]:
        """Returns the sizes of the reserve; a session needs its supervisor first."""
        return {
            _SUPERVISORS: self.settings.supervisor_reserve,
            _PROCESSORS: self.settings.reserve,
        }

    def _spares(self, start_class: StartClass) -> int:
        return sum(a.spare and a.start_class == start_class for a in self._actors.values())

    # --- actors to give up ----------------------------------------------------------------------

    def _disposable(self) -> list[PoolActor]:
        """Lists the unused actors beyond the reserve, the longest idle first."""
        unused = sorted(
            (actor for actor in self._actors.values() if actor.unused),
            key=lambda actor: actor.idle_since,
        )
        kept: list[PoolActor] = []
        for start_class, size in self._reserves().items():
            # The youngest of the spares are the reserve.
            spares = [a for a in unused if a.spare and a.start_class == start_class]
            kept += spares[max(len(spares) - size, 0) :]
        return [actor for actor in unused if actor not in kept]

    def _victims(self, request: Request) -> list[PoolActor]:
        """Lists what may be given up for a request on a full node: the idle, then the reserve."""
        of_use = {want.key.start_class for want in request.missing}
        idle = self._disposable()
        spares = [a for a in self._actors.values() if a.spare and a.start_class not in of_use]
        return [*idle, *(actor for actor in spares if actor not in idle)]

    # --- refusals -------------------------------------------------------------------------------

    def _too_many_sessions(self, request: Request) -> bool:
        asked = _supervisors_of(request.wanted)
        carried = sum(
            len(actor.leases)
            for actor in self._actors.values()
            if actor.start_class[0] is Role.SUPERVISOR
        )
        waiting = sum(_supervisors_of(item.missing) for item in self._waiting)
        return asked > 0 and carried + waiting + asked > self.settings.max_sessions

    def _lacking_room(self, request: Request) -> int:
        """Counts the actors by which the node is too small for those who wait and this one."""
        demand = self._demand([*self._waiting, request])
        return max(self._short_of(demand) - self._room(), 0)

    def _reason_to_refuse(self, request: Request, victims: int, now: float) -> Refuse | None:
        for want in request.missing:
            if self._breakers.is_open(want.key.start_class, now):
                return self._refuse_broken(request, want.key.start_class, now)
            if self._intensity.retry_at(want.key, now) is not None:
                return self._refuse_dying(request, want.key, now)
        if len(self._waiting) >= self.settings.max_waiting:
            return self._refuse(
                request, f"{len(self._waiting)} requests wait for actors", overloaded=True
            )
        if self._lacking_room(request) > victims:
            return self._refuse(request, self._what_is_short(request, victims), overloaded=True)
        return None

    def _what_is_short(self, request: Request, victims: int) -> str:
        kinds = Counter(f"{want.key.role} {want.key.kind}" for want in request.missing)
        names = ", ".join(f"{name} ({count})" for name, count in kinds.items())
        needed = self._demand([request]).total()
        promised = self._short_of(self._demand(self._waiting))
        room = max(self._room() + victims - promised, 0)
        return (
            f"no room: the session needs {needed} more, for {names}, and the node can start {room}"
            f" beside those promised to others (at most {self.settings.max_actors} actors in all)"
        )

    def _give_up(self, refused: Refuse) -> Refuse:
        """Takes a refused request off the waiting ones, and frees what was reserved for it."""
        for item in [item for item in self._waiting if item.number == refused.request]:
            self._waiting.remove(item)
            self._take_back(item)
        return refused

    def _refuse_broken(self, request: Request, start_class: StartClass, now: float) -> Refuse:
        breaker = self._breakers.last_failed(start_class)
        assert breaker is not None
        return Refuse(
            request=request.number,
            reason=f"actors do not start ({breaker.failures} times in a row): {breaker.reason}",
            overloaded=False,
            retry_after_secs=max(breaker.retry_at - now, 0.0),
        )

    def _refuse_dying(self, request: Request, key: PoolKey, now: float) -> Refuse:
        retry_at = self._intensity.retry_at(key, now)
        return Refuse(
            request=request.number,
            reason=(
                f"actors for {key.role} {key.kind} die again and again: {self.settings.max_deaths}"
                f" within {self.settings.deaths_period_secs:g} s, the last: "
                f"{self._intensity.reason(key)}"
            ),
            overloaded=False,
            retry_after_secs=max((retry_at or now) - now, 0.0),
        )

    def _refuse(self, request: Request, reason: str, *, overloaded: bool) -> Refuse:
        self._overloads += overloaded
        return Refuse(request.number, reason, overloaded, 1.0)

    def _slots_of(self, key: PoolKey) -> int:
        if key.role is Role.SUPERVISOR:
            return self.settings.supervisor_slots
        return self.settings.slots_per_actor


def _supervisors_of(wanted: Iterable[Want]) -> int:
    return sum(want.key.role is Role.SUPERVISOR for want in wanted)
