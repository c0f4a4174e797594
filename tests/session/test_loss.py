"""Processors that are lost with their actors, and replaced while the session goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from tests.session.conftest import (
    RUN_SECS,
    Actors,
    Mover,
    Stay,
    Watcher,
    pipeline_of,
    started,
    texts,
    until,
)

from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    StartInterruptionFrame,
    STTMuteFrame,
    TextFrame,
)
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.utils.asyncio.receipts import Hold
from antiphon_actors.placement.policy import Placement
from antiphon_actors.placement.supervision import Supervision
from antiphon_actors.session.home import SessionRecord
from antiphon_actors.session.replacement import RecoveryRecord


class Gate(Mover):
    """Waits before each text until it is let; counts the ones it has begun."""

    movable = True
    go = asyncio.Event()
    begun: ClassVar[list[str]] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, TextFrame) and direction is FrameDirection.DOWNSTREAM:
            Gate.begun.append(frame.text)
            await Gate.go.wait()
        await super().process_frame(frame, direction)


class Twice(Mover):
    """Makes two of each text, with a pause between them, and answers upstream."""

    movable = True

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await FrameProcessor.process_frame(self, frame, direction)
        if isinstance(frame, TextFrame) and direction is FrameDirection.DOWNSTREAM:
            await self.push_frame(TextFrame(f"{frame.text}-1"))
            await asyncio.sleep(0)
            await self.push_frame(TextFrame(f"re {frame.text}"), FrameDirection.UPSTREAM)
            await asyncio.sleep(0)
            await self.push_frame(TextFrame(f"{frame.text}-2"))
        else:
            await self.push_frame(frame, direction)


class Pairs(Mover):
    """Joins each two texts; holds the first until the second has come."""

    movable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._first: tuple[str, Hold] | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await FrameProcessor.process_frame(self, frame, direction)
        if not isinstance(frame, TextFrame) or direction is not FrameDirection.DOWNSTREAM:
            await self.push_frame(frame, direction)
        elif self._first is None:
            self._first = frame.text, self.hold_frame()
        else:
            (first, hold), self._first = self._first, None
            await self.push_frame(TextFrame(f"{first}+{frame.text}"))
            hold.release()


class Counts(Mover):
    """Numbers the texts; its count is its state."""

    movable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._count = 0

    def snapshot(self) -> Mapping[str, Any]:
        return {"version": 1, "count": self._count}

    async def restore(self, state: Mapping[str, Any]) -> None:
        self._count = state["count"]

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await FrameProcessor.process_frame(self, frame, direction)
        if isinstance(frame, TextFrame) and direction is FrameDirection.DOWNSTREAM:
            self._count += 1
            await self.push_frame(TextFrame(f"{frame.text}#{self._count}"))
        else:
            await self.push_frame(frame, direction)


class Mutes(Mover):
    """Marks texts while it is muted."""

    movable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._muted = False

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await FrameProcessor.process_frame(self, frame, direction)
        if isinstance(frame, STTMuteFrame):
            self._muted = frame.mute
        elif isinstance(frame, TextFrame) and self._muted:
            await self.push_frame(TextFrame(f"({frame.text})"), direction)
        else:
            await self.push_frame(frame, direction)


@pytest.fixture(autouse=True)
def _closed_gate() -> None:
    Gate.go = asyncio.Event()
    Gate.begun = []


class Session:
    """A session that runs beside the test."""

    def __init__(self, actors: Actors, task: PipelineTask, placement: Placement | None) -> None:
        self.actors = actors
        self.task = task
        self.record = SessionRecord()
        self._running = asyncio.create_task(actors.run(task, placement, self.record))

    async def say(self, *words: str) -> None:
        await self.task.queue_frames(texts(*words, end=False))

    async def end(self) -> SessionRecord:
        await self.task.queue_frame(EndFrame())
        return await self.over()

    async def over(self) -> SessionRecord:
        async with asyncio.timeout(RUN_SECS):
            await self._running
        return self.record

    @property
    def recoveries(self) -> list[RecoveryRecord]:
        executor: Any = self.task._executor
        found: list[RecoveryRecord] = executor.recoveries
        return found

    def kill(self, *processors: FrameProcessor) -> None:
        for processor in processors:
            self.actors.by_processor[processor.name].die()


async def session_of(
    actors: Actors, *processors: FrameProcessor, placement: Placement | None = None, **more: Any
) -> Session:
    task = pipeline_of(*processors, **more)
    session = Session(actors, task, placement)
    await started(task)
    return session


@pytest.mark.parametrize("position", [0, 1, 2])
async def test_a_lost_processor_is_replaced(actors: Actors, position: int) -> None:
    movers = [Mover("a"), Mover("b"), Mover("c")]
    home, end = Stay(), Stay()
    session = await session_of(actors, home, *movers, end)
    await session.say("1")
    await until(lambda: end.texts == ["1abc"])
    first = actors.by_processor[movers[position].name]
    session.kill(movers[position])
    await session.say("2", "3")
    await until(lambda: end.texts == ["1abc", "2abc", "3abc"] and session.recoveries)
    record = await session.end()
    assert actors.by_processor[movers[position].name] is not first
    assert record.failures == []
    [recovery] = record.recoveries
    assert recovery.processors == (movers[position].name,)
    assert movers[position].name in recovery.reason
    assert first.description in actors.given_back
    assert isinstance(end.down[-1], EndFrame)


async def test_a_place_is_given_back_though_the_first_attempt_fails(actors: Actors) -> None:
    mover, end = Mover("a"), Stay()
    session = await session_of(actors, Stay(), mover, end)
    first = actors.by_processor[mover.name]
    actors.may_attach = False
    session.kill(mover)
    await until(lambda: actors.by_processor[mover.name] is not first)
    second = actors.by_processor[mover.name]
    await until(lambda: second.attaching)
    actors.may_attach = True
    second.die()
    second.may_attach.set()
    await session.say("1")
    await until(lambda: end.texts == ["1a"] and session.recoveries)
    record = await session.end()
    assert record.failures == []
    assert record.recoveries[0].attempts == 2
    assert actors.given_back.count(first.description) == 1


@pytest.mark.parametrize("moment", range(0, 60, 3))
async def test_an_actor_that_is_lost_while_the_session_starts(actors: Actors, moment: int) -> None:
    movers = [Mover("a"), Mover("b"), Mover("c")]
    end = Stay()
    session = Session(actors, pipeline_of(Stay(), *movers, end), None)
    victim = movers[moment % 3]
    await until(lambda: victim.name in actors.by_processor)
    for _ in range(moment):
        await asyncio.sleep(0)
    session.kill(victim)
    await session.say("1", "2")
    await until(lambda: end.texts == ["1abc", "2abc"])
    record = await session.end()
    assert record.failures == []
    assert {each.processors for each in record.recoveries} <= {(victim.name,)}


async def test_neighbours_that_are_lost_together(actors: Actors) -> None:
    movers = [Mover("a"), Mover("b"), Mover("c")]
    end = Stay()
    session = await session_of(actors, *movers, end)
    session.kill(*movers)
    await session.say("1")
    await until(lambda: end.texts == ["1abc"] and session.recoveries)
    record = await session.end()
    assert record.failures == []
    assert {name for each in record.recoveries for name in each.processors} == {
        mover.name for mover in movers
    }


async def test_a_frame_in_progress_is_processed_again(actors: Actors) -> None:
    gate, end = Gate("g"), Stay()
    session = await session_of(actors, Stay(), gate, end)
    await session.say("1", "2")
    await until(lambda: Gate.begun == ["1"])
    session.kill(gate)
    await until(lambda: Gate.begun == ["1", "1"])
    Gate.go.set()
    await session.end()
    assert end.texts == ["1g", "2g"]


@pytest.mark.parametrize("seed", range(12))
async def test_every_frame_is_processed_once_whenever_a_processor_dies(
    actors: Actors, seed: int
) -> None:
    chance = random.Random(seed)
    twice, home, end = Twice(), Stay(), Stay()
    chain = [Mover("a"), twice, Mover("b")]
    session = await session_of(actors, home, *chain, end)
    words = [str(number) for number in range(60)]
    victim = chain[seed % 3]
    for word in words:
        await session.say(word)
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        if chance.random() < 0.06:
            session.kill(victim)
    await until(lambda: len(end.texts) >= 2 * len(words))
    record = await session.end()
    assert end.texts == [f"{word}a-{n}b" for word in words for n in (1, 2)]
    answers = [frame.text for frame in home.up if isinstance(frame, TextFrame)]
    assert answers == [f"re {word}a" for word in words]
    assert record.failures == []


def end_of(count: int) -> list[str]:
    return [f"{number}-{n}" for number in range(count) for n in (1, 2)]


async def test_observers_see_each_push_once(actors: Actors) -> None:
    twice, last, end = Twice(), Mover("z"), Stay()
    watcher = Watcher()
    session = await session_of(actors, twice, last, end, observer=watcher)
    for number in range(20):
        await session.say(str(number))
        await asyncio.sleep(0)
        if number == 10:
            session.kill(twice)
    await until(lambda: len(end.texts) >= 40)
    await session.end()
    seen = [frame.text for frame in watcher.between(twice, last) if isinstance(frame, TextFrame)]
    # What the lost one had pushed and not reported is not seen; nothing is seen twice.
    assert seen == [text for text in end_of(20) if text in seen]
    assert len(seen) > 20


async def test_what_a_processor_holds_is_given_to_its_successor(actors: Actors) -> None:
    pairs, end = Pairs(), Stay()
    session = await session_of(actors, pairs, end)
    await session.say("1", "2", "3")
    await until(lambda: end.texts == ["1+2"])
    session.kill(pairs)
    await session.say("4")
    await until(lambda: len(end.texts) == 2)
    await session.end()
    assert end.texts == ["1+2", "3+4"]


async def test_a_state_goes_on_in_the_successor(actors: Actors) -> None:
    counts, end = Counts(), Stay()
    session = await session_of(actors, Stay(), counts, end)
    await session.say("a", "b")
    await until(lambda: len(end.texts) == 2)
    session.kill(counts)
    await session.say("c")
    await until(lambda: len(end.texts) == 3)
    session.kill(counts)
    await session.say("d")
    await session.end()
    assert end.texts == ["a#1", "b#2", "c#3", "d#4"]


@pytest.mark.parametrize("seed", range(6))
async def test_a_state_is_that_of_the_frames_that_are_not_given_again(
    actors: Actors, seed: int
) -> None:
    chance = random.Random(seed)
    counts, end = Counts(), Stay()
    chain = [Mover("a"), counts, Mover("b")]
    session = await session_of(actors, *chain, end)
    victim = chain[seed % 3]
    for number in range(40):
        await session.say(str(number))
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        if chance.random() < 0.06:
            session.kill(victim)
    await until(lambda: len(end.texts) >= 40)
    await session.end()
    assert end.texts == [f"{number}a#{number + 1}b" for number in range(40)]


async def test_settings_are_repeated(actors: Actors) -> None:
    mutes, home, end = Mutes(), Stay(), Stay()
    session = await session_of(actors, home, mutes, end)
    await session.task.queue_frame(STTMuteFrame(True))
    await session.say("1")
    await until(lambda: end.texts == ["(1)"])
    session.kill(mutes)
    await session.say("2")
    await until(lambda: end.texts == ["(1)", "(2)"])
    await session.task.queue_frame(STTMuteFrame(False))
    await session.say("3")
    await until(lambda: len(end.texts) == 3)
    session.kill(mutes)
    await session.say("4")
    await session.end()
    assert end.texts == ["(1)", "(2)", "3", "4"]


async def test_calls_of_the_bot_reach_the_successor(actors: Actors) -> None:
    mover, end = Mover("a"), Stay()
    mover.set_tag("b")
    session = await session_of(actors, mover, end)
    heard: list[str] = []

    async def on_text(processor: Mover, text: str) -> None:
        heard.append(text)

    mover.add_event_handler("on_text", on_text)
    mover.set_tag("c")
    await session.say("1")
    await until(lambda: end.texts == ["1c"])
    session.kill(mover)
    # While nobody is there: it waits, and so does a call.
    mover.set_tag("d")
    shouted = asyncio.create_task(mover.shout("loud"))
    await session.say("2")
    async with asyncio.timeout(RUN_SECS):
        assert await shouted == "LOUD"
    await until(lambda: "2d" in end.texts)
    await session.end()
    assert sorted(end.texts) == ["1c", "2d", "loud"]
    assert heard == ["1", "2"]
    remote_calls = await_history = actors.by_processor[mover.name].specs[-1].processors[0].journal
    assert remote_calls is await_history


async def test_an_event_of_a_repeated_frame_is_told_once(actors: Actors) -> None:
    gate, end = Gate("g"), Stay()
    heard: list[str] = []
    gate.add_event_handler("on_text", lambda _processor, text: heard.append(text))
    session = await session_of(actors, gate, end)
    Gate.go.set()
    for number in range(30):
        await session.say(str(number))
        await asyncio.sleep(0)
        if number in (7, 19):
            session.kill(gate)
    await until(lambda: len(end.texts) >= 30)
    await session.end()
    assert end.texts == [f"{number}g" for number in range(30)]
    assert heard == [str(number) for number in range(30)]


async def test_an_interruption_drops_what_waits_for_a_successor(actors: Actors) -> None:
    gate, home, end = Gate("g"), Stay(), Stay()
    session = await session_of(actors, home, gate, end)
    await session.say("old", "older")
    await until(lambda: Gate.begun == ["old"])
    session.kill(gate)
    await home.push_frame(StartInterruptionFrame())
    Gate.go.set()
    await session.say("new")
    await until(lambda: "newg" in end.texts)
    await session.end()
    assert end.texts == ["newg"]
    assert any(isinstance(frame, StartInterruptionFrame) for frame in end.down)


async def test_audio_goes_on(actors: Actors) -> None:
    mover, home, end = Mover(), Stay(), Stay()
    session = await session_of(actors, home, mover, end)
    for number in range(200):
        await home.push_frame(InputAudioRawFrame(bytes([number]) * 2, 16000, 1))
        if number % 50 == 25:
            session.kill(mover)
        await asyncio.sleep(0)
    await until(lambda: sum(isinstance(f, InputAudioRawFrame) for f in end.down) >= 200)
    await session.end()
    audio = [frame.audio[0] for frame in end.down if isinstance(frame, InputAudioRawFrame)]
    assert audio == list(range(200))


async def test_neighbours_in_one_actor_are_one(actors: Actors) -> None:
    """Both share an actor: what the first has answered is safe only when the second has."""
    gate, end = Gate("g"), Stay()
    session = await session_of(actors, Mover("a"), gate, end, placement=Placement("pooled", ()))
    await session.say("1", "2")
    await until(lambda: Gate.begun == ["1a"])
    session.kill(gate)
    Gate.go.set()
    await session.end()
    assert end.texts == ["1ag", "2ag"]


async def test_co_hosted_neighbours_lose_nothing(actors: Actors) -> None:
    first, second, end = Counts(), Counts(), Stay()
    session = await session_of(actors, first, second, end, placement=Placement("pooled"))
    assert actors.by_processor[first.name] is actors.by_processor[second.name]
    for number in range(30):
        await session.say(str(number))
        await asyncio.sleep(0)
        if number in (9, 20):
            session.kill(first)
    await until(lambda: len(end.texts) >= 30)
    await session.end()
    assert end.texts == [f"{n}#{n + 1}#{n + 1}" for n in range(30)]


@pytest.mark.parametrize(
    ("strategy", "moved"), [("one_for_one", "b"), ("rest_for_one", "bc"), ("one_for_all", "abc")]
)
async def test_strategies(actors: Actors, strategy: Any, moved: str) -> None:
    movers = {tag: Mover(tag, name=tag) for tag in "abc"}
    end = Stay()
    placement = Placement("dedicated", supervision=(Supervision(strategy=strategy),))
    session = await session_of(actors, *movers.values(), end, placement=placement)
    await session.say("1")
    await until(lambda: end.texts == ["1abc"])
    session.kill(movers["b"])
    await session.say("2")
    await until(lambda: end.texts == ["1abc", "2abc"] and session.recoveries)
    record = await session.end()
    assert [each.processors for each in record.recoveries] == [tuple(moved)]


async def test_a_processor_that_is_lost_too_often_ends_the_session(actors: Actors) -> None:
    mover, end = Mover("a"), Stay()
    placement = Placement("dedicated", supervision=(Supervision(max_restarts=2),))
    session = await session_of(actors, mover, end, placement=placement)
    for number in range(2):
        await session.say(str(number))
        await until(lambda: len(end.texts) == number + 1)  # noqa: B023
        session.kill(mover)
    await session.say("2")
    await until(lambda: len(end.texts) == 3)
    session.kill(mover)
    record = await session.over()
    [error] = [error for error in session.task.errors if error.fatal]
    assert "lost 3 times within 60 s" in error.error
    assert mover.name in record.failures[0]
    assert any(isinstance(frame, CancelFrame) for frame in end.down)


async def test_no_actor_to_be_had_ends_the_session(
    actors: Actors, monkeypatch: pytest.MonkeyPatch
) -> None:
    from antiphon.errors import PlacementError
    from antiphon_actors.session import recovery

    monkeypatch.setattr(recovery, "PAUSE_FIRST_SECS", 0.001)
    mover, end = Mover("a"), Stay()
    session = await session_of(actors, mover, end)

    async def acquire(*_: Any, **__: Any) -> Any:
        raise PlacementError("the cluster is full")

    replacements = session.record  # for the type checker: the executor is private
    assert replacements is session.record
    actors.acquire = acquire  # type: ignore[method-assign]
    executor = session.task._executor
    executor._replacements._machine._deadline_secs = 0.05  # type: ignore[union-attr]
    session.kill(mover)
    record = await session.over()
    assert "could not be replaced: the cluster is full" in record.failures[0]
    assert isinstance(session.task.errors[-1], ErrorFrame)


async def test_ending_while_a_processor_is_replaced(actors: Actors) -> None:
    for turns in range(0, 60, 4):
        mover, end = Mover("a"), Stay()
        session = await session_of(actors, mover, end)
        session.kill(mover)
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(RUN_SECS):
            await session.task.cancel()
        await session.over()
        assert session.task.has_finished()


async def test_the_end_waits_for_the_successor(actors: Actors) -> None:
    mover, end = Mover("a"), Stay()
    session = await session_of(actors, mover, end)
    session.kill(mover)
    await session.say("1")
    record = await session.end()
    assert end.texts == ["1a"]
    assert record.failures == []


async def test_processors_move_off_an_actor(actors: Actors) -> None:
    mover, end = Mover("a"), Stay()
    session = await session_of(actors, mover, end)
    before = actors.by_processor[mover.name]
    for number in range(20):
        await session.say(str(number))
        if number == 10:
            executor: Any = session.task._executor
            assert await executor.evacuate([before.uri], "it is drained", 5.0) == []
    await until(lambda: len(end.texts) >= 20)
    record = await session.end()
    assert end.texts == [f"{number}a" for number in range(20)]
    assert not before.host._sessions
    assert [each.reason for each in record.recoveries] == ["it is drained"]
