"""Sessions one after another in one pool: how much the memory of each actor grows.

    python -m benchmarks.successive                   # 1,000 sessions, some minutes
    python -m benchmarks.successive --sessions 200

Each session talks, and has ended before the next begins, so all of them use the same few actors. Memory is what
belongs to a process alone (unique set size). What an actor has after the first `SETTLED` sessions is what it
needs; growth counts from there to the end, between medians of samples, as garbage comes and goes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon_actors.pool_types import PoolSettings
from benchmarks.harness.bench import Bench, Options
from benchmarks.harness.control import ProgramFailed
from benchmarks.harness.processes import calm_down
from benchmarks.harness.statistics import median

if TYPE_CHECKING:
    from benchmarks.harness.actors import Actors

SESSIONS = 1000
SETTLED = 100
SAMPLES = 40
FRAMES = 20
LIMIT_MB = 5.0
MB = 1e6

# Of each actor, by its process.
Sample = Mapping[int, float]


def unique_set_mb(pid: int) -> float:
    """Memory that belongs to a process alone."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        fields[name] = int(value) * 1024
    return (fields["Private_Clean:"] + fields["Private_Dirty:"]) / MB


def growth_mb(samples: Sequence[Sample]) -> dict[int, float]:
    """How much each process that is there from the first sample to the last has grown.

    Args:
        samples: At least four, in order.
    """
    quarter = max(len(samples) // 4, 1)
    there = set.intersection(*(set(sample) for sample in samples))
    return {
        pid: median([sample[pid] for sample in samples[-quarter:]])
        - median([sample[pid] for sample in samples[:quarter]])
        for pid in there
    }


async def run_sessions(actors: Actors, agent: Any, count: int) -> list[Sample]:
    """Runs so many, one after another; returns the memory of the actors after every few.

    Raises:
        ProgramFailed: If one does not start, or loses a frame.
    """
    samples: list[Sample] = []
    every = max((count - SETTLED) // SAMPLES, 1)
    began = time.monotonic()
    for number in range(1, count + 1):
        session = await actors.session(agent, "successive", "pooled", supervisor="pooled")
        try:
            assert session.program is not None
            for frame in ("output", "input"):
                await session.program.ask("saturate", frame=frame, count=FRAMES)
        finally:
            await session.stop()
        if number >= SETTLED and (number - SETTLED) % every == 0:
            await calm_down()
            status = await agent.status.remote()
            used = [each["pid"] for each in status["processes"] if each["served"]]
            samples.append({pid: unique_set_mb(pid) for pid in used})
        if number % 100 == 0:
            took = time.monotonic() - began
            held = ", ".join(f"{mb:.1f}" for mb in samples[-1].values()) if samples else ""
            print(f"{number} sessions in {took:.0f} s; actors have {held} MB", flush=True)
    return samples


async def successive(count: int) -> dict[int, float]:
    """Measures; returns the growth of each actor in MB."""
    async with Bench(Options(pipecat=False)) as bench:
        actors = await bench.actors()
        # Nobody is replaced here: the question is what would make it necessary.
        pools = PoolSettings(
            reserve=1, idle_secs=3600.0, max_sessions_per_actor=0, max_growth_bytes=0
        )
        async with actors.agent(pools, warm_workers=0) as agent:
            return growth_mb(await run_sessions(actors, agent, count))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, 1 if an actor grew too much."""
    parser = argparse.ArgumentParser(prog="successive", description=__doc__.split("\n")[0])
    parser.add_argument("--sessions", type=int, default=SESSIONS, help=f"how many ({SESSIONS})")
    given = parser.parse_args(arguments)
    logger.remove()
    logger.add(sys.stderr, level="WARNING", diagnose=False)
    try:
        grown = asyncio.run(successive(max(given.sessions, SETTLED + 8)))
    except ProgramFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for pid, mb in grown.items():
        print(f"process {pid}: {mb:+.2f} MB (at most {LIMIT_MB:g})")
    return int(max(grown.values()) > LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())
