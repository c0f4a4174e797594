"""Sessions of the measured bot on a private cluster."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import ray
from ray.exceptions import RayError

from antiphon_actors.agent_types import AgentSettings
from antiphon_actors.agents import create_agent
from antiphon_actors.bot_program import BotFile, read_bot_file
from antiphon_actors.cluster import ClusterSettings, LocalCluster
from antiphon_actors.models.settings import ModelSettings
from antiphon_actors.placement.policy import Placement, Preset
from antiphon_actors.pool_types import PoolSettings
from antiphon_actors.report import SessionReport
from antiphon_actors.supervisor import SessionSpec
from benchmarks.harness.control import Program, ProgramFailed

if TYPE_CHECKING:
    from benchmarks.harness.bench import Bench

SESSION_DEADLINE_SECS = 60.0
END_DEADLINE_SECS = 10.0


class Session:
    """A running session of the measured bot."""

    def __init__(self, agent: Any, session_id: str) -> None:
        self.agent = agent
        self.session_id = session_id
        self.program: Program | None = None
        self.follower: asyncio.Task[str] | None = None

    async def stop(self) -> None:
        """Ends the session and gives its actors back."""
        if self.program is not None:
            with suppress(ProgramFailed):
                await self.program.ask("stop", deadline_secs=END_DEADLINE_SECS)
            self.program.close()
        if self.follower is not None:
            await asyncio.wait({self.follower}, timeout=END_DEADLINE_SECS)
            self.follower.cancel()
        await self.agent.release.remote(self.session_id)


class Actors:
    """A private cluster; an async context manager.

    Args:
        bench: The run.
    """

    def __init__(self, bench: Bench) -> None:
        from benchmarks.harness.bench import PIPELINE, source_path

        self._bench = bench
        environment = {"PYTHONPATH": source_path()}
        self._cluster = LocalCluster(ClusterSettings(environment=environment))
        self._bot: BotFile = read_bot_file(PIPELINE)

    async def __aenter__(self) -> Self:
        os.environ.pop("BENCH_PACKAGE", None)
        await self._cluster.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._cluster.aclose()

    @asynccontextmanager
    async def agent(
        self,
        pools: PoolSettings | None = None,
        *,
        warm_workers: int = 2,
        models: ModelSettings | None = None,
    ) -> AsyncIterator[Any]:
        """A node agent of its own, with nothing in its pools but the reserve."""
        with tempfile.TemporaryDirectory(prefix="bench-hub-") as hub_dir:
            settings = AgentSettings(
                hub_dir=hub_dir,
                pools=pools or PoolSettings(),
                warm_workers=warm_workers,
                models=models or ModelSettings(),
            )
            agent = create_agent(settings)
            try:
                async with asyncio.timeout(SESSION_DEADLINE_SECS):
                    await agent.start.remote()
                yield agent
            finally:
                with suppress(TimeoutError, RayError):
                    async with asyncio.timeout(END_DEADLINE_SECS):
                        await agent.shutdown.remote()
                ray.kill(agent)

    async def session(
        self,
        agent: Any,
        name: str,
        preset: Preset,
        *,
        shape: str = "pass",
        supervisor: Literal["dedicated", "pooled"] = "dedicated",
        kind: str = "supervisor",
    ) -> Session:
        """Submits a session and waits until its StartFrame has gone through all processors.

        Args:
            agent: Of the node.
            name: For people.
            preset: Where its processors go.
            shape: Of its pipeline.
            supervisor: Whether it has a supervisor of its own.
            kind: Sessions of the same kind share supervisors.

        Raises:
            ProgramFailed: If it does not start.
        """
        session_id = self._bench.unique(name)
        session = Session(agent, session_id)
        connected = self._bench.control.expect(session_id)
        body = {"control": str(self._bench.control.path), "name": session_id, "shape": shape}
        spec = SessionSpec(
            session_id=session_id,
            bot_file=self._bot,
            placement=Placement(preset),
            body=body,
        )
        lease = await agent.start_supervisor.remote(session_id, kind, supervisor)
        follower = session.follower = asyncio.create_task(_follow(lease.handle, spec))
        waiting: set[asyncio.Future[Any]] = {connected, follower}
        await asyncio.wait(
            waiting, timeout=SESSION_DEADLINE_SECS, return_when=asyncio.FIRST_COMPLETED
        )
        if not connected.done():
            said = follower.result() if follower.done() else "no answer"
            await session.stop()
            raise ProgramFailed(f"session {name} did not start: {said}")
        session.program = connected.result()
        session.program.name = name
        return session


async def _follow(supervisor: Any, spec: SessionSpec) -> str:
    """Takes what a session says, and returns what went wrong in it."""
    said = ""
    try:
        stream = supervisor.run_session.options(num_returns="streaming").remote(spec)
        async for reference in stream:
            item = await reference
            if isinstance(item, SessionReport):
                said += "; ".join(item.failures)
            else:
                said += item.text
    except RayError as error:
        said += str(error)
    return said
