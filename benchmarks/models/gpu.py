"""What an NVIDIA GPU makes of Whisper: batches, and how soon sessions that speak have their texts.

    python -m benchmarks.models.gpu [SCENARIO...] [--quick]

Needs an NVIDIA GPU and a CTranslate2 that finds its CUDA libraries (``pip install nvidia-cublas-cu12
nvidia-cudnn-cu12``); says so where one of them lacks. The models have made-up weights; nothing is downloaded.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from tests.models import tiny_whisper

from antiphon.models.client import ModelClient
from antiphon.models.provider import connect_model
from antiphon.services.whisper._engine import Request, whisper_spec
from benchmarks.harness import command
from benchmarks.harness.bench import Bench
from benchmarks.harness.command import Scenario
from benchmarks.harness.results import Result
from benchmarks.harness.statistics import quantile
from benchmarks.models import whisper

BAR_ON_GPU = 5.0
SESSIONS = (1, 16, 64)
# What is said so far is transcribed anew this often; see `WhisperSTTService(interim_results=True)`.
INTERIM_SECS = 1.0
_SAMPLE_BYTES = 2
_RATE_HZ = 16_000
_DEADLINE_SECS = 60.0


async def throughput(bench: Bench, result: Result) -> None:
    """Segments a second of 16 sessions, in batches and one by one."""
    await whisper.measure(bench, result, device="cuda", limit=BAR_ON_GPU)


async def streaming(bench: Bench, result: Result) -> None:
    """How long after a session has stopped speaking its text is there."""
    await measure_streaming(bench, result, device="cuda", numbers=SESSIONS)


async def measure_streaming(
    bench: Bench, result: Result, *, device: str, numbers: Sequence[int]
) -> None:
    """Has sessions speak in real time and takes the time from the end of speech to the text.

    Args:
        bench: The run.
        result: Gets the rows.
        device: ``cuda``, or ``cpu`` to see that it works.
        numbers: Of sessions that speak at the same time.
    """
    turns = 1 if bench.options.quick else 5
    directory = bench.directory / bench.unique("streaming").replace("/", "-")
    folder = await asyncio.to_thread(tiny_whisper.build, directory, tiny_whisper.TINY)
    async with await connect_model(whisper_spec(str(folder), device=device)) as client:
        for number in numbers:
            found = await asyncio.gather(*(_talk(client, each, turns) for each in range(number)))
            row = result.row(f"{number} sessions that speak")
            for name, waits in (
                ("final text", [wait for finals, _ in found for wait in finals]),
                ("interim text", [wait for _, interims in found for wait in interims]),
            ):
                for part, q in (("p50", 0.5), ("p99", 0.99)):
                    if waits:
                        row.add(f"{name} {part} ms", quantile(waits, q))
    result.notes.append("from the end of what is said, or from its latest second, to the answer")


async def _talk(client: ModelClient, number: int, turns: int) -> tuple[list[float], list[float]]:
    """Speaks in real time; waits for final and for interim texts, in ms."""
    finals: list[float] = []
    interims: list[float] = []
    # Not all at once: nobody waits for the others to begin.
    await asyncio.sleep(0.37 * number % 2.0)
    for turn in range(turns):
        audio = whisper.speech(number + turn)
        step = round(INTERIM_SECS * _RATE_HZ) * _SAMPLE_BYTES
        due = time.perf_counter()
        for end in [*range(step, len(audio), step), len(audio)]:
            due += (end % step or step) / _SAMPLE_BYTES / _RATE_HZ
            await asyncio.sleep(max(due - time.perf_counter(), 0.0))
            final = end == len(audio)
            request = Request(audio=audio[:end], language="en", no_speech_prob=1.0, final=final)
            began = time.perf_counter()
            await client.request(request, deadline_secs=_DEADLINE_SECS)
            (finals if final else interims).append(1e3 * (time.perf_counter() - began))
    return finals, interims


def what_lacks() -> str:
    """Why nothing can be measured here; empty if it can."""
    try:
        import ctranslate2
    except ImportError:
        return "CTranslate2 is not installed: pip install 'antiphon[whisper]'"
    try:
        count = ctranslate2.get_cuda_device_count()
        if count and ctranslate2.get_supported_compute_types("cuda"):
            return ""
    except (RuntimeError, ValueError) as error:
        return f"CTranslate2 cannot use the GPU: {error}"
    return "CTranslate2 finds no NVIDIA GPU here (or it was built without CUDA)"


SCENARIOS = [
    Scenario("whisper_gpu", "Whisper on a GPU, in batches and one by one", throughput, 300),
    Scenario("streaming", "how soon texts are there, on a GPU", streaming, 300),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenarios the arguments name, or all; 1 if a bar is missed, 2 if there is no GPU."""
    asks_for_help = {"-h", "--help"} & set(sys.argv[1:] if arguments is None else arguments)
    if not asks_for_help and (why := what_lacks()):
        Console(stderr=True).print(f"error: {why}", style="red", markup=False, soft_wrap=True)
        return 2
    return command.main(SCENARIOS, arguments, prog="python -m benchmarks.models.gpu", strict=True)


if __name__ == "__main__":
    sys.exit(main())
