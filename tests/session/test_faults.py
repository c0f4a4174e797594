"""What goes wrong in actors, and what becomes of the session then."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from tests.session.conftest import (
    RUN_SECS,
    Actors,
    LocalHost,
    Mover,
    Stay,
    pipeline_of,
    started,
    texts,
    until,
)

from antiphon.errors import PlacementError
from antiphon.frames.frames import (
    CancelFrame,
    DataFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    StartFrame,
    StopFrame,
    SystemFrame,
    TextFrame,
)
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from antiphon_actors.channels import DEFAULT_LIMITS
from antiphon_actors.placement.policy import Placement
from antiphon_actors.placement.supervision import Supervision
from antiphon_actors.session.home import SessionRecord


class Breaks(FrameProcessor):
    """Raises on a text, or where it is told to."""

    movable = True

    def __init__(self, where: str = "process", home: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._where = where
        self._built += 1
        if where == "constructor" and self._built > 1:
            raise ValueError("not a second time")

    _built_here = 0

    @property
    def _built(self) -> int:
        return Breaks._built_here

    @_built.setter
    def _built(self, value: int) -> None:
        Breaks._built_here = value

    async def setup(self, setup: FrameProcessorSetup) -> None:
        await super().setup(setup)
        if self._where == "setup":
            raise OSError("no such device")

    async def cleanup(self) -> None:
        await super().cleanup()
        if self._where == "cleanup":
            raise OSError("still in use")

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if self._where == "start" and isinstance(frame, StartFrame):
            raise ConnectionError("nobody answers")
        if self._where == "process" and isinstance(frame, TextFrame):
            raise ValueError("cannot be said")
        await self.push_frame(frame, direction)


@pytest.fixture(autouse=True)
def _first_building() -> None:
    Breaks._built_here = 0


async def test_an_exception_becomes_an_error_of_the_bots_processor(actors: Actors) -> None:
    broken, home = Breaks(), Stay()
    task = pipeline_of(home, broken, Stay())
    await task.queue_frames(texts("1", "2"))
    record = await actors.run(task)
    errors = [frame for frame in home.up if isinstance(frame, ErrorFrame)]
    assert [error.processor for error in errors] == [broken, broken]
    assert [error.error for error in errors] == ["cannot be said"] * 2
    assert "test_faults.py:" in errors[0].metadata["cause"]["where"]
    assert not errors[0].fatal
    assert f"processor {broken.name} failed on TextFrame" in record.failures[0]
    assert "ValueError: cannot be said" in record.failures[0]
    assert isinstance(home.down[-1], EndFrame)


async def test_a_processor_that_fails_to_start_ends_the_session(actors: Actors) -> None:
    broken = Breaks("start")
    task = pipeline_of(broken, Stay())
    record = await actors.run(task)
    assert [error.fatal for error in task.errors] == [True]
    assert "nobody answers" in record.failures[0]


@pytest.mark.parametrize("where", ["constructor", "setup"])
async def test_a_processor_that_cannot_be_built_or_set_up(actors: Actors, where: str) -> None:
    broken = Breaks(where)
    task = pipeline_of(Mover(), broken, Mover())
    with pytest.raises(PlacementError) as raised:
        await actors.run(task)
    assert broken.name in str(raised.value)
    assert {"constructor": "not a second time", "setup": "no such device"}[where] in str(
        raised.value
    )
    if where == "constructor":
        assert "test_faults.py:" in str(raised.value)
    assert actors.released == ["s1"]


async def test_a_processor_that_fails_to_clean_up_keeps_nobody_from_it(actors: Actors) -> None:
    broken, mover = Breaks("cleanup"), Mover()
    task = pipeline_of(broken, mover)
    await task.queue_frames(texts("1"))
    record = await actors.run(task)
    assert [entry.statistics.frames_in for entry in record.processors] == [3, 3]


async def run_until_started(
    actors: Actors, task: PipelineTask, record: SessionRecord, placement: Placement | None = None
) -> asyncio.Task[SessionRecord]:
    session = asyncio.create_task(actors.run(task, placement, record))
    await started(task)
    return session


UNSUPERVISED = Placement("dedicated", supervision=(Supervision(max_restarts=0),))
"""What is lost is not replaced; how it is, test_loss.py tells."""


@pytest.mark.parametrize("position", [0, 1, 2])
async def test_a_host_that_dies_ends_the_session_at_once(actors: Actors, position: int) -> None:
    movers = [Mover(), Mover(), Mover()]
    end = Stay()
    task = pipeline_of(*movers, end)
    record = SessionRecord()
    session = await run_until_started(actors, task, record, UNSUPERVISED)
    loop = asyncio.get_running_loop()
    began = loop.time()
    actors.by_processor[movers[position].name].die()
    await session
    # Far from the deadline of a cancellation that nobody answers (2 s).
    assert loop.time() - began < 1.5
    [error] = task.errors[:1]
    assert error.fatal
    assert movers[position].name in error.error
    assert movers[position].name in record.failures[0]
    assert any(isinstance(frame, CancelFrame) for frame in end.down)
    assert task.has_finished()


async def test_a_link_between_two_hosts_that_breaks(actors: Actors) -> None:
    first, second, end = Mover("1"), Mover("2"), Stay()
    task = pipeline_of(first, second, end)
    record = SessionRecord()
    session = await run_until_started(actors, task, record)
    # Home has sound links to both, and learns of it from them.
    hub = actors.by_processor[first.name].host._endpoint._hub
    link = await hub.connect(actors.by_processor[second.name].uri, deadline_secs=5)
    link.abort("cut")
    await task.queue_frames(texts("a", end=False))
    await until(lambda: end.texts)
    await task.queue_frames(texts())
    await session
    assert end.texts == ["a12"]
    assert len(record.recoveries) == 1


async def test_cancelling_at_any_moment_leaves_nothing(actors: Actors) -> None:
    """Cancelled after so many turns of the loop: while placing, attaching, starting, running."""
    for turns in range(0, 150, 6):
        task = pipeline_of(Mover("a"), Stay(), Mover("b"))
        await task.queue_frames(texts(*"123", end=False))
        session = asyncio.create_task(actors.run(task, Placement("pooled")))
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(RUN_SECS):
            await task.cancel()
            await session
        assert task.has_finished()


async def test_hosts_that_die_together(actors: Actors) -> None:
    movers = [Mover(), Mover(), Mover()]
    task = pipeline_of(*movers)
    record = SessionRecord()
    session = await run_until_started(actors, task, record, UNSUPERVISED)
    for mover in movers:
        actors.by_processor[mover.name].die()
    await session
    assert record.failures


async def test_a_host_that_dies_while_frames_wait_for_it(actors: Actors) -> None:
    slow, end = Slow(), Stay()
    task = pipeline_of(Stay(), slow, end)
    record = SessionRecord()
    session = await run_until_started(actors, task, record, UNSUPERVISED)
    await task.queue_frames(texts(*(str(number) for number in range(300))))
    remote = await actors.remote(slow)
    await until(lambda: remote._local_inbox.waiting > 40)
    actors.by_processor[slow.name].die()
    await session
    assert slow.name in record.failures[0]


@pytest.mark.parametrize("movers", [1, 3])
async def test_hosts_free_a_session_whose_home_dies(actors: Actors, movers: int) -> None:
    # Of three in a row, the one in the middle has no stream from home or to it.
    task = PipelineTask(pipeline_of(*(Mover() for _ in range(movers))).pipeline.processors[1])  # type: ignore[arg-type]
    session = asyncio.create_task(actors.run(task))
    await started(task)
    actors.endpoint.abort()
    await until(lambda: not any(host.host._sessions for host in actors.hosts))
    async with asyncio.timeout(RUN_SECS):
        await session
    assert all(not host.host._endpoint.sessions for host in actors.hosts)


async def test_cancelling_while_actors_are_being_attached(actors: Actors) -> None:
    first, second = Mover(), Mover()
    task = pipeline_of(first, second)
    slow_hosts: list[LocalHost] = []
    acquire = actors.acquire_one

    async def acquire_slowly(placed: Any, avoid: Any = ()) -> LocalHost:
        host = await acquire(placed, avoid)
        host.may_attach.clear()
        slow_hosts.append(host)
        return host

    actors.acquire_one = acquire_slowly  # type: ignore[method-assign]
    session = asyncio.create_task(actors.run(task))
    await until(lambda: len(slow_hosts) == 2 and all(host.specs for host in slow_hosts))
    cancelling = asyncio.create_task(task.cancel())
    await until(lambda: actors.endpoint.sessions)
    for host in slow_hosts:
        host.may_attach.set()
    async with asyncio.timeout(RUN_SECS):
        await cancelling
        await session
    assert actors.released == ["s1"]


async def test_one_attachment_fails_while_another_goes_on(actors: Actors) -> None:
    broken, mover = Breaks("constructor"), Mover()
    task = pipeline_of(mover, broken)
    acquire = actors.acquire_one

    async def acquire_one_slowly(placed: Any, avoid: Any = ()) -> LocalHost:
        host = await acquire(placed, avoid)
        if placed.processor is mover:
            host.may_attach.clear()
        return host

    actors.acquire_one = acquire_one_slowly  # type: ignore[method-assign]
    session = asyncio.create_task(actors.run(task))
    # The session is over for its bot, and waits only for the actor that is still at it.
    await until(lambda: mover.name in actors.by_processor)
    await until(lambda: actors.by_processor[mover.name].specs)
    assert not session.done()
    actors.by_processor[mover.name].may_attach.set()
    with pytest.raises(PlacementError, match="not a second time"):
        await session


async def test_no_actor_for_a_processor(actors: Actors) -> None:
    async def acquire_one(placed: Any, avoid: Any = ()) -> LocalHost:
        raise PlacementError(f"no actor for {placed.processor.name}")

    actors.acquire_one = acquire_one  # type: ignore[method-assign]
    mover = Mover()
    with pytest.raises(PlacementError, match=mover.name):
        await actors.run(pipeline_of(mover))


@dataclass
class Awkward(DataFrame):
    content: Any = None


async def test_a_frame_that_cannot_be_encoded_is_an_error_of_who_pushes_it(actors: Actors) -> None:
    home = Stay()
    task = pipeline_of(home, Mover())
    awkward = Awkward(np.array([object()], dtype=object))
    await task.queue_frames([awkward, *texts("1")])
    await actors.run(task)
    [error] = task.errors
    assert error.processor is home
    assert "Awkward.content" in error.error
    assert not error.fatal


async def test_a_frame_nobody_knows_ends_the_session_with_the_reason(actors: Actors) -> None:
    mover, end = Mover(), Stay()
    task = pipeline_of(mover, end)

    @task.event_handler("on_pipeline_started")
    async def on_pipeline_started(task: PipelineTask, frame: Frame) -> None:
        # Defined after the actors were told of the bot's classes.
        hosted = next(iter(actors.hosts[0].host._sessions.values()))
        hosted.node.decoder._classes = {"tests.session.test_faults:Awkward": dict}
        await task.queue_frame(Awkward("x"))

    record = await actors.run(task)
    assert task.errors[0].fatal
    assert mover.name in record.failures[0]
    assert "could not be read" in record.failures[0]


async def test_a_stopped_pipeline_gives_its_actors_back_and_runs_again(actors: Actors) -> None:
    mover, home = Mover("a"), Stay()
    first = pipeline_of(mover, home)
    pipeline: Any = first.pipeline.processors[1]
    await first.queue_frames([TextFrame("1"), StopFrame()])
    await actors.run(first)
    second = PipelineTask(pipeline)
    await second.queue_frames(texts("2"))
    await actors.run(second)
    assert home.texts == ["1a", "2a"]


class Slow(FrameProcessor):
    """Takes no text before it is let."""

    movable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.go = asyncio.Event()
        self.urgent: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            await self.go.wait()
        elif isinstance(frame, Hurry):
            self.urgent.append(frame)
        await self.push_frame(frame, direction)


@dataclass
class Hurry(SystemFrame):
    note: str = ""


@dataclass
class Produce(DataFrame):
    count: int = 0
    made: list[int] = field(default_factory=list)


class Producer(FrameProcessor):
    """Makes as many texts as it is asked for."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.made = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, Produce):
            for number in range(frame.count):
                await self.push_frame(TextFrame(str(number)))
                self.made += 1
            return
        await self.push_frame(frame, direction)


async def test_a_slow_processor_holds_its_producer_back(actors: Actors) -> None:
    producer, slow, end = Producer(), Slow(), Stay()
    task = pipeline_of(producer, slow, end)
    session = asyncio.create_task(actors.run(task))
    await started(task)
    remote = await actors.remote(slow)
    await task.queue_frame(Produce(1000))
    window = DEFAULT_LIMITS.window_frames
    await until(lambda: producer.made >= window)
    await producer.queue_frame(Hurry("now"))
    await until(lambda: remote.urgent)
    # The window of a stream; the producer waits while the urgent frame has passed all of it.
    assert producer.made == window
    assert remote._local_inbox.waiting <= window
    remote.go.set()
    await task.queue_frame(EndFrame())
    await session
    assert end.texts == [str(number) for number in range(1000)]


class Echo(Slow):
    """Answers every text upstream as well."""

    movable = True

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, TextFrame) and direction is FrameDirection.DOWNSTREAM:
            await self.push_frame(TextFrame(f"re: {frame.text}"), FrameDirection.UPSTREAM)
        await super().process_frame(frame, direction)


async def test_full_windows_in_both_directions_do_not_lock_up(actors: Actors) -> None:
    home, producer, echo, end = Stay(), Producer(), Echo(), Stay()
    task = pipeline_of(home, producer, echo, end)
    session = asyncio.create_task(actors.run(task))
    await started(task)
    (await actors.remote(echo)).go.set()
    await task.queue_frame(Produce(1000))
    await until(lambda: len(home.up) >= 1000)
    await task.queue_frame(EndFrame())
    await session
    assert end.texts == [str(number) for number in range(1000)]
    answers = [frame.text for frame in home.up if isinstance(frame, TextFrame)]
    assert answers == [f"re: {number}" for number in range(1000)]
