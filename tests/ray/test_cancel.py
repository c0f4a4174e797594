"""Sessions on a cluster that are cancelled while a processor blocks the thread of its actor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.ray.session_support import RUN_SECS, Session

from antiphon_actors.agent_client import end_agent
from antiphon_actors.agent_types import AgentSettings
from antiphon_actors.agents import create_agent
from antiphon_actors.bot_program import BotFile
from antiphon_actors.cluster import LocalCluster
from antiphon_actors.placement.policy import Placement
from antiphon_actors.pool_types import PoolSettings
from antiphon_actors.supervisor import CANCEL_DEADLINE_SECS, SessionSpec

pytestmark = [pytest.mark.ray, pytest.mark.timeout(90)]

BOT = """
import os
import time

from antiphon.frames.frames import TextFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameProcessor


class Block(FrameProcessor):
    movable = True

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, TextFrame):
            time.sleep(float(frame.text))


async def bot(runner_args):
    task = PipelineTask(Pipeline([Block()]))

    @task.event_handler("on_frame_reached_downstream")
    async def reached(task, frame):
        print("blocked", flush=True)

    task.set_reached_downstream_filter((TextFrame,))
    await task.queue_frame(TextFrame(str(runner_args.body["secs"])))
    await PipelineRunner(handle_sigint=False).run(task)
"""


@pytest.fixture
async def agent(cluster: LocalCluster, tmp_path: Path) -> AsyncIterator[Any]:
    hub = tmp_path / "hub"
    hub.mkdir(mode=0o700)
    pools = PoolSettings(reserve=1, supervisor_reserve=0, begin_secs=0.0)
    made = create_agent(AgentSettings(hub_dir=str(hub), pools=pools, warm_workers=0))
    yield made
    await end_agent(made, 6.0)


async def _cancelled(agent: Any, preset: Any, secs: float) -> int:
    """Runs a session whose processor blocks, and cancels it; returns the process of that processor."""
    supervisor = (await agent.start_supervisor.remote("s")).handle
    spec = SessionSpec(
        "s", BotFile("/nowhere/blocking_bot.py", BOT), Placement(preset), {"secs": secs}
    )
    session = Session(supervisor, spec)
    await session.line("blocked")
    pids = [each["pid"] for each in (await agent.status.remote())["processes"] if each["used"]]
    await asyncio.sleep(0.1)
    began = time.monotonic()
    assert await supervisor.cancel_session.remote("s")
    assert time.monotonic() - began < CANCEL_DEADLINE_SECS
    report = await session.end()
    assert time.monotonic() - began < CANCEL_DEADLINE_SECS + 0.5
    assert report.exit_code == 130
    [where] = [each.where for each in report.processors]
    [pid] = [int(pid) for pid in pids if f"pid {pid}" in where]
    return pid


async def test_a_blocked_actor_of_a_session_alone_is_killed(agent: Any) -> None:
    pid = await _cancelled(agent, "dedicated", 60.0)
    async with asyncio.timeout(RUN_SECS):
        while psutil.pid_exists(pid):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def test_a_blocked_actor_of_a_pool_is_replaced_or_goes_on(agent: Any) -> None:
    pid = await _cancelled(agent, "pooled", 60.0)
    async with asyncio.timeout(RUN_SECS):
        while psutil.pid_exists(pid):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    await agent.release.remote("s")


async def test_an_actor_that_was_blocked_for_a_while_leaves_nothing(agent: Any) -> None:
    """It learns that the session is over when it goes on; its place is free then."""
    pid = await _cancelled(agent, "pooled", 3.0)
    async with asyncio.timeout(RUN_SECS):
        while True:
            found = (await agent.status.remote())["processes"]
            one = [each for each in found if each["pid"] == pid]
            if not one or one[0]["used"] == 0:
                break
            await asyncio.sleep(0.05)
