"""Draining a node, a pool or an app: a state machine without I/O.

No new sessions come; those that are there end by themselves, or are moved in time; what is left at the
deadline is ended. Then the actors go. Time and what is left are told; what is to be done is returned.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

MOVE_SHARE = 0.5
"""After this share of the time, sessions that have not ended by themselves are moved."""

END_SECS = 10.0
"""How long sessions may take to end that are told to, at the deadline; then their actors are stopped."""

KEPT_DRAINS = 32
"""How many drains that are over are still told of."""


TargetKind = Literal["node", "pool", "app"]


@dataclass(frozen=True, slots=True)
class DrainTarget:
    """What is drained.

    Attributes:
        what: All of a node; the actors of one kind that there are now, which fresh ones replace; or the
            sessions of an app, or of one version of it.
        name: The node's id; the class of the processors, or the pool that a rule gives them; "APP" or
            "APP@VERSION".
    """

    what: TargetKind
    name: str

    def __str__(self) -> str:
        return f"the {self.what} {self.name}"


class DrainState(enum.StrEnum):
    """How far a drain is."""

    WAITING = "waiting"
    MOVING = "moving"
    ENDING = "ending"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """How a drain is getting on.

    Attributes:
        number: Names the drain.
        target: What is drained.
        reason: Why.
        state: Sessions may end by themselves; they are being moved; what was left at the deadline is being
            ended; it is over; it was called off.
        left_secs: Until the deadline.
        began_with: Sessions there were.
        sessions: Sessions there are.
        actors: Actors there are.
        moved: Sessions that were moved.
        cut: Sessions that were ended at the deadline.
    """

    number: int
    target: DrainTarget
    reason: str
    state: DrainState
    left_secs: float
    began_with: int
    sessions: int
    actors: int
    moved: int
    cut: int

    @property
    def over(self) -> bool:
        """Whether nothing more happens."""
        return self.state in (DrainState.DONE, DrainState.CANCELLED)

    def to_plain(self) -> dict[str, object]:
        """It as plain data, for tables."""
        return {**asdict(self), "target": str(self.target), "state": str(self.state)}


@dataclass(frozen=True, slots=True)
class CloseAdmission:
    """Let no new sessions in."""

    target: DrainTarget
    reason: str


@dataclass(frozen=True, slots=True)
class OpenAdmission:
    """Let new sessions in again."""

    target: DrainTarget


@dataclass(frozen=True, slots=True)
class RetireActors:
    """Let actors retire: their sessions move after a time, and at the deadline they are stopped."""

    actors: tuple[int, ...]
    reason: str
    move_after_secs: float
    stop_after_secs: float


@dataclass(frozen=True, slots=True)
class EndSessions:
    """End the sessions that are left in actors."""

    actors: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class DrainModels:
    """Let the node's models leave: whoever uses them from other nodes goes elsewhere."""


DrainAction = CloseAdmission | OpenAdmission | RetireActors | EndSessions | DrainModels


# The sessions of each actor, by the names under which they have their places.
Sessions = Mapping[int, Iterable[str]]


@dataclass(slots=True)
class _Drain:
    number: int
    target: DrainTarget
    reason: str
    deadline: float
    move_at: float
    state: DrainState = DrainState.WAITING
    # The actors it is about that have not gone, each with its sessions.
    actors: dict[int, set[str]] = field(default_factory=dict)
    # Those, and the others that it has ever been about.
    concerned: set[int] = field(default_factory=set)
    began_with: int = 0
    moved: int = 0
    cut: int = 0

    @property
    def sessions(self) -> int:
        """How many are left; a session has places in several actors."""
        return len(set().union(*self.actors.values()))


class Drains:
    """The drains of one node."""

    def __init__(self) -> None:
        self._drains: dict[int, _Drain] = {}
        self._numbers = itertools.count(1)

    # --- events ---------------------------------------------------------------------------------

    def begin(
        self,
        target: DrainTarget,
        actors: Sessions,
        *,
        deadline_secs: float,
        reason: str,
        now: float,
    ) -> tuple[int, list[DrainAction]]:
        """Something is to be drained; what is being drained already gets the earlier deadline.

        Args:
            target: What.
            actors: The actors it is about, with their sessions.
            deadline_secs: How long its sessions may take.
            reason: Why, for people.
            now: The time.

        Returns:
            The drain's number, and what is to be done.
        """
        found = next((d for d in self._active() if d.target == target), None)
        deadline = now + deadline_secs
        if found is None:
            self._forget_old()
            found = _Drain(next(self._numbers), target, reason, deadline, deadline)
            self._drains[found.number] = found
        found.deadline = min(found.deadline, deadline)
        found.move_at = min(found.move_at, now + (found.deadline - now) * MOVE_SHARE)
        actions: list[DrainAction] = []
        if target.what != "pool":
            # A pool's new sessions get fresh actors.
            actions.append(CloseAdmission(target, f"{target} is being drained: {reason}"))
        actions += self._take(found, actors, now)
        found.began_with = max(found.began_with, found.sessions)
        return found.number, actions + self.tick(now)

    def counted(self, actors: Sessions, now: float) -> list[DrainAction]:
        """Says which sessions each actor of the node has; actors that are not named are gone."""
        actions: list[DrainAction] = []
        for drain in self._active():
            drain.actors = {
                number: _bases(actors[number]) for number in drain.actors if number in actors
            }
            if drain.target.what == "node":
                # A session that is here to its end may have got another actor.
                fresh = {
                    number: names for number, names in actors.items() if number not in drain.actors
                }
                actions += self._take(drain, fresh, now) if fresh else []
        return actions + self.tick(now)

    def _take(self, drain: _Drain, actors: Sessions, now: float) -> list[DrainAction]:
        drain.actors.update({number: _bases(names) for number, names in actors.items()})
        drain.concerned.update(actors)
        if not drain.actors:
            return []
        retiring = RetireActors(
            tuple(drain.actors),
            f"{drain.target} is being drained",
            move_after_secs=max(drain.move_at - now, 0.0),
            stop_after_secs=max(drain.deadline - now, 0.0) + END_SECS,
        )
        return [retiring]

    def moved(self, actor: int, sessions: int) -> None:
        """So many sessions have been moved off an actor, which may have gone with the last."""
        for drain in self._drains.values():
            if actor in drain.concerned:
                drain.moved += sessions

    def cancel(self, number: int) -> list[DrainAction]:
        """Calls a drain off, or what it has left closed: new sessions are let in.

        Actors that retire already still go.

        Raises:
            LookupError: There is no such drain.
        """
        drain = self._drains.get(number)
        if drain is None or drain.state is DrainState.CANCELLED:
            raise LookupError(f"there is no drain {number}")
        drain.state = DrainState.CANCELLED
        return [OpenAdmission(drain.target)] if drain.target.what != "pool" else []

    def tick(self, now: float) -> list[DrainAction]:
        """Time has passed."""
        actions: list[DrainAction] = []
        for drain in self._active():
            if not drain.actors:
                drain.state = DrainState.DONE
                actions += _models_leave(drain)
            elif drain.deadline <= now and drain.state is not DrainState.ENDING:
                drain.state = DrainState.ENDING
                drain.cut = drain.sessions
                reason = f"{drain.target} was drained: {drain.reason}"
                actions.append(EndSessions(tuple(drain.actors), reason))
                actions += _models_leave(drain)
            elif drain.move_at <= now and drain.state is DrainState.WAITING:
                drain.state = DrainState.MOVING
        return actions

    # --- questions ------------------------------------------------------------------------------

    def wake_at(self) -> float | None:
        """When `tick` is due next."""
        times = [d.deadline for d in self._active() if d.state is not DrainState.ENDING]
        times += [d.move_at for d in self._active() if d.state is DrainState.WAITING]
        return min(times, default=None)

    @property
    def active(self) -> bool:
        """Whether one is under way."""
        return bool(self._active())

    def progress(self, now: float) -> list[DrainProgress]:
        """How all of them are getting on, and the last of those that are over."""
        return [
            DrainProgress(
                number=drain.number,
                target=drain.target,
                reason=drain.reason,
                state=drain.state,
                left_secs=max(drain.deadline - now, 0.0),
                began_with=drain.began_with,
                sessions=drain.sessions,
                actors=len(drain.actors),
                moved=drain.moved,
                cut=drain.cut,
            )
            for drain in self._drains.values()
        ]

    def kept(self) -> list[tuple[DrainTarget, str, float]]:
        """What has to be begun again after a restart: targets, reasons and deadlines.

        A node or an app that was drained stays closed.
        """
        active = self._active()
        return [
            (drain.target, drain.reason, drain.deadline)
            for drain in self._drains.values()
            if drain in active
            or (drain.target.what != "pool" and drain.state is not DrainState.CANCELLED)
        ]

    def _active(self) -> list[_Drain]:
        over = (DrainState.DONE, DrainState.CANCELLED)
        return [drain for drain in self._drains.values() if drain.state not in over]

    def _forget_old(self) -> None:
        done = [number for number, drain in self._drains.items() if drain not in self._active()]
        for number in done[: max(len(done) - KEPT_DRAINS + 1, 0)]:
            del self._drains[number]


def _models_leave(drain: _Drain) -> list[DrainAction]:
    """Last of all: the sessions of the node have used them until now."""
    return [DrainModels()] if drain.target.what == "node" else []


def _bases(names: Iterable[str]) -> set[str]:
    """The sessions that places belong to, which have the names of sessions and of their parts."""
    return {name.partition("/")[0] for name in names}
