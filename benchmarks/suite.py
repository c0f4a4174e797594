"""Every comparison in one run."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import (
    actor_processes,
    hop,
    memory,
    one_process,
    realtime,
    session_start,
    system_frames,
)
from benchmarks.harness import command

SCENARIOS = [
    one_process.SCENARIO,
    hop.SCENARIO,
    actor_processes.SCENARIO,
    system_frames.SCENARIO,
    session_start.SCENARIO,
    memory.SCENARIO,
    realtime.SCENARIO,
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenarios the arguments name, or all; returns the exit code."""
    return command.main(SCENARIOS, arguments)
