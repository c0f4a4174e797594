"""How many sessions go on at once with audio both ways, each frame at most 20 ms late.

A session gets an InputAudioRawFrame and an OutputAudioRawFrame every 20 ms. Lateness counts from
when a frame was due to be sent until it is through all processors.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from antiphon_actors.placement.policy import Preset
from antiphon_actors.pool_types import PoolSettings
from benchmarks.harness.actors import Actors
from benchmarks.harness.bench import Bench
from benchmarks.harness.command import Scenario, run_alone
from benchmarks.harness.control import Program
from benchmarks.harness.processes import calm_down
from benchmarks.harness.results import Result
from benchmarks.harness.statistics import median, quantile

FUSED = "Antiphon, fused in shared supervisors"
POOLED = "Antiphon, pooled actors"
PIPECAT = "Pipecat, a process each"
LIMIT_MS = 20.0
TICK_NS = 20_000_000
SECS = 3.0
QUICK_SECS = 0.5
AT_ONCE = 4
# Where a search ends that nothing else ends: memory, and the patience of others on the machine.
MOST = {FUSED: 1024, POOLED: 256, PIPECAT: 256}

# Makes so many sessions more.
Grow = Callable[[int], Awaitable[list[Program]]]


@dataclass(frozen=True)
class Step:
    """What so many sessions came to.

    Attributes:
        sessions: How many.
        p50_ms: Median lateness.
        p99_ms: What 99 of 100 frames do not exceed; lost ones are late for ever.
    """

    sessions: int
    p50_ms: float
    p99_ms: float


async def run(bench: Bench, result: Result) -> None:
    """Measures."""
    first = 2 if bench.options.quick else 8
    await _search(bench, result, PIPECAT, first, _pipecat)
    if bench.options.ray:
        actors = await bench.actors()
        for name, preset in ((FUSED, "fused"), (POOLED, "pooled")):
            await _search(bench, result, name, first, _sessions(actors, name, preset))  # type: ignore[arg-type]
    if bench.options.quick:
        result.notes.append("quick: no search for the most")
        return
    text = "real-time sessions"
    for name in (FUSED, POOLED):
        result.compare(f"{text}: {name} / {PIPECAT}", name, PIPECAT, "sessions", 3, "at least")


async def _search(
    bench: Bench,
    result: Result,
    name: str,
    first: int,
    prepare: Callable[[Bench, Result, AsyncExitStack], Awaitable[Grow | None]],
) -> None:
    """Doubles the number of sessions until they are late, then halves the doubt twice."""
    async with AsyncExitStack() as stack:
        grow = await prepare(bench, result, stack)
        if grow is None:
            return
        programs: list[Program] = []
        good: Step | None = None
        bad = 0
        wanted = first
        while wanted <= MOST[name]:
            more = await grow(wanted - len(programs))
            if not more:
                return
            programs += more
            await calm_down(5.0)
            step = await _measure(bench, programs)
            if step.p99_ms > LIMIT_MS:
                bad = wanted
                break
            good = step
            if bench.options.quick:
                break
            wanted *= 2
        if bad:
            for _ in range(2):
                middle = ((good.sessions if good else 0) + bad) // 2
                step = await _measure(bench, programs[:middle])
                if step.p99_ms > LIMIT_MS:
                    bad = middle
                else:
                    good = step
        elif not bench.options.quick:
            result.notes.append(f"{name}: the search ends at {MOST[name]}")
        row = result.row(name)
        row.add("sessions", good.sessions if good else 0)
        if good is not None:
            row.add("p50 ms", good.p50_ms)
            row.add("p99 ms", good.p99_ms)


async def _measure(bench: Bench, programs: list[Program]) -> Step:
    """Audio through so many sessions, each with a phase of its own."""
    secs = QUICK_SECS if bench.options.quick else SECS
    start = time.monotonic_ns() + 300_000_000
    answers = await asyncio.gather(
        *(
            program.ask(
                "realtime",
                start_ns=start + number * TICK_NS // len(programs),
                ticks=int(secs * 1e9 / TICK_NS),
            )
            for number, program in enumerate(programs)
        )
    )
    late = [us / 1e3 for answer in answers for us in answer["late_us"]]
    late += [float("inf")] * sum(answer["lost"] for answer in answers)
    return Step(len(programs), median(late), quantile(late, 0.99))


async def _pipecat(bench: Bench, result: Result, stack: AsyncExitStack) -> Grow | None:
    processes = await stack.enter_async_context(bench.processes())

    async def grow(count: int) -> list[Program]:
        # Forked from one process that has imported everything: kind to Pipecat, and quick.
        return await bench.pipecat(processes, result, PIPECAT, forks=count)

    return grow


def _sessions(
    actors: Actors, name: str, preset: Preset
) -> Callable[[Bench, Result, AsyncExitStack], Awaitable[Grow | None]]:
    cores = len(os.sched_getaffinity(0))

    async def prepare(bench: Bench, result: Result, stack: AsyncExitStack) -> Grow | None:
        # Sessions fill one process after the other, so that as many are busy as there are cores.
        pools = PoolSettings(
            reserve=cores,
            slots_per_actor=8 * MOST[name] // cores,
            supervisor_slots=MOST[name] // cores,
            max_starts=cores,
        )
        agent = await stack.enter_async_context(actors.agent(pools))
        gate = asyncio.Semaphore(AT_ONCE)

        async def one() -> Program:
            async with gate:
                session = await actors.session(agent, name, preset, supervisor="pooled")
            stack.push_async_callback(session.stop)
            assert session.program is not None
            return session.program

        async def grow(count: int) -> list[Program]:
            return list(await asyncio.gather(*(one() for _ in range(count))))

        return grow

    return prepare


SCENARIO = Scenario(
    "realtime", "real-time sessions at once, audio both ways", run, deadline_secs=400
)

if __name__ == "__main__":
    run_alone(SCENARIO)
