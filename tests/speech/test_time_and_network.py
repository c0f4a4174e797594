from datetime import UTC, datetime, timedelta

import pytest

from antiphon.utils.network import exponential_backoff_time
from antiphon.utils.time import (
    nanoseconds_to_seconds,
    nanoseconds_to_str,
    seconds_to_nanoseconds,
    time_now_iso8601,
)


def test_now_is_utc_to_the_millisecond() -> None:
    text = time_now_iso8601()
    assert abs(datetime.fromisoformat(text) - datetime.now(UTC)) < timedelta(seconds=5)
    assert len(text) == len("2025-01-01T00:00:00.000+00:00")


def test_nanoseconds() -> None:
    assert seconds_to_nanoseconds(1.5) == 1_500_000_000
    assert nanoseconds_to_seconds(250_000_000) == 0.25


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0:00:00.000000"),
        (61_000_001_999, "0:01:01.000001"),
        (360_000 * 10**9, "100:00:00.000000"),
    ],
)
def test_durations_as_text(nanoseconds: int, text: str) -> None:
    assert nanoseconds_to_str(nanoseconds) == text


def test_waits_grow_between_their_limits() -> None:
    assert [exponential_backoff_time(n) for n in range(7)] == [4, 4, 4, 4, 8, 10, 10]
    assert exponential_backoff_time(10_000) == 10
    assert exponential_backoff_time(3, min_wait=0.1, max_wait=9, multiplier=0.5) == 2
