"""What keeps actors that do not work from taking a node down: pauses after failed starts and deaths.

Pure, as all that `antiphon_actors.pools` decides with: time is an argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from antiphon_actors.pool_types import PoolKey, PoolSettings, StartClass


@dataclass(slots=True)
class Breaker:
    """Failed starts in a row of one class of actors, and when the next may be tried."""

    failures: int = 0
    reason: str = ""
    retry_at: float = 0.0


class StartBreakers:
    """Pauses after failed starts, a breaker for each class of actors whose last start failed.

    Args:
        settings: How many failures in a row open one, and how long the pauses are.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        # Bounded by the requests that wait.
        self._breakers: dict[StartClass, Breaker] = {}

    def failed(self, start_class: StartClass, reason: str, now: float) -> None:
        """A start failed: pauses, for longer with each in a row."""
        breaker = self._breakers.setdefault(start_class, Breaker())
        breaker.failures += 1
        breaker.reason = reason
        pause = self._settings.backoff_first_secs * 2.0 ** min(breaker.failures - 1, 64)
        breaker.retry_at = now + min(pause, self._settings.backoff_limit_secs)

    def started(self, start_class: StartClass, now: float) -> None:
        """A start succeeded: others may follow.

        Only the actor's use shows that the trouble is over: it may die as soon as it has started.
        """
        breaker = self._breakers.get(start_class)
        if breaker is not None:
            breaker.retry_at = now

    def used(self, start_class: StartClass) -> None:
        """An actor of this class is put to use: the trouble is over."""
        self._breakers.pop(start_class, None)

    def limit(self, start_class: StartClass, count: int, under_way: int, now: float) -> int:
        """How many of `count` starts may begin now, with so many under way.

        After a failure one start at a time tells whether the trouble is over.
        """
        breaker = self._breakers.get(start_class)
        if breaker is None:
            return count
        return 0 if now < breaker.retry_at else min(count, 1 - under_way)

    def last_failed(self, start_class: StartClass) -> Breaker | None:
        """The breaker of a class whose last start failed."""
        return self._breakers.get(start_class)

    def is_broken(self, start_class: StartClass) -> bool:
        """Whether so many starts failed in a row that requests are refused."""
        breaker = self._breakers.get(start_class)
        return breaker is not None and breaker.failures >= self._settings.failures_to_open

    def is_open(self, start_class: StartClass, now: float) -> bool:
        """Whether requests for actors of this class are refused now."""
        return self.is_broken(start_class) and now < self._breakers[start_class].retry_at

    def due(self, now: float) -> list[float]:
        """When the pauses end that are not over.

        One that is over has been acted upon: its next start is under way, or not wanted.
        """
        return [b.retry_at for b in self._breakers.values() if b.retry_at > now]

    def statistics(self, now: float) -> list[dict[str, object]]:
        """Which actors do not start, and why, for tables."""
        return [
            {
                "role": str(role),
                "resources": dict(resources),
                "failures": breaker.failures,
                "open": self.is_open((role, resources), now),
                "retry_in_secs": max(breaker.retry_at - now, 0.0),
                "reason": breaker.reason,
            }
            for (role, resources), breaker in self._breakers.items()
        ]


@dataclass(slots=True)
class _Deaths:
    times: deque[float] = field(default_factory=deque)
    reason: str = ""


class DeathIntensity:
    """Kinds whose actors die again and again: no more are started until that has calmed down.

    Each death of an actor in use moves its sessions to others, so a processor that kills its process would go
    through all of a node's actors.

    Args:
        settings: How many deaths in which time are too many.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        # Only kinds with a death within the period.
        self._kinds: dict[PoolKey, _Deaths] = {}

    def died(self, key: PoolKey, reason: str, now: float) -> None:
        """An actor of a kind died in use."""
        deaths = self._kinds.setdefault(key, _Deaths())
        deaths.times.append(now)
        deaths.reason = reason
        while len(deaths.times) > self._settings.max_deaths:
            deaths.times.popleft()

    def retry_at(self, key: PoolKey, now: float) -> float | None:
        """When a kind that dies too often may be tried again; None if it may now."""
        self._forget(now)
        deaths = self._kinds.get(key)
        if deaths is None or len(deaths.times) < self._settings.max_deaths:
            return None
        return deaths.times[0] + self._settings.deaths_period_secs

    def reason(self, key: PoolKey) -> str:
        """Why the last one of a kind died."""
        return self._kinds[key].reason if key in self._kinds else ""

    def statistics(self, now: float) -> list[dict[str, object]]:
        """Which kinds have died lately, for tables."""
        self._forget(now)
        found: list[dict[str, object]] = []
        for key, deaths in self._kinds.items():
            retry_at = self.retry_at(key, now)
            found.append(
                {
                    "role": str(key.role),
                    "kind": key.kind,
                    "deaths": len(deaths.times),
                    "refused": retry_at is not None,
                    "retry_in_secs": max(retry_at - now, 0.0) if retry_at is not None else 0.0,
                    "reason": deaths.reason,
                }
            )
        return found

    def _forget(self, now: float) -> None:
        horizon = now - self._settings.deaths_period_secs
        for key, deaths in list(self._kinds.items()):
            while deaths.times and deaths.times[0] <= horizon:
                deaths.times.popleft()
            if not deaths.times:
                del self._kinds[key]
