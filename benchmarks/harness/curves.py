"""How lateness grows with the number of sessions, up to where it breaks."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Point:
    """What so many sessions came to.

    Attributes:
        sessions: How many.
        p50_ms: Median lateness; lost frames are late for ever.
        p99_ms: What 99 of 100 frames do not exceed.
        p999_ms: What 999 of 1,000 frames do not exceed.
        cpu_cores: Cores that the measured processes kept busy, all together.
        other_cores: Cores that everything else on the machine kept busy meanwhile.
        lost: Frames that did not come within a second after the last was sent.
    """

    sessions: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    cpu_cores: float = 0.0
    other_cores: float = 0.0
    lost: int = 0

    def to_plain(self) -> dict[str, Any]:
        """For JSON, which has no infinity: nothing in its place."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}


@dataclass
class Curve:
    """The points of one contestant.

    Attributes:
        contestant: Its name.
        limit_ms: Which lateness 99 of 100 frames must not exceed.
        points: In the order they were measured.
        ended: Why it is not known where it breaks; empty if it is.
    """

    contestant: str
    limit_ms: float
    points: list[Point] = field(default_factory=list)
    ended: str = ""

    def ordered(self) -> list[Point]:
        """The points by the number of sessions."""
        return sorted(self.points, key=lambda point: point.sessions)

    def is_good(self, point: Point) -> bool:
        """Whether so many sessions are in time."""
        return point.p99_ms <= self.limit_ms

    @property
    def broke_at(self) -> int:
        """The smallest number of sessions that were late; 0 if none was."""
        return min((p.sessions for p in self.points if not self.is_good(p)), default=0)

    @property
    def best(self) -> Point | None:
        """The most sessions in time, with no fewer that were late."""
        late = self.broke_at or math.inf
        good = [p for p in self.points if self.is_good(p) and p.sessions < late]
        return max(good, key=lambda point: point.sessions, default=None)

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "limit_ms": self.limit_ms,
            "breaks_at_sessions": self.broke_at or None,
            "ended": self.ended,
            "points": [point.to_plain() for point in self.ordered()],
        }


@dataclass(frozen=True)
class Effort:
    """How thoroughly a curve is measured.

    Attributes:
        most: Sessions with which it ends if nothing breaks.
        factor: By which their number grows.
        refinements: How often the doubt about where it breaks is halved.
        secs: After which no further point is begun.
    """

    most: int
    factor: int
    refinements: int
    secs: float


# Measures so many sessions, again if they were late; nothing if so many cannot be had.
Measure = Callable[[int, bool], Awaitable[Point | None]]
ATTEMPTS = 3
# Cores that everything else on the machine may have kept busy.
UNDISTURBED_CORES = 0.25


async def explore(curve: Curve, measure: Measure, effort: Effort) -> None:
    """Multiplies the number of sessions until they are late, then halves the doubt.

    Sessions that are late are measured once more, or twice if the machine did other things then, and
    the best counts: what it does beside for a moment breaks nobody.

    Args:
        curve: Gets the points.
        measure: Measures one.
        effort: How thoroughly.
    """
    limit = time.monotonic() + effort.secs

    async def add(sessions: int) -> Point | None:
        point: Point | None = None
        for attempt in range(ATTEMPTS):
            new = await measure(sessions, attempt > 0)
            if new is None:
                break
            if point is None or new.p99_ms < point.p99_ms:
                point = new
            undisturbed = new.other_cores <= UNDISTURBED_CORES
            if curve.is_good(new) or (attempt and undisturbed) or time.monotonic() > limit:
                break
        if point is None:
            curve.ended = f"{sessions} sessions cannot be had"
        else:
            curve.points.append(point)
        return point

    sessions = 1
    while True:
        point = await add(sessions)
        if point is None or not curve.is_good(point):
            break
        if sessions >= effort.most:
            curve.ended = f"the search ends at {sessions} sessions"
            break
        if time.monotonic() > limit:
            curve.ended = f"the time ends at {sessions} sessions"
            break
        sessions = min(sessions * effort.factor, effort.most)
    for _ in range(effort.refinements):
        good = curve.best.sessions if curve.best else 0
        middle = (good + curve.broke_at) // 2
        if middle <= good or time.monotonic() > limit or await add(middle) is None:
            break
