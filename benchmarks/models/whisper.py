"""What batches are worth to Whisper: 16 sessions that speak at the same time, on the same threads.

    python -m benchmarks.models.whisper [--quick] [--device cuda]

The model has the dimensions of the published tiny one and made-up weights, so that nothing is downloaded;
what it says takes as many steps as real words would. The sessions ask it as services do, all at once, again
and again. Compared are batches as they come about, and the same model that takes one segment at a time.
Beside them stands faster-whisper as it is, which pads every segment to 30 s.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.models import tiny_whisper
from tests.models.recorded import caller

from antiphon.models.model import ModelSpec
from antiphon.models.provider import connect_model
from antiphon.services.whisper._engine import Request, Whisper

SESSIONS = 16
BAR_ON_CPU, BAR_ON_GPU = 1.3, 5.0
_DEADLINE_SECS = 600.0


class OneByOne(Whisper):
    """The same model, without batches."""

    max_batch = 1
    max_queued = Whisper.max_batch * 4


@dataclass(frozen=True)
class Figures:
    """Segments a second, of all sessions together; medians of the rounds.

    Attributes:
        batched: In batches.
        one_by_one: The same model, one at a time.
        faster_whisper: faster-whisper as it is, one at a time.
        device: Where.
    """

    batched: float
    one_by_one: float
    faster_whisper: float
    device: str

    @property
    def gain(self) -> float:
        """How many times as much batches do."""
        return self.batched / self.one_by_one

    @property
    def bar(self) -> float:
        """What that should be at least."""
        return BAR_ON_CPU if self.device == "cpu" else BAR_ON_GPU


async def measure(*, rounds: int = 3, segments: int = 3, device: str = "cpu") -> Figures:
    """Measures, the three in turn.

    Args:
        rounds: How often.
        segments: What each session says in a round, one after the other.
        device: ``cpu`` or ``cuda``.
    """
    with tempfile.TemporaryDirectory() as directory:
        folder = tiny_whisper.build(Path(directory), tiny_whisper.TINY)
        options = {"model": str(folder), "device": device, "cpu_threads": os.cpu_count() or 1}
        rates: dict[str, list[float]] = {"batched": [], "one_by_one": [], "faster_whisper": []}
        for _ in range(rounds):
            rates["batched"].append(await _rate(ModelSpec(Whisper, options), segments))
            rates["one_by_one"].append(await _rate(ModelSpec(OneByOne, options), segments))
            rates["faster_whisper"].append(
                await asyncio.to_thread(_faster_whisper, str(folder), device, segments)
            )
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return Figures(**medians, device=device)


async def _rate(spec: ModelSpec, segments: int) -> float:
    """Segments a second."""
    async with await connect_model(spec) as client:

        async def session(number: int) -> None:
            for count in range(segments):
                request = Request(
                    audio=_speech(number + count),
                    language="en",
                    no_speech_prob=1.0,
                    final=True,
                )
                await client.request(request, deadline_secs=_DEADLINE_SECS)

        began = time.perf_counter()
        await asyncio.gather(*(session(number) for number in range(SESSIONS)))
        return SESSIONS * segments / (time.perf_counter() - began)


def _faster_whisper(folder: str, device: str, segments: int) -> float:
    """Segments a second; a tenth of them, as it takes long."""
    from faster_whisper import WhisperModel

    model = WhisperModel(folder, device=device, cpu_threads=os.cpu_count() or 1)
    count = max(2, SESSIONS * segments // 10)
    began = time.perf_counter()
    for number in range(count):
        audio = np.frombuffer(_speech(number), "<i2").astype(np.float32) / np.float32(32768)
        found, _ = model.transcribe(audio, language="en", without_timestamps=True)
        list(found)
    return count / (time.perf_counter() - began)


def _speech(number: int) -> bytes:
    sentences = caller()
    return sentences[number % len(sentences)].audio


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args(arguments)
    rounds, segments = (1, 1) if options.quick else (3, 3)
    figures = asyncio.run(measure(rounds=rounds, segments=segments, device=options.device))
    print(f"tiny Whisper, {SESSIONS} sessions, {os.cpu_count()} cores, {figures.device}")
    print(f"  in batches        {figures.batched:7.1f} segments/s")
    print(f"  one by one        {figures.one_by_one:7.1f} segments/s")
    print(f"  faster-whisper    {figures.faster_whisper:7.1f} segments/s")
    met = figures.gain >= figures.bar
    print(
        f"  gain {figures.gain:.2f} times, at least {figures.bar} wanted: {'met' if met else 'MISSED'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
