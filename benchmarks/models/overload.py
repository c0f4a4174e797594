"""Three times as many sessions as a model can serve: who is served is served in time."""

from __future__ import annotations

from benchmarks.harness.bench import Bench
from benchmarks.harness.command import Scenario
from benchmarks.harness.results import Bar, Result
from benchmarks.harness.statistics import median
from benchmarks.models.stage import WINDOW_SECS, Turn, silero

TIMES = 3
# Far more than any core serves.
FLOOD = 4000


async def run(bench: Bench, result: Result) -> None:
    """Measures at capacity and at three times that, in turns; capacity is what it answers at most."""
    quick = bench.options.quick
    secs = 2.0 if quick else 5.0
    ratios: list[float] = []
    slowest = 0.0
    async with silero(bench) as stage:
        for _ in range(1 if quick else 5):
            # What it can do at most, now: the machine may do other things beside.
            flooded = await stage.turn(FLOOD, secs, patient=False)
            capacity = int(flooded.answered_per_sec * WINDOW_SECS)
            at_capacity = await stage.turn(capacity, secs, patient=False)
            beyond = await stage.turn(TIMES * capacity, secs, patient=False)
            _add(result, "as many sessions as it can serve", at_capacity)
            _add(result, f"{TIMES} times as many", beyond)
            ratios.append(beyond.wait_ms(0.99) / at_capacity.wait_ms(0.99))
            slowest = max(slowest, *beyond.said["refusals_ms"])
    result.bars.append(
        Bar(
            f"{TIMES} times capacity: p99 of accepted requests / that at capacity",
            median(ratios),
            1.5,
            "at most",
        )
    )
    result.bars.append(
        Bar(f"{TIMES} times capacity: slowest refusal", slowest, 50.0, "at most", "ms")
    )
    result.notes.append(
        "a user that is told to come again later asks nothing more until then: what it has meanwhile is"
        " refused at once, in its own process"
    )


def _add(result: Result, name: str, turn: Turn) -> None:
    row = result.row(name)
    row.add("sessions", turn.sessions)
    row.add("accepted p50 ms", turn.wait_ms(0.5))
    row.add("accepted p99 ms", turn.wait_ms(0.99))
    row.add("answered /s", turn.answered_per_sec)
    row.add("refused %", 100 * len(turn.said["refusals_ms"]) / turn.said["windows"])
    row.add("lost", turn.said["lost"])


SCENARIO = Scenario("overload", "three times a model's capacity", run, 300)
