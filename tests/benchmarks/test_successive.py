from __future__ import annotations

import os

from benchmarks import successive


def test_growth_counts_from_the_first_samples_to_the_last() -> None:
    samples = [{1: 20.0 + number, 2: 30.0} for number in range(8)]
    assert successive.growth_mb(samples) == {1: 6.0, 2: 0.0}


def test_a_process_that_has_come_or_gone_is_left_out() -> None:
    samples = [{1: 20.0, 2: 30.0}, {1: 20.0}, {1: 21.0, 3: 5.0}, {1: 21.0, 3: 50.0}]
    assert successive.growth_mb(samples) == {1: 1.0}


def test_memory_of_a_process_alone() -> None:
    assert 1.0 < successive.unique_set_mb(os.getpid()) < 10_000.0
