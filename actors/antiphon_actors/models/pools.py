"""Which actors have which models on one node: a state machine without Ray and without I/O.

The agent feeds it what happened, with the time it happened (seconds of any monotonic clock), and performs
the actions it returns. A model has a pool of actors: from the moment somebody asks for it, until nobody has
used it for a while. An actor is STARTING until its model is loaded and warm, then READY, and LEAVING when it
is to end: it takes nothing new, and is killed when its users have gone, which they do with their last answer.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from antiphon_actors.models.settings import ModelSettings, Scaling

# A leaving actor that has users even then is ended all the same: they repeat elsewhere.
LEAVE_SECS = 30.0

Resources = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class ModelKey:
    """A model, as the agent knows it.

    Attributes:
        key: `ModelSpec.key`.
        name: `ModelSpec.name`.
    """

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class Report:
    """How an actor was since its last report.

    Attributes:
        queue_secs: How long requests waited for their batch, on average, or the first still waits.
        busy: The share of the time in which it worked.
        refused: Requests it refused.
        users: Processes that use it now.
        sessions: Sessions that it has now.
        unanswered: Requests that it has now.
        batch_secs: How long it has been working on its present batch.
    """

    queue_secs: float = 0.0
    busy: float = 0.0
    refused: int = 0
    users: int = 0
    sessions: int = 0
    unanswered: int = 0
    batch_secs: float = 0.0


@dataclass(frozen=True, slots=True)
class StartReplica:
    """Start an actor with a model; answer with `started` or `start_failed`."""

    actor: int
    model: ModelKey
    resources: Resources


@dataclass(frozen=True, slots=True)
class KillReplica:
    """Kill an actor; it is forgotten already."""

    actor: int
    reason: str


@dataclass(frozen=True, slots=True)
class TellMembers:
    """Tell actors of a model which of them take requests; `leaving` are told that they do no longer."""

    members: tuple[int, ...]
    leaving: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AnswerMembers:
    """Answer a request: these actors have the model."""

    request: int
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RefuseModel:
    """Answer a request: the model cannot be had, and why.

    Attributes:
        overloaded: For want of room, which may come.
    """

    request: int
    reason: str
    overloaded: bool
    retry_after_secs: float


Action = StartReplica | KillReplica | TellMembers | AnswerMembers | RefuseModel


class State(enum.StrEnum):
    """Where an actor is in its life."""

    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"


@dataclass(slots=True)
class _Replica:
    number: int
    state: State = State.STARTING
    since: float = 0.0
    report: Report | None = None


@dataclass(slots=True)
class _Request:
    number: int
    deadline: float
    avoid: frozenset[int]


@dataclass(slots=True)
class _Pool:
    model: ModelKey
    resources: Resources
    scaling: Scaling
    kept: bool = False
    target: int = 0
    replicas: dict[int, _Replica] = field(default_factory=dict)
    waiting: list[_Request] = field(default_factory=list)  # one for each process of the node
    used_at: float = 0.0
    failures: int = 0
    reason: str = ""
    retry_at: float = 0.0
    high_since: float | None = None
    low_since: float | None = None

    def of(self, state: State) -> list[_Replica]:
        """Its actors in a state."""
        return [each for each in self.replicas.values() if each.state is state]


class ModelPools:
    """The actors with models of one node.

    Every method that takes `now` returns the actions to perform, in order. Between calls, `wake_at` says
    when `tick` is due.

    Args:
        settings: Sizes and limits.

    Attributes:
        drained: Whether the node is to be left.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._pools: dict[ModelKey, _Pool] = {}
        self._numbers = itertools.count(1)
        self._closed = ""
        self.drained = False

    # --- events ---------------------------------------------------------------------------------

    def keep(
        self, model: ModelKey, resources: Resources, scaling: Scaling, now: float
    ) -> list[Action]:
        """Has a model ready from now on, whether or not anybody uses it."""
        pool = self._pool(model, resources, scaling, now)
        pool.kept = True
        return self._start_needed(now)

    def ask(
        self,
        model: ModelKey,
        resources: Resources,
        scaling: Scaling,
        now: float,
        *,
        avoid: Iterable[int] = (),
    ) -> tuple[int, list[Action]]:
        """A process asks for a model.

        Args:
            model: Which.
            resources: What each actor of it reserves; of who asks first.
            scaling: How many there are, likewise.
            now: The time.
            avoid: Actors that it cannot reach.

        Returns:
            The number of the request, which an answer or a refusal will name, perhaps in the actions
            that come with it.
        """
        request = _Request(next(self._numbers), now + self._settings.load_secs, frozenset(avoid))
        if self._closed:
            return request.number, [RefuseModel(request.number, self._closed, False, 1.0)]
        pool = self._pool(model, resources, scaling, now)
        if pool.failures >= self._settings.failures_to_open and now < pool.retry_at:
            return request.number, [self._refuse_broken(pool, request, now)]
        pool.waiting.append(request)
        actions = self._answer(pool)
        if request in pool.waiting and not pool.of(State.STARTING):
            actions += self._make_room()
            if self.actors >= self._settings.max_actors:
                pool.waiting.remove(request)
                reason = f"the node has its {self._settings.max_actors} actors with models"
                actions.append(RefuseModel(request.number, reason, True, 1.0))
        return request.number, actions + self._start_needed(now)

    def cancel(self, request: int) -> None:
        """Who asked does not wait any more."""
        for pool in self._pools.values():
            pool.waiting = [each for each in pool.waiting if each.number != request]

    def started(self, actor: int, now: float) -> list[Action]:
        """An actor has its model ready."""
        pool = self._pool_of(actor)
        if pool is None:
            return [KillReplica(actor, "no longer wanted")]
        replica = pool.replicas[actor]
        replica.state, replica.since = State.READY, now
        pool.failures, pool.reason = 0, ""
        return [*self._tell(pool), *self._answer(pool), *self._start_needed(now)]

    def start_failed(self, actor: int, reason: str, now: float) -> list[Action]:
        """An actor could not load its model, or died before it was of use."""
        pool = self._pool_of(actor)
        if pool is None:
            return []
        del pool.replicas[actor]
        pool.failures += 1
        pool.reason = reason
        pause = self._settings.backoff_first_secs * 2.0 ** min(pool.failures - 1, 64)
        pool.retry_at = now + min(pause, self._settings.backoff_limit_secs)
        actions: list[Action] = []
        if pool.failures >= self._settings.failures_to_open:
            actions += [self._refuse_broken(pool, request, now) for request in pool.waiting]
            pool.waiting.clear()
        return actions + self._start_needed(now)

    def died(self, actor: int, reason: str, now: float) -> list[Action]:
        """An actor is gone without our doing; those we killed ourselves are ignored."""
        pool = self._pool_of(actor)
        if pool is None:
            return []
        replica = pool.replicas[actor]
        # One that does not outlast its back-off is no better than one that does not start.
        brief = now - replica.since < self._settings.backoff_first_secs
        if replica.state is State.STARTING or (replica.state is State.READY and brief):
            return [*self._tell(pool, without=actor), *self.start_failed(actor, reason, now)]
        del pool.replicas[actor]
        return [*self._tell(pool), *self._start_needed(now)]

    def reported(self, actor: int, report: Report, now: float) -> list[Action]:
        """An actor says how it was."""
        pool = self._pool_of(actor)
        if pool is None:
            return []
        replica = pool.replicas[actor]
        replica.report = report
        if report.users:
            pool.used_at = now
        if report.batch_secs > self._settings.stuck_secs:
            del pool.replicas[actor]
            killed = KillReplica(actor, f"stuck in a batch for {report.batch_secs:.0f} s")
            return [killed, *self._tell(pool), *self._start_needed(now)]
        if replica.state is State.LEAVING:
            return self._end_if_empty(pool, replica, now)
        return [*self._scale(pool, now), *self._start_needed(now)]

    def tick(self, now: float) -> list[Action]:
        """Time has passed: refuses the overdue, ends what nobody uses, tries again."""
        actions: list[Action] = []
        for pool in list(self._pools.values()):
            late = [request for request in pool.waiting if request.deadline <= now]
            for request in late:
                pool.waiting.remove(request)
                reason = f"{pool.model.name} was not ready within {self._settings.load_secs:g} s"
                actions.append(RefuseModel(request.number, reason, True, 1.0))
            for replica in pool.of(State.LEAVING):
                actions += self._end_if_empty(pool, replica, now)
            if self._unused(pool) and pool.used_at + self._settings.idle_secs <= now:
                actions += [KillReplica(actor, "idle") for actor in pool.replicas]
                del self._pools[pool.model]
        return actions + self._start_needed(now)

    def drain(self, now: float) -> list[Action]:
        """The node is to be left: all actors leave, and none is started any more."""
        self._closed = self._closed or "the node is being drained"
        self.drained = True
        actions: list[Action] = []
        for pool in self._pools.values():
            actions += [
                RefuseModel(request.number, self._closed, True, 1.0) for request in pool.waiting
            ]
            pool.waiting.clear()
            for replica in pool.of(State.STARTING):
                del pool.replicas[replica.number]
                actions.append(KillReplica(replica.number, self._closed))
            for replica in pool.of(State.READY):
                replica.state, replica.since = State.LEAVING, now
            actions += self._tell(pool)
        return actions

    def reopen(self, now: float) -> list[Action]:
        """The node is not to be left after all: what leaves still does, and fresh actors are started."""
        if self.drained:
            self.drained, self._closed = False, ""
        return self._start_needed(now)

    def close(self, reason: str) -> list[Action]:
        """The node stops: refuses everything, now and from now on, and kills all actors."""
        self._closed, self.drained = reason, False
        actions: list[Action] = []
        for pool in self._pools.values():
            actions += [RefuseModel(each.number, reason, False, 1.0) for each in pool.waiting]
            actions += [KillReplica(actor, reason) for actor in pool.replicas]
        self._pools.clear()
        return actions

    # --- questions ------------------------------------------------------------------------------

    def wake_at(self, now: float) -> float | None:
        """When `tick` is due next; None while nothing depends on time."""
        times: list[float] = []
        for pool in self._pools.values():
            times += [request.deadline for request in pool.waiting]
            times += [replica.since + LEAVE_SECS for replica in pool.of(State.LEAVING)]
            if self._unused(pool):
                times.append(pool.used_at + self._settings.idle_secs)
            if pool.retry_at > now:
                times.append(pool.retry_at)
        return min(times, default=None)

    @property
    def actors(self) -> int:
        """How many actors there are, those being started included."""
        return sum(len(pool.replicas) for pool in self._pools.values())

    def knows(self, actor: int) -> bool:
        """Whether an actor is still wanted."""
        return self._pool_of(actor) is not None

    def statistics(self, now: float) -> list[dict[str, object]]:
        """Numbers for tables and metrics, a line for each model."""
        lines: list[dict[str, object]] = []
        for pool in self._pools.values():
            reports = [each.report for each in pool.of(State.READY) if each.report is not None]
            lines.append(
                {
                    "model": pool.model.name,
                    "resources": dict(pool.resources),
                    "starting": len(pool.of(State.STARTING)),
                    "ready": len(pool.of(State.READY)),
                    "leaving": len(pool.of(State.LEAVING)),
                    "target": pool.target,
                    "waiting": len(pool.waiting),
                    "users": sum(report.users for report in reports),
                    "sessions": sum(report.sessions for report in reports),
                    "queue_ms": 1e3 * max((r.queue_secs for r in reports), default=0.0),
                    "busy": sum(report.busy for report in reports) / max(len(reports), 1),
                    "failures": pool.failures,
                    "failure": pool.reason,
                    "retry_in_secs": max(pool.retry_at - now, 0.0),
                }
            )
        return lines

    # --- inside ---------------------------------------------------------------------------------

    def _pool(self, model: ModelKey, resources: Resources, scaling: Scaling, now: float) -> _Pool:
        pool = self._pools.get(model)
        if pool is None:
            pool = self._pools[model] = _Pool(model, resources, scaling, target=scaling.least)
        pool.used_at = now
        return pool

    def _pool_of(self, actor: int) -> _Pool | None:
        return next((pool for pool in self._pools.values() if actor in pool.replicas), None)

    def _unused(self, pool: _Pool) -> bool:
        """Whether nobody waits for a model, and no actor of it has users."""
        if pool.kept or pool.waiting or pool.of(State.STARTING):
            return False
        return not any(each.report and each.report.users for each in pool.replicas.values())

    def _make_room(self) -> list[Action]:
        """Ends a model that nobody uses, if the node is full: the one that was used the longest ago."""
        if self.actors < self._settings.max_actors:
            return []
        unused = [pool for pool in self._pools.values() if pool.replicas and self._unused(pool)]
        if not unused:
            return []
        victim = min(unused, key=lambda pool: pool.used_at)
        del self._pools[victim.model]
        return [KillReplica(actor, "its place is needed") for actor in victim.replicas]

    def _answer(self, pool: _Pool) -> list[Action]:
        """Answers those for whom there is an actor."""
        ready = [each.number for each in pool.of(State.READY)]
        answers: list[Action] = []
        still = []
        for request in pool.waiting:
            members = tuple(actor for actor in ready if actor not in request.avoid)
            if members:
                answers.append(AnswerMembers(request.number, members))
            else:
                still.append(request)
        pool.waiting = still
        return answers

    def _tell(self, pool: _Pool, *, without: int | None = None) -> list[Action]:
        members = tuple(each.number for each in pool.of(State.READY) if each.number != without)
        leaving = tuple(each.number for each in pool.of(State.LEAVING))
        return [TellMembers(members, leaving)] if members or leaving else []

    def _refuse_broken(self, pool: _Pool, request: _Request, now: float) -> RefuseModel:
        reason = (
            f"actors for {pool.model.name} do not start ({pool.failures} times in a row):"
            f" {pool.reason}"
        )
        return RefuseModel(request.number, reason, False, max(pool.retry_at - now, 0.0))

    def _end_if_empty(self, pool: _Pool, replica: _Replica, now: float) -> list[Action]:
        report = replica.report
        if (report is None or report.users) and now < replica.since + LEAVE_SECS:
            return []
        del pool.replicas[replica.number]
        return [KillReplica(replica.number, "it has left")]

    def _start_needed(self, now: float) -> list[Action]:
        """Starts what pools lack, a few at a time."""
        if self._closed:
            return []
        begun: list[Action] = []
        starting = sum(len(pool.of(State.STARTING)) for pool in self._pools.values())
        for pool in self._pools.values():
            lacking = pool.target - self._reachable(pool) - len(pool.of(State.STARTING))
            if pool.failures:
                # One start at a time tells whether the trouble is over.
                lacking = min(lacking, 1 - len(pool.of(State.STARTING)))
            if now < pool.retry_at or not self._wanted(pool, now):
                lacking = 0
            room = min(
                self._settings.max_actors - self.actors, self._settings.max_starts - starting
            )
            for _ in range(min(lacking, room)):
                replica = _Replica(next(self._numbers), since=now)
                pool.replicas[replica.number] = replica
                starting += 1
                begun.append(StartReplica(replica.number, pool.model, pool.resources))
        return begun

    def _reachable(self, pool: _Pool) -> int:
        """How many are ready, without those that somebody who waits has lost: they may be dead."""
        lost = frozenset[int]().union(*(request.avoid for request in pool.waiting))
        return sum(each.number not in lost for each in pool.of(State.READY))

    def _wanted(self, pool: _Pool, now: float) -> bool:
        """Whether a model is used, or soon may be again."""
        return (
            pool.kept
            or bool(pool.waiting)
            or now - pool.used_at < self._settings.idle_secs
            or any(each.report and each.report.users for each in pool.replicas.values())
        )

    def _scale(self, pool: _Pool, now: float) -> list[Action]:
        """Changes how many actors a model has, if they have been too few or too many for long enough."""
        ready, scaling = pool.of(State.READY), pool.scaling
        reports = [each.report for each in ready if each.report is not None]
        if len(reports) < len(ready) or pool.of(State.STARTING):
            return []
        need = needed(reports, scaling)
        pool.high_since = (pool.high_since or now) if need > 0 else None
        pool.low_since = (pool.low_since or now) if need < 0 else None
        if pool.high_since is not None and now - pool.high_since >= scaling.up_secs:
            pool.target = min(len(ready) + 1, scaling.most)
            pool.high_since = None
        elif pool.low_since is not None and now - pool.low_since >= scaling.down_secs:
            pool.target = max(len(ready) - 1, scaling.least)
            pool.low_since = None
            if pool.target < len(ready):
                leaver = min(ready, key=_held)
                leaver.state, leaver.since = State.LEAVING, now
                return self._tell(pool)
        return []


def needed(reports: list[Report], scaling: Scaling) -> int:
    """Whether a model has too few actors (1), too many (-1), or neither (0).

    Args:
        reports: Of all that are ready; not empty.
        scaling: What too few and too many are.
    """
    number = len(reports)
    queue_secs = sum(report.queue_secs for report in reports) / number
    if number < scaling.most and (
        queue_secs > scaling.queue_secs or any(report.refused for report in reports)
    ):
        return 1
    busy = sum(report.busy for report in reports)
    if (
        number > scaling.least
        and queue_secs < scaling.queue_secs / 4
        and busy / (number - 1) < scaling.idle_share
    ):
        return -1
    return 0


def _held(replica: _Replica) -> tuple[int, int]:
    """What would have to move if an actor left; less is better."""
    report = replica.report or Report()
    return report.sessions, report.unanswered
