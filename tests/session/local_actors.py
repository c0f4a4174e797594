"""Actors without Ray: processor hosts with real sockets, in this process."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from antiphon.pipeline.executor import use_executor
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameProcessor
from antiphon.utils.asyncio.by_force import forget_failure
from antiphon_actors.errors import ActorGoneError
from antiphon_actors.placement.places import demands
from antiphon_actors.placement.plan import PlacedProcessor
from antiphon_actors.placement.policy import Placement
from antiphon_actors.processor_host import ProcessorHost
from antiphon_actors.session.endpoint import Endpoint
from antiphon_actors.session.home import ActorExecutor, Host, SessionRecord
from antiphon_actors.session.network import Network
from antiphon_actors.session.spec import AttachSpec

RUN_SECS = 20.0
"""Far more than any session here needs; nothing waits for it when all is well."""


class LocalHost:
    """A processor host in this process, as a session sees it."""

    def __init__(self, name: str, directory: Path, network: Network | None = None) -> None:
        self.host = ProcessorHost(name, str(directory), network)
        self.description = name
        self.specs: list[AttachSpec] = []
        self.may_attach = asyncio.Event()
        self.may_attach.set()
        self.dead = False
        self._thawed = asyncio.Event()
        self._thawed.set()
        self.attaching: set[asyncio.Task[None]] = set()
        # What it was told while it was frozen.
        self._late: set[asyncio.Task[None]] = set()

    @property
    def uri(self) -> str:
        return self.host.uri

    async def attach(self, spec: AttachSpec) -> None:
        self.specs.append(spec)
        # An actor goes on with what it was asked for, whoever still waits for the answer.
        await asyncio.shield(self._attach(pickle.loads(pickle.dumps(spec))))

    def _attach(self, spec: AttachSpec) -> asyncio.Task[None]:
        async def attach() -> None:
            await self.may_attach.wait()
            try:
                await self.host.attach(spec)
            finally:
                if self.dead:
                    raise ActorGoneError("it has ended")

        task = asyncio.create_task(attach())
        self.attaching.add(task)
        task.add_done_callback(self.attaching.discard)
        # Who asked may not wait for it any more.
        task.add_done_callback(forget_failure)
        return task

    def processor(self, name: str) -> FrameProcessor | None:
        """The hosted processor itself, which a bot never sees."""
        for hosted in self.host._sessions.values():
            for processor in hosted.processors.values():
                if processor.name == name:
                    return processor
        return None

    def freeze(self) -> None:
        """Lets what sessions ask and tell wait, as if its event loop were blocked, until `thaw`."""
        self._thawed.clear()
        for hosted in self.host._sessions.values():
            self._freeze(hosted.node)

    def _freeze(self, node: Any) -> None:
        serve, noticed = node.serve, node.noticed

        async def serve_late(method: str, payload: bytes) -> bytes:
            await self._thawed.wait()
            found: bytes = await serve(method, payload)
            return found

        async def notice_late(method: str, payload: bytes) -> None:
            await self._thawed.wait()
            noticed(method, payload)

        def keep(method: str, payload: bytes) -> None:
            self._late.add(asyncio.create_task(notice_late(method, payload)))

        node.serve, node.noticed = serve_late, keep

    @property
    def is_frozen(self) -> bool:
        """Whether it was frozen, and goes on no more."""
        return not self._thawed.is_set()

    def thaw(self) -> None:
        """Goes on with what has waited, in its order."""
        self._thawed.set()
        for hosted in self.host._sessions.values():
            vars(hosted.node).pop("serve", None)
            vars(hosted.node).pop("noticed", None)

    def die(self) -> None:
        """Ends its links as its death would: without a last word."""
        self.dead = True
        for hosted in self.host._sessions.values():
            hosted.node._closed = True
        self.host._endpoint.abort()


class Actors:
    """Hosts, and a home for sessions (an `antiphon_actors.session.home.HostProvider`)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.endpoint = Endpoint("home")
        self.hosts: list[LocalHost] = []
        self.by_processor: dict[str, LocalHost] = {}
        self.released: list[str] = []
        self.given_back: list[str] = []
        self.stuck: list[str] = []
        self.may_attach = True
        self._pools: dict[str, LocalHost] = {}
        self._numbered = 0

    async def start(self) -> None:
        await self.endpoint.start(f"unix://{self._directory}/home.sock")

    async def aclose(self) -> None:
        for host in self.hosts:
            await host.host.aclose()
        await self.endpoint.aclose()

    async def acquire(
        self, session_id: str, moved: Sequence[PlacedProcessor], avoid: Sequence[Host] = ()
    ) -> list[LocalHost]:
        places = {placed.pid: placed for placed in moved}
        hosts: dict[int, LocalHost] = {}
        for demand in demands(moved):
            host = await self.acquire_one(places[demand.pids[0]], avoid)
            for pid in demand.pids:
                hosts[pid] = self.by_processor[places[pid].processor.name] = host
        return [hosts[placed.pid] for placed in moved]

    async def give_back(self, session_id: str, hosts: Sequence[Host]) -> None:
        self.given_back += [host.description for host in hosts]

    async def acquire_one(self, placed: PlacedProcessor, avoid: Sequence[Host] = ()) -> LocalHost:
        host = self._pools.get(placed.kind) if placed.where == "pooled" else None
        if host is None or host in avoid:
            host = LocalHost(f"host{len(self.hosts)}", self._directory)
            self.hosts.append(host)
            if not self.may_attach:
                host.may_attach.clear()
            if placed.where == "pooled":
                self._pools[placed.kind] = host
            await host.host.start()
        self.by_processor[placed.processor.name] = host
        return host

    async def release(self, session_id: str, stuck: Sequence[Host] = ()) -> None:
        self.stuck += [host.description for host in stuck]
        self.released.append(session_id)

    def executor(self, placement: Placement, record: SessionRecord) -> ActorExecutor:
        self._numbered += 1
        return ActorExecutor(
            f"s{self._numbered}", self.endpoint, self, placement, here="home", record=record
        )

    async def run(
        self,
        task: PipelineTask,
        placement: Placement | None = None,
        record: SessionRecord | None = None,
    ) -> SessionRecord:
        """Runs a task with its processors in hosts."""
        record = record or SessionRecord()
        placement = placement or Placement("dedicated")
        with use_executor(lambda: self.executor(placement, record)):
            async with asyncio.timeout(RUN_SECS):
                await PipelineRunner(handle_sigint=False).run(task)
        return record

    async def remote(self, twin: FrameProcessor) -> Any:
        """What a processor of the bot stands for, once it is built."""
        async with asyncio.timeout(RUN_SECS):
            while True:
                host = self.by_processor.get(twin.name)
                if host is not None and (found := host.processor(twin.name)) is not None:
                    return found
                await asyncio.sleep(0.001)

    def left_over(self) -> list[str]:
        """What is left of sessions, where anybody could do something about it."""
        hubs = [("home", self.endpoint)]
        frozen = {host.description for host in self.hosts if host.is_frozen}
        alive = [host for host in self.hosts if not host.dead and not host.is_frozen]
        hubs += [(host.description, host.host._endpoint) for host in alive]
        found = [f"{name}: session {key}" for name, hub in hubs for key in hub.sessions]
        for name, endpoint in hubs:
            for link in endpoint._hub.statistics().links:
                if link.peer in frozen:
                    continue  # that ends its streams when it goes on
                calls = link.calls.waiting + link.calls.running
                if link.out_streams or link.in_streams or calls:
                    found.append(
                        f"{name}: {link.out_streams} streams to and {link.in_streams} from "
                        f"{link.peer}, {calls} calls"
                    )
            for known in endpoint._hub.links:
                if known._closed_callbacks:
                    found.append(f"{name}: {len(known._closed_callbacks)} callbacks of a link")
        return found
