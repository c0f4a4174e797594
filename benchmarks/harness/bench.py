"""One run: where its programs connect, what they have in common, and how it is undone."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from benchmarks.harness.control import Control, Program, ProgramFailed
from benchmarks.harness.peers import PeerMissing, pipecat_python
from benchmarks.harness.processes import Processes
from benchmarks.harness.results import Result

if TYPE_CHECKING:
    from benchmarks.harness.actors import Actors

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "benchmarks" / "programs"
PIPELINE = PROGRAMS / "pipeline.py"
CONNECT_DEADLINE_SECS = 60.0


@dataclass(frozen=True)
class Options:
    """How a run is made.

    Attributes:
        quick: Whether it only has to show that everything works.
        rounds: How often everything is measured; the median counts.
        pipecat: Whether Pipecat is measured.
        ray: Whether a cluster is started.
        seed: From which all chance follows.
    """

    quick: bool = False
    rounds: int = 5
    pipecat: bool = True
    ray: bool = True
    seed: int = 0

    def count(self, full: int) -> int:
        """So many samples, or a tenth of them in a quick run."""
        return max(2, full // 10) if self.quick else full


class Bench:
    """What the scenarios of one run share; an async context manager.

    Args:
        options: How the run is made.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._stack = AsyncExitStack()
        self._directory = Path()
        self._control: Control | None = None
        self._actors: Actors | None = None
        self._names = 0

    async def __aenter__(self) -> Self:
        # Short: the path of a Unix socket has at most 107 characters.
        self._directory = Path(tempfile.mkdtemp(prefix="bench-"))
        self._stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
        self._control = await self._stack.enter_async_context(
            Control(self._directory / "control.sock")
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    @property
    def control(self) -> Control:
        """Where programs connect."""
        assert self._control is not None
        return self._control

    @property
    def directory(self) -> Path:
        """For files of this run."""
        return self._directory

    def unique(self, name: str) -> str:
        """A name for a program that no other of this run has."""
        self._names += 1
        return f"{name}/{self._names}"

    async def actors(self) -> Actors:
        """The cluster of this run, started at its first use.

        Raises:
            PeerMissing: If the run is to do without one.
        """
        if not self.options.ray:
            raise PeerMissing("no cluster was wanted (--no-ray)")
        if self._actors is None:
            from benchmarks.harness.actors import Actors

            self._actors = await self._stack.enter_async_context(Actors(self))
        return self._actors

    @asynccontextmanager
    async def processes(self) -> AsyncIterator[Processes]:
        """Processes that end with the block."""
        directory = Path(tempfile.mkdtemp(dir=self._directory))
        async with Processes(directory) as processes:
            yield processes

    async def program(
        self,
        processes: Processes,
        name: str,
        script: Path,
        *arguments: str,
        python: Path | None = None,
        package: str = "antiphon",
    ) -> Program:
        """Starts a program and waits until it has connected.

        Raises:
            ProgramFailed: If it does not.
        """
        found = await self.fleet(
            processes, name, script, *arguments, python=python, package=package, forks=0
        )
        return found[0]

    async def fleet(
        self,
        processes: Processes,
        name: str,
        script: Path,
        *arguments: str,
        forks: int,
        python: Path | None = None,
        package: str = "antiphon",
    ) -> list[Program]:
        """Starts a program that forks so many times and waits until all have connected."""
        unique = self.unique(name)
        names = [f"{unique}-{number}" for number in range(forks)] or [unique]
        expected = [self.control.expect(each) for each in names]
        command = [str(python or sys.executable), "-W", "ignore", str(script)]
        command += ["--control", str(self.control.path), "--name", unique, *arguments]
        if forks:
            command += ["--forks", str(forks)]
        environment = {"BENCH_PACKAGE": package, "PYTHONPATH": "" if python else source_path()}
        process = await processes.start(name, command, environment)
        programs = await self.connected(expected, processes, process)
        for program in programs:
            program.name = name
        return programs

    async def connected(
        self,
        expected: Sequence[asyncio.Future[Program]],
        processes: Processes,
        process: asyncio.subprocess.Process,
    ) -> list[Program]:
        """Waits until programs have connected, or the process that was to start them has ended."""
        ended = asyncio.create_task(process.wait())
        missing = set(expected)
        loop = asyncio.get_running_loop()
        limit = loop.time() + CONNECT_DEADLINE_SECS
        try:
            while missing and not ended.done() and loop.time() < limit:
                waiting: set[asyncio.Future[Any]] = {*missing, ended}
                await asyncio.wait(
                    waiting, timeout=limit - loop.time(), return_when=asyncio.FIRST_COMPLETED
                )
                missing = {future for future in missing if not future.done()}
            if missing:
                raise ProgramFailed(f"a program did not start: {processes.last_words()}")
            return [future.result() for future in expected]
        finally:
            ended.cancel()

    async def pipecat(
        self,
        processes: Processes,
        result: Result,
        name: str = "Pipecat, one process",
        *arguments: str,
        forks: int = 0,
    ) -> list[Program]:
        """Starts Pipecat; none, with a line in the result, where it cannot be had."""
        if not self.options.pipecat:
            result.notes.append("Pipecat was left out (--no-pipecat)")
            return []
        try:
            python = await pipecat_python()
            return await self.fleet(
                processes,
                name,
                PIPELINE,
                *arguments,
                python=python,
                package="pipecat",
                forks=forks,
            )
        except (PeerMissing, ProgramFailed) as error:
            result.notes.append(f"skipped: {name}: {error}")
            return []


def source_path() -> str:
    """What PYTHONPATH has to be for the sources of this tree to be found."""
    found = [str(ROOT / "runtime"), str(ROOT / "actors"), str(ROOT)]
    return os.pathsep.join([*found, *filter(None, [os.environ.get("PYTHONPATH")])])
