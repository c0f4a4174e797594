"""Silero through an actor: how many sessions a core serves, how much later, and how exactly."""

from __future__ import annotations

from benchmarks.harness.bench import Bench
from benchmarks.harness.command import Scenario
from benchmarks.harness.results import Result
from benchmarks.harness.statistics import median, quantile
from benchmarks.models.stage import WINDOW_SECS, silero

ACTOR = "through the actor"
PUBLISHED = "a call of the published model for each window"
ANALYZER = "SileroVADAnalyzer in its own process"
SESSIONS = "sessions/core"
PROBES = 8
LOAD_SHARE = 0.7


async def capacity(bench: Bench, result: Result) -> None:
    """How many sessions a core serves in real time."""
    rounds = max(1, min(bench.options.rounds, 3))
    async with silero(bench) as stage:
        for _ in range(rounds):
            said = await stage.load.ask("direct", count=bench.options.count(3000))
            for name, key in ((PUBLISHED, "published_us"), (ANALYZER, "analyzer_us")):
                window_us = median(said[key])
                result.row(name).add("us/window", window_us)
                result.row(name).add(SESSIONS, 1e6 * WINDOW_SECS / window_us)
            found = await stage.capacity(1.0 if bench.options.quick else 3.0)
            row = result.row(ACTOR)
            row.add("us/window", 1e6 * found.cpu_secs / found.said["windows"])
            row.add(SESSIONS, found.sessions)
            row.add("p50 ms", found.wait_ms(0.5))
            row.add("p99 ms", found.wait_ms(0.99))
            row.add("windows in a batch", found.batch)
    result.notes.append(
        "the model's process has one core, the channel's part of it included; sessions are in time if 99 of"
        " 100 windows are answered before the next is due"
    )
    text = "Silero, sessions on one core: actor / a call of the published model each"
    result.compare(text, ACTOR, PUBLISHED, SESSIONS, 2.5, "at least")


async def latency(bench: Bench, result: Result) -> None:
    """How much later an answer comes than that of a direct call, at 70 % load."""
    quick = bench.options.quick
    async with silero(bench) as stage:
        said = await stage.load.ask("direct", count=bench.options.count(3000))
        direct = [1e-3 * us for us in said["analyzer_us"]]
        most = await stage.capacity(1.0 if quick else 3.0)
        for _ in range(1 if quick else 3):
            found = await stage.undisturbed(
                int(LOAD_SHARE * most.sessions), 2.0 if quick else 8.0, probes=PROBES
            )
            waits = found.said["probes_ms"]
            row = result.row(f"{ACTOR}, {found.sessions} sessions")
            row.add("others' cores", found.other_cores)
            row.add("p50 ms", quantile(waits, 0.5))
            row.add("p99 ms", quantile(waits, 0.99))
            for name, q in (("added p50 ms", 0.5), ("added p99 ms", 0.99)):
                row.add(name, quantile(waits, q) - quantile(direct, q))
        row = result.row(ANALYZER)
        row.add("p50 ms", quantile(direct, 0.5))
        row.add("p99 ms", quantile(direct, 0.99))
    contestant = result.rows[0].contestant
    result.notes.append(f"waits are those of {PROBES} sessions as bots have them; the rest is load")
    text = "Silero, added latency at 70 % load"
    result.limit(f"{text}: p50", contestant, "added p50 ms", 2.0, "at most")
    result.limit(f"{text}: p99", contestant, "added p99 ms", 10.0, "at most")


async def difference(bench: Bench, result: Result) -> None:
    """How far confidences of sessions together are from those of each alone."""
    async with silero(bench) as stage:
        said = await stage.load.ask(
            "compare", sessions=64, count=40 if bench.options.quick else 150
        )
    row = result.row("64 sessions together")
    row.add("to each alone, probability", said["to_alone"])
    row.add("to the published model, probability", said["to_published"])
    for metric in list(row.rounds):
        result.limit(
            f"Silero, largest difference: {metric.rpartition(',')[0]}",
            row.contestant,
            metric,
            1e-4,
            "at most",
        )


async def process(bench: Bench, result: Result) -> None:
    """What it means for the process of eight sessions; the ground for the default."""
    secs = 2.0 if bench.options.quick else 8.0
    async with silero(bench) as stage:
        for _ in range(1 if bench.options.quick else 3):
            for number in (1, 8):
                for shared in (False, True):
                    before = await stage.host.ask("tell")
                    said = await stage.load.ask(
                        "analyzers", number=number, secs=secs, shared=shared
                    )
                    after = await stage.host.ask("tell")
                    windows = number * secs / WINDOW_SECS
                    place = "shared" if shared else "in its own process"
                    row = result.row(f"{number} sessions, {place}")
                    row.add("process us/window", 1e6 * said["cpu_secs"] / windows)
                    actor = after["cpu_secs"] - before["cpu_secs"] if shared else 0.0
                    row.add("actor us/window", 1e6 * actor / windows)
                    row.add("p50 ms", quantile(said["waits_ms"], 0.5))
                    row.add("p99 ms", quantile(said["waits_ms"], 0.99))
    result.notes.append(
        "processor time of everything the process does, pieces of 20 ms in real time"
    )


CAPACITY = Scenario("silero", "Silero: sessions in real time on one core", capacity, 400)
LATENCY = Scenario("silero_latency", "Silero: latency at 70 % load", latency, 300)
DIFFERENCE = Scenario("silero_difference", "Silero: together and alone", difference, 120)
PROCESS = Scenario("silero_process", "Silero: what it costs the sessions' process", process, 200)
