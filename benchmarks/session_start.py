"""From submitting a session to its StartFrame through all eight processors, on a warm pool."""

from __future__ import annotations

import time

from antiphon_actors.placement.policy import Preset
from antiphon_actors.pool_types import PoolSettings
from benchmarks.harness.bench import Bench
from benchmarks.harness.command import Scenario, run_alone
from benchmarks.harness.processes import calm_down
from benchmarks.harness.results import Result
from benchmarks.harness.statistics import median, quantile

POOLED = "pooled processors"
DEDICATED = "dedicated processors"
WARMING = 2


async def run(bench: Bench, result: Result) -> None:
    """Measures."""
    actors = await bench.actors()
    presets: list[tuple[str, Preset, int]] = [(POOLED, "pooled", 25)]
    if not bench.options.quick:
        presets.append((DEDICATED, "dedicated", 3))
    for name, preset, full in presets:
        # Dedicated actors are taken from the reserve: it has to hold those of a whole session.
        pools = PoolSettings(reserve=9 if preset == "dedicated" else 3)
        async with actors.agent(pools) as agent:
            samples = []
            for number in range(WARMING + max(bench.options.count(full), 3)):
                # Until the agent has again what the last session took from the reserve.
                await calm_down()
                submitted = time.monotonic_ns()
                session = await actors.session(agent, name, preset)
                try:
                    assert session.program is not None
                    took = (session.program.hello["started_ns"] - submitted) / 1e6
                finally:
                    await session.stop()
                if number >= WARMING:
                    samples.append(took)
        row = result.row(name)
        row.add("p50 ms", median(samples))
        row.add("p99 ms", quantile(samples, 0.99))
        row.add("least ms", min(samples))
        row.add("starts", len(samples))
    result.limit("warm session start: p50", POOLED, "p50 ms", 50, "at most")
    result.limit("warm session start: p99", POOLED, "p99 ms", 150, "at most")
    result.notes.append("each session has a supervisor of its own, taken from the reserve")


SCENARIO = Scenario("session_start", "start of a session on a warm pool", run, deadline_secs=300)

if __name__ == "__main__":
    run_alone(SCENARIO)
