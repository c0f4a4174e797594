"""Measures contestants in turns, so that what the machine does beside hits all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.control import Contestant
from benchmarks.harness.results import Result
from benchmarks.harness.statistics import median, quantile

FRAMES = {"output": "OutputAudioRawFrame", "input": "InputAudioRawFrame"}


@dataclass(frozen=True)
class Effort:
    """How much of a contestant is measured in a round.

    Attributes:
        single: Frames sent one at a time.
        many: Frames sent as fast as they go; 0 for none.
    """

    single: int
    many: int


async def alternate(
    result: Result,
    contestants: Sequence[Contestant],
    rounds: int,
    effort: Mapping[str, Effort],
    *,
    frames: Sequence[str] = ("output", "input"),
) -> None:
    """Measures latency and throughput of every contestant in every round.

    A round before the first warms everything up. The order turns round after each.

    Args:
        result: Gets the figures.
        contestants: Whom to measure.
        rounds: How often.
        effort: How much, by the name of the contestant.
        frames: Kinds of audio frame: ``output`` is ordered data, ``input`` a system frame.
    """
    for contestant in contestants:
        result.row(contestant.name)
    for number in range(rounds + 1):
        turn = contestants if number % 2 else list(reversed(contestants))
        for contestant in turn:
            for frame in frames:
                how = effort[contestant.name]
                row = result.row(contestant.name)
                figures = await _measure(contestant, frame, how, warming=number == 0)
                if number:
                    for metric, value in figures.items():
                        row.add(f"{metric}" if len(frames) == 1 else f"{frame} {metric}", value)
            await contestant.rest()


async def _measure(
    contestant: Contestant, frame: str, effort: Effort, *, warming: bool
) -> dict[str, float]:
    part = 4 if warming else 1
    single = max(effort.single // part, 2)
    said: dict[str, Any] = await contestant.ask("latency", frame=frame, count=single)
    figures = {
        "p50 us": median(said["ns"]) / 1e3,
        "p99 us": quantile(said["ns"], 0.99) / 1e3,
    }
    if effort.many:
        many = max(effort.many // part, 2)
        said = await contestant.ask("saturate", frame=frame, count=many)
        figures["frames/s"] = said["per_s"]
    return figures
