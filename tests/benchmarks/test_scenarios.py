from __future__ import annotations

import os

import pytest
from benchmarks import hop, one_process, suite
from benchmarks.harness.bench import Bench, Options
from benchmarks.harness.command import run_scenarios
from benchmarks.harness.control import ProgramFailed
from benchmarks.harness.processes import descendants
from rich.console import Console

QUICK = Options(quick=True, rounds=1, pipecat=False, ray=False)


async def test_a_scenario_measures_and_leaves_no_process() -> None:
    before = set(descendants(os.getpid()))
    scenarios = [one_process.SCENARIO, hop.SCENARIO]
    (fused, hops), failures = await run_scenarios(scenarios, QUICK, Console(quiet=True))
    assert not failures
    row = fused.row(one_process.OURS)
    for frame in ("output", "input"):
        assert row.value(f"{frame} p50 us") > 0
        assert row.value(f"{frame} frames/s") > 0
    assert {row.contestant for row in hops.rows} >= {hop.BARE, hop.UNIX}
    assert "Pipecat was left out (--no-pipecat)" in fused.notes
    assert set(descendants(os.getpid())) <= before


async def test_a_program_that_fails_says_why() -> None:
    async with Bench(QUICK) as bench, bench.processes() as processes:
        with pytest.raises(ProgramFailed, match=r"missing\.py"):
            await bench.program(processes, "bot", bench.directory / "missing.py")


def test_every_scenario_has_a_name_and_a_deadline() -> None:
    names = [scenario.name for scenario in suite.SCENARIOS]
    assert len(set(names)) == len(names)
    assert all(0 < scenario.deadline_secs <= 600 for scenario in suite.SCENARIOS)
