from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from benchmarks.harness.bench import Options
from benchmarks.harness.command import Scenario, run_scenarios
from benchmarks.harness.control import ProgramFailed
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.peers import PeerMissing
from benchmarks.harness.report import bars_table, show, write_json
from benchmarks.harness.results import Bar, Result, format_figure
from benchmarks.harness.statistics import median, paired_ratio, quantile
from rich.console import Console

QUICK = Options(quick=True, rounds=1, pipecat=False, ray=False)


@pytest.mark.parametrize(("q", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_a_quantile_is_one_of_the_values(q: float, expected: float) -> None:
    assert quantile(list(range(100, 0, -1)), q) == expected


def test_there_is_no_quantile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no quantile"):
        quantile([], 0.5)
    with pytest.raises(ValueError, match="no quantile"):
        quantile([1.0], 1.5)


def test_a_lost_frame_is_late_for_ever() -> None:
    assert quantile([1.0, math.inf], 0.99) == math.inf
    assert median([1.0, 2.0, math.inf]) == 2.0


def test_a_disturbance_of_a_round_does_not_change_the_ratio() -> None:
    # All of the second round took three times as long.
    assert paired_ratio([10, 30, 10], [20, 60, 20]) == 0.5
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_ratio([1], [1, 2])


def test_bars_know_their_direction_and_headroom() -> None:
    fast = Bar("throughput", 12.0, 10.0, "at least")
    slow = Bar("latency", 12.0, 10.0, "at most")
    assert fast.met
    assert fast.headroom == pytest.approx(1.2)
    assert not slow.met
    assert slow.headroom == pytest.approx(10 / 12)


def test_a_comparison_needs_both_contestants() -> None:
    result = Result("x", "X")
    result.row("ours").add("p50 us", 5)
    result.compare("ours / theirs", "ours", "theirs", "p50 us", 0.5, "at most")
    assert not result.bars
    assert "theirs was not measured" in result.notes[0]
    result.row("theirs").add("p50 us", 20)
    result.compare("ours / theirs", "ours", "theirs", "p50 us", 0.5, "at most")
    assert result.bars[0].met
    assert result.bars[0].value == 0.25
    assert result.bars[0].detail == "5 / 20 us"


def test_figures_have_as_many_digits_as_they_deserve() -> None:
    assert [format_figure(v) for v in (12345.6, 123.4, 1.2345)] == ["12,346", "123", "1.23"]


def test_what_was_found_out_is_written_and_shown(tmp_path: Path) -> None:
    result = Result("x", "X")
    result.row("ours").add("p50 us", 5)
    result.limit("latency", "ours", "p50 us", 4, "at most")
    machine = {**describe_machine(), "load_after": [0.0]}
    write_json(tmp_path / "results.json", [result], machine, {"quick": True})
    plain = json.loads((tmp_path / "results.json").read_text())
    assert plain["scenarios"]["x"]["rows"][0]["rounds"] == {"p50 us": [5]}
    assert plain["scenarios"]["x"]["bars"][0]["met"] is False
    assert plain["machine"]["cores"] >= 1
    console = Console(width=120, record=True, quiet=True)
    show([result], machine, console)
    assert bars_table([result]).row_count == 1


async def test_scenarios_that_fail_do_not_stop_the_others() -> None:
    async def fails(*_: object) -> None:
        raise ProgramFailed("a program is gone")

    async def misses(*_: object) -> None:
        raise PeerMissing("not to be had")

    scenarios = [Scenario("a", "A", fails), Scenario("b", "B", misses)]
    results, failures = await run_scenarios(scenarios, QUICK, Console(quiet=True))
    assert [result.name for result in results] == ["a", "b"]
    assert failures == ["a: a program is gone"]
    assert results[1].notes == ["skipped: not to be had"]
