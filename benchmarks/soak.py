"""Sessions opened, talking and closed in a loop: nothing of them may stay.

    make soak                                    # 100 sessions, again and again for four minutes
    make soak ARGS="--sessions 20 --minutes 1"
    python -m benchmarks.soak --help

All sessions run on a private cluster, with pooled supervisors and processor actors. A round opens them
all, sends audio through every one, closes them all, and then counts memory (proportional set size), open
descriptors, threads and processes of everything the cluster consists of.
The first third of the rounds warms up: pools fill, and the garbage collector of each process finds its
pace. Of the others the last half must not lie above the first by more than `LIMITS`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon_actors.pool_types import PoolSettings
from benchmarks.harness.bench import Bench, Options
from benchmarks.harness.control import ProgramFailed
from benchmarks.harness.processes import calm_down, descendants, proportional_set_bytes
from benchmarks.harness.statistics import median

if TYPE_CHECKING:
    from benchmarks.harness.actors import Actors, Session

OPENING = 8
# All are open; so many at once are sent frames to, as each has to take them within a deadline.
TALKING = 16
FRAMES = 20
LEAST_ROUNDS = 6
# As shares. Memory goes up and down with the garbage collections of each process; what a run of the usual
# length tells is 3 kB that each processor of a session leaves behind, or one descriptor in a hundred
# sessions. In a longer run less is enough.
LIMITS = {"memory": 0.04, "descriptors": 0.01, "threads": 0.02, "processes": 0.0}
# Whatever the share: a library's thread or connection more in one process or the other.
SLACK = {"memory": 5.0, "descriptors": 8.0, "threads": 12.0, "processes": 0.0}
UNITS = {"memory": " MB"}
IDLE = "ray::IDLE"

# By what is counted ("memory", ...) and by kind of process ("gcs_server", ...).
Sample = Mapping[str, Mapping[str, float]]


def take_sample(root: int) -> Sample:
    """Counts what the processes below one hold."""
    sample: dict[str, dict[str, float]] = {what: {} for what in LIMITS}
    for pid in descendants(root):
        # One that ends meanwhile holds nothing.
        with suppress(OSError):
            process = Path("/proc", str(pid))
            kind = kind_of((process / "cmdline").read_bytes())
            if kind == IDLE:
                # Ray keeps and ends its spare workers by the clock, not by the sessions.
                continue
            held = {
                "memory": proportional_set_bytes(pid) // 1000 / 1000,
                "descriptors": len(list((process / "fd").iterdir())),
                "threads": len(list((process / "task").iterdir())),
                "processes": 1,
            }
            for what, count in held.items():
                sample[what][kind] = sample[what].get(kind, 0) + count
    return sample


def kind_of(command_line: bytes) -> str:
    """What a process is, from its command line: "ray::SupervisorActor", "gcs_server"."""
    words = [word for word in command_line.decode(errors="replace").split("\0") if word.strip()]
    if not words:
        return "?"
    if words[0].startswith("ray::"):
        return words[0].split(".")[0].strip()
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    scripts = [word for word in words if word.endswith(".py")]
    return Path((scripts or words)[0]).name


def complaints(samples: Sequence[Sample]) -> list[str]:
    """What grows from round to round: a line for each, with the processes it grows in.

    Args:
        samples: One of each round, the first third of which does not count.

    Raises:
        ValueError: If there are too few to tell.
    """
    if len(samples) < LEAST_ROUNDS:
        raise ValueError(f"{len(samples)} rounds are too few to tell: at least {LEAST_ROUNDS}")
    judged = samples[len(samples) // 3 :]
    earlier, later = judged[: len(judged) // 2], judged[len(judged) // 2 :]
    found = []
    for what, share in LIMITS.items():
        before = median([_total(sample, what) for sample in earlier])
        after = median([_total(sample, what) for sample in later])
        if after - before <= max(share * before, SLACK[what]):
            continue
        unit = UNITS.get(what, "")
        grown = {
            kind: median([sample[what].get(kind, 0) for sample in later])
            - median([sample[what].get(kind, 0) for sample in earlier])
            for kind in {kind for sample in judged for kind in sample[what]}
        }
        most = sorted(grown, key=lambda kind: -grown[kind])[:3]
        where = ", ".join(f"{kind} {grown[kind]:+.1f}{unit}" for kind in most if grown[kind] > 0)
        found.append(
            f"{what} grew from {before:.1f} to {after:.1f}{unit} in {len(judged)} rounds: {where}"
        )
    return found


def _total(sample: Sample, what: str) -> float:
    return sum(sample[what].values())


async def run_round(actors: Actors, agent: Any, number: int) -> None:
    """Opens so many sessions, has them all talk, and closes them.

    Raises:
        ProgramFailed: If one does not start, or loses a frame.
    """
    sessions: list[Session] = []
    opening, talking = asyncio.Semaphore(OPENING), asyncio.Semaphore(TALKING)

    async def open_one() -> None:
        async with opening:
            sessions.append(await actors.session(agent, "soak", "pooled", supervisor="pooled"))

    async def talk(session: Session) -> None:
        assert session.program is not None
        async with talking:
            for frame in ("output", "input"):
                await session.program.ask("saturate", frame=frame, count=FRAMES)

    try:
        # The first alone, so that the others find its actors with free places.
        await open_one()
        await _all(open_one() for _ in range(number - 1))
        await _all(talk(session) for session in sessions)
    finally:
        await _all(session.stop() for session in sessions)


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Does all side by side to the end, and raises what failed first."""
    for failed in await asyncio.gather(*work, return_exceptions=True):
        if failed is not None:
            raise failed


async def soak(sessions: int, minutes: float, rounds: int = 0) -> list[Sample]:
    """Runs rounds for a time, or so many of them; returns what the cluster held after each.

    Raises:
        ProgramFailed: If a session does not do as it should.
    """
    samples: list[Sample] = []
    ends = time.monotonic() + minutes * 60
    async with Bench(Options(pipecat=False)) as bench:
        actors = await bench.actors()
        # As few processes as go: what a session leaves behind then shows soonest.
        pools = PoolSettings(reserve=1, slots_per_actor=128, supervisor_slots=32, idle_secs=3600.0)
        async with actors.agent(pools, warm_workers=0) as agent:
            while len(samples) < rounds or (not rounds and time.monotonic() < ends):
                began = time.monotonic()
                await run_round(actors, agent, sessions)
                took = time.monotonic() - began
                await calm_down()
                samples.append(take_sample(os.getpid()))
                counts = ", ".join(
                    f"{_total(samples[-1], what):.0f}{UNITS.get(what, ' ' + what)}"
                    for what in LIMITS
                )
                print(
                    f"round {len(samples)}: {sessions} sessions in {took:.1f} s, then {counts}",
                    flush=True,
                )
    return samples


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, 1 if something grew or failed."""
    parser = argparse.ArgumentParser(
        prog="soak", description="Sessions in a loop; nothing may grow."
    )
    parser.add_argument("--sessions", type=int, default=100, help="at the same time (100)")
    parser.add_argument("--minutes", type=float, default=4.0, help="how long (4)")
    parser.add_argument("--rounds", type=int, default=0, help="so many rounds, however long")
    given = parser.parse_args(arguments)
    logger.remove()
    logger.add(sys.stderr, level="WARNING", diagnose=False)
    came = 0
    try:
        samples = asyncio.run(soak(given.sessions, given.minutes, given.rounds))
        came = given.sessions * len(samples)
        grown = complaints(samples)
    except (ProgramFailed, ValueError) as error:
        grown = [str(error)]
    except KeyboardInterrupt:
        return 130
    for complaint in grown:
        print(f"error: {complaint}", file=sys.stderr)
    if not grown:
        print(f"{came} sessions have come and gone, and nothing of them stays")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
