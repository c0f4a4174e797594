"""Sessions on two nodes of a Ray cluster, with real supervisors and processor actors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console
from tests.ray.session_support import RUN_SECS, Session

from antiphon_actors.agent_types import ActorWanted, AgentSettings, NetworkSettings
from antiphon_actors.agents import create_agent
from antiphon_actors.bot_program import BotFile
from antiphon_actors.channels.uris import ProcessAddress
from antiphon_actors.cluster import LocalCluster
from antiphon_actors.errors import NoActorError
from antiphon_actors.placement.policy import Placement
from antiphon_actors.pool_types import PoolSettings
from antiphon_actors.progress import Progress
from antiphon_actors.run import RunOptions, run_on_cluster
from antiphon_actors.supervisor import SessionSpec

pytestmark = [pytest.mark.ray, pytest.mark.timeout(90)]

BOT = """
import asyncio
import os
from pathlib import Path

from antiphon.frames.frames import EndFrame, TextFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.relay import relayed
from antiphon_actors.placement.policy import Placement, Rule

placement = Placement(rules=(Rule("Far", "pooled", {"elsewhere": 0.1}),))


class Near(FrameProcessor):
    movable = True

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            frame.text += f" {type(self).__name__}"
        await self.push_frame(frame, direction)


class Far(Near):
    movable = True

    @relayed
    async def pid(self):
        return os.getpid()


class Show(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            print("heard", frame.text, flush=True)
        await self.push_frame(frame, direction)


async def bot(runner_args):
    far = Far()
    task = PipelineTask(Pipeline([Near(), far, Near(), Show()]))

    @task.event_handler("on_pipeline_started")
    async def started(task, frame):
        await task.queue_frame(TextFrame("one"))
        print("far", await far.pid(), flush=True)
        while not Path(runner_args.body["go"]).exists():
            await asyncio.sleep(0.01)
        print("far again", await far.pid(), flush=True)
        await task.queue_frames([TextFrame("two"), EndFrame()])

    await PipelineRunner(handle_sigint=False).run(task)
"""

HEARD = ["heard one Near Far Near", "heard two Near Far Near"]


class Agent:
    """The first agent of the cluster."""

    def __init__(self, handle: Any, directory: Path) -> None:
        self.handle = handle
        self.directory = directory
        self.go = directory / "go"
        self._sessions = 0

    async def supervisor(self, session_id: str) -> Any:
        return await self.handle.start_supervisor.remote(session_id)

    async def begin(self, placement: Placement | None = None) -> tuple[Session, Any]:
        """Starts a session; returns it and its supervisor's lease."""
        self._sessions += 1
        name = f"s{self._sessions}"
        lease = await self.supervisor(name)
        bot = BotFile(f"/nowhere/{name}_bot.py", BOT)
        spec = SessionSpec(name, bot, placement=placement, body={"go": str(self.go)})
        return Session(lease.handle, spec), lease


def settings(cluster: LocalCluster, directory: Path, pools: PoolSettings) -> AgentSettings:
    return AgentSettings(
        hub_dir=str(directory),
        pools=pools,
        warm_workers=1,
        network=NetworkSettings(
            "test", authority_dir=directory / "authority", scratch_dir=directory
        ),
    )


@pytest.fixture(scope="module")
def directory(cluster: LocalCluster) -> Path:
    made = cluster.directory / "hub"  # short enough for sockets
    made.mkdir(mode=0o700)
    return made


@pytest.fixture(scope="module")
def first(cluster: LocalCluster, directory: Path) -> Iterator[Any]:
    handle = create_agent(settings(cluster, directory, PoolSettings(reserve=2)))
    ray.get(handle.start.remote())
    yield handle
    ray.get(handle.shutdown.remote(), timeout=10)
    ray.kill(handle)
    # The agent of the other node has removed its own.
    assert not list(directory.glob("antiphon-*"))


@pytest.fixture
async def agent(first: Any, directory: Path) -> AsyncIterator[Agent]:
    made = Agent(first, directory)
    yield made
    made.go.unlink(missing_ok=True)


async def knock(uri: str) -> None:
    """Connects without a certificate and waits to be cut off."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = int(uri.rpartition(":")[2])
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        async with asyncio.timeout(RUN_SECS):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname=""
            )
            try:
                await reader.read()
            finally:
                writer.close()


async def test_a_rule_asks_for_another_node_and_the_frames_are_the_same(agent: Agent) -> None:
    session, lease = await agent.begin()
    await session.line("far")
    await session.line("heard one")
    # Rotation, while frames are under way.
    expiry = (await agent.handle.status.remote())["network"]["certificate_expires"]
    files = [*agent.directory.glob("**/identity.pem")]
    assert len(files) == 2
    before = [file.read_bytes() for file in files]
    await agent.handle.renew_certificate.remote()
    assert all(file.read_bytes() != old for file, old in zip(files, before, strict=True))
    assert (await agent.handle.status.remote())["network"]["certificate_expires"] >= expiry
    # A stranger.
    address = ProcessAddress.parse(lease.facts.uri)
    await knock(address.remote)
    links = (await lease.handle.ctl_health.remote()).statistics["links"]
    assert links["refused"] == 1
    assert links["broken"] == 0
    assert links["links"] == 2
    agent.go.touch()
    report = await session.end()
    assert report.failures == []
    assert session.heard == HEARD
    here = ray.get_runtime_context().get_node_id()
    (other,) = {node["NodeID"] for node in ray.nodes() if node["Alive"]} - {here}
    where = {record.name.partition("#")[0]: record.where for record in report.processors}
    assert where["Far"].endswith(f"node {other[:8]}")
    assert "node" not in where["Near"]
    assert "supervisor" in where["Show"]

    alone, _ = await agent.begin(Placement("fused"))
    assert (await alone.end()).failures == []
    assert alone.heard == session.heard


async def test_a_session_goes_on_when_its_actor_on_another_node_dies(agent: Agent) -> None:
    session, _ = await agent.begin()
    pid = int((await session.line("far")).split()[1])
    await session.line("heard one")
    os.kill(pid, signal.SIGKILL)
    agent.go.touch()
    report = await session.end()
    assert report.failures == []
    replaced = [name.partition("#")[0] for each in report.recoveries for name in each.processors]
    # The bot may end before the last step of it is over.
    assert replaced in (["Far"], [])
    assert session.heard == HEARD
    assert int((await session.line("far again")).split()[2]) != pid


async def test_secrets_are_the_owners_alone(agent: Agent, cluster: LocalCluster) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(cluster.directory) == 0o700
    assert mode(agent.directory / "authority") == 0o700
    assert mode(agent.directory / "authority" / "authority.pem") == 0o600
    assert {mode(file) for file in agent.directory.glob("**/identity.pem")} == {0o600}


async def test_what_no_node_has(agent: Agent) -> None:
    with pytest.raises(NoActorError, match="no node of the cluster has nowhere=1"):
        await agent.handle.acquire_all.remote(
            "s", [ActorWanted("Near"), ActorWanted("Far", resources={"nowhere": 1.0})]
        )
    kinds = (await agent.handle.status.remote())["kinds"]
    assert kinds.get("processor:Near", {"used": 0})["used"] == 0


async def test_another_node_serves_when_this_one_is_full(
    cluster: LocalCluster, directory: Path
) -> None:
    hub = directory / "full"
    hub.mkdir(mode=0o700)
    full = PoolSettings(reserve=0, supervisor_reserve=0, max_actors=1)
    agent = create_agent(settings(cluster, hub, full))
    try:
        here = (await agent.start.remote()).node_id
        wanted = [ActorWanted("Near", "dedicated")]
        (near,) = await agent.acquire_all.remote("a", wanted)
        (far,) = await agent.acquire_all.remote("b", wanted)
        assert near.facts.node_id == here != far.facts.node_id
        with pytest.raises(NoActorError, match="at most 1 actors"):
            await agent.acquire_all.remote("c", wanted)
        # What one session gives back there, another gets.
        await agent.release.remote("b")
        async with asyncio.timeout(RUN_SECS):
            (again,) = await agent.acquire_all.remote("d", wanted)
        assert again.facts.node_id == far.facts.node_id
        assert again.facts.pid != far.facts.pid
    finally:
        await agent.shutdown.remote()
        ray.kill(agent)
    assert not list(hub.glob("antiphon-*"))


async def test_a_command_uses_the_nodes_there_are(
    agent: Agent, cluster: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.go.touch()
    options = RunOptions(
        BotFile("/nowhere/command_bot.py", BOT),
        body={"go": str(agent.go)},
        address=cluster.address,
    )
    async with asyncio.timeout(RUN_SECS):
        report = await run_on_cluster(options, Progress(Console(), quiet=True))
    assert report.failures == []
    heard = [line for line in capsys.readouterr().out.splitlines() if line.startswith("heard")]
    assert heard == HEARD
    assert any(", node " in record.where for record in report.processors)
