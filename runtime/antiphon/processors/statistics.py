"""Counters of a processor's traffic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

_SUBBUCKETS = 16
"""Linear steps per power of two: a quantile is off by at most 1/16 of its value."""


class LatencyHistogram:
    """Counts durations in buckets of about 6 % width; bounded, mergeable, cheap to record."""

    __slots__ = ("_counts", "_recorded", "at_once")

    def __init__(self) -> None:
        """Makes an empty histogram."""
        self._counts: dict[int, int] = {}
        self._recorded = 0
        # Durations too short to be worth a look at the clock; counted as zero.
        self.at_once = 0

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return self._recorded + self.at_once

    def record(self, duration_ns: int) -> None:
        """Adds one duration in nanoseconds; a negative one counts as zero."""
        bucket = _bucket(duration_ns)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self._recorded += 1

    def quantile_ms(self, q: float) -> float:
        """The q-quantile (0 to 1) in milliseconds, rounded up to a bucket; NaN when empty."""
        if not self.count:
            return math.nan
        rank = max(1, math.ceil(q * self.count))
        seen = self.at_once
        if seen >= rank:
            return 0.0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                return _upper_ns(bucket) / 1e6
        return math.nan

    def merge(self, other: LatencyHistogram) -> None:
        """Adds the counts of another histogram."""
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self._recorded += other._recorded
        self.at_once += other.at_once

    def to_plain(self) -> dict[int, int]:
        """The counts per bucket, as plain data."""
        counts = dict(self._counts)
        if self.at_once:
            counts[0] = counts.get(0, 0) + self.at_once
        return counts

    @classmethod
    def from_plain(cls, counts: Mapping[int, int]) -> LatencyHistogram:
        """The histogram with these counts per bucket."""
        histogram = cls()
        histogram._counts = dict(counts)
        histogram._recorded = sum(counts.values())
        return histogram


def _bucket(duration_ns: int) -> int:
    if duration_ns < _SUBBUCKETS:
        return max(duration_ns, 0)
    # The position of the highest bit, less four: compiled, this beats int.bit_length().
    shift = 0
    rest = duration_ns
    while rest >= 1 << 12:
        rest >>= 8
        shift += 8
    while rest >= 2 * _SUBBUCKETS:
        rest >>= 1
        shift += 1
    return (shift + 1) * _SUBBUCKETS + ((duration_ns >> shift) - _SUBBUCKETS)


def _upper_ns(bucket: int) -> int:
    if bucket < _SUBBUCKETS:
        return bucket
    shift = bucket // _SUBBUCKETS - 1
    return ((bucket % _SUBBUCKETS) + _SUBBUCKETS + 1) << shift


@dataclass(slots=True)
class ProcessorStatistics:
    """What one processor has seen.

    Attributes:
        frames_out: Frames pushed to a neighbour.
        frames_dropped: Frames dropped by an interruption before they were processed.
        audio_dropped: Frames of input audio dropped because the processor was too far behind.
            Both count what was dropped on the way from another process, once the session is over.
        errors: Exceptions in process_frame.
        hop: Time from a neighbour's push to the beginning of process_frame.
    """

    frames_out: int = 0
    frames_dropped: int = 0
    audio_dropped: int = 0
    errors: int = 0
    hop: LatencyHistogram = field(default_factory=LatencyHistogram)

    @property
    def frames_in(self) -> int:
        """Frames that began to be processed."""
        return self.hop.count

    def add(self, other: ProcessorStatistics) -> None:
        """Adds what another process has counted of the same processor."""
        self.frames_out += other.frames_out
        self.frames_dropped += other.frames_dropped
        self.audio_dropped += other.audio_dropped
        self.errors += other.errors
        self.hop.merge(other.hop)

    def to_plain(self) -> dict[str, object]:
        """Plain data, for the wire."""
        return {
            "frames_out": self.frames_out,
            "frames_dropped": self.frames_dropped,
            "audio_dropped": self.audio_dropped,
            "errors": self.errors,
            "hop": self.hop.to_plain(),
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, object]) -> ProcessorStatistics:
        """The statistics that to_plain() gave.

        Raises:
            TypeError: If the data has another shape.
        """
        hop = data.get("hop")
        if not isinstance(hop, Mapping):
            raise TypeError("processor statistics without a hop histogram")
        numbers = {}
        for key in ("frames_out", "frames_dropped", "audio_dropped", "errors"):
            value = data.get(key, 0)
            if not isinstance(value, int):
                raise TypeError(f"processor statistics: {key} is not an integer")
            numbers[key] = value
        return cls(**numbers, hop=LatencyHistogram.from_plain(hop))
