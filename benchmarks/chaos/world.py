"""The cluster on which calls are disturbed: a deployed bot, its gateway, and what can be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import psutil
import ray

from antiphon_actors.agent_client import AgentClient
from antiphon_actors.agents import find_agent
from antiphon_actors.bot_program import read_bot_file
from antiphon_actors.cluster import ClusterSettings, LocalCluster
from antiphon_actors.gateway.deployment import Wishes, deploy, statuses, undeploy
from antiphon_actors.gateway.settings import AppSpec
from antiphon_actors.models.settings import ModelSettings
from benchmarks.chaos.conversation import Call, utterances
from benchmarks.harness.bench import source_path

BOT = Path(__file__).parents[1] / "programs" / "chaos_bot.py"
NAME = "chaos"
KEY = "a-key-of-this-benchmark"

_ASK_SECS = 20.0
_CLEAN_SECS = 30.0


class World:
    """A private cluster with the bot deployed; an async context manager.

    Args:
        further_nodes: Resources of each further node.
        max_sessions: Sessions on each node.
        models: How shared models run.
        bot: Its program.
    """

    def __init__(
        self,
        further_nodes: Sequence[Mapping[str, float]] = (),
        max_sessions: int | None = None,
        models: ModelSettings | None = None,
        bot: Path = BOT,
    ) -> None:
        self._cluster = LocalCluster(
            ClusterSettings(
                num_cpus=2,
                further_nodes=further_nodes,
                environment={"PYTHONPATH": source_path()},
            )
        )
        self._max_sessions = max_sessions
        self._models = models
        self._app = AppSpec(NAME, read_bot_file(bot))
        self._scratch = tempfile.TemporaryDirectory(prefix="chaos-")
        self._calls = 0
        self._speech = utterances()
        self.agent: AgentClient
        self._address = ""

    async def __aenter__(self) -> Self:
        await self._cluster.__aenter__()
        try:
            wishes = Wishes(
                port=0, api_key=KEY, max_sessions=self._max_sessions, models=self._models
            )
            deployed = await deploy(self._app, wishes)
            here = ray.get_runtime_context().get_node_id()
            facts = next(each for each in deployed.gateways if each.node_id == here)
            self._address = f"http://{facts.host}:{facts.port}"
            self.agent = AgentClient(find_agent(here))
        except BaseException:
            await self._cluster.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await undeploy(NAME, 0.0)
        finally:
            await self._cluster.aclose()
            self._scratch.cleanup()

    async def call(self, **body: Any) -> Call:
        """A call that can begin."""
        self._calls += 1
        directory = Path(self._scratch.name, str(self._calls))
        await asyncio.to_thread(directory.mkdir)
        headers = {"X-API-Key": KEY}
        async with aiohttp.ClientSession(headers=headers) as session:
            request = {"directory": str(directory), **body}
            async with session.post(f"{self._address}/connect/{NAME}", json=request) as answer:
                url = (await answer.json())["ws_url"]
        return Call(url, directory, self._speech)

    async def status(self) -> dict[str, Any]:
        """What the node agent says."""
        return dict(await self.agent.call("status", deadline_secs=_ASK_SECS))

    async def losses(self) -> list[str]:
        """Why sessions were lost, of those that the gateways have reported."""
        return [loss["reason"] for status in await statuses() for loss in status.get("losses", [])]

    async def left_behind(self) -> list[str]:
        """What is there though no call is: after a moment in which it may go."""
        found: list[str] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLEAN_SECS):
                while found := await self._look():  # noqa: ASYNC110 - other processes
                    await asyncio.sleep(0.2)
        return found

    async def _look(self) -> list[str]:
        status = await self.status()
        found = [
            f"{kind['used']} places of {name}"
            for name, kind in status["kinds"].items()
            if kind["used"]
        ]
        found += [
            f"a session in the gateway of node {each['node_id'][:8]}"
            for each in await statuses()
            for _ in each.get("sessions", [])
        ]
        living = {each["uri"].partition("|")[0] for each in status["processes"]}
        hub = {Path(uri.removeprefix("unix://").split(",")[0]).parent for uri in living}
        pids = {str(each["pid"]) for each in status["processes"]}
        pids |= {str(each["pid"]) for each in status["model_processes"]} | {str(status["pid"])}
        for directory in hub:
            for socket in directory.glob("*.sock"):
                pid = socket.stem.rpartition("-")[2]
                if pid.isdigit() and pid not in pids and not psutil.pid_exists(int(pid)):
                    found.append(f"the socket {socket.name}")
        return found


def kill(pid: int | None, how: signal.Signals = signal.SIGKILL) -> bool:
    """Sends a signal; whether there was such a process."""
    if pid is None:
        return False
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return False
    return True


def kill_node(raylet: int) -> None:
    """Ends a whole node at once, as a machine that loses its power."""
    top = psutil.Process(raylet)
    family = [top, *top.children(recursive=True)]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
