"""A model in a process on one core, and what asks it, on another."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.harness.bench import PROGRAMS, Bench
from benchmarks.harness.control import Program
from benchmarks.harness.curves import UNDISTURBED_CORES
from benchmarks.harness.peers import PeerMissing
from benchmarks.harness.processes import busy_secs, others_calm_down, processor_secs
from benchmarks.harness.statistics import quantile

SILERO = "antiphon.audio.vad._silero_model:SileroModel"
WINDOW_SECS = 0.032
ATTEMPTS = 3
CALM_SECS = 10.0
LOAD = PROGRAMS / "vad_load.py"
HOST = PROGRAMS / "model_host.py"


def cores() -> tuple[str, str]:
    """A core for the model and one for what asks it.

    Raises:
        PeerMissing: There is only one.
    """
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        raise PeerMissing("a model and its load need a core each")
    return str(found[0]), str(found[1])


@dataclass
class Turn:
    """What so many sessions came to.

    Attributes:
        sessions: How many.
        said: What the load said; see `vad_load.Driver.run`.
        cpu_secs: Processor time of the model's process.
        batch: Windows in a batch on average.
        other_cores: Cores that everything else on the machine kept busy meanwhile.
    """

    sessions: int
    said: dict[str, Any] = field(repr=False)
    cpu_secs: float = 0.0
    batch: float = 0.0
    other_cores: float = 0.0

    def wait_ms(self, q: float) -> float:
        """A quantile of what windows waited that were answered."""
        return quantile(self.said["waits_ms"], q)

    @property
    def answered_per_sec(self) -> float:
        """Windows answered in a second."""
        secs = self.said["windows"] / self.sessions * WINDOW_SECS
        return len(self.said["waits_ms"]) / float(secs)

    @property
    def in_time(self) -> bool:
        """Whether 99 of 100 windows were answered before the next was due."""
        waits: list[float] = self.said["waits_ms"]
        good = sum(wait <= 1e3 * WINDOW_SECS for wait in waits)
        return good >= 0.99 * float(self.said["windows"])


class Stage:
    """A Silero model and its load."""

    def __init__(self, host: Program, load: Program) -> None:
        self.host = host
        self.load = load

    async def turn(
        self, sessions: int, secs: float, *, probes: int = 0, patient: bool = True
    ) -> Turn:
        """Has so many sessions talk for so long; see `vad_load.Driver.run`."""
        before, busy, began = await self.host.ask("tell"), self._others_secs(), time.monotonic()
        said = await self.load.ask(
            "run", sessions=sessions, secs=secs, probes=probes, patient=patient
        )
        others = (self._others_secs() - busy) / (time.monotonic() - began)
        after = await self.host.ask("tell")
        old, new = before["statistics"], after["statistics"]
        batches = new["batches"] - old["batches"]
        return Turn(
            sessions,
            said,
            after["cpu_secs"] - before["cpu_secs"],
            (new["answered"] - old["answered"]) / batches if batches else 0.0,
            others,
        )

    async def undisturbed(self, sessions: int, secs: float, *, probes: int = 0) -> Turn:
        """The same, again if the machine did other things; the turn with the fewest counts."""
        best: Turn | None = None
        for _ in range(ATTEMPTS):
            found = await self.turn(sessions, secs, probes=probes)
            if best is None or found.other_cores < best.other_cores:
                best = found
            if found.other_cores <= UNDISTURBED_CORES:
                break
            await others_calm_down(CALM_SECS)
        assert best is not None
        return best

    def _others_secs(self) -> float:
        """Processor time of everything but the model and its load."""
        ours = sum(processor_secs(each.hello["pid"]) for each in (self.host, self.load))
        return busy_secs() - ours

    async def capacity(self, secs: float, *, low: int = 250, high: int = 4000) -> Turn:
        """The most sessions in time, to within a sixteenth.

        A number that is late has further tries, after a pause if the machine does other things: what that
        does beside for a moment overloads nobody.
        """
        best = await self.turn(low, secs)
        while (high - low) > low / 16:
            middle = (low + high) // 2
            for _ in range(ATTEMPTS):
                found = await self.turn(middle, secs)
                if found.in_time:
                    low, best = middle, found
                    break
                await others_calm_down(CALM_SECS)
            else:
                high = middle
        return best


@asynccontextmanager
async def silero(bench: Bench) -> AsyncIterator[Stage]:
    """A Silero model on one core, and a load on another.

    Raises:
        PeerMissing: There is only one core.
    """
    model_core, load_core = cores()
    async with bench.processes() as processes:
        host = await model_host(bench, processes, SILERO, model_core)
        directory = bench.directory / bench.unique("load").replace("/", "-")
        directory.mkdir(mode=0o700)
        arguments = ["--directory", str(directory), "--uri", host.hello["uri"]]
        load = await bench.program(processes, "load", LOAD, *arguments, "--cores", load_core)
        yield Stage(host, load)


async def model_host(
    bench: Bench, processes: Any, model: str, core: str = "", options: str = "{}"
) -> Program:
    """A model in a process of its own; its address is in the program's `hello["uri"]`."""
    directory = bench.directory / bench.unique("host").replace("/", "-")
    directory.mkdir(mode=0o700)
    arguments = ["--directory", str(directory), "--model", model, "--options", options]
    if core:
        arguments += ["--cores", core]
    return await bench.program(processes, "model", HOST, *arguments)
