"""Memory of pooled sessions: 64 of them, of eight processors each.

They are opened again and again. The first time gives the figures a session. What ended sessions do not
give back shows in the second half: the first warms up, as the garbage of the first sessions waits for the
collection that takes it away.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from antiphon_actors.pool_types import PoolSettings
from benchmarks.harness.bench import Bench
from benchmarks.harness.command import Scenario, run_alone
from benchmarks.harness.processes import calm_down, descendants, proportional_set_bytes
from benchmarks.harness.results import Result
from benchmarks.harness.statistics import median

if TYPE_CHECKING:
    from benchmarks.harness.actors import Actors

SESSIONS = 64
QUICK_SESSIONS = 4
SLOTS_PER_ACTOR = 128
SUPERVISOR_SLOTS = 32
AT_ONCE = 4
OPENINGS = 12
OURS = "Antiphon, pooled"
PIPECAT = "Pipecat, a process each"
MB = 1e6


async def run(bench: Bench, result: Result) -> None:
    """Measures."""
    actors = await bench.actors()
    number = QUICK_SESSIONS if bench.options.quick else SESSIONS
    pools = PoolSettings(
        reserve=1, slots_per_actor=SLOTS_PER_ACTOR, supervisor_slots=SUPERVISOR_SLOTS
    )
    async with actors.agent(pools, warm_workers=0) as agent:
        await calm_down()
        empty = _cluster_bytes()
        full = []
        for _ in range(OPENINGS):
            full.append(await _with_sessions(actors, agent, number))
        status = await agent.status.remote()
    row = result.row(OURS)
    row.add("per session MB", full[0] / number / MB)
    row.add("beyond an idle cluster, per session MB", (full[0] - empty) / number / MB)
    row.add("not given back, per session MB", _growth(full) / number / MB)
    row.add("all processes MB", full[0] / MB)
    row.add("idle cluster MB", empty / MB)
    result.notes.append(
        f"{number} sessions of 8 processors; {SLOTS_PER_ACTOR} processors an actor,"
        f" {SUPERVISOR_SLOTS} sessions a supervisor; {len(status['processes'])} actors;"
        " proportional set size of Ray's own processes and all actors"
    )
    await _pipecat(bench, result)
    if bench.options.quick:
        result.notes.append("quick: too few sessions to hold against a bar")
        return
    metric = "per session MB"
    beyond = "beyond an idle cluster, per session MB"
    result.limit("memory of a pooled session, beyond Ray", OURS, beyond, 8, "at most")
    kept = "not given back, per session MB"
    result.limit("memory of a pooled session, not given back", OURS, kept, 0.1, "at most")
    result.limit("memory of a pooled session, everything", OURS, metric, 8, "at most")


async def _with_sessions(actors: Actors, agent: Any, number: int) -> int:
    """Opens so many sessions, and returns the memory of the cluster while they are open."""
    sessions = []
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with gate:
            sessions.append(await actors.session(agent, OURS, "pooled", supervisor="pooled"))

    try:
        # The first alone, so that the others find its actors with free places.
        await one()
        await asyncio.gather(*(one() for _ in range(number - 1)))
        await calm_down()
        return _cluster_bytes()
    finally:
        await asyncio.gather(*(session.stop() for session in sessions))
        await calm_down()


def _growth(full: Sequence[int]) -> float:
    """What each opening takes beyond the one before, after the first half of them."""
    warm = full[len(full) // 2 :]
    half = len(warm) // 2
    return (median(warm[half:]) - median(warm[:half])) / half


def _cluster_bytes() -> int:
    """Memory of everything below this process: the cluster's processes and its actors."""
    return sum(proportional_set_bytes(pid) for pid in descendants(os.getpid()))


async def _pipecat(bench: Bench, result: Result) -> None:
    async with bench.processes() as processes:
        for program in await bench.pipecat(processes, result, PIPECAT):
            used = proportional_set_bytes(int(program.hello["pid"]))
            result.row(PIPECAT).add("per session MB", used / MB)


SCENARIO = Scenario("memory", "memory of pooled sessions", run, deadline_secs=300)

if __name__ == "__main__":
    run_alone(SCENARIO)
