"""How the actors of a node are, and which of them must go: a state machine without I/O.

It is fed signs of life and what was found out about actors that gave none, each with its time, and returns
what to do. Healthy, an actor becomes suspicious when it is slow or silent; then it is looked at. Isolated, it
gets no more sessions and those it has are moved off (`antiphon_actors.retirement`); with the last it ends.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from antiphon_actors.pool_types import PoolSettings, Role
from antiphon_actors.pulse import Pulse

SLOW_SHARE = 0.5
"""From this share of `max_lag_ms` on an actor is slow."""

SLOW_TIMES = 5
SLOW_PERIOD_SECS = 10.0
"""An actor that was slow so many times within this time is isolated."""

LOOK_AGAIN_SECS = 5.0
"""How often one that is silent, but found well, is looked at."""

ISOLATIONS = 5
ISOLATIONS_PERIOD_SECS = 60.0
"""A kind of which so many actors got stuck or slow within this time is so by nature: to move what it does to
other actors again and again would help nobody."""

PATIENCE = 10.0
"""How many times longer than others an actor may do nothing that begins, or is of such a kind."""


class Use(Protocol):
    """What is asked about an actor's use (`NodePools`)."""

    def served(self, actor: int) -> int:
        """How many places in it have been given away, ever."""

    def assigned_at(self, actor: int) -> float:
        """When the last one was."""

    def kind_of(self, actor: int) -> str:
        """What it serves; empty while it serves nobody."""

    def is_pooled(self, actor: int) -> bool:
        """Whether it may be replaced for its age: not one that serves a single session."""


class Condition(enum.StrEnum):
    """How an actor is."""

    HEALTHY = "healthy"
    SUSPICIOUS = "suspicious"
    ISOLATED = "isolated"


class Reason(enum.StrEnum):
    """Why an actor has to go."""

    STUCK = "stuck"
    SLOW = "slow"
    WORN = "worn"
    GROWN = "grown"
    LEAVING = "leaving"
    DRAINED = "drained"

    @property
    def planned(self) -> bool:
        """Whether it serves well until it goes, so that there is no hurry."""
        return self in (Reason.WORN, Reason.GROWN)


# What makes an actor go sooner than it was to go already.
_URGENCY = {
    Reason.WORN: 0,
    Reason.GROWN: 0,
    Reason.SLOW: 1,
    Reason.DRAINED: 1,
    Reason.LEAVING: 2,
    Reason.STUCK: 3,
}


class Finding(enum.Enum):
    """What looking at an actor has shown."""

    ALIVE = "alive"
    STUCK = "stuck"
    FROZEN = "frozen"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Examine:
    """Find out how an actor is; answer with `examined`."""

    actor: int


@dataclass(frozen=True, slots=True)
class Isolate:
    """Give an actor no more sessions, and move off those it has."""

    actor: int
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Destroy:
    """Kill an actor that does nothing any more; it counts as one that died."""

    actor: int
    text: str


HealthAction = Examine | Isolate | Destroy


@dataclass(slots=True)
class ActorRecord:
    """What is known about the health of an actor.

    Attributes:
        role: What runs in it.
        condition: How it is.
        reason: Why it goes; None as long as it need not.
        text: What is wrong with it; empty while it is healthy.
        heard_at: When its last sign of life came.
        lag_ms: As that one said, as for `memory_bytes`.
        memory_bytes: Its memory.
        settled_bytes: The memory from which on it grows; None as long as it warms up.
        slow: When it was slow lately.
        look_at: When it is to be looked at, if it stays silent.
        looking: It is being looked at.
    """

    role: Role
    condition: Condition = Condition.HEALTHY
    reason: Reason | None = None
    text: str = ""
    heard_at: float = 0.0
    lag_ms: float = 0.0
    memory_bytes: int = 0
    settled_bytes: int | None = None
    slow: deque[float] = field(default_factory=lambda: deque(maxlen=SLOW_TIMES))
    look_at: float = 0.0
    looking: bool = False

    @property
    def growth_bytes(self) -> int:
        """What it has gained since it had settled."""
        return self.memory_bytes - self.settled_bytes if self.settled_bytes is not None else 0


class NodeHealth:
    """The health of the actors of one node.

    Args:
        settings: What is too slow, too silent, too large.
        use: What the actors are used for.
    """

    def __init__(self, settings: PoolSettings, use: Use) -> None:
        self._settings = settings
        self._use = use
        self._records: dict[int, ActorRecord] = {}
        # When actors of a kind got stuck or slow; bounded by the kinds that did lately.
        self._isolations: dict[str, deque[float]] = {}
        # The one that goes according to plan: never two at a time.
        self._planned: int | None = None

    # --- events ---------------------------------------------------------------------------------

    def joined(self, actor: int, role: Role, now: float) -> None:
        """An actor is ready to work."""
        due = now + self._settings.max_silence_secs
        self._records[actor] = ActorRecord(role, heard_at=now, look_at=due)

    def left(self, actor: int) -> None:
        """An actor is gone."""
        self._records.pop(actor, None)
        if self._planned == actor:
            self._planned = None

    def isolated(self, actor: int, reason: Reason, text: str) -> None:
        """Somebody else has decided that an actor goes."""
        record = self._records.get(actor)
        if record is not None:
            self._mark(record, reason, text)

    def pulse(self, actor: int, pulse: Pulse, now: float) -> list[HealthAction]:
        """A sign of life came; unknown actors are ignored."""
        record = self._records.get(actor)
        if record is None:
            return []
        record.heard_at = now
        record.look_at = now + self._settings.max_silence_secs
        record.lag_ms = pulse.lag_ms
        record.memory_bytes = pulse.memory_bytes
        served = self._use.served(actor)
        if served < self._settings.settled_sessions:
            record.settled_bytes = None
        elif record.settled_bytes is None:
            record.settled_bytes = pulse.memory_bytes
        if pulse.leaving:
            return self._isolate(actor, Reason.LEAVING, "it was told to end")
        limit_ms = self._settings.max_lag_ms
        patience = self._patience(actor, now)
        if pulse.lag_ms >= limit_ms * patience:
            text = _late(pulse, f"for {pulse.lag_ms:.0f} ms already")
            return self._isolate_sick(actor, Reason.STUCK, text, now)
        if pulse.lag_ms >= limit_ms * SLOW_SHARE:
            return self._slow(actor, record, pulse, now, counts=patience == 1.0)
        if record.condition is Condition.SUSPICIOUS and not self._was_slow(record, now):
            record.condition, record.text = Condition.HEALTHY, ""
        return self._worn_out(actor, record, served)

    def suspected(self, actor: int, text: str, now: float) -> list[HealthAction]:
        """Somebody finds an actor silent."""
        record = self._records.get(actor)
        if record is None:
            return []
        if record.condition is Condition.HEALTHY:
            record.condition, record.text = Condition.SUSPICIOUS, text
        return self._look(actor, record)

    def examined(self, actor: int, finding: Finding, text: str, now: float) -> list[HealthAction]:
        """An actor was looked at."""
        record = self._records.get(actor)
        if record is None:
            return []
        record.looking = False
        record.look_at = now + LOOK_AGAIN_SECS
        match finding:
            case Finding.ALIVE:
                return []
            case Finding.STUCK:
                if self._patience(actor, now) > 1.0:
                    # Its pulses say so if it stays stuck.
                    return []
                return self._isolate_sick(
                    actor, Reason.STUCK, text or "its event loop does nothing", now
                )
            case Finding.FROZEN:
                return [Destroy(actor, text or "its process does nothing")]
            case Finding.DEAD:
                return [Destroy(actor, text or "its process is gone")]

    def tick(self, now: float) -> list[HealthAction]:
        """Time has passed."""
        actions: list[HealthAction] = []
        for actor, record in self._records.items():
            if not record.looking and record.look_at <= now:
                silent = f"no sign of life for {now - record.heard_at:.1f} s"
                if record.condition is Condition.HEALTHY:
                    record.condition, record.text = Condition.SUSPICIOUS, silent
                actions += self._look(actor, record)
        return actions

    # --- questions ------------------------------------------------------------------------------

    def wake_at(self) -> float | None:
        """When `tick` is due next."""
        return min((r.look_at for r in self._records.values() if not r.looking), default=None)

    def record(self, actor: int) -> ActorRecord | None:
        """What is known about an actor."""
        return self._records.get(actor)

    # --- decisions ------------------------------------------------------------------------------

    def _isolate(self, actor: int, reason: Reason, text: str) -> list[HealthAction]:
        marked = self._mark(self._records[actor], reason, text)
        return [Isolate(actor, reason, text)] if marked else []

    @staticmethod
    def _mark(record: ActorRecord, reason: Reason, text: str) -> bool:
        """Notes that an actor goes; whether that is news, or more urgent than it was."""
        if record.reason is not None and _URGENCY[reason] <= _URGENCY[record.reason]:
            return False
        record.condition, record.reason, record.text = Condition.ISOLATED, reason, text
        return True

    def _isolate_sick(
        self, actor: int, reason: Reason, text: str, now: float
    ) -> list[HealthAction]:
        actions = self._isolate(actor, reason, text)
        if actions:
            kind = self._use.kind_of(actor)
            self._isolations.setdefault(kind, deque(maxlen=ISOLATIONS)).append(now)
        return actions

    def _patience(self, actor: int, now: float) -> float:
        """How much longer than others an actor may be slow."""
        for kind, times in list(self._isolations.items()):
            if now - times[-1] > ISOLATIONS_PERIOD_SECS:
                del self._isolations[kind]
        times = self._isolations.get(self._use.kind_of(actor), deque())
        by_nature = len(times) == ISOLATIONS and now - times[0] <= ISOLATIONS_PERIOD_SECS
        begins = now - self._use.assigned_at(actor) <= self._settings.begin_secs
        return PATIENCE if by_nature or begins else 1.0

    def _slow(
        self, actor: int, record: ActorRecord, pulse: Pulse, now: float, *, counts: bool
    ) -> list[HealthAction]:
        if counts:
            record.slow.append(now)
        if counts and len(record.slow) == SLOW_TIMES and now - record.slow[0] <= SLOW_PERIOD_SECS:
            often = f"{SLOW_TIMES} times in {now - record.slow[0]:.0f} s"
            return self._isolate_sick(actor, Reason.SLOW, _late(pulse, often), now)
        if record.condition is Condition.HEALTHY:
            record.condition = Condition.SUSPICIOUS
            record.text = _late(pulse, f"for {pulse.lag_ms:.0f} ms")
        return []

    def _was_slow(self, record: ActorRecord, now: float) -> bool:
        return bool(record.slow) and now - record.slow[-1] <= SLOW_PERIOD_SECS

    def _worn_out(self, actor: int, record: ActorRecord, served: int) -> list[HealthAction]:
        if self._planned is not None or not self._use.is_pooled(actor):
            return []
        limit, growth = self._settings.max_sessions_per_actor, self._settings.max_growth_bytes
        actions: list[HealthAction] = []
        if 0 < limit <= served:
            actions = self._isolate(actor, Reason.WORN, f"it has served {served} sessions")
        elif 0 < growth <= record.growth_bytes:
            grown = f"it has grown by {record.growth_bytes / 1e6:.0f} MB"
            actions = self._isolate(actor, Reason.GROWN, grown)
        if actions:
            self._planned = actor
        return actions

    def _look(self, actor: int, record: ActorRecord) -> list[HealthAction]:
        if record.looking:
            return []
        record.looking = True
        return [Examine(actor)]


def _late(pulse: Pulse, how: str) -> str:
    doing = f", in {pulse.doing}" if pulse.doing else ""
    return f"its event loop is stuck {how}{doing}"
