"""Counters of a processor's traffic."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.processors.statistics import LatencyHistogram, ProcessorStatistics

durations_ns = st.integers(0, 10**13)


def test_an_empty_histogram_knows_nothing() -> None:
    histogram = LatencyHistogram()
    assert histogram.count == 0
    assert math.isnan(histogram.quantile_ms(0.5))


@given(values=st.lists(durations_ns, min_size=1, max_size=200), q=st.floats(0.0, 1.0))
def test_a_quantile_is_never_too_low_and_at_most_a_sixteenth_too_high(
    values: list[int], q: float
) -> None:
    histogram = LatencyHistogram()
    for value in values:
        histogram.record(value)
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    assert exact <= round(histogram.quantile_ms(q) * 1e6) <= exact * (1 + 1 / 16) + 1


@given(
    first=st.lists(durations_ns, max_size=50),
    second=st.lists(durations_ns, max_size=50),
    at_once=st.integers(0, 5),
)
def test_merging_is_recording_in_one(first: list[int], second: list[int], at_once: int) -> None:
    one, other, both = LatencyHistogram(), LatencyHistogram(), LatencyHistogram()
    for value in first:
        one.record(value)
        both.record(value)
    for value in second:
        other.record(value)
        both.record(value)
    one.at_once = both.at_once = at_once
    other.merge(one)
    assert other.count == both.count == len(first) + len(second) + at_once
    assert other.to_plain() == both.to_plain()
    again = LatencyHistogram.from_plain(both.to_plain())
    assert again.count == both.count
    for q in (0.0, 0.5, 0.99, 1.0):
        assert again.quantile_ms(q) == both.quantile_ms(q) or math.isnan(both.quantile_ms(q))


def test_a_negative_duration_counts_as_none() -> None:
    histogram = LatencyHistogram()
    histogram.record(-5)
    assert histogram.quantile_ms(1.0) == 0.0


def test_statistics_travel_as_plain_data() -> None:
    statistics = ProcessorStatistics(frames_out=2, frames_dropped=3, errors=4)
    statistics.hop.record(1_000_000)
    again = ProcessorStatistics.from_plain(statistics.to_plain())
    assert again.to_plain() == statistics.to_plain()
    assert again.frames_in == 1


@pytest.mark.parametrize("data", [{}, {"hop": 3}, {"hop": {}, "errors": "many"}])
def test_statistics_of_another_shape_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        ProcessorStatistics.from_plain(data)


def test_what_two_processes_counted_is_added() -> None:
    one = ProcessorStatistics(frames_out=1, frames_dropped=2, audio_dropped=3, errors=4)
    one.hop.record(1000)
    other = ProcessorStatistics(frames_out=10, frames_dropped=20, audio_dropped=30, errors=40)
    other.hop.at_once += 1
    one.add(other)
    assert (one.frames_out, one.frames_dropped, one.audio_dropped, one.errors) == (11, 22, 33, 44)
    assert one.frames_in == 2
