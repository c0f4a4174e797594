"""Processes that a benchmark starts, and that end with it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_DEADLINE_SECS = 2.0
CALM_SECS = 0.5
CALM_SHARE = 0.2


@dataclass
class _Running:
    name: str
    process: asyncio.subprocess.Process
    log: Path


class Processes:
    """Starts processes, each with a process group of its own; an async context manager.

    Args:
        directory: Where their output goes.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[_Running] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for running in self._running:
            self._signal(running, signal.SIGTERM)
        for running in self._running:
            with suppress(TimeoutError):
                await asyncio.wait_for(running.process.wait(), STOP_DEADLINE_SECS)
            # Whatever it had started itself.
            self._signal(running, signal.SIGKILL)
            await running.process.wait()
        self._running.clear()

    async def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        """Starts a process; its output goes to a file."""
        log = self._directory / f"{len(self._running)}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self._running.append(_Running(name, process, log))
        return process

    def last_words(self) -> str:
        """The end of what each process said that has failed."""
        return "\n".join(
            f"{running.name}: {running.log.read_text(errors='replace')[-600:].strip()}"
            for running in self._running
            if running.process.returncode
        )

    def _signal(self, running: _Running, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(running.process.pid, number)


def descendants(root: int) -> Iterator[int]:
    """The processes below one, in no particular order."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError):
            # The name in brackets may hold anything.
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    waiting = list(children.get(root, []))
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting.extend(children.get(pid, []))


def processor_secs(pid: int) -> float:
    """Processor time a process has used, in seconds; 0 if it is gone."""
    with suppress(OSError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def busy_secs() -> float:
    """Processor time that all processes of the machine have used together, in seconds."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    # Of user, nice, system, idle, iowait, irq, softirq those that are work.
    used = (int(fields[at]) for at in (1, 2, 3, 6, 7))
    return sum(used) / os.sysconf("SC_CLK_TCK")


async def calm_down(deadline_secs: float = 30.0) -> None:
    """Waits until what was started here has finished starting, at most so long.

    That is when all processes below this one together use little of one core.
    """
    loop = asyncio.get_running_loop()
    limit = loop.time() + deadline_secs
    me = os.getpid()
    before = {pid: processor_secs(pid) for pid in descendants(me)}
    while loop.time() < limit:
        await asyncio.sleep(CALM_SECS)
        now = {pid: processor_secs(pid) for pid in descendants(me)}
        used = sum(secs - before.get(pid, 0.0) for pid, secs in now.items())
        if used < CALM_SHARE * CALM_SECS:
            return
        before = now


async def others_calm_down(deadline_secs: float) -> None:
    """Waits until the whole machine has little to do, at most so long."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + deadline_secs
    before = busy_secs()
    while loop.time() < limit:
        await asyncio.sleep(CALM_SECS)
        now = busy_secs()
        if now - before < 2 * CALM_SHARE * CALM_SECS:
            return
        before = now


def proportional_set_bytes(pid: int) -> int:
    """Memory of a process, shared pages divided among those that share them; 0 if it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
