"""How a session ends, whatever resists: a state machine without I/O and without a clock.

Its shell (`antiphon.pipeline.ender`) feeds it what happened, with the time, and carries out what it
returns. It is a ladder: each rung has a limit, and what is not done by then is left to the next, harder one.

1. A CancelFrame crosses the pipeline.
2. The processors are cleaned up. A pipeline that ends by itself begins here, with more time.
3. The session's tasks are cancelled, again and again; cleaning up goes on.
4. Cleaning up is cut short, streams are aborted and actors are left to their agent.
5. What is left is closed by force, and the session is over.

All limits of a cancellation are shares of one time, counted from its beginning: so it is over within that
time, on whatever rung it finds the session.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

DWELL_SECS = 0.05
"""Time that each rung gets at least, though its limit may have passed while the thread was blocked."""

LATE_SECS = 0.02
"""From so much delay on the thread counts as blocked: the rung gets `DWELL_SECS` more, once."""


class Rung(enum.StrEnum):
    """How far the end of a session has come."""

    RUNNING = "running"
    CROSSING = "crossing"  # the CancelFrame
    CLEANING = "cleaning"
    CUTTING = "cutting"
    ABORTING = "aborting"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Shares:
    """Up to which part of a cancellation's time each rung lasts.

    Attributes:
        crossing: The CancelFrame crosses the pipeline.
        cleaning: Processors are cleaned up.
        cutting: Tasks are cancelled.
        aborting: Nobody is waited for who does not answer at once.
    """

    crossing: float = 0.35
    cleaning: float = 0.55
    cutting: float = 0.7
    aborting: float = 0.85  # what is left is for a machine that is busy


@dataclass(frozen=True, slots=True)
class PushCancel:
    """Let a CancelFrame cross the pipeline; answer with `crossed`."""


@dataclass(frozen=True, slots=True)
class CleanUp:
    """End what drives the pipeline and clean it up; answer with `cleaned`.

    Attributes:
        crossed: Whether the frame that ends the pipeline has crossed it.
    """

    crossed: bool


@dataclass(frozen=True, slots=True)
class CancelTasks:
    """Cancel what the session runs, again and again; `cleaned` may still come.

    Attributes:
        until: When the session is to be over.
    """

    until: float


@dataclass(frozen=True, slots=True)
class Abort:
    """Give up what has not ended; answer with `aborted`.

    Attributes:
        until: When nobody waits for that any more.
    """

    until: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The session is over; close what is left by force, if anything is.

    Attributes:
        by_force: Whether something had to be given up.
    """

    by_force: bool


Action = PushCancel | CleanUp | CancelTasks | Abort | Finish


class Ending:
    """The end of one session, or of its part in a process.

    Every event takes `now` (seconds of any monotonic clock) and returns the actions to carry out.

    Attributes:
        rung: Where it stands.
        cancelled: Whether it was cancelled.
    """

    def __init__(
        self,
        *,
        cancel_secs: float,
        clean_up_secs: float,
    ) -> None:
        """Begins with a session that runs.

        Args:
            cancel_secs: How long a cancellation may take in all.
            clean_up_secs: How long cleaning up may take if the session ends by itself.
        """
        self.rung = Rung.RUNNING
        self.cancelled = False
        self._cancel_secs = cancel_secs
        self._clean_up_secs = clean_up_secs
        self._shares = Shares()
        self._limits: dict[Rung, float] = {}
        self._due: float | None = None
        self._prolonged = False

    def cancel(self, now: float, *, flows: bool, secs: float | None = None) -> list[Action]:
        """Somebody wants the session to be over.

        Args:
            now: The time.
            flows: Whether frames flow, so that a CancelFrame can cross.
            secs: How long that may take in all, if it is to be otherwise than usual.
        """
        if self.cancelled or self.rung is Rung.OVER:
            return []
        self.cancelled = True
        total, shares = self._cancel_secs if secs is None else secs, self._shares
        self._limit(Rung.CROSSING, now + shares.crossing * total)
        self._limit(Rung.CLEANING, now + shares.cleaning * total)
        self._limit(Rung.CUTTING, now + shares.cutting * total)
        self._limit(Rung.ABORTING, now + shares.aborting * total)
        if self.rung is not Rung.RUNNING:
            # It is ending already: that has less time from now on.
            self._enter(self.rung, now)
            return []
        if flows:
            self._enter(Rung.CROSSING, now)
            return [PushCancel()]
        return self._clean_up(now, crossed=True)

    def crossed(self, now: float) -> list[Action]:
        """The CancelFrame has crossed the pipeline."""
        return self._clean_up(now, crossed=True) if self.rung is Rung.CROSSING else []

    def ended(self, now: float) -> list[Action]:
        """The pipeline has ended by itself, or could not begin."""
        if self.rung is not Rung.RUNNING:
            return []
        limit = now + self._clean_up_secs
        for rung, share in (
            (Rung.CLEANING, 0.0),
            (Rung.CUTTING, self._shares.cutting - self._shares.cleaning),
            (Rung.ABORTING, self._shares.aborting - self._shares.cutting),
        ):
            limit += share * self._cancel_secs
            self._limit(rung, limit)
        return self._clean_up(now, crossed=True)

    def cleaned(self, now: float, *, left: bool) -> list[Action]:
        """Cleaning up is done.

        Args:
            now: The time.
            left: Whether tasks of the session still run.
        """
        if self.rung not in (Rung.CLEANING, Rung.CUTTING):
            return []
        if not left:
            return self._finish(by_force=False)
        if self.rung is Rung.CUTTING:
            return []
        return self._cut(now) if self.cancelled else self._finish(by_force=False)

    def aborted(self, now: float) -> list[Action]:
        """What was to be aborted has ended."""
        return self._finish(by_force=True) if self.rung is Rung.ABORTING else []

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        if self._due is None or now < self._due:
            return []
        if now > self._due + LATE_SECS and not self._prolonged:
            # Nothing could run meanwhile, so nothing could end in time.
            self._prolonged = True
            self._due = now + DWELL_SECS
            return []
        match self.rung:
            case Rung.CROSSING:
                return self._clean_up(now, crossed=False)
            case Rung.CLEANING:
                return self._cut(now)
            case Rung.CUTTING:
                self._enter(Rung.ABORTING, now)
                assert self._due is not None
                return [Abort(self._due)]
            case _:
                return self._finish(by_force=True)

    def wake_at(self) -> float | None:
        """When `tick` is due; None while nothing depends on time."""
        return self._due

    # -- inside --------------------------------------------------------------------------------

    def _limit(self, rung: Rung, at: float) -> None:
        self._limits[rung] = min(at, self._limits.get(rung, at))

    def _enter(self, rung: Rung, now: float) -> None:
        self.rung = rung
        self._prolonged = False
        self._due = max(self._limits[rung], now + DWELL_SECS)

    def _clean_up(self, now: float, *, crossed: bool) -> list[Action]:
        self._enter(Rung.CLEANING, now)
        return [CleanUp(crossed)]

    def _cut(self, now: float) -> list[Action]:
        self._enter(Rung.CUTTING, now)
        assert self._due is not None
        return [CancelTasks(max(self._limits[Rung.ABORTING], self._due + DWELL_SECS))]

    def _finish(self, *, by_force: bool) -> list[Action]:
        self.rung = Rung.OVER
        self._due = None
        return [Finish(by_force)]
