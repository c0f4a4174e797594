"""Whether the memory of a model's process depends on its sessions."""

from __future__ import annotations

from benchmarks.harness.bench import Bench
from benchmarks.harness.command import Scenario
from benchmarks.harness.results import Bar, Result
from benchmarks.models.stage import silero

NUMBERS = (1, 8, 64)


async def run(bench: Bench, result: Result) -> None:
    """Measures after each number of sessions has talked for a while."""
    secs = 1.0 if bench.options.quick else 5.0
    async with silero(bench) as stage:
        # Buffers are made once: for the largest batch.
        await stage.turn(NUMBERS[-1], secs)
        for number in NUMBERS:
            await stage.turn(number, secs)
            said = await stage.host.ask("tell", collect=True)
            result.row(f"{number} sessions").add("memory MB", said["resident_bytes"] / 1e6)
    sizes = [result.row(f"{number} sessions").value("memory MB") for number in NUMBERS]
    change = 100 * (max(sizes) / min(sizes) - 1)
    detail = " / ".join(f"{size:.1f}" for size in sizes) + " MB"
    text = "memory of a model's process with 1, 8, 64 sessions: largest change"
    result.bars.append(Bar(text, change, 10.0, "at most", "%", detail))


SCENARIO = Scenario("model_memory", "memory of a model's process by its sessions", run, 120)
