"""A processor that does not take its input audio: the oldest goes, everything else stays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from loguru import logger

from antiphon.frames.frames import (
    BotSpeakingFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    StartFrame,
    TextFrame,
    UserStartedSpeakingFrame,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.utils.asyncio.receipts import LooseReceipt


def audio(number: int) -> InputAudioRawFrame:
    return InputAudioRawFrame(audio=number.to_bytes(4, "big"), sample_rate=16_000, num_channels=1)


def numbers(frames: list[Frame]) -> list[int]:
    return [int.from_bytes(f.audio, "big") for f in frames if isinstance(f, InputAudioRawFrame)]


class Stuck(FrameProcessor):
    """Takes nothing more from the first frame of audio on, until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.stuck = asyncio.Event()
        self.taken: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame) and not self.free.is_set():
            self.stuck.set()
            await self.free.wait()
        if not isinstance(frame, StartFrame):
            self.taken.append(frame)
        await self.push_frame(frame, direction)


class Receipt(LooseReceipt):
    """Counts the frames that are done with."""

    def __init__(self) -> None:
        self.count = 0

    def done(self) -> None:
        self.count += 1


AUDIO_WATER, AUDIO_KEPT = 500, 250


@pytest.fixture(autouse=True)
def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.processors.inbox.AUDIO_WATER", AUDIO_WATER)
    monkeypatch.setattr("antiphon.processors.inbox.AUDIO_KEPT", AUDIO_KEPT)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    found: list[str] = []
    handler = logger.add(lambda message: found.append(message.record["message"]), level="WARNING")
    yield found
    logger.remove(handler)


async def run(stuck: Stuck, feed: Any) -> None:
    task = PipelineTask(Pipeline([stuck]), idle_timeout_secs=None)
    started = asyncio.Event()
    task.add_event_handler("on_pipeline_started", lambda *_: started.set())

    async def feeding() -> None:
        await started.wait()
        await feed()
        await task.queue_frame(EndFrame())

    feeder = asyncio.create_task(feeding())
    async with asyncio.timeout(20):
        await PipelineRunner(handle_sigint=False).run(task)
        await feeder


async def test_the_oldest_input_audio_goes_and_nothing_else(warnings: list[str]) -> None:
    stuck, count = Stuck(), 3000
    most = 0

    async def feed() -> None:
        nonlocal most
        for number in range(count):
            await stuck.queue_frame(audio(number))
            if number % 100 == 50:
                await stuck.queue_frame(TextFrame(str(number)))
                await stuck.queue_frame(UserStartedSpeakingFrame())
            most = max(most, stuck._local_inbox.waiting)
        assert stuck.stuck.is_set()
        stuck.free.set()

    await run(stuck, feed)
    heard = numbers(stuck.taken)
    dropped = stuck.statistics.audio_dropped
    assert dropped + len(heard) == count
    assert dropped > count // 2
    assert most <= AUDIO_WATER + 61
    # The one in progress, and the newest without a gap.
    assert heard[0] == 0
    assert heard[1:] == list(range(count - len(heard) + 1, count))
    assert len(heard) >= AUDIO_KEPT
    texts = [frame.text for frame in stuck.taken if isinstance(frame, TextFrame)]
    assert texts == [str(number) for number in range(50, count, 100)]
    speaking = [frame for frame in stuck.taken if isinstance(frame, UserStartedSpeakingFrame)]
    assert len(speaking) == count // 100
    assert [text for text in warnings if "audio dropped" in text] == [
        "input audio dropped, the processor takes none"
    ]


async def test_each_stretch_is_told_once(warnings: list[str]) -> None:
    stuck = Stuck()

    async def feed() -> None:
        for _ in range(2):
            stuck.free.clear()
            for number in range(1200):
                await stuck.queue_frame(audio(number))
            stuck.free.set()
            async with asyncio.timeout(5):
                while stuck._local_inbox.waiting:  # noqa: ASYNC110 - looked at from outside
                    await asyncio.sleep(0)
            await asyncio.sleep(0)

    await run(stuck, feed)
    assert sum("audio dropped" in text for text in warnings) == 2


async def test_what_is_dropped_is_done_with() -> None:
    stuck, receipt = Stuck(), Receipt()

    async def feed() -> None:
        for number in range(1000):
            put(stuck, audio(number), receipt)
        assert receipt.count == stuck.statistics.audio_dropped > 0
        stuck.free.set()

    await run(stuck, feed)
    assert receipt.count == 1000


def put(stuck: Stuck, frame: Frame, receipt: Receipt) -> None:
    """As a link does."""
    stuck._local_inbox.put_nowait(frame, FrameDirection.DOWNSTREAM, None, receipt, 1)


async def test_control_frames_in_any_number_stay() -> None:
    stuck, count = Stuck(), 5000

    async def feed() -> None:
        await stuck.queue_frame(audio(0))
        for _ in range(count):
            await stuck.queue_frame(BotSpeakingFrame())
        await stuck.queue_frame(audio(1))
        stuck.free.set()

    await run(stuck, feed)
    assert len(stuck.taken) == count + 3
    assert stuck.statistics.audio_dropped == 0


async def test_a_few_waiting_frames_are_never_dropped() -> None:
    stuck = Stuck()

    async def feed() -> None:
        for number in range(AUDIO_WATER):
            await stuck.queue_frame(audio(number))
        stuck.free.set()

    await run(stuck, feed)
    assert numbers(stuck.taken) == list(range(AUDIO_WATER))
