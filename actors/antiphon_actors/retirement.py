"""How actors that have to go lose their sessions: a state machine without I/O.

An actor that retires gets no more sessions already (`NodePools.retire`) and ends when it has none. What is
decided here is when those it has are moved, and when it is stopped although it has some left.
"""

from __future__ import annotations

from dataclasses import dataclass

from antiphon_actors.health import Reason
from antiphon_actors.pool_types import PoolSettings, Role

MOVE_SECS = 5.0
"""How long a session may take to move where nothing hurries."""

RETRY_SECS = 5.0
"""Pause after a try that has left sessions where they are."""

STUCK_SUPERVISOR_SECS = 10.0
"""How long a supervisor may do nothing before it is killed: nothing but its end moves its sessions."""

LEAVE_SECS = 20.0
"""How long the sessions of an actor that was told to end may stay; who told it kills it in the end."""


@dataclass(frozen=True, slots=True)
class Plan:
    """When the sessions of an actor have to be gone.

    Attributes:
        move_after_secs: Until then they may end by themselves.
        move_secs: How long a try to move them may take.
        stop_after_secs: Then it is stopped, with what is left; None for never.
        stop_when_tried: It is stopped after the first try, as what is left has nothing to hope for.
    """

    move_after_secs: float
    move_secs: float
    stop_after_secs: float | None
    stop_when_tried: bool = False


def plan_for(reason: Reason, role: Role, settings: PoolSettings, *, resumable: bool) -> Plan:
    """Says how an actor goes.

    Args:
        reason: Why it goes.
        role: What runs in it.
        settings: Of the pools.
        resumable: Whether a session goes on if its supervisor is killed. Where it does not, a supervisor
            that is stuck is left alone: it may recover.
    """
    if reason.planned or reason is Reason.SLOW:
        return Plan(
            settings.recycle_patience_secs if reason.planned else 0.0,
            MOVE_SECS,
            stop_after_secs=None,
        )
    if reason is Reason.LEAVING:
        return Plan(0.0, MOVE_SECS, LEAVE_SECS)
    if role is Role.SUPERVISOR:
        # It cannot hand anything over, because it does nothing.
        stop = STUCK_SUPERVISOR_SECS if resumable else None
        return Plan(STUCK_SUPERVISOR_SECS, MOVE_SECS, stop)
    return Plan(0.0, settings.evacuate_secs, settings.evacuate_secs, stop_when_tried=True)


@dataclass(frozen=True, slots=True)
class Move:
    """Have the sessions of an actor moved off it; answer with `moved`."""

    actor: int
    text: str
    deadline_secs: float


@dataclass(frozen=True, slots=True)
class Stop:
    """End an actor with the sessions it still has; they find that it died."""

    actor: int
    text: str


RetirementAction = Move | Stop


@dataclass(slots=True)
class _Going:
    text: str
    move_at: float
    move_secs: float
    stop_at: float | None
    stop_when_tried: bool
    moving: bool = False


class Retirements:
    """The actors of a node that are to go and have not gone."""

    def __init__(self) -> None:
        self._going: dict[int, _Going] = {}

    def begin(self, actor: int, text: str, plan: Plan, now: float) -> list[RetirementAction]:
        """An actor is to go; for one that goes already the earlier times count."""
        stop_at = now + plan.stop_after_secs if plan.stop_after_secs is not None else None
        move_at = now + plan.move_after_secs
        found = self._going.get(actor)
        if found is None:
            self._going[actor] = _Going(
                text, move_at, plan.move_secs, stop_at, plan.stop_when_tried
            )
        else:
            found.stop_when_tried |= plan.stop_when_tried
            found.move_at = min(found.move_at, move_at)
            if stop_at is not None and (found.stop_at is None or stop_at < found.stop_at):
                found.stop_at, found.text = stop_at, text
        return self.tick(now)

    def moved(self, actor: int, now: float) -> list[RetirementAction]:
        """A try is over; an actor that has lost its last session with it is `gone` already."""
        found = self._going.get(actor)
        if found is not None:
            found.moving = False
            found.move_at = now + RETRY_SECS
            if found.stop_when_tried:
                found.stop_at = now
        return self.tick(now)

    def gone(self, actor: int) -> None:
        """An actor is gone."""
        self._going.pop(actor, None)

    def tick(self, now: float) -> list[RetirementAction]:
        """Time has passed."""
        actions: list[RetirementAction] = []
        for actor, going in list(self._going.items()):
            if going.stop_at is not None and going.stop_at <= now:
                del self._going[actor]
                actions.append(Stop(actor, going.text))
            elif not going.moving and going.move_at <= now:
                going.moving = True
                left = going.stop_at - now if going.stop_at is not None else going.move_secs
                actions.append(Move(actor, going.text, min(going.move_secs, left)))
        return actions

    def wake_at(self) -> float | None:
        """When `tick` is due next."""
        times = [g.move_at for g in self._going.values() if not g.moving]
        times += [g.stop_at for g in self._going.values() if g.stop_at is not None]
        return min(times, default=None)

    def __contains__(self, actor: int) -> bool:
        return actor in self._going
