"""How soon a system frame gets past the full ordered lane of a slow consumer."""

from __future__ import annotations

from contextlib import AsyncExitStack

from benchmarks.harness.bench import PIPELINE, Bench
from benchmarks.harness.command import Scenario, run_alone
from benchmarks.harness.control import Program
from benchmarks.harness.processes import calm_down
from benchmarks.harness.results import Result
from benchmarks.harness.statistics import median, quantile

ACTOR = "Antiphon, consumer in an actor"
FUSED = "Antiphon, fused"
PIPECAT = "Pipecat, one process"
LIMIT_MS = 5.0
PACE_SECS = 0.01


async def run(bench: Bench, result: Result) -> None:
    """Measures."""
    result.notes.append(
        "the consumer takes 20 ms for each OutputAudioRawFrame; what is timed is an "
        "InputAudioRawFrame sent after it, one every 10 ms, until it is through"
    )
    async with AsyncExitStack() as stack:
        processes = await stack.enter_async_context(bench.processes())
        slow = ("--shape", "slow")
        programs = [await bench.program(processes, FUSED, PIPELINE, "--loop", "uvloop", *slow)]
        programs += await bench.pipecat(processes, result, PIPECAT, *slow)
        if bench.options.ray:
            actors = await bench.actors()
            agent = await stack.enter_async_context(actors.agent())
            session = await actors.session(agent, ACTOR, "dedicated", shape="slow")
            stack.push_async_callback(session.stop)
            assert session.program is not None
            programs.insert(0, session.program)
        await calm_down()
        for number in range(bench.options.rounds):
            for program in programs if number % 2 else reversed(programs):
                await _measure(bench, result, program)
    result.limit("system frame past a full lane: p99", ACTOR, "p99 ms", LIMIT_MS, "at most")


async def _measure(bench: Bench, result: Result, program: Program) -> None:
    count = bench.options.count(200)
    said = await program.ask("overtake", count=count, pace_secs=PACE_SECS)
    row = result.row(program.name)
    row.add("frames waiting", said["waiting"])
    row.add("p50 ms", median(said["ns"]) / 1e6)
    row.add("p99 ms", quantile(said["ns"], 0.99) / 1e6)


SCENARIO = Scenario(
    "system_frames", "a system frame behind a full ordered lane", run, deadline_secs=180
)

if __name__ == "__main__":
    run_alone(SCENARIO)
