"""Sessions whose actors are stuck, frozen, drained or lost, with or without their agent."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.ray.session_support import RUN_SECS, Session

from antiphon_actors.agent_client import AgentClient, end_agent
from antiphon_actors.agent_types import AgentSettings
from antiphon_actors.agents import create_agent
from antiphon_actors.bot_program import BotFile
from antiphon_actors.cluster import LocalCluster
from antiphon_actors.pool_types import PoolSettings
from antiphon_actors.supervisor import SessionSpec

pytestmark = [pytest.mark.ray, pytest.mark.timeout(90)]

BOT = """
import asyncio
import os
import time
from pathlib import Path

from antiphon.frames.frames import EndFrame, TextFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameProcessor


class Work(FrameProcessor):
    movable = True

    def __init__(self, directory):
        super().__init__()
        self._directory = directory

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            block = Path(self._directory, "block")
            if block.exists():
                block.unlink()
                time.sleep(60)
            frame.text += f" {os.getpid()}"
        await self.push_frame(frame, direction)


class Show(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            print("heard", frame.text, flush=True)
        await self.push_frame(frame, direction)


async def bot(runner_args):
    directory = runner_args.body["directory"]
    task = PipelineTask(Pipeline([Work(directory), Show()]))

    @task.event_handler("on_pipeline_started")
    async def started(task, frame):
        number = 0
        while not Path(directory, "end").exists():
            await task.queue_frame(TextFrame(str(number)))
            number += 1
            await asyncio.sleep(0.02)
        print("sent", number, flush=True)
        await task.queue_frame(EndFrame())

    await PipelineRunner(handle_sigint=False).run(task)
"""


class Call:
    """A session on a cluster with a detached agent."""

    def __init__(self, agent: Any, directory: Path) -> None:
        self.agent = agent
        self.client = AgentClient(agent)
        self.directory = directory
        self.session: Any = None

    async def begin(self) -> None:
        lease = await self.agent.start_supervisor.remote("s")
        bot = BotFile("/nowhere/moving_bot.py", BOT)
        spec = SessionSpec("s", bot, body={"directory": str(self.directory)})
        self.session = Session(lease.handle, spec)
        await self.pid()

    async def pid(self, *avoid: int) -> int:
        """The process that works, once it is none of these."""
        heard = len(self.session.heard)
        async with asyncio.timeout(RUN_SECS):
            while True:
                for line in self.session.heard[heard:]:
                    pid = int(line.split()[2])
                    if pid not in avoid:
                        return pid
                heard = len(self.session.heard)
                self.session.news.clear()
                await self.session.news.wait()

    async def status(self) -> dict[str, Any]:
        return dict(await self.client.call("status", deadline_secs=RUN_SECS))

    async def end(self) -> list[str]:
        """Ends the session; returns its failures, when all that was sent was heard once and in order."""
        (self.directory / "end").touch()
        report = await self.session.end()
        sent = int((await self.session.line("sent")).split()[1])
        assert [int(line.split()[1]) for line in self.session.heard] == list(range(sent))
        failures: list[str] = report.failures
        return failures


@pytest.fixture
async def call(cluster: LocalCluster, tmp_path: Path) -> AsyncIterator[Call]:
    hub = tmp_path / "hub"
    hub.mkdir(mode=0o700)
    agent = create_agent(
        AgentSettings(
            hub_dir=str(hub),
            pools=PoolSettings(reserve=2, supervisor_reserve=0, begin_secs=0.0),
            warm_workers=1,
        ),
        detached=True,
    )
    made = Call(agent, tmp_path)
    await made.begin()
    yield made
    await end_agent(agent, 6.0)


async def test_a_session_leaves_an_actor_whose_loop_is_blocked(call: Call) -> None:
    pid = await call.pid()
    (call.directory / "block").touch()
    await call.pid(pid)
    assert await call.end() == []


async def test_a_session_leaves_an_actor_that_is_stopped(call: Call) -> None:
    pid = await call.pid()
    os.kill(pid, signal.SIGSTOP)
    await call.pid(pid)
    assert await call.end() == []


async def test_a_session_leaves_an_actor_that_is_told_to_end(call: Call) -> None:
    pid = await call.pid()
    os.kill(pid, signal.SIGTERM)
    await call.pid(pid)
    assert await call.end() == []


async def test_a_session_leaves_a_pool_that_is_drained(call: Call) -> None:
    pid = await call.pid()
    await call.agent.drain.remote("pool", "Work", 2.0)
    await call.pid(pid)
    async with asyncio.timeout(RUN_SECS):
        while (await call.agent.drains.remote())[0].moved == 0:  # noqa: ASYNC110 - remote
            await asyncio.sleep(0.02)
    (progress,) = await call.agent.drains.remote()
    assert (progress.state, progress.moved, progress.cut) == ("done", 1, 0)
    assert await call.end() == []


async def test_a_session_does_not_notice_the_death_of_its_agent(call: Call) -> None:
    pid = await call.pid()
    agent = (await call.status())["pid"]
    os.kill(agent, signal.SIGKILL)
    status = await call.status()
    assert status["pid"] != agent
    assert await call.pid() == pid
    assert await call.end() == []
    kinds = (await call.status())["kinds"]
    assert [kind["used"] for name, kind in kinds.items() if name.endswith(":Work")] == [0]


async def test_an_actor_that_dies_with_its_agent_is_replaced(call: Call) -> None:
    pid = await call.pid()
    os.kill((await call.status())["pid"], signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    await call.pid(pid)
    assert await call.end() == []
