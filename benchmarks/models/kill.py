"""A model's actor is killed while sessions use it: all go on, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.audio.vad.vad_analyzer import VADState
from antiphon.models.local import LocalModels
from antiphon.models.provider import use_models
from antiphon_actors.agent_client import AgentClient
from antiphon_actors.models.provider import use_actors_for_models
from antiphon_actors.models.settings import ModelRule, ModelSettings, Scaling
from antiphon_actors.pool_types import PoolSettings
from antiphon_actors.session.endpoint import Endpoint
from benchmarks.harness.bench import Bench
from benchmarks.harness.command import Scenario
from benchmarks.harness.results import Bar, Result
from benchmarks.programs.vad_load import RATE, windows

SESSIONS = 8
PIECE_SECS = 0.02
DEADLINE_SECS = 60.0

# Does one session's work, and says when it is time to kill: returns what came of it.
Talk = Callable[[int, asyncio.Event], Awaitable[Any]]


async def run(bench: Bench, result: Result) -> None:
    """Kills the only actor of Silero, and one of two, while eight sessions talk in real time."""
    for name, scaling in (
        ("the only actor", Scaling()),
        ("one of two actors", Scaling(least=2, most=2)),
    ):
        await silero(bench, result, name, scaling)


async def silero(bench: Bench, result: Result, name: str, scaling: Scaling) -> None:
    """Eight analyzers hear the caller; their states have to be those of an undisturbed one."""
    audio = b"".join(windows())
    size = round(RATE * PIECE_SECS) * 2
    count = 150 if bench.options.quick else 400
    pieces = [audio[at : at + size] for at in range(0, len(audio) - size + 1, size)]
    gaps: list[float] = []
    shared: list[bool] = []

    async def talk(number: int, now: asyncio.Event) -> list[VADState]:
        analyzer = SileroVADAnalyzer()
        analyzer.set_sample_rate(RATE)
        await analyzer.connect_model()
        states, due, longest = [], time.perf_counter(), 0.0
        for at in range(count):
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            began = time.perf_counter()
            states.append(
                await analyzer.analyze_audio_async(pieces[(at + 37 * number) % len(pieces)])
            )
            longest = max(longest, time.perf_counter() - began)
            due += PIECE_SECS
            if number == 0 and at == count // 3:
                now.set()
        gaps.append(longest)
        shared.append(analyzer._session is not None)
        await analyzer.disconnect_model()
        return states

    rules = (ModelRule("SileroModel", "actor", scaling=scaling),)
    found = await killed(bench, ModelSettings(rules=rules), talk)
    good = 0
    with use_models(LocalModels()):
        for number, states in enumerate(found):
            alone = SileroVADAnalyzer()
            alone.set_sample_rate(RATE)
            expected = [
                alone.analyze_audio(pieces[(at + 37 * number) % len(pieces)]) for at in range(count)
            ]
            good += states == expected
    row = result.row(f"Silero, {name} killed")
    row.add("sessions that went on right", good)
    row.add("of them with another actor", sum(shared))
    row.add("longest wait for a piece ms", 1e3 * max(gaps))
    text = f"Silero, {name} killed with {SESSIONS} sessions on it: sessions that go on"
    result.bars.append(Bar(text, good, SESSIONS, "at least", ""))


async def killed(bench: Bench, settings: ModelSettings, talk: Talk) -> list[Any]:
    """Runs sessions with models in actors, and kills one of these when a session says so.

    Args:
        bench: The run.
        settings: How models run.
        talk: A session; by its number. It gets its models as every process of the cluster.

    Returns:
        What each session returned.
    """
    actors = await bench.actors()
    async with AsyncExitStack() as stack:
        pools = PoolSettings(reserve=0, supervisor_reserve=0)
        agent = await stack.enter_async_context(actors.agent(pools, models=settings))
        endpoint = Endpoint("sessions")
        directory = bench.directory / bench.unique("kill").replace("/", "-")
        await endpoint.start(f"unix://{directory}/sessions.sock")
        stack.push_async_callback(endpoint.aclose)
        stack.enter_context(use_actors_for_models(endpoint, AgentClient(agent), settings))
        now = asyncio.Event()
        talking = [asyncio.ensure_future(talk(number, now)) for number in range(SESSIONS)]
        async with asyncio.timeout(DEADLINE_SECS):
            await now.wait()
            processes = (await agent.status.remote())["model_processes"]
            os.kill(processes[0]["pid"], signal.SIGKILL)
            return await asyncio.gather(*talking)


SCENARIO = Scenario("kill", "a model's actor is killed while sessions use it", run, 200)
