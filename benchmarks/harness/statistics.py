"""Medians, quantiles and ratios of what was measured in rounds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least a part ``q`` of all values does not exceed.

    Raises:
        ValueError: If there are no values, or q is not within 0 and 1.
    """
    if not values or not 0 <= q <= 1:
        raise ValueError(f"no quantile {q} of {len(values)} values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """The median, so that one disturbed round does not count."""
    return statistics.median(values)


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over rounds of ours divided by theirs.

    Both were measured one after the other in each round, so what disturbs a round disturbs both,
    and their ratio less than either.

    Raises:
        ValueError: If the rounds do not match.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} and {len(theirs)} rounds cannot be paired")
    return median(
        [one / other if other else math.inf for one, other in zip(ours, theirs, strict=True)]
    )
