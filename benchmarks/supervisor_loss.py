"""How long a session is without its supervisor, by where the next one comes from.

    python -m benchmarks.supervisor_loss [--kills 15]

A session with a language model in an actor is saved as it goes. Its supervisor is killed (SIGKILL), and
the session resumed; the caller's line, at a Unix socket, stands for the gateway and notices the death by its
end. The ways take turns:

- *reserve*: the node agent gives another supervisor, started ahead;
- *new actor*: the agent has none, and starts one in a blank process that waits;
- *Ray's restart*: the actor has ``max_restarts``, and Ray starts it again in such a process.

Figures are milliseconds from the kill: until the death is noticed, until the bot is connected to the line
again, and until the first word of its answer to what the caller had said meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from loguru import logger
from ray.exceptions import ActorUnavailableError, RayError

from antiphon_actors.agent_types import AgentSettings
from antiphon_actors.agents import create_agent
from antiphon_actors.bot_program import BotFile, read_bot_file
from antiphon_actors.checkpoints.ray_store import RayStore
from antiphon_actors.cluster import ClusterSettings, LocalCluster
from antiphon_actors.pool_types import PoolSettings
from antiphon_actors.processor_actor import actor_options, remote_class
from antiphon_actors.ray_internal import ActorWatch, actor_id_of
from antiphon_actors.supervisor import SessionSpec, SupervisorActor
from benchmarks.harness.bench import source_path
from benchmarks.harness.line import CallerLine
from benchmarks.harness.processes import calm_down
from benchmarks.harness.statistics import median

PROGRAM = Path(__file__).with_name("programs") / "resumed.py"
WARMING = 2
DEADLINE_SECS = 60.0
FIGURES = ("noticed", "connected", "first word")


class Way:
    """A session whose supervisors come from one place.

    Args:
        name: Of the way.
        agent: Gives the processor actors.
        line: To the caller.
        bot: What is run.
    """

    def __init__(self, name: str, agent: Any, line: CallerLine, bot: BotFile) -> None:
        self.name = name
        self.samples: list[list[float]] = []
        self._agent = agent
        self._line = line
        self._bot = bot
        self._session_id = name.replace(" ", "-").replace("'", "")
        self._said = 0
        self._following: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Starts the session."""
        self._run(await self._first(), resume=False)
        await self._line.until(lambda: self._line.connections > 0)
        await self._talk()

    async def lose(self) -> None:
        """Kills the supervisor once, and measures until the session goes on."""
        before = self._line.connections
        killed = time.monotonic()
        self._line.lost_at = self._line.first_word_at = 0.0
        os.kill(await self._pid(), signal.SIGKILL)
        await self._line.until(lambda: self._line.lost_at > 0)
        words = self._next_words()
        self._line.say(words)
        self._run(await self._next(), resume=True)
        await self._line.until(lambda: self._line.connections > before)
        await self._line.hear(f"You said: {words}.")
        moments = (self._line.lost_at, self._line.connected_at, self._line.first_word_at)
        self.samples.append([(moment - killed) * 1000 for moment in moments])
        await self._saved()

    async def end(self) -> None:
        """Lets the caller hang up."""
        self._line.say(None)
        await self._line.until(lambda: self._line.over is not None)
        assert self._following is not None
        await asyncio.wait({self._following}, timeout=DEADLINE_SECS)
        await self._agent.release.remote(self._session_id)

    async def _first(self) -> Any:
        return await self._next()

    async def _next(self) -> Any:
        """The supervisor that goes on."""
        raise NotImplementedError

    async def _pid(self) -> int:
        raise NotImplementedError

    async def _talk(self) -> None:
        words = self._next_words()
        self._line.say(words)
        await self._line.hear(f"You said: {words}.")
        await self._saved()

    async def _saved(self) -> None:
        """Waits until the conversation has been saved, and the machine is calm."""
        store = RayStore()
        before: list[bytes | None] = []
        while True:
            await calm_down()
            now = [await store.get(key) for key in await store.list(f"{self._session_id}/")]
            if now == before:
                return
            before = now

    def _next_words(self) -> str:
        self._said += 1
        return f"number {self._said}"

    def _run(self, supervisor: Any, *, resume: bool) -> None:
        spec = SessionSpec(
            self._session_id,
            self._bot,
            body={"line": self._line.path},
            checkpoints=True,
            resume=resume,
        )
        stream = supervisor.run_session.options(num_returns="streaming").remote(spec)
        self._following = asyncio.create_task(self._follow(stream))

    async def _follow(self, stream: Any) -> None:
        with suppress(RayError):
            async for reference in stream:
                await reference


class AgentsWay(Way):
    """The node agent gives another supervisor."""

    def __init__(self, name: str, agent: Any, line: CallerLine, bot: BotFile) -> None:
        super().__init__(name, agent, line, bot)
        self._lease: Any = None

    async def _next(self) -> Any:
        dead, self._lease = self._lease, None
        avoid = [dead.actor_id] if dead is not None else []
        self._lease = await self._agent.start_supervisor.remote(
            self._session_id, mode="dedicated", avoid=avoid
        )
        if dead is not None:
            await self._agent.release_lease.remote(dead.lease_id)
        return self._lease.handle

    async def _pid(self) -> int:
        return int(self._lease.facts.pid)


class RaysWay(Way):
    """Ray restarts the actor."""

    def __init__(
        self, name: str, agent: Any, line: CallerLine, bot: BotFile, hub_dir: str, watch: ActorWatch
    ) -> None:
        super().__init__(name, agent, line, bot)
        node_id = ray.get_runtime_context().get_node_id()
        options = actor_options(node_id, {}) | {"max_restarts": -1}
        self._actor = remote_class(SupervisorActor).options(**options).remote(hub_dir, agent)
        self._restarted = asyncio.Event()
        self._watching = asyncio.create_task(self._watch(watch))

    async def end(self) -> None:
        await super().end()
        self._watching.cancel()
        await asyncio.wait({self._watching})
        ray.kill(self._actor)

    async def _first(self) -> Any:
        await self._actor.start.remote()
        return self._actor

    async def _next(self) -> Any:
        # A call before it is alive again takes a second or two.
        await self._restarted.wait()
        self._restarted.clear()
        while True:
            try:
                await self._actor.start.remote()
                return self._actor
            except ActorUnavailableError:  # this process has not heard of it yet
                await asyncio.sleep(0.001)

    async def _pid(self) -> int:
        return int(await self._actor.ctl_pid.remote())

    async def _watch(self, watch: ActorWatch) -> None:
        restarting = False
        async for change in watch:
            if change.actor_id == actor_id_of(self._actor):
                if change.state == "alive" and restarting:
                    self._restarted.set()
                restarting = change.state == "restarting"


@asynccontextmanager
async def an_agent(supervisor_reserve: int) -> AsyncIterator[tuple[Any, str]]:
    with tempfile.TemporaryDirectory(prefix="loss-") as hub_dir:
        pools = PoolSettings(reserve=1, supervisor_reserve=supervisor_reserve)
        agent = create_agent(AgentSettings(hub_dir=hub_dir, pools=pools, warm_workers=2))
        await agent.start.remote()
        try:
            yield agent, hub_dir
        finally:
            await agent.shutdown.remote()
            ray.kill(agent)


async def measure(kills: int) -> list[Way]:
    """Runs all ways in turns."""
    bot = read_bot_file(PROGRAM)
    with LocalCluster(ClusterSettings(environment={"PYTHONPATH": source_path()})):
        async with (
            an_agent(1) as (ready, hub_dir),
            an_agent(0) as (empty, _),
            CallerLine() as first,
            CallerLine() as second,
            CallerLine() as third,
            ActorWatch() as watch,
        ):
            ways: list[Way] = [
                AgentsWay("reserve", ready, first, bot),
                AgentsWay("new actor", empty, second, bot),
                RaysWay("Ray's restart", ready, third, bot, hub_dir, watch),
            ]
            for way in ways:
                await way.begin()
            for number in range(kills + WARMING):
                for way in ways if number % 2 else reversed(ways):
                    await way.lose()
            for way in ways:
                await way.end()
                way.samples = way.samples[WARMING:]
            return ways


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and prints a table."""
    parser = argparse.ArgumentParser(prog="supervisor_loss", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=15, help="of each way (15)")
    given = parser.parse_args(arguments)
    logger.remove()
    logger.add(sys.stderr, level="WARNING", diagnose=False)
    ways = asyncio.run(measure(given.kills))
    print(f"ms after the kill, p50 (max) of {given.kills}")
    print(f"{'':16}" + "".join(f"{figure:>18}" for figure in FIGURES))
    for way in ways:
        columns = list(zip(*way.samples, strict=True))
        cells = [f"{median(column):.0f} ({max(column):.0f})" for column in columns]
        print(f"{way.name:16}" + "".join(f"{cell:>18}" for cell in cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
