"""Every figure of shared models in one run.

A model that is to be in the table has a module here with `async def run(bench, result)`, which adds its rows
and bars to the result, and a `SCENARIO` that is listed below.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness import command
from benchmarks.models import kill, memory, overload, silero, whisper

SCENARIOS = [
    silero.CAPACITY,
    silero.LATENCY,
    silero.DIFFERENCE,
    silero.PROCESS,
    whisper.SCENARIO,
    memory.SCENARIO,
    overload.SCENARIO,
    kill.SCENARIO,
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenarios the arguments name, or all; returns the exit code, 1 if a bar is missed."""
    return command.main(SCENARIOS, arguments, prog="python -m benchmarks.models", strict=True)
