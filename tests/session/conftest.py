"""Sessions without Ray: processor hosts with real sockets, in the test's own process."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from antiphon.frames.frames import EndFrame, Frame, TextFrame
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.pipeline.executor import use_executor
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.relay import relayed
from antiphon_actors import processor_host
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


class Mover(FrameProcessor):
    """Passes frames on, marks texts, and does what a bot may ask a remote processor for."""

    movable = True

    def __init__(self, tag: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tag = tag
        self._callback: Callable[..., Any] | None = None
        self._set: list[str] = []
        self._register_event_handler("on_text")

    @relayed
    def set_tag(self, tag: str) -> None:
        self._set.append(tag)
        self._tag = tag

    @relayed
    def call_back(self, callback: Callable[..., Any]) -> None:
        self._callback = callback

    @relayed
    async def shout(self, text: str) -> str:
        await self.push_frame(TextFrame(text))
        return text.upper()

    @relayed
    async def history(self) -> list[str]:
        return self._set

    @relayed
    async def fail(self, text: str) -> None:
        raise LookupError(text)

    def not_for_others(self) -> None:
        raise AssertionError("called from afar")

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame) and direction is FrameDirection.DOWNSTREAM:
            await self._call_event_handler("on_text", frame.text)
            if self._callback is not None:
                frame.text = await self._callback(self, frame.text)
            frame.text += self._tag
        await self.push_frame(frame, direction)


class Stay(FrameProcessor):
    """The bot's own: passes frames on and keeps them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.down: list[Frame] = []
        self.up: list[Frame] = []

    @property
    def texts(self) -> list[str]:
        return [frame.text for frame in self.down if isinstance(frame, TextFrame)]

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        (self.down if direction is FrameDirection.DOWNSTREAM else self.up).append(frame)
        await self.push_frame(frame, direction)


class Watcher(BaseObserver):
    """Keeps every hop."""

    def __init__(self) -> None:
        super().__init__()
        self.hops: list[FramePushed] = []

    async def on_push_frame(self, data: FramePushed) -> None:
        self.hops.append(data)

    def between(
        self, source: FrameProcessor, destination: FrameProcessor, kind: type[Frame] = TextFrame
    ) -> list[Frame]:
        return [
            hop.frame
            for hop in self.hops
            if hop.source is source
            and hop.destination is destination
            and isinstance(hop.frame, kind)
        ]


class LocalHost:
    """A processor host in this process, as a session sees it."""

    def __init__(self, name: str, directory: Path, network: Network | None = None) -> None:
        self.host = ProcessorHost(name, str(directory), network)
        self.description = name
        self.specs: list[AttachSpec] = []
        self.may_attach = asyncio.Event()
        self.may_attach.set()
        self.dead = False

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

        return asyncio.create_task(attach())

    def processor(self, name: str) -> FrameProcessor | None:
        """The hosted processor itself, which a bot never sees."""
        for hosted in self.host._sessions.values():
            for processor in hosted.processors.values():
                if processor.name == name:
                    return processor
        return None

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
        """What is left of sessions."""
        hubs = [("home", self.endpoint)]
        hubs += [(host.description, host.host._endpoint) for host in self.hosts if not host.dead]
        found = [f"{name}: session {key}" for name, hub in hubs for key in hub.sessions]
        for name, endpoint in hubs:
            for link in endpoint._hub.statistics().links:
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


@pytest.fixture
async def actors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Actors]:
    """Hosts on real sockets; nothing of a session may be left in them at the end."""
    # The prefix would stay for the tests of other areas.
    monkeypatch.setattr(processor_host, "claim_process_prefix", lambda: 0)
    made = Actors(tmp_path)
    await made.start()
    try:
        yield made
        async with asyncio.timeout(5):
            while made.left_over():  # noqa: ASYNC110 - looked at from outside
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"left of the session: {made.left_over()}", pytrace=False)
    finally:
        await made.aclose()


async def until(condition: Callable[[], object]) -> None:
    """Waits for something that has no event of its own."""
    async with asyncio.timeout(RUN_SECS):
        while not condition():  # noqa: ASYNC110 - for what tells nobody of itself
            await asyncio.sleep(0.001)


def texts(*words: str, end: bool = True) -> list[Frame]:
    """Text frames and the end."""
    frames: list[Frame] = [TextFrame(word) for word in words]
    return [*frames, EndFrame()] if end else frames


def pipeline_of(*processors: FrameProcessor, observer: BaseObserver | None = None) -> PipelineTask:
    """A task over a chain of processors."""
    return PipelineTask(
        Pipeline(list(processors)), observers=[observer] if observer is not None else []
    )


async def started(task: PipelineTask) -> None:
    """Waits until the StartFrame has crossed the pipeline; the handler is added at once."""
    event = asyncio.Event()
    task.add_event_handler("on_pipeline_started", lambda _task, _frame: event.set())
    async with asyncio.timeout(RUN_SECS):
        await event.wait()
