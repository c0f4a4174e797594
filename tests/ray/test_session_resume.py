"""Sessions whose supervisor is killed; the test stands for the gateway."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from benchmarks.harness.line import CallerLine
from ray.exceptions import RayError
from tests.redis_server import running_redis

from antiphon.runner.checkpoint import SessionCheckpoint
from antiphon_actors.agent_types import ActorLease, AgentSettings
from antiphon_actors.agents import create_agent
from antiphon_actors.bot_program import read_bot_file
from antiphon_actors.checkpoints.ray_store import RayStore
from antiphon_actors.checkpoints.redis_store import RedisStore
from antiphon_actors.checkpoints.store import CheckpointStore
from antiphon_actors.cluster import LocalCluster
from antiphon_actors.pool_types import PoolSettings
from antiphon_actors.report import SessionReport
from antiphon_actors.supervisor import SessionSpec

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(120)]

BOT = read_bot_file(Path(__file__).parents[2] / "benchmarks" / "programs" / "resumed.py")


class Driver:
    """Runs one session in one supervisor after the other."""

    def __init__(self, agent: Any, line: CallerLine, session_id: str) -> None:
        self._agent = agent
        self._line = line
        self.session_id = session_id
        self._dead: list[str] = []
        self._lease: ActorLease | None = None
        self._following: asyncio.Task[SessionReport | None] | None = None

    async def start(self, *, resume: bool = False, connects: bool = True) -> None:
        lease = self._lease = await self._agent.start_supervisor.remote(
            self.session_id, mode="dedicated", avoid=self._dead
        )
        spec = SessionSpec(
            self.session_id,
            BOT,
            body={"line": self._line.path},
            checkpoints=True,
            resume=resume,
        )
        connections = self._line.connections
        stream = lease.handle.run_session.options(num_returns="streaming").remote(spec)
        self._following = asyncio.create_task(self._follow(stream))
        if connects:
            await self._line.until(lambda: self._line.connections > connections)

    async def kill(self) -> None:
        """Kills the supervisor; returns when that has been noticed."""
        assert self._lease is not None
        assert self._following is not None
        os.kill(self._lease.facts.pid, signal.SIGKILL)
        self._dead.append(self._lease.actor_id)
        async with asyncio.timeout(20):
            assert await self._following is None
        await self._agent.release_lease.remote(self._lease.lease_id)

    async def report(self) -> SessionReport:
        assert self._following is not None
        async with asyncio.timeout(30):
            report = await self._following
        assert report is not None
        await self._agent.release.remote(self.session_id)
        return report

    async def _follow(self, stream: Any) -> SessionReport | None:
        try:
            async for reference in stream:
                item = await reference
                if isinstance(item, SessionReport):
                    return item
        except RayError:
            pass
        return None


@pytest.fixture
def agent(cluster: LocalCluster, tmp_path: Path) -> Iterator[Any]:
    settings = AgentSettings(
        hub_dir=str(tmp_path), pools=PoolSettings(reserve=1, supervisor_reserve=1)
    )
    handle = create_agent(settings)
    ray.get(handle.start.remote())
    yield handle
    ray.get(handle.shutdown.remote(), timeout=10)
    ray.kill(handle)


@pytest.fixture
async def line() -> AsyncIterator[CallerLine]:
    async with CallerLine() as made:
        yield made


async def keys(store: CheckpointStore, session_id: str) -> list[str]:
    return [*await store.list(session_id)]


async def answered(store: CheckpointStore, session_id: str, answer: str) -> None:
    """Waits until a session's checkpoint holds an answer."""

    async def is_saved() -> bool:
        for key in await keys(store, f"{session_id}/"):
            if (data := await store.get(key)) is not None:
                (context,) = SessionCheckpoint.decode(data).contexts or [None]
                if context and any(each["content"] == answer for each in context.messages):
                    return True
        return False

    async with asyncio.timeout(20):
        while not await is_saved():  # noqa: ASYNC110 - a store tells nobody of its changes
            await asyncio.sleep(0.01)


async def test_the_conversation_goes_on(agent: Any, line: CallerLine) -> None:
    driver = Driver(agent, line, "killed-thrice")
    store = RayStore()
    await driver.start()
    for number in (1, 2, 3):
        line.say(f"{number}")
        await line.hear(f"You said: {number}.")
        await answered(store, driver.session_id, f"You said: {number}.")
        await driver.kill()
        line.say(f"{number} and a half")  # nobody is there to hear it
        await driver.start(resume=True)
        # In the middle of an answer, which is given again.
        await line.hear(f"You said: {number} and")
        await driver.kill()
        await driver.start(resume=True)
        await line.hear(f"You said: {number} and a half.")
        await answered(store, driver.session_id, f"You said: {number} and a half.")
    line.say(None)
    report = await driver.report()
    assert (report.exit_code, report.lost, report.failures) == (0, "", [])
    assert line.connections == 7
    assert line.over is not None
    said = [text for number in (1, 2, 3) for text in (f"{number}", f"{number} and a half")]
    assert [(message["role"], message["content"]) for message in line.over] == [
        pair for text in said for pair in (("user", text), ("assistant", f"You said: {text}."))
    ]
    # What is recorded of it is all of it; without audio it is one turn.
    ((turn,),) = [conversation["turns"] for conversation in report.conversations]
    assert turn["user_text"] == " ".join(said)
    assert turn["started_secs"] < 0
    async with store:
        assert await keys(store, driver.session_id) == []


async def test_one_that_cannot_be_resumed_is_reported_as_lost(agent: Any, line: CallerLine) -> None:
    driver = Driver(agent, line, "lost")
    await driver.start()
    line.say("one")
    await line.hear("You said: one.")
    await driver.kill()
    async with RayStore() as store:
        for key in await keys(store, "lost"):
            await store.put(key, b"damaged")
    await driver.start(resume=True, connects=False)
    report = await driver.report()
    assert report.exit_code == 1
    assert report.lost == "the checkpoint is damaged: it does not begin like one"
    assert line.connections == 1


async def test_checkpoints_in_redis(
    cluster: LocalCluster, line: CallerLine, tmp_path: Path
) -> None:
    with running_redis() as server:
        settings = AgentSettings(
            hub_dir=str(tmp_path),
            pools=PoolSettings(reserve=1, supervisor_reserve=1),
            supervisor_arguments={"store": server.url},
        )
        agent = create_agent(settings)
        try:
            driver = Driver(agent, line, "redis")
            await driver.start()
            line.say("one")
            await line.hear("You said: one.")
            async with RedisStore(server.url) as store:
                await answered(store, "redis", "You said: one.")
            await driver.kill()
            await driver.start(resume=True)
            line.say("two")
            await line.hear("You said: two.")
            line.say(None)
            assert (await driver.report()).exit_code == 0
            async with RedisStore(server.url) as store:
                assert await keys(store, "redis") == []
        finally:
            await agent.shutdown.remote()
            ray.kill(agent)
