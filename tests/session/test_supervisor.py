"""Several sessions in one supervisor, with processor hosts and without Ray."""

from __future__ import annotations

import asyncio
import io
import itertools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from loguru import logger
from ray.exceptions import RayTaskError

from antiphon.errors import PlacementError
from antiphon_actors import processor_host, supervisor
from antiphon_actors.agent_types import ActorPlace, ActorWanted
from antiphon_actors.bot_program import BotFile
from antiphon_actors.channels import ChannelRefused, Delivery
from antiphon_actors.checkpoints.memory_store import MemoryStore
from antiphon_actors.errors import NoActorError
from antiphon_actors.processor_actor import ActorFacts
from antiphon_actors.processor_host import ProcessorHost
from antiphon_actors.report import SessionReport
from antiphon_actors.session.caller_websocket import CallerRequest
from antiphon_actors.session.endpoint import Endpoint
from antiphon_actors.session.home import ActorExecutor
from antiphon_actors.session.line import Kind, Line, Message
from antiphon_actors.session.own_tasks import end_tasks, own_tasks, tell_tasks_apart
from antiphon_actors.supervisor import Failure, Output, SessionSpec, SupervisorActor

RUN_SECS = 20.0

BOT = BotFile(
    "/nowhere/shared.py",
    """
import asyncio

from antiphon.frames.frames import EndFrame, TextFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameProcessor


class Shout(FrameProcessor):
    movable = True

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            if frame.text == "choke":
                raise ValueError("choked")
            frame.text = frame.text.upper()
        await self.push_frame(frame, direction)


class Hear(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            print("heard", frame.text)
        await self.push_frame(frame, direction)


async def bot(runner_args):
    body = runner_args.body
    task = PipelineTask(Pipeline([Shout(), Hear()]))
    started = asyncio.Event()
    task.add_event_handler("on_pipeline_started", lambda *_: started.set())
    running = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    body["started"].set()
    if running.done():
        await running
    await body["go"].wait()
    if body["says"] == "crash":
        raise RuntimeError("crashed")
    await task.queue_frames([TextFrame(body["says"]), EndFrame()])
    await running
""",
)


class Remote:
    """A method of the agent, called as Ray would."""

    def __init__(self, method: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self.remote = method


class FakeAgent:
    """The node agent with one processor host, in this process."""

    def __init__(self, host: ProcessorHost) -> None:
        self.host = host
        self.held: dict[str, list[int]] = {}
        self.full = False
        self._leases = itertools.count(1)
        self.start = Remote(self._start)
        self.acquire_all = Remote(self._acquire_all)
        self.attach = Remote(self._attach)
        self.release = Remote(self._release)

    async def _start(self) -> None:
        """It has started."""

    async def _acquire_all(
        self, session_id: str, wanted: Sequence[ActorWanted], avoid: Sequence[str]
    ) -> list[Any]:
        if self.full:
            refusal = NoActorError("no room: the session needs 1 more", overloaded=True)
            ray_error: Any = RayTaskError
            raise ray_error("acquire_all", "", refusal).as_instanceof_cause()
        leases = self.held[session_id] = [next(self._leases) for _ in wanted]
        facts = ActorFacts(uri=self.host.uri, pid=1, prefix=0, node_id="node")
        return [ActorPlace(lease, "0123456789", facts) for lease in leases]

    async def _attach(
        self, specs: Sequence[tuple[int, Any]], call: str
    ) -> list[BaseException | None]:
        for _, spec in specs:
            await self.host.attach(spec)
        return [None] * len(specs)

    async def _release(self, session_id: str) -> None:
        self.held.pop(session_id, None)


class Running:
    """A session, and what it has said."""

    def __init__(self, actor: SupervisorActor, session_id: str, says: str) -> None:
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.said = ""
        self.failures: list[str] = []
        body = {"says": says, "started": self.started, "go": self.go}
        self._task = asyncio.create_task(
            self._follow(actor, SessionSpec(session_id, BOT, body=body))
        )

    async def _follow(self, actor: SupervisorActor, spec: SessionSpec) -> SessionReport:
        async for item in actor.run_session(spec):
            if isinstance(item, Output):
                self.said += item.text
            elif isinstance(item, Failure):
                self.failures.append(item.text)
            else:
                return item
        raise AssertionError("no report")

    async def begun(self) -> None:
        async with asyncio.timeout(RUN_SECS):
            await self.started.wait()

    async def ended(self) -> SessionReport:
        self.go.set()
        async with asyncio.timeout(RUN_SECS):
            return await self._task


@pytest.fixture
async def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeAgent]:
    monkeypatch.setattr(processor_host, "claim_process_prefix", lambda: 0)
    monkeypatch.setattr(supervisor, "claim_process_prefix", lambda: 0)
    host = ProcessorHost("host", str(tmp_path))
    await host.start()
    yield FakeAgent(host)
    await host.aclose()


Supervise = Callable[[], Awaitable[SupervisorActor]]


@pytest.fixture
async def supervise(
    agent: FakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Supervise]:
    """Starts a supervisor; in the test itself, because pytest has other streams before it."""

    class Context:
        def get_node_id(self) -> str:
            return "node"

    monkeypatch.setattr(ray, "get_runtime_context", Context)
    made = SupervisorActor(str(tmp_path), agent, store=MemoryStore())

    async def start() -> SupervisorActor:
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        await made.start()
        return made

    try:
        yield start
        # Nothing of any session is left.
        assert made.statistics()["sessions"] == 0
        assert agent.held == {}
        assert agent.host.statistics()["sessions"] == 0
    finally:
        await made.stop()
        asyncio.get_running_loop().set_task_factory(None)
        logger.remove()
        logger.add(sys.__stderr__ or sys.stderr)


async def test_each_session_has_its_own_words(supervise: Supervise) -> None:
    actor = await supervise()
    sessions = [Running(actor, f"s{number}", f"word{number}") for number in range(3)]
    for session in sessions:
        await session.begun()
    reports = [await session.ended() for session in sessions]
    assert [session.said for session in sessions] == [f"heard WORD{n}\n" for n in range(3)]
    assert [report.exit_code for report in reports] == [0, 0, 0]


async def test_a_bot_that_crashes_ends_with_all_it_has_begun(
    supervise: Supervise, agent: FakeAgent
) -> None:
    actor = await supervise()
    doomed, other = Running(actor, "doomed", "crash"), Running(actor, "other", "fine")
    await doomed.begun()
    await other.begun()
    report = await doomed.ended()
    assert report.exit_code == 1
    assert "crashed" in report.failures[0]
    # Its pipeline was still running: it has been cancelled, and its actors were given back.
    assert list(agent.held) == ["other/other"]
    assert not other.failures
    assert (await other.ended()).exit_code == 0
    assert other.said == "heard FINE\n"


async def test_a_processor_that_fails_is_its_own_sessions_failure(supervise: Supervise) -> None:
    actor = await supervise()
    choking, other = Running(actor, "choking", "choke"), Running(actor, "other", "fine")
    await choking.begun()
    await other.begun()
    report = await choking.ended()
    assert any("choked" in text for text in report.failures)
    assert (await other.ended()).failures == []
    assert "choked" not in other.said


async def test_a_session_is_cancelled_alone(supervise: Supervise, agent: FakeAgent) -> None:
    actor = await supervise()
    ended, other = Running(actor, "ended", "never"), Running(actor, "other", "fine")
    await ended.begun()
    await other.begun()
    assert await actor.cancel_session("ended")
    assert (await ended.ended()).exit_code == 130
    assert list(agent.held) == ["other/other"]
    assert (await other.ended()).exit_code == 0
    assert other.said == "heard FINE\n"


async def test_a_session_without_room_says_so_and_the_other_goes_on(
    supervise: Supervise, agent: FakeAgent
) -> None:
    actor = await supervise()
    other = Running(actor, "other", "fine")
    await other.begun()
    agent.full = True
    refused = Running(actor, "refused", "never")
    await refused.begun()
    report = await refused.ended()
    assert report.exit_code == 1
    assert "no actors for the session: no room: the session needs 1 more" in report.failures[0]
    assert (await other.ended()).exit_code == 0


# -- sessions of callers ------------------------------------------------------------------------

CALLED = BotFile(
    "/nowhere/called.py",
    """
import asyncio


async def bot(runner_args):
    websocket, body = runner_args.websocket, runner_args.body
    try:
        async for text in websocket.iter_text():
            if text == "crash":
                raise RuntimeError("crashed")
            if text == "wait":
                await asyncio.Event().wait()
            await websocket.send_text(f"{runner_args.session_id} {websocket.resumed} {text}")
    finally:
        body["ended"].append(type(runner_args).__name__)
""",
)


class Caller:
    """The gateway's end of a session's line."""

    def __init__(self, endpoint: Endpoint, spec: SessionSpec) -> None:
        assert spec.caller is not None
        self.spec = spec
        self.got: asyncio.Queue[Message] = asyncio.Queue()
        self.lost = asyncio.Event()
        self.line = Line(spec.caller.line, endpoint, self)
        self.line.listen()
        self._opened = asyncio.Event()

    def line_opened(self) -> None:
        self._opened.set()

    def line_message(self, message: Message, delivery: Delivery) -> None:
        self.got.put_nowait(message)
        delivery.done()

    def line_lost(self, error: Exception) -> None:
        self.lost.set()

    async def say(self, text: str) -> None:
        await self._opened.wait()
        await self.line.send(Message(Kind.TEXT, 1, text.encode()).pack())

    async def leave(self) -> None:
        await self.line.send(Message.closed(1005, "").pack())

    async def heard(self, kind: Kind = Kind.TEXT) -> Message:
        async with asyncio.timeout(RUN_SECS):
            while True:
                message = await self.got.get()
                if message.kind is kind:
                    return message


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Endpoint]:
    made = Endpoint("gateway")
    await made.start(f"unix://{tmp_path}/gateway.sock")
    yield made
    await made.aclose()


def called(
    gateway: Endpoint, *, resume: bool = False, checkpoints: bool = False
) -> tuple[SessionSpec, list[str]]:
    ended: list[str] = []
    request = CallerRequest("s1/caller", gateway.uri)
    attempt = int(resume)
    spec = SessionSpec(
        "s1",
        CALLED,
        body={"ended": ended},
        checkpoints=checkpoints,
        resume=resume,
        caller=request,
        attempt=attempt,
    )
    return spec, ended


async def report_of(actor: SupervisorActor, spec: SessionSpec) -> SessionReport:
    async for item in actor.run_session(spec):
        if isinstance(item, SessionReport):
            return item
    raise AssertionError("no report")


async def test_a_bot_is_given_its_callers_websocket(
    supervise: Supervise, gateway: Endpoint
) -> None:
    actor = await supervise()
    spec, ended = called(gateway)
    caller = Caller(gateway, spec)
    running = asyncio.create_task(report_of(actor, spec))
    await caller.say("hello")
    assert (await caller.heard()).data == b"s1 False hello"
    await caller.leave()
    assert (await running).exit_code == 0
    assert ended == ["WebSocketRunnerArguments"]


async def test_a_bot_that_crashes_hangs_up(supervise: Supervise, gateway: Endpoint) -> None:
    actor = await supervise()
    spec, _ = called(gateway)
    caller = Caller(gateway, spec)
    running = asyncio.create_task(report_of(actor, spec))
    await caller.say("crash")
    closed = await caller.heard(Kind.CLOSED)
    assert closed.code_and_reason == (1011, "the bot failed")
    assert (await running).exit_code == 1
    assert not caller.lost.is_set()


async def test_a_session_ends_with_its_gateway(supervise: Supervise, gateway: Endpoint) -> None:
    actor = await supervise()
    spec, ended = called(gateway)
    caller = Caller(gateway, spec)
    running = asyncio.create_task(report_of(actor, spec))
    await caller.say("wait")
    async with asyncio.timeout(RUN_SECS):
        while not actor._sessions:  # noqa: ASYNC110 - looked at from outside
            await asyncio.sleep(0.001)
    gateway.abort()
    async with asyncio.timeout(RUN_SECS):
        report = await running
    assert report.exit_code == 130
    assert ended == ["WebSocketRunnerArguments"]


async def test_a_session_that_no_gateway_waits_for_does_not_begin(
    supervise: Supervise, gateway: Endpoint
) -> None:
    actor = await supervise()
    spec, ended = called(gateway)
    with pytest.raises(ChannelRefused, match="line s1/caller is not here"):
        await report_of(actor, spec)
    assert ended == []


async def test_a_session_that_is_handed_over_does_not_hang_up_and_goes_on_under_its_name(
    supervise: Supervise, gateway: Endpoint
) -> None:
    actor = await supervise()
    spec, _ = called(gateway, checkpoints=True)
    caller = Caller(gateway, spec)
    running = asyncio.create_task(report_of(actor, spec))
    await caller.say("hello")
    await caller.heard()
    assert await actor.hand_over("s1")
    report = await running
    assert (report.handed_over, report.lost) == (True, "")
    assert caller.got.empty()
    assert not caller.lost.is_set()
    caller.line.abort()

    spec, _ = called(gateway, checkpoints=True, resume=True)
    caller = Caller(gateway, spec)
    running = asyncio.create_task(report_of(actor, spec))
    await caller.say("hello again")
    # Such a bot has nothing that would be saved, so it begins.
    assert (await caller.heard()).data == b"s1 False hello again"
    assert list(actor._sessions) == ["s1~1"] == [spec.run_id]
    assert await actor.cancel_session("s1~1")
    assert (await running).exit_code == 130


async def test_a_session_that_cannot_be_resumed_leaves_it_to_the_gateway_to_hang_up(
    supervise: Supervise, gateway: Endpoint
) -> None:
    actor = await supervise()
    spec, ended = called(gateway, resume=True, checkpoints=True)
    caller = Caller(gateway, spec)
    report = await report_of(actor, spec)
    assert report.lost == "there is no checkpoint of it"
    assert ended == []
    assert caller.got.empty()


async def test_sessions_are_asked_to_leave_processes(
    supervise: Supervise, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Sequence[str], str, float]] = []

    async def evacuate(
        executor: ActorExecutor, uris: Sequence[str], reason: str, deadline_secs: float
    ) -> list[str]:
        name = executor._session_id
        asked.append((name, uris, reason, deadline_secs))
        if name == "hangs":
            await asyncio.Event().wait()
        if name == "fails":
            raise PlacementError("there is no other actor")
        return [] if name == "goes" else ["Shout#0"]

    monkeypatch.setattr(ActorExecutor, "evacuate", evacuate)
    actor = await supervise()
    sessions = [Running(actor, name, "fine") for name in ("goes", "stays", "fails", "hangs")]
    for session in sessions:
        await session.begun()
    assert actor.session_names() == ["goes", "stays", "fails", "hangs"]
    left = await actor.evacuate([agent.host.uri], "it is stuck", 0.05)
    assert left == ["stays", "fails", "hangs"]
    assert asked[0] == ("goes", [agent.host.uri], "it is stuck", 0.05)
    for session in sessions:
        await session.ended()


async def test_what_runs_elsewhere_need_not_move(supervise: Supervise) -> None:
    actor = await supervise()
    session = Running(actor, "s", "fine")
    await session.begun()
    assert await actor.evacuate(["unix:///another"], "it is stuck", 1.0) == []
    await session.ended()


async def test_what_was_asked_of_an_agent_that_died_is_asked_of_the_next(
    supervise: Supervise, agent: FakeAgent
) -> None:
    actor = await supervise()
    lost = asyncio.Event()
    first = True

    async def acquire_all(
        session_id: str, wanted: Sequence[ActorWanted], avoid: Sequence[str]
    ) -> list[Any]:
        nonlocal first
        if first:
            first = False
            lost.set()
            await asyncio.Event().wait()
        return await agent._acquire_all(session_id, wanted, avoid)

    agent.acquire_all = Remote(acquire_all)
    session = Running(actor, "s", "fine")
    await lost.wait()
    actor.agent_returned()
    await session.begun()
    assert (await session.ended()).exit_code == 0
    assert session.said == "heard FINE\n"


async def test_tasks_end_with_the_block_that_began_them() -> None:
    loop = asyncio.get_running_loop()
    tell_tasks_apart(loop)
    begun: list[asyncio.Task[Any]] = []

    async def parent() -> None:
        begun.append(asyncio.create_task(asyncio.sleep(60)))
        try:
            await asyncio.sleep(60)
        finally:
            # Even now it begins another.
            begun.append(asyncio.create_task(asyncio.sleep(60)))

    try:
        strange = asyncio.create_task(asyncio.sleep(60))
        with own_tasks() as tasks:
            begun.append(asyncio.create_task(parent()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await end_tasks(tasks, 5.0) == 0
        assert len(begun) == 3
        assert all(task.cancelled() for task in begun)
        assert not strange.done()
        strange.cancel()
    finally:
        loop.set_task_factory(None)


async def test_a_task_that_does_not_end_is_counted() -> None:
    loop = asyncio.get_running_loop()
    tell_tasks_apart(loop)
    may_end = asyncio.Event()

    async def stubborn() -> None:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    try:
        with own_tasks() as tasks:
            task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        assert await end_tasks(tasks, 0.01) == 1
        may_end.set()
        await task
    finally:
        loop.set_task_factory(None)
