"""The clock of a running pipeline."""

import time

from antiphon.clocks.base_clock import BaseClock


class SystemClock(BaseClock):
    """Counts on the machine's monotonic clock."""

    def __init__(self) -> None:
        """Makes a clock that has not started."""
        self._started_ns = 0

    def get_time(self) -> int:
        """Nanoseconds since start(); 0 before it."""
        return time.monotonic_ns() - self._started_ns if self._started_ns else 0

    def start(self) -> None:
        """Begins counting."""
        self._started_ns = time.monotonic_ns()

    def start_at(self, monotonic_ns: int) -> None:
        """Joins a clock another process of this machine started.

        Args:
            monotonic_ns: The machine's CLOCK_MONOTONIC when that clock read zero.
        """
        self._started_ns = monotonic_ns

    @property
    def started_at(self) -> int:
        """CLOCK_MONOTONIC in nanoseconds when this clock read zero; 0 before start()."""
        return self._started_ns
