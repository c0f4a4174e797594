"""Eight processors in eight actor processes, beside other ways to connect eight processes."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from antiphon_actors.pool_types import PoolSettings
from benchmarks.harness.bench import PROGRAMS, Bench
from benchmarks.harness.command import Scenario, run_alone
from benchmarks.harness.control import Contestant
from benchmarks.harness.processes import calm_down
from benchmarks.harness.results import Result
from benchmarks.harness.rounds import Effort, alternate

PROCESSES = 8
OURS = "Antiphon, 8 actor processes"
PIPECAT = "Pipecat, one process"
NESTED = "nested Ray calls"
GRAPH = "Ray compiled graph"
GRPC = "gRPC streams, 8 processes"
FLOOR = "bare socket pairs, 8 processes"


async def run(bench: Bench, result: Result) -> None:
    """Measures."""
    actors = await bench.actors()
    from benchmarks.programs.ray_chain import CompiledGraph, NestedCalls

    count = bench.options.count
    result.notes.append("each frame makes nine hops: the bot's process, eight others, and back")
    async with AsyncExitStack() as stack:
        processes = await stack.enter_async_context(bench.processes())
        agent = await stack.enter_async_context(actors.agent(PoolSettings(reserve=PROCESSES)))
        await calm_down()  # the reserve is filled, and will be once more
        session = await actors.session(agent, OURS, "dedicated")
        stack.push_async_callback(session.stop)
        assert session.program is not None
        contestants: list[Contestant] = [session.program]
        contestants += await bench.pipecat(processes, result, PIPECAT)
        for peer in (NestedCalls, CompiledGraph):
            made: Any = peer(PROCESSES)
            stack.callback(made.close)
            contestants.append(made)
        eight = ("--processes", str(PROCESSES))
        for name, script in ((GRPC, "grpc_chain.py"), (FLOOR, "floor.py")):
            contestants.append(await bench.program(processes, name, PROGRAMS / script, *eight))
        effort = {
            OURS: Effort(count(1000), count(4000)),
            PIPECAT: Effort(count(800), count(2000)),
            NESTED: Effort(count(40), count(100)),
            GRAPH: Effort(count(100), count(200)),
            GRPC: Effort(count(300), count(800)),
            FLOOR: Effort(count(2000), count(20_000)),
        }
        await calm_down()
        # The peers know no kinds of frames; ours and Pipecat's go through the lane for data.
        await alternate(result, contestants, bench.options.rounds, effort, frames=("output",))
        await _system_frames(bench, result, session.program)
    text = "8 actor processes"
    for other, limit in ((PIPECAT, 1.0), (NESTED, 1 / 30), (GRAPH, 1 / 2)):
        result.compare(f"{text} / {other}: p50", OURS, other, "p50 us", limit, "at most")
    result.compare(f"{text} / {PIPECAT}: frames/s", OURS, PIPECAT, "frames/s", 4, "at least")


async def _system_frames(bench: Bench, result: Result, program: Contestant) -> None:
    """The same for a system frame (InputAudioRawFrame), for its own line."""
    inner = Result("", "")
    effort = {program.name: Effort(bench.options.count(1000), bench.options.count(4000))}
    await alternate(inner, [program], min(bench.options.rounds, 2), effort, frames=("input",))
    row = result.row(f"{program.name}, system frames")
    row.rounds = inner.row(program.name).rounds


SCENARIO = Scenario(
    "actor_processes", "8 processors in 8 processes, OutputAudioRawFrame", run, deadline_secs=400
)

if __name__ == "__main__":
    run_alone(SCENARIO)
