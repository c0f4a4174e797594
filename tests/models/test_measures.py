from __future__ import annotations

import pytest

from antiphon.models.measures import Durations


def test_quantiles_are_right_within_a_factor_of_two() -> None:
    durations = Durations()
    for _ in range(98):
        durations.add(0.003)
    durations.add(0.1)
    durations.add(0.2)
    assert 0.003 <= durations.quantile(0.5) <= 0.006
    assert 0.1 <= durations.quantile(0.99) <= 0.2
    assert durations.quantile(1.0) == 0.2
    assert durations.to_plain()["mean_ms"] == pytest.approx((98 * 3 + 300) / 100)
    assert durations.to_plain()["max_ms"] == pytest.approx(200)


@pytest.mark.parametrize("secs", [-1.0, 0.0, 1e-9, 3600.0])
def test_whatever_comes_is_counted(secs: float) -> None:
    durations = Durations()
    durations.add(secs)
    assert durations.count == 1
    assert durations.quantile(0.5) == max(secs, 0.0)


def test_nothing_counted() -> None:
    assert Durations().to_plain() == {
        "count": 0,
        "mean_ms": 0.0,
        "p50_ms": 0.0,
        "p99_ms": 0.0,
        "max_ms": 0.0,
    }
