"""How late frames are, by the number of sessions that go on at once with audio both ways.

A session gets an InputAudioRawFrame and an OutputAudioRawFrame every 20 ms. Lateness counts from
when a frame was due to be sent until it is through all processors. A contestant breaks where more than
one frame of 100 is more than 20 ms late.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from antiphon_actors.placement.policy import Preset
from antiphon_actors.pool_types import PoolSettings
from benchmarks.harness.bench import Bench
from benchmarks.harness.command import Scenario, run_alone
from benchmarks.harness.control import Program, ProgramFailed
from benchmarks.harness.curves import Curve, Effort, Point, explore
from benchmarks.harness.processes import (
    busy_secs,
    calm_down,
    descendants,
    others_calm_down,
    processor_secs,
)
from benchmarks.harness.results import Result
from benchmarks.harness.statistics import median, quantile

if TYPE_CHECKING:
    from benchmarks.harness.actors import Actors, Session

FUSED = "Antiphon, fused in shared supervisors"
POOLED = "Antiphon, pooled actors"
PIPECAT = "Pipecat, a process each"
LIMIT_MS = 20.0
TICK_NS = 20_000_000
SECS = 3.0
QUICK_SECS = 1.0
AT_ONCE = 4
STOP_AT_ONCE = 16
ANSWER_SECS = 20.0
CALM_SECS = 5.0
OTHERS_CALM_SECS = 4.0
# Where a search ends that nothing else ends: memory, and the patience of others on the machine.
MOST = {FUSED: 1024, POOLED: 512, PIPECAT: 256}
EFFORT_SECS = 70.0
QUICK_EFFORT_SECS = 12.0

# Makes so many sessions more; fewer if they cannot be had.
Grow = Callable[[int], Awaitable[list[Program]]]
# The processes whose use of the processor counts.
Pids = Callable[[list[Program]], Iterable[int]]
Prepare = Callable[[Bench, Result, AsyncExitStack], Awaitable[tuple[Grow, Pids]]]


async def run(bench: Bench, result: Result) -> None:
    """Measures all contestants in turns, so that what the machine does beside hits all of them."""
    apart: set[int] = set()
    prepares = {PIPECAT: _pipecat(apart)}
    if bench.options.ray:
        actors = await bench.actors()
        prepares[FUSED] = _sessions(actors, FUSED, "fused", apart)
        prepares[POOLED] = _sessions(actors, POOLED, "pooled", apart)
    # Whoever has had a turn goes to the end of the line.
    turn = asyncio.Lock()
    try:
        async with asyncio.TaskGroup() as group:
            for name, prepare in prepares.items():
                curve = Curve(name, LIMIT_MS)
                result.curves.append(curve)
                group.create_task(_curve(bench, result, curve, prepare, turn, len(prepares)))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    result.curves = [curve for curve in result.curves if curve.points]
    for curve in result.curves:
        _summarize(result, curve)
    if bench.options.quick:
        result.notes.append("quick: no search for the most")
        return
    for name in (FUSED, POOLED):
        text = f"real-time sessions: {name} / {PIPECAT}"
        result.compare(text, name, PIPECAT, "sessions", 3, "at least")


async def _curve(
    bench: Bench,
    result: Result,
    curve: Curve,
    prepare: Prepare,
    turn: asyncio.Lock,
    contestants: int,
) -> None:
    """Measures one contestant, whose sessions then end; whatever it does, it does in its turn."""
    quick = bench.options.quick
    effort = Effort(
        most=MOST[curve.contestant],
        factor=4 if quick else 2,
        refinements=0 if quick else 3,
        secs=(QUICK_EFFORT_SECS if quick else EFFORT_SECS) * contestants,
    )
    stack = AsyncExitStack()
    try:
        async with turn:
            grow, pids = await prepare(bench, result, stack)
        programs: list[Program] = []

        async def measure(sessions: int, again: bool) -> Point | None:
            async with turn:
                if sessions > len(programs):
                    programs.extend(await grow(sessions - len(programs)))
                if sessions > len(programs):
                    return None
                await calm_down(CALM_SECS)
                if again:
                    await others_calm_down(OTHERS_CALM_SECS)
                chosen = programs[:sessions]
                return await _measure(chosen, pids(chosen), QUICK_SECS if quick else SECS)

        try:
            await explore(curve, measure, effort)
        except ProgramFailed as error:
            # Too busy to say how late they are: what was measured before remains.
            curve.ended = str(error)
    finally:
        async with turn:
            await stack.aclose()


def _summarize(result: Result, curve: Curve) -> None:
    if curve.ended:
        result.notes.append(f"{curve.contestant}: {curve.ended}")
    row = result.row(curve.contestant)
    row.add("sessions", curve.best.sessions if curve.best else 0)
    if curve.best is not None:
        row.add("p50 ms", curve.best.p50_ms)
        row.add("p99 ms", curve.best.p99_ms)
        row.add("p99.9 ms", curve.best.p999_ms)
        row.add("CPU cores", curve.best.cpu_cores)


async def _measure(programs: list[Program], pids: Iterable[int], secs: float) -> Point:
    """Audio through so many sessions, each with a phase of its own."""
    measured = list(pids)
    start = time.monotonic_ns() + 300_000_000
    load = asyncio.create_task(_load(measured, start, secs))
    try:
        answers = await asyncio.gather(
            *(
                program.ask(
                    "realtime",
                    deadline_secs=secs + ANSWER_SECS,
                    start_ns=start + number * TICK_NS // len(programs),
                    ticks=int(secs * 1e9 / TICK_NS),
                )
                for number, program in enumerate(programs)
            )
        )
        ours, others = await load
    finally:
        load.cancel()
    lost = sum(answer["lost"] for answer in answers)
    late = [us / 1e3 for answer in answers for us in answer["late_us"]]
    late += [float("inf")] * lost
    return Point(
        sessions=len(programs),
        p50_ms=median(late),
        p99_ms=quantile(late, 0.99),
        p999_ms=quantile(late, 0.999),
        cpu_cores=ours,
        other_cores=others,
        lost=lost,
    )


async def _load(pids: list[int], start_ns: int, secs: float) -> tuple[float, float]:
    """Cores that these processes keep busy from a time on for so long, and all others."""
    await asyncio.sleep((start_ns - time.monotonic_ns()) / 1e9)
    began, ours, everything = time.monotonic(), sum(map(processor_secs, pids)), busy_secs()
    await asyncio.sleep(secs)
    ours = sum(map(processor_secs, pids)) - ours
    everything = busy_secs() - everything
    took = time.monotonic() - began
    return ours / took, max(everything - ours, 0.0) / took


def _pipecat(apart: set[int]) -> Prepare:
    """Pipecat's processes, whose ids it adds to a set."""

    async def prepare(bench: Bench, result: Result, stack: AsyncExitStack) -> tuple[Grow, Pids]:
        processes = await stack.enter_async_context(bench.processes())

        async def grow(count: int) -> list[Program]:
            # Forked from one process that has imported everything: kind to Pipecat, and quick.
            programs = await bench.pipecat(processes, result, PIPECAT, forks=count)
            apart.update(_pids_of(programs))
            return programs

        return grow, _pids_of

    return prepare


def _pids_of(programs: list[Program]) -> list[int]:
    return [int(program.hello["pid"]) for program in programs]


def _sessions(actors: Actors, name: str, preset: Preset, apart: set[int]) -> Prepare:
    """Sessions on the cluster; all processes of it count, but not those in the set."""
    cores = len(os.sched_getaffinity(0))
    # Sessions fill one supervisor after the other: here there is one for each core from the beginning.
    kinds = cores

    async def prepare(bench: Bench, result: Result, stack: AsyncExitStack) -> tuple[Grow, Pids]:
        pools = PoolSettings(
            reserve=cores,
            supervisor_reserve=kinds,
            slots_per_actor=8 * MOST[name] // cores,
            supervisor_slots=MOST[name],
            max_sessions=MOST[name] * kinds,
            max_starts=cores,
        )
        agent = await stack.enter_async_context(actors.agent(pools))
        sessions: list[Session] = []
        gate = asyncio.Semaphore(AT_ONCE)

        async def stop() -> None:
            gate = asyncio.Semaphore(STOP_AT_ONCE)

            async def one(session: Session) -> None:
                async with gate:
                    await session.stop()

            await asyncio.gather(*(one(session) for session in sessions))

        stack.push_async_callback(stop)

        async def one(number: int) -> Program:
            async with gate:
                session = await actors.session(
                    agent, name, preset, supervisor="pooled", kind=f"supervisor {number % kinds}"
                )
            sessions.append(session)
            assert session.program is not None
            return session.program

        async def grow(count: int) -> list[Program]:
            first = len(sessions)
            # To the end, so that all that have come about are stopped.
            come = await asyncio.gather(
                *(one(first + more) for more in range(count)), return_exceptions=True
            )
            for program in come:
                if isinstance(program, BaseException):
                    raise ProgramFailed(f"{first + count} sessions: {program}") from program
            return [program for program in come if not isinstance(program, BaseException)]

        return grow, lambda _programs: set(descendants(os.getpid())) - apart

    return prepare


SCENARIO = Scenario(
    "realtime",
    "lateness of real-time sessions at once, audio both ways",
    run,
    deadline_secs=400,
)

if __name__ == "__main__":
    run_alone(SCENARIO)
