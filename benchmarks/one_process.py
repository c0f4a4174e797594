"""Eight processors in one process: Antiphon (fused) beside Pipecat."""

from __future__ import annotations

from benchmarks.harness.bench import PIPELINE, Bench
from benchmarks.harness.command import Scenario, run_alone
from benchmarks.harness.control import Contestant
from benchmarks.harness.results import Result
from benchmarks.harness.rounds import Effort, alternate

OURS = "Antiphon, fused"
PIPECAT = "Pipecat, one process"
OURS_DEFAULT = "Antiphon, fused, default task"
PIPECAT_DEFAULT = "Pipecat, default task"
PIPECAT_UVLOOP = "Pipecat on uvloop"
PIPECAT_DIRECT = "Pipecat, direct mode"


async def run(bench: Bench, result: Result) -> None:
    """Measures."""
    count = bench.options.count
    async with bench.processes() as processes:
        contestants: list[Contestant] = [
            await bench.program(processes, OURS, PIPELINE, "--loop", "uvloop")
        ]
        contestants += await bench.pipecat(processes, result, PIPECAT)
        if not bench.options.quick:
            uvloop = ("--loop", "uvloop")
            default = (*uvloop, "--defaults")
            contestants.append(await bench.program(processes, OURS_DEFAULT, PIPELINE, *default))
            contestants += await bench.pipecat(processes, result, PIPECAT_DEFAULT, "--defaults")
            contestants += await bench.pipecat(processes, result, PIPECAT_UVLOOP, *uvloop)
            contestants += await bench.pipecat(processes, result, PIPECAT_DIRECT, "--direct")
        effort = {each.name: Effort(count(800), count(3000)) for each in contestants}
        effort[OURS] = Effort(count(3000), count(20_000))
        result.notes.append(
            "without turn tracking and RTVI in both, but for 'default task', which has them where "
            "they are on by default"
        )
        await alternate(result, contestants, bench.options.rounds, effort)
    text = "fused / Pipecat, one process"
    for frame in ("output", "input"):
        metric = f"{frame} frames/s"
        result.compare(f"{text}: {metric}", OURS, PIPECAT, metric, 10, "at least")
        metric = f"{frame} p50 us"
        result.compare(f"{text}: {frame} p50", OURS, PIPECAT, metric, 1 / 8, "at most")


SCENARIO = Scenario("one_process", "8 processors in one process", run, deadline_secs=240)

if __name__ == "__main__":
    run_alone(SCENARIO)
