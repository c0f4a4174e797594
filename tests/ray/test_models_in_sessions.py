"""Sessions whose processors and transports use models in actors, on this node and on another."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from antiphon_actors.agent_types import AgentSettings, NetworkSettings
from antiphon_actors.agents import create_agent
from antiphon_actors.bot_program import BotFile
from antiphon_actors.cluster import LocalCluster
from antiphon_actors.models.settings import ModelRule, ModelSettings
from antiphon_actors.placement.policy import Placement, Preset
from antiphon_actors.pool_types import PoolSettings
from antiphon_actors.report import SessionReport
from antiphon_actors.supervisor import Output, SessionSpec

pytestmark = [pytest.mark.ray, pytest.mark.timeout(90)]

RUN_SECS = 40.0
SPEECH = Path(__file__).parents[1] / "data" / "espeak_16k.wav"

BOT = """
import os
import wave

import antiphon_fake_models
from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.frames.frames import EndFrame, StartFrame, TextFrame
from antiphon.models.model import ModelSpec
from antiphon.models.provider import connect_model
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameProcessor


class Loud(FrameProcessor):
    movable = True

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self.model = await connect_model(ModelSpec(antiphon_fake_models.Shout, {"mark": "!"}))
        elif isinstance(frame, TextFrame):
            if frame.text == "who":
                frame.text = f"{os.getpid()} {(await self.model.request('who', deadline_secs=20))[0]}"
            else:
                frame.text = await self.model.request(frame.text, deadline_secs=20)
        await self.push_frame(frame, direction)

    async def cleanup(self):
        await super().cleanup()
        await self.model.aclose()


class Show(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            print("text", frame.text, flush=True)
        await self.push_frame(frame, direction)


async def listen(path):
    vad = SileroVADAnalyzer()
    vad.set_sample_rate(16000)
    await vad.connect_model()
    print("shared", vad._session is not None, flush=True)
    with wave.open(path) as file:
        audio = file.readframes(file.getnframes())
    states = [await vad.analyze_audio_async(audio[at:at + 640]) for at in range(0, len(audio), 640)]
    print("states", "".join(str(state.value) for state in states), flush=True)
    await vad.disconnect_model()


async def bot(runner_args):
    await listen(runner_args.body["speech"])
    task = PipelineTask(Pipeline([Loud(), Loud(), Show()]))
    await task.queue_frames([TextFrame("one"), TextFrame("two"), TextFrame("who"), EndFrame()])
    await PipelineRunner(handle_sigint=False).run(task)
"""

SILERO_IN_ACTOR = ModelRule("SileroModel", "actor")


@asynccontextmanager
async def running(settings: AgentSettings) -> AsyncIterator[Any]:
    agent = create_agent(settings)
    try:
        await agent.start.remote()
        yield agent
    finally:
        await agent.shutdown.remote()
        ray.kill(agent)


@pytest.fixture
def directory(cluster: LocalCluster, request: pytest.FixtureRequest) -> Path:
    made = cluster.directory / f"m{abs(hash(request.node.name)) % 10_000}"  # short, for sockets
    made.mkdir(mode=0o700)
    return made


async def session(agent: Any, name: str, preset: Preset) -> tuple[list[str], SessionReport]:
    """Runs the bot; what it printed, and its report."""
    lease = await agent.start_supervisor.remote(name)
    spec = SessionSpec(
        name,
        BotFile(f"/nowhere/{name}_bot.py", BOT),
        placement=Placement(preset),
        body={"speech": str(SPEECH)},
    )
    lines: list[str] = []
    report: SessionReport | None = None
    async with asyncio.timeout(RUN_SECS):
        async for reference in lease.handle.run_session.options(num_returns="streaming").remote(
            spec
        ):
            item = await reference
            if isinstance(item, Output):
                lines += item.text.splitlines()
            elif isinstance(item, SessionReport):
                report = item
    await agent.release.remote(name)
    assert report is not None
    assert not report.failures, (report.failures, lines)
    return lines, report


def texts(lines: list[str]) -> list[str]:
    return [line.removeprefix("text ") for line in lines if line.startswith("text ")]


def states(lines: list[str]) -> str:
    return next(line.removeprefix("states ") for line in lines if line.startswith("states "))


async def test_the_same_wherever_processors_and_models_run(
    cluster: LocalCluster, directory: Path
) -> None:
    settings = AgentSettings(
        hub_dir=str(directory),
        warm_workers=0,
        pools=PoolSettings(reserve=1),
        models=ModelSettings(rules=(SILERO_IN_ACTOR,)),
    )
    async with running(settings) as agent:
        found = {
            preset: (await session(agent, f"s-{preset}", preset))[0]
            for preset in ("fused", "pooled", "dedicated")
        }
        status = await agent.status.remote()
    for lines in found.values():
        assert "shared True" in lines
        assert texts(lines)[:2] == ["ONE!!", "TWO!!"]
    assert len({states(lines) for lines in found.values()}) == 1
    assert {"1", "3"} <= set(states(found["fused"]))
    # One actor for each model, which is not where the processors are.
    models = {str(each["pid"]) for each in status["model_processes"]}
    assert len(models) == 2
    for preset, lines in found.items():
        process, model = texts(lines)[2].rstrip("!").split()
        assert process not in models
        assert model in models, preset


async def test_in_the_process_itself_where_the_operator_says_so(
    cluster: LocalCluster, directory: Path
) -> None:
    settings = AgentSettings(
        hub_dir=str(directory),
        warm_workers=0,
        pools=PoolSettings(reserve=1),
        models=ModelSettings(rules=(ModelRule("Shout", "process"),)),
    )
    async with running(settings) as agent:
        lines, _ = await session(agent, "s1", "pooled")
        status = await agent.status.remote()
    assert "shared False" in lines  # by its class
    assert texts(lines)[:2] == ["ONE!!", "TWO!!"]
    process, model = texts(lines)[2].rstrip("!").split()
    assert process == model
    assert status["models"] == []


async def test_what_this_node_does_not_have_is_used_on_another(
    cluster: LocalCluster, directory: Path
) -> None:
    elsewhere = ModelRule("Shout", resources={"elsewhere": 0.1})
    settings = AgentSettings(
        hub_dir=str(directory),
        warm_workers=0,
        pools=PoolSettings(reserve=1),
        models=ModelSettings(rules=(elsewhere, SILERO_IN_ACTOR)),
        network=NetworkSettings(
            "models", authority_dir=directory / "authority", scratch_dir=directory
        ),
    )
    async with running(settings) as agent:
        lines, _ = await session(agent, "s1", "pooled")
        status = await agent.status.remote()
        assert texts(lines)[:2] == ["ONE!!", "TWO!!"]
        assert "shared True" in lines
        # Here only the one that needs nothing.
        assert [line["model"] for line in status["models"]] == ["SileroModel"]
        pid = int(texts(lines)[2].rstrip("!").split()[1])
        assert pid not in [each["pid"] for each in status["model_processes"]]
        assert psutil.pid_exists(pid)  # the nodes are on one machine
    # The agent of the other node has removed its own.
    assert not list(directory.glob("antiphon-*"))  # noqa: ASYNC240 - a look at what is left


async def test_a_drained_node_has_its_models_from_another(
    cluster: LocalCluster, directory: Path
) -> None:
    settings = AgentSettings(
        hub_dir=str(directory),
        warm_workers=0,
        pools=PoolSettings(reserve=0, supervisor_reserve=0),
        network=NetworkSettings(
            "models", authority_dir=directory / "authority", scratch_dir=directory
        ),
    )
    fakes = importlib.import_module("antiphon_fake_models")
    from antiphon.models.model import ModelSpec
    from antiphon_actors.models.specs import ModelWanted

    async with running(settings) as agent:
        wanted = ModelWanted.of(ModelSpec(fakes.Shout), settings.models)
        (here,) = await agent.acquire_model.remote(wanted)
        number = await agent.drain.remote("node", "", 0.0, "test")
        (there,) = await agent.acquire_model.remote(wanted)
        assert there != here
        await agent.cancel_drain.remote(number)
        (again,) = await agent.acquire_model.remote(wanted)
        assert again not in (here, there)


async def test_what_no_node_has_fails_with_what_lacks(
    cluster: LocalCluster, directory: Path
) -> None:
    settings = AgentSettings(
        hub_dir=str(directory),
        warm_workers=0,
        pools=PoolSettings(reserve=0, supervisor_reserve=0),
        models=ModelSettings(rules=(ModelRule("Shout", resources={"tpu": 1}),)),
        network=NetworkSettings(
            "models", authority_dir=directory / "authority", scratch_dir=directory
        ),
    )
    fakes = importlib.import_module("antiphon_fake_models")
    from antiphon.models.model import ModelSpec
    from antiphon_actors.errors import NoActorError
    from antiphon_actors.models.specs import ModelWanted

    async with running(settings) as agent:
        wanted = ModelWanted.of(ModelSpec(fakes.Shout), settings.models)
        with pytest.raises(NoActorError, match="no node of the cluster has tpu=1"):
            await agent.acquire_model.remote(wanted)
