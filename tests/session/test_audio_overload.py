"""Input audio for a processor in another process that does not take it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.session.conftest import Actors, Mover, Stay, pipeline_of, started, until

from antiphon.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    TextFrame,
    UserStartedSpeakingFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon_actors.channels.wire import Wire
from antiphon_actors.session.edge import EdgeInbox

AUDIO_HELD = 250
COUNT = 6000
"""More than the urgent lane of a stream may have unprocessed."""


@pytest.fixture(autouse=True)
def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.processors.inbox.AUDIO_WATER", 500)
    monkeypatch.setattr("antiphon.processors.inbox.AUDIO_KEPT", 250)
    monkeypatch.setattr("antiphon_actors.session.edge.AUDIO_HELD", AUDIO_HELD)


class Deaf(Mover):
    """Does not come to an end with its first frame of audio until it is told to."""

    movable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.free = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, InputAudioRawFrame):
            await self.free.wait()
        await super().process_frame(frame, direction)


def audio(number: int) -> InputAudioRawFrame:
    return InputAudioRawFrame(number.to_bytes(4, "big") * 160, sample_rate=16_000, num_channels=1)


def numbers(stay: Stay) -> list[int]:
    return [
        int.from_bytes(frame.audio[:4], "big")
        for frame in stay.down
        if isinstance(frame, InputAudioRawFrame)
    ]


async def feed(first: Stay) -> None:
    """Pushes audio, with text and control between; the hosts run in this very loop."""
    for number in range(COUNT):
        await first.push_frame(audio(number))
        if number % 500 == 250:
            await first.push_frame(TextFrame(str(number)))
            await first.push_frame(UserStartedSpeakingFrame())
        if number % 10 == 0:
            await asyncio.sleep(0)


def check(end: Stay) -> list[int]:
    """All text and control has come, and of the audio the newest; returns that."""
    assert end.texts == [str(number) for number in range(250, COUNT, 500)]
    speaking = [frame for frame in end.down if isinstance(frame, UserStartedSpeakingFrame)]
    assert len(speaking) == COUNT // 500
    heard = numbers(end)
    assert heard == sorted(heard)
    assert heard[-AUDIO_HELD:] == list(range(COUNT - AUDIO_HELD, COUNT))
    return heard


async def test_a_stuck_processor_loses_its_oldest_audio(actors: Actors) -> None:
    first, deaf, end = Stay(), Deaf(name="deaf"), Stay()
    task = pipeline_of(first, deaf, end)
    session = asyncio.create_task(actors.run(task))
    await started(task)
    remote: Deaf = await actors.remote(deaf)
    await feed(first)
    inbox = remote._local_inbox
    assert inbox.waiting < 1000
    remote.free.set()
    await until(lambda: numbers(end)[-1:] == [COUNT - 1])
    await task.queue_frame(EndFrame())
    record = await session
    heard = check(end)
    # Both ends drop: acknowledgements stop at the frame that is stuck.
    dropped = remote.statistics.audio_dropped + deaf.statistics.audio_dropped
    assert remote.statistics.audio_dropped > 0
    assert len(heard) == COUNT - dropped
    told = {each.name: each.statistics.audio_dropped for each in record.processors}
    assert told["deaf"] == dropped
    assert record.failures == []


def wire_of(actors: Actors, twin: Mover) -> Wire:
    """The connection over which the process of a processor hears from home."""
    hub = actors.by_processor[twin.name].host._endpoint._hub
    [link] = hub.links
    return link.wire


async def test_a_stuck_process_loses_its_oldest_audio(actors: Actors) -> None:
    """It takes nothing at all for a while; the sender holds the newest back."""
    first, mover, end = Stay(), Mover(name="mover"), Stay()
    task = pipeline_of(first, mover, end)
    session = asyncio.create_task(actors.run(task))
    await started(task)
    wire = wire_of(actors, mover)
    wire.pause_reading()
    await feed(first)
    edge = mover._inbox
    assert isinstance(edge, EdgeInbox)
    assert len(edge._audio) == AUDIO_HELD
    stream = await edge.open(FrameDirection.DOWNSTREAM)
    assert stream.statistics().urgent_in_flight_bytes < 2 << 20
    dropped = mover.statistics.audio_dropped
    wire.resume_reading()
    # No more audio comes, and what was held back arrives all the same.
    await until(lambda: numbers(end)[-1:] == [COUNT - 1])
    await task.queue_frame(EndFrame())
    record = await session
    heard = check(end)
    told = sum(each.statistics.audio_dropped for each in record.processors)
    assert len(heard) == COUNT - told
    assert told >= dropped > COUNT // 2
    assert not edge._audio
    assert record.failures == []


async def test_further_audio_takes_along_what_is_held(actors: Actors) -> None:
    first, mover, end = Stay(), Mover(name="mover"), Stay()
    task = pipeline_of(first, mover, end)
    session = asyncio.create_task(actors.run(task))
    await started(task)
    edge = mover._inbox
    assert isinstance(edge, EdgeInbox)
    wire = wire_of(actors, mover)
    wire.pause_reading()
    for number in range(1100):
        await first.push_frame(audio(number))
    assert edge._audio
    assert edge._releasing is not None
    edge._releasing.cancel()
    wire.resume_reading()
    stream = await edge.open(FrameDirection.DOWNSTREAM)
    await stream.drain()
    assert edge._audio
    await first.push_frame(audio(1100))
    assert not edge._audio
    await until(lambda: numbers(end)[-1:] == [1100])
    await task.queue_frame(EndFrame())
    record = await session
    told = sum(each.statistics.audio_dropped for each in record.processors)
    assert len(numbers(end)) == 1101 - told


async def test_what_an_actor_drops_on_the_way_to_another_is_counted(actors: Actors) -> None:
    first, near, far, end = Stay(), Mover(name="near"), Mover(name="far"), Stay()
    task = pipeline_of(first, near, far, end)
    session = asyncio.create_task(actors.run(task))
    await started(task)
    remote = await actors.remote(near)
    edge = remote._next._inbox
    assert isinstance(edge, EdgeInbox)
    hub = actors.by_processor["far"].host._endpoint._hub
    for link in hub.links:
        link.wire.pause_reading()
    await feed(first)
    await until(lambda: len(edge._audio) == AUDIO_HELD)
    for link in hub.links:
        link.wire.resume_reading()
    await until(lambda: numbers(end)[-1:] == [COUNT - 1])
    await task.queue_frame(EndFrame())
    record = await session
    heard = check(end)
    told = {each.name: each.statistics.audio_dropped for each in record.processors}
    assert told["far"] > 0
    assert len(heard) == COUNT - sum(told.values())
    assert record.failures == []
