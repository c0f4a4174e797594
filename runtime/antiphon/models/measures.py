"""What a model counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# Upper ends of the classes that durations are counted in, in seconds: 1/16 ms, then twice as much each.
_CLASSES = (*(2.0**power / 16e3 for power in range(24)), math.inf)
_LAST = len(_CLASSES) - 1


class Durations:
    """Durations by their size.

    Attributes:
        count: How many.
        total: Their sum in seconds.
        longest: The longest in seconds.
    """

    __slots__ = ("_classes", "count", "longest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.longest = 0.0
        self._classes = [0] * len(_CLASSES)

    def add(self, secs: float) -> None:
        """Counts one; less than nothing counts as nothing."""
        if secs < 0.0:
            secs = 0.0
        self.count += 1
        self.total += secs
        if secs > self.longest:
            self.longest = secs
        place = int(secs * 16e3).bit_length()
        self._classes[min(_LAST, place)] += 1

    def quantile(self, q: float) -> float:
        """The upper end, in seconds, of the class in which a part ``q`` of them has been counted."""
        rest = q * self.count
        for end, number in zip(_CLASSES, self._classes, strict=True):
            rest -= number
            if rest <= 0:
                return min(end, self.longest)
        return self.longest

    def to_plain(self) -> dict[str, float]:
        """For tables and metrics, in milliseconds; quantiles to within a factor of two."""
        return {
            "count": self.count,
            "mean_ms": 1e3 * self.total / self.count if self.count else 0.0,
            "p50_ms": 1e3 * self.quantile(0.5),
            "p99_ms": 1e3 * self.quantile(0.99),
            "max_ms": 1e3 * self.longest,
        }


class ModelStatistics:
    """Counters of one model in one process.

    Attributes:
        queue: Per request, from its arrival to the beginning of its batch.
        compute: Per batch, what the model took.
        transport: Per request, from its sending to its arrival; none where it has no way to come.
        batches: Batches by their size.
        answered: Requests that got a result.
        failed: Requests with which the model failed.
        refused: Requests refused because there was too much to do.
        expired: Requests whose time was over before they were worked on.
        cancelled: Requests that nobody waited for any more.
        sessions: Sessions that are open.
    """

    def __init__(self) -> None:
        self.queue = Durations()
        self.compute = Durations()
        self.transport = Durations()
        self.batches: dict[int, int] = {}
        self.answered = 0
        self.failed = 0
        self.refused = 0
        self.expired = 0
        self.cancelled = 0
        self.sessions = 0

    def to_plain(self, own: Mapping[str, float]) -> dict[str, Any]:
        """For tables and metrics.

        Args:
            own: What the model counts itself.
        """
        number = sum(self.batches.values())
        requests = sum(size * count for size, count in self.batches.items())
        return {
            "queue": self.queue.to_plain(),
            "transport": self.transport.to_plain(),
            "compute": self.compute.to_plain(),
            "batches": number,
            "batch_size_mean": requests / number if number else 0.0,
            "batch_size_max": max(self.batches, default=0),
            "answered": self.answered,
            "failed": self.failed,
            "refused": self.refused,
            "expired": self.expired,
            "cancelled": self.cancelled,
            "sessions": self.sessions,
            "model": dict(own),
        }
