"""Sessions that go on in another supervisor, with processor hosts and without Ray."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import ray
from loguru import logger
from tests.session.conftest import RUN_SECS
from tests.session.test_supervisor import FakeAgent, agent  # noqa: F401 - a fixture

from antiphon.runner.checkpoint import SessionCheckpoint
from antiphon_actors.bot_program import BotFile
from antiphon_actors.checkpoints import session as session_module
from antiphon_actors.checkpoints.memory_store import MemoryStore
from antiphon_actors.errors import CheckpointStoreError
from antiphon_actors.report import SessionReport
from antiphon_actors.supervisor import Failure, Output, SessionSpec, SupervisorActor

SOURCE = """
import asyncio

from antiphon.frames.frames import EndFrame, LLMMessagesAppendFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.testing import FakeLLMService, FakeToolCall


async def bot(runner_args):
    world = runner_args.body["world"]
    answers = world.answers.pop(0)
    llm = FakeLLMService([[FakeToolCall("look")] if each == "look" else each for each in answers])
    context = OpenAILLMContext()
    pair = llm.create_context_aggregator(context)
    task = PipelineTask(Pipeline([pair.user(), llm, pair.assistant()]))

    async def look(params):
        world.calls.append(params.tool_call_id)
        assert params.context is context
        if world.may_return:
            await params.result_callback({"seen": "a tree"})
        else:
            await asyncio.Event().wait()

    llm.register_function("look", look, idempotent=world.idempotent)

    @task.event_handler("on_pipeline_started")
    async def started(task, frame):
        world.ready(runner_args.resume, context, task)

    await PipelineRunner(handle_sigint=False).run(task)
    if world.crash:
        raise RuntimeError("crashed")
"""

BOT = BotFile("/nowhere/resumed.py", SOURCE)


class Store(MemoryStore):
    """Can be down, and tells when something was stored."""

    def __init__(self) -> None:
        super().__init__()
        self.is_down = False
        self.stored = asyncio.Event()

    async def _put(self, key: str, value: bytes) -> None:
        if self.is_down:
            raise CheckpointStoreError("down")
        await super()._put(key, value)
        self.stored.set()

    async def _get(self, key: str) -> bytes | None:
        if self.is_down:
            raise CheckpointStoreError("down")
        return await super()._get(key)

    async def checkpoint(
        self, condition: Callable[[SessionCheckpoint], object], number: int = 0
    ) -> SessionCheckpoint:
        """The first stored checkpoint of a run for which something holds."""
        async with asyncio.timeout(RUN_SECS):
            while True:
                self.stored.clear()
                data = await super()._get(f"s/{number}")
                if data is not None and condition(found := SessionCheckpoint.decode(data)):
                    return found
                await self.stored.wait()


@dataclass
class World:
    """What the runs of a bot have in common, in this process."""

    answers: list[list[str]] = field(default_factory=lambda: [[], []])
    calls: list[str] = field(default_factory=list)
    may_return: bool = True
    idempotent: bool = False
    crash: bool = False
    resumed_from: list[SessionCheckpoint | None] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)
    tasks: list[Any] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def ready(self, resume: SessionCheckpoint | None, context: Any, task: Any) -> None:
        self.resumed_from.append(resume)
        self.contexts.append(context)
        self.tasks.append(task)
        self.news.set()

    async def begun(self, runs: int = 1) -> Any:
        async with asyncio.timeout(RUN_SECS):
            while len(self.tasks) < runs:
                self.news.clear()
                await self.news.wait()
        return self.tasks[-1]

    async def say(self, text: str) -> None:
        from antiphon.frames.frames import LLMMessagesAppendFrame

        said = LLMMessagesAppendFrame([{"role": "user", "content": text}], run_llm=True)
        await self.tasks[-1].queue_frame(said)

    def texts(self, run: int = -1) -> list[Any]:
        return [message.get("content") for message in self.contexts[run].messages]


class Run:
    """A run of the session in one supervisor."""

    def __init__(self, actor: SupervisorActor, spec: SessionSpec) -> None:
        self.actor = actor
        self.said: list[str] = []
        self._task = asyncio.create_task(self._follow(spec))

    async def _follow(self, spec: SessionSpec) -> SessionReport:
        async for item in self.actor.run_session(spec):
            if isinstance(item, (Output, Failure)):
                self.said.append(item.text)
            else:
                return item
        raise AssertionError("no report")

    async def report(self) -> SessionReport:
        async with asyncio.timeout(RUN_SECS):
            return await self._task


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def world() -> World:
    return World()


Start = Callable[..., Awaitable[Run]]


@pytest.fixture
async def run(
    agent: FakeAgent,  # noqa: F811 - the fixture
    store: Store,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Start]:
    """Starts the session, each time in a supervisor of its own."""

    class Context:
        def get_node_id(self) -> str:
            return "node"

    monkeypatch.setattr(ray, "get_runtime_context", Context)
    actors: list[SupervisorActor] = []

    async def start(*, resume: bool = False, bot: BotFile = BOT, **changes: Any) -> Run:
        hub = tmp_path / f"hub{len(actors)}"  # their sockets have the name of the process
        actor = SupervisorActor(str(hub), agent, store=store)
        actors.append(actor)
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        await actor.start()
        spec = SessionSpec("s", bot, body={"world": world}, checkpoints=True, resume=resume)
        return Run(actor, replace(spec, **changes))

    try:
        yield start
        assert agent.host.statistics()["sessions"] == 0
    finally:
        for actor in actors:
            await actor.stop()
        asyncio.get_running_loop().set_task_factory(None)
        logger.remove()
        logger.add(sys.__stderr__ or sys.stderr)


def answered(text: str) -> Callable[[SessionCheckpoint], bool]:
    def is_there(saved: SessionCheckpoint) -> bool:
        contexts = saved.contexts
        return bool(contexts) and contexts[0].messages[-1:] == [
            {"role": "assistant", "content": text}
        ]

    return is_there


async def end(world: World) -> None:
    await world.tasks[-1].stop_when_done()


async def test_goes_on_in_another_supervisor(run: Start, store: Store, world: World) -> None:
    world.answers = [["Hello."], ["Still here."]]
    first = await run()
    await world.begun()
    await world.say("Hi.")
    await store.checkpoint(answered("Hello."))
    assert first.actor.statistics()["checkpoints"]["saved"] >= 1
    await first.actor.abandon_session("s")
    assert (await first.report()).handed_over

    second = await run(resume=True)
    await world.begun(2)
    assert world.resumed_from[0] is None
    resume = world.resumed_from[1]
    assert resume is not None
    assert resume.problems == []
    assert world.texts() == ["Hi.", "Hello."]
    assert world.contexts[0] is not world.contexts[1]
    await world.say("Are you there?")
    await store.checkpoint(answered("Still here."), number=1)
    await end(world)
    report = await second.report()
    assert (report.exit_code, report.lost, report.handed_over) == (0, "", False)
    assert world.texts() == ["Hi.", "Hello.", "Are you there?", "Still here."]
    # At its end nothing of it is left.
    assert list(await store.list()) == []


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_function_in_progress(
    run: Start, store: Store, world: World, idempotent: bool
) -> None:
    """The model that calls it runs in an actor; the function runs where the bot does."""
    world.answers = [["look"], ["I see."]]
    world.may_return, world.idempotent = False, idempotent
    first = await run()
    await world.begun()
    await world.say("What is there?")
    await store.checkpoint(
        lambda saved: saved.contexts and any(call.begun for call in saved.contexts[0].calls)
    )
    await first.actor.abandon_session("s")
    await first.report()

    world.may_return = True
    second = await run(resume=True)
    await world.begun(2)
    await store.checkpoint(answered("I see."), number=1)
    await end(world)
    assert (await second.report()).exit_code == 0
    assert len(world.calls) == (2 if idempotent else 1)
    (told,) = [m["content"] for m in world.contexts[1].messages if m["role"] == "tool"]
    assert json.loads(told) == (
        {"seen": "a tree"} if idempotent else json.loads(told) | {"status": "interrupted"}
    )


@pytest.mark.parametrize("how", ["ends", "crashes", "is cancelled"])
async def test_a_session_that_is_over_leaves_nothing(
    run: Start, store: Store, world: World, how: str
) -> None:
    world.crash = how == "crashes"
    session = await run()
    await world.begun()
    await store.checkpoint(lambda saved: saved.sequence)
    if how == "is cancelled":
        assert await session.actor.cancel_session("s")
    else:
        await end(world)
    report = await session.report()
    assert report.exit_code == {"ends": 0, "crashes": 1, "is cancelled": 130}[how]
    assert list(await store.list()) == []


async def test_a_session_that_had_not_begun_begins(run: Start, store: Store, world: World) -> None:
    blank = SessionCheckpoint("s", BOT.digest, 0.0)
    await store.put("s/0", blank.encode())
    session = await run(resume=True)
    await world.begun()
    assert world.resumed_from == [None]
    await end(world)
    assert (await session.report()).exit_code == 0
    assert list(await store.list()) == []


async def spoil_nothing(store: Store) -> None:
    """There is no checkpoint."""


async def spoil_version(store: Store) -> None:
    await store.put("s/0", SessionCheckpoint("s", "other", 0.0, sequence=1).encode())


async def spoil_owner(store: Store) -> None:
    await store.put("s/0", SessionCheckpoint("t", BOT.digest, 0.0, sequence=1).encode())


async def spoil_bytes(store: Store) -> None:
    good = SessionCheckpoint("s", BOT.digest, 0.0, sequence=1).encode()
    await store.put("s/0", good[:-1] + b"x")


async def spoil_pointer(store: Store) -> None:
    await store.put("s", b"x")


LOST = [
    (spoil_nothing, "there is no checkpoint of it"),
    (spoil_version, "its checkpoint is of version other of the bot"),
    (spoil_owner, "its checkpoint is that of another session"),
    (spoil_bytes, "the checkpoint is damaged"),
    (spoil_pointer, "its entry in the store is damaged"),
]


@pytest.mark.parametrize(("spoil", "why"), LOST)
async def test_a_session_that_cannot_be_resumed_is_reported_as_lost(
    run: Start, store: Store, world: World, spoil: Any, why: str
) -> None:
    await spoil(store)
    session = await run(resume=True)
    report = await session.report()
    assert report.exit_code == 1
    assert why in report.lost
    assert report.failures == [f"the session is lost: {report.lost}"]
    assert report.failures[0] in session.said
    assert world.tasks == []


@pytest.mark.parametrize(("spoil", "why"), LOST)
async def test_or_begins_anew_if_its_bot_says_so(
    run: Start, store: Store, world: World, spoil: Any, why: str
) -> None:
    await spoil(store)
    bot = BotFile(BOT.path, f"start_anew_when_lost = True\n{SOURCE}")
    session = await run(resume=True, bot=bot)
    await world.begun()
    assert world.resumed_from == [None]
    await end(world)
    report = await session.report()
    assert report.exit_code == 0
    assert why in report.lost or "of version" in report.lost


async def test_a_store_that_is_down_for_a_moment_is_waited_for(
    run: Start, store: Store, world: World
) -> None:
    saved = SessionCheckpoint("s", BOT.digest, 0.0, sequence=7, states={"order": 1})
    await store.put("s/0", saved.encode())
    store.is_down = True
    session = await run(resume=True)
    await asyncio.sleep(0)
    store.is_down = False
    await world.begun()
    resume = world.resumed_from[0]
    assert resume is not None
    assert resume.sequence == 7
    await end(world)
    assert (await session.report()).exit_code == 0


async def test_a_store_that_stays_down_loses_the_session(
    run: Start, store: Store, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "LOAD_DEADLINE_SECS", 0.0)
    store.is_down = True
    report = await (await run(resume=True)).report()
    assert report.lost == "its checkpoint cannot be read: down"
    # One that begins is not held up by it, only not saved.
    session = await run()
    await world.begun()
    await end(world)
    assert (await session.report()).exit_code == 0


async def test_a_session_is_handed_over(run: Start, store: Store, world: World) -> None:
    world.answers = [["Hello."], []]
    first = await run()
    await world.begun()
    await world.say("Hi.")
    await store.checkpoint(answered("Hello."))
    # Unnoticed so far: it is saved all the same.
    world.contexts[0].add_message({"role": "system", "content": "It rains."})
    assert await first.actor.hand_over("s")
    report = await first.report()
    assert report.handed_over
    assert report.failures == []
    second = await run(resume=True)
    await world.begun(2)
    assert world.texts() == ["Hi.", "Hello.", "It rains."]
    await end(world)
    await second.report()


async def test_a_session_that_cannot_be_saved_is_not_handed_over(
    run: Start, store: Store, world: World
) -> None:
    world.answers = [["Hello."]]
    session = await run()
    await world.begun()
    await store.checkpoint(lambda saved: saved.sequence)
    store.is_down = True
    world.contexts[0].add_message({"role": "system", "content": "It rains."})
    assert not await session.actor.hand_over("s")
    assert not await session.actor.hand_over("unknown")
    store.is_down = False
    await world.say("Hi.")
    await store.checkpoint(answered("Hello."))
    await end(world)
    assert not (await session.report()).handed_over


async def test_one_that_was_given_up_does_not_harm_its_successor(
    run: Start, store: Store, world: World
) -> None:
    """It may not have noticed: a partition, or a process that was frozen."""
    world.answers = [["Hello.", "Late."], ["New."]]
    first = await run()
    await world.begun()
    await world.say("Hi.")
    await store.checkpoint(answered("Hello."))
    second = await run(resume=True)
    await world.begun(2)
    await world.say("Again.")
    await store.checkpoint(answered("New."), number=1)
    # The old one goes on for a while, and ends.
    world.tasks.append(world.tasks[0])
    await world.say("Late?")
    await store.checkpoint(answered("Late."), number=0)
    await end(world)
    await first.report()
    third = await store.checkpoint(answered("New."), number=1)
    assert third.session_id == "s"
    assert await store.get("s") == b"1"
    world.tasks.append(world.tasks[1])
    await end(world)
    await second.report()
