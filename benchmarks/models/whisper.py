"""What batches are worth to Whisper: 16 sessions that speak at the same time, on the same threads.

The model has the dimensions of the published tiny one and made-up weights, so that nothing is downloaded;
what it says takes as many steps as real words would. The sessions ask it as services do, all at once, again
and again. Compared are batches as they come about, and the same model that takes one segment at a time.
Beside them stands faster-whisper as it is, which pads every segment to 30 s.
"""

from __future__ import annotations

import asyncio
import os
import time

import numpy as np
from tests.models import tiny_whisper
from tests.models.recorded import caller

from antiphon.models.model import ModelSpec
from antiphon.models.provider import connect_model
from antiphon.services.whisper._engine import Request, Whisper
from benchmarks.harness.bench import Bench
from benchmarks.harness.command import Scenario, run_alone
from benchmarks.harness.results import Result

SESSIONS = 16
BAR_ON_CPU = 1.3
BATCHED, ONE_BY_ONE, FASTER_WHISPER = "in batches", "one by one", "faster-whisper as it is"
RATE = "segments/s"
_DEADLINE_SECS = 600.0


class OneByOne(Whisper):
    """The same model, without batches."""

    max_batch = 1
    max_queued = Whisper.max_batch * 4


async def run(bench: Bench, result: Result) -> None:
    """Measures on the CPU."""
    await measure(bench, result, device="cpu", limit=BAR_ON_CPU)


async def measure(bench: Bench, result: Result, *, device: str, limit: float) -> None:
    """Measures the three in turn.

    Args:
        bench: The run.
        result: Gets the rows and the bar.
        device: ``cpu`` or ``cuda``.
        limit: How many times as much batches have to do at least.
    """
    quick = bench.options.quick
    rounds, segments = (1, 1) if quick else (min(bench.options.rounds, 3), 3)
    directory = bench.directory / bench.unique("whisper").replace("/", "-")
    folder = await asyncio.to_thread(tiny_whisper.build, directory, tiny_whisper.TINY)
    options = {"model": str(folder), "device": device, "cpu_threads": os.cpu_count() or 1}
    for _ in range(rounds):
        result.row(BATCHED).add(RATE, await _rate(ModelSpec(Whisper, options), segments))
        result.row(ONE_BY_ONE).add(RATE, await _rate(ModelSpec(OneByOne, options), segments))
        rate = await asyncio.to_thread(_faster_whisper, str(folder), device, segments)
        result.row(FASTER_WHISPER).add(RATE, rate)
    result.notes.append(
        f"a model of tiny's dimensions on {device}, {SESSIONS} sessions, {os.cpu_count()} cores"
    )
    text = f"tiny Whisper, {SESSIONS} sessions on {device}: in batches / one by one"
    result.compare(text, BATCHED, ONE_BY_ONE, RATE, limit, "at least")


async def _rate(spec: ModelSpec, segments: int) -> float:
    """Segments a second."""
    async with await connect_model(spec) as client:

        async def session(number: int) -> None:
            for count in range(segments):
                request = Request(
                    audio=speech(number + count),
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
        audio = np.frombuffer(speech(number), "<i2").astype(np.float32) / np.float32(32768)
        found, _ = model.transcribe(audio, language="en", without_timestamps=True)
        list(found)
    return count / (time.perf_counter() - began)


def speech(number: int) -> bytes:
    """What a session says, int16 PCM, mono, 16 kHz."""
    sentences = caller()
    return sentences[number % len(sentences)].audio


SCENARIO = Scenario("whisper", "Whisper in batches and one by one", run, 300)

if __name__ == "__main__":
    run_alone(SCENARIO)
