"""What to do about processors that are lost: a state machine without I/O and without a clock.

The session's executor feeds it what happened, with the time, and performs the actions it returns.

A moment after the first loss, as what dies together is not noticed all at once, an attempt begins. At
most one is under way. It replaces all processors that were missing when it began; what is lost
meanwhile is for the next one. An attempt that fails is repeated after a pause, until too much time
has passed since the first loss. Losses that come too often end the session.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from antiphon_actors.placement.supervision import Supervision

DEADLINE_SECS = 10.0
"""How long after a loss attempts to replace the processor may begin."""

GATHER_SECS = 0.002
"""From the first loss to the first attempt."""

PAUSE_FIRST_SECS = 0.05
PAUSE_LIMIT_SECS = 1.0


class State(enum.StrEnum):
    """Where a session's recovery stands."""

    SOUND = "sound"
    REPLACING = "replacing"
    WAITING = "waiting"  # for the next attempt
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Replace:
    """Build these processors anew; answer with `replaced` or `failed`."""

    attempt: int
    pids: frozenset[int]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the session: nothing more is replaced."""

    reason: str


Action = Replace | GiveUp


@dataclass(frozen=True, slots=True)
class Recovered:
    """Processors are in their places again.

    Attributes:
        pids: Which.
        reason: What had become of the lost ones.
        secs: From the first loss on.
        attempts: How many it took.
    """

    pids: frozenset[int]
    reason: str
    secs: float
    attempts: int


@dataclass
class Group:
    """Processors under one supervision.

    Attributes:
        supervision: Its rules.
        pids: Those of them that run in actors, in pipeline order.
    """

    supervision: Supervision
    pids: tuple[int, ...]
    losses: deque[float] = field(default_factory=deque)


class Recovery:
    """The recovery of one session.

    Every method that takes `now` (seconds of any monotonic clock) returns the actions to perform.

    Attributes:
        state: Where it stands.
        missing: Processors that are lost and not replaced.
        history: What was recovered; the last 100.
        attempt: Number of the last attempt.
    """

    def __init__(self, groups: Sequence[Group], *, deadline_secs: float = DEADLINE_SECS) -> None:
        """Begins with all in their places.

        Args:
            groups: All processors in actors, each in one group.
            deadline_secs: See `DEADLINE_SECS`.
        """
        self._groups = groups
        self._deadline_secs = deadline_secs
        self.state = State.SOUND
        self.missing: set[int] = set()
        self.history: deque[Recovered] = deque(maxlen=100)
        self.attempt = 0
        self._replacing: frozenset[int] = frozenset()
        # Lost again, or only now, while an attempt is under way.
        self._more: set[int] = set()
        self._since = 0.0
        self._tries = 0
        self._retry_at = 0.0
        self._reason = ""

    def lost(self, pids: Iterable[int], reason: str, now: float) -> list[Action]:
        """Processors are gone.

        Args:
            pids: Which; those known to be missing are no news.
            reason: Why, for people.
            now: The time.
        """
        if self.state is State.OVER:
            return []
        news = self._news(pids)
        affected: set[int] = set()
        for group in self._groups:
            lost = [pid for pid in group.pids if pid in news]
            if not lost:
                continue
            if not self._may_replace(group, now):
                self.missing |= news
                return self._give_up(
                    f"lost {len(group.losses)} times within {group.supervision.within_secs:g} s:"
                    f" {reason}"
                )
            affected |= _affected(group, lost)
        return self._miss(affected, reason, now)

    def _miss(self, pids: set[int], reason: str, now: float) -> list[Action]:
        if not pids:
            return []
        self._reason = reason
        self.missing |= pids
        if self.state is State.SOUND:
            self._since, self._tries = now, 0
            self.state = State.WAITING
            self._retry_at = now + GATHER_SECS
        elif self.state is State.REPLACING:
            self._more |= pids
        return []

    def moved(self, pids: Iterable[int], reason: str, now: float) -> list[Action]:
        """Processors are to run elsewhere, though nothing has happened to them; never too often."""
        if self.state is State.OVER:
            return []
        return self._miss(self._news(pids), reason, now)

    def _news(self, pids: Iterable[int]) -> set[int]:
        """Those that are not known to be missing, other than as what is being replaced just now."""
        known = (self.missing - self._replacing) | self._more
        return {pid for pid in pids if pid not in known}

    def _may_replace(self, group: Group, now: float) -> bool:
        while group.losses and group.losses[0] <= now - group.supervision.within_secs:
            group.losses.popleft()
        group.losses.append(now)
        return len(group.losses) <= group.supervision.max_restarts

    def _begin(self) -> list[Action]:
        self.state = State.REPLACING
        self.attempt += 1
        self._tries += 1
        self._replacing = frozenset(self.missing)
        self._more.clear()
        return [Replace(self.attempt, self._replacing)]

    def replaced(self, attempt: int, now: float) -> list[Action]:
        """An attempt has succeeded."""
        if self.state is not State.REPLACING or attempt != self.attempt:
            return []
        done = self._replacing - self._more
        if done:
            secs = now - self._since
            self.history.append(Recovered(done, self._reason, secs, self._tries))
        self.missing = set(self._more)
        self._replacing = frozenset()
        self._more.clear()
        self.state = State.SOUND
        if self.missing:
            self._since, self._tries = now, 0
            self.state, self._retry_at = State.WAITING, now
        return []

    def failed(self, attempt: int, reason: str, now: float) -> list[Action]:
        """An attempt has failed; nothing of it is left."""
        if self.state is not State.REPLACING or attempt != self.attempt:
            return []
        self._replacing = frozenset()
        self._more.clear()
        pause = min(PAUSE_FIRST_SECS * 2.0 ** (self._tries - 1), PAUSE_LIMIT_SECS)
        if now + pause >= self._since + self._deadline_secs:
            return self._give_up(f"{self._reason}; and it could not be replaced: {reason}")
        self.state = State.WAITING
        self._retry_at = now + pause
        return []

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        if self.state is State.WAITING and now >= self._retry_at:
            return self._begin()
        return []

    def wake_at(self) -> float | None:
        """When `tick` is due next; None while nothing depends on time."""
        return self._retry_at if self.state is State.WAITING else None

    def end(self) -> None:
        """The session is over: nothing is replaced from now on."""
        self.state = State.OVER

    def _give_up(self, reason: str) -> list[Action]:
        self.state = State.OVER
        return [GiveUp(reason)]


def _affected(group: Group, lost: Sequence[int]) -> set[int]:
    match group.supervision.strategy:
        case "one_for_all":
            return set(group.pids)
        case "rest_for_one":
            return set(group.pids[group.pids.index(lost[0]) :])
        case _:
            return set(lost)
