"""After an interruption, not one sample of the old answer is played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from tests.turns.conftest import Bot, Run

from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    StartFrame,
    StartInterruptionFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services.tts_service import InterruptibleTTSService, TTSService

pytestmark = pytest.mark.virtual_time

OLD = "A long old answer that goes on and on and on, and on."
NEW = "New."
QUESTION = ("speak", 1.0)


def samples(text: str) -> bytes:
    """A tenth of a second: each text has a value of its own."""
    return (b"\1\1" if text == OLD else b"\2\2") * 2400


class LateTTS(TTSService):
    """Makes its audio in a task that no interruption ends, in real time."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tasks: list[asyncio.Task[Any]] = []

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        yield TTSStartedFrame()
        self._tasks.append(self.create_task(self._send(text), "send"))

    async def _send(self, text: str) -> None:
        for _ in range(40 if text == OLD else 5):
            await self.push_frame(TTSAudioRawFrame(samples(text), self.sample_rate, 1))
            await self.push_frame(TTSTextFrame("word"))
            await asyncio.sleep(0.1)
        await self.push_frame(TTSStoppedFrame())

    async def cleanup(self) -> None:
        for task in self._tasks:
            await self.cancel_task(task)
        await super().cleanup()


class ReceiverTTS(InterruptibleTTSService):
    """Has one receiver for all answers, which only a new connection silences."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(push_stop_frames=True, **kwargs)
        self._texts: asyncio.Queue[str] = asyncio.Queue(10)
        self._receiver: asyncio.Task[Any] | None = None

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self._connect()

    async def stop(self, frame: EndFrame) -> None:
        await super().stop(frame)
        await self._disconnect()

    async def cancel(self, frame: CancelFrame) -> None:
        await super().cancel(frame)
        await self._disconnect()

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        await self._texts.put(text)
        yield TTSStartedFrame()

    async def _connect(self) -> None:
        self._texts = asyncio.Queue(10)
        self._receiver = self.create_task(self._receive(), "receive")

    async def _disconnect(self) -> None:
        if self._receiver is not None:
            await self.cancel_task(self._receiver)

    async def _connect_websocket(self) -> None:
        raise AssertionError

    async def _disconnect_websocket(self) -> None:
        raise AssertionError

    async def _receive_messages(self) -> None:
        raise AssertionError

    async def _receive(self) -> None:
        while True:
            text = await self._texts.get()
            await asyncio.sleep(1.0)  # so that an interruption may come before any audio
            for _ in range(40 if text == OLD else 5):
                await self.push_frame(TTSAudioRawFrame(samples(text), self.sample_rate, 1))
                await asyncio.sleep(0.05)


class StubbornTTS(LateTTS):
    """Goes on for a while when its run_tts is cancelled."""

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        yield TTSStartedFrame()
        try:
            for _ in range(40 if text == OLD else 5):
                yield TTSAudioRawFrame(samples(text), self.sample_rate, 1)
                await asyncio.sleep(0.1)
        finally:
            for _ in range(5):
                await self.push_frame(TTSAudioRawFrame(samples(text), self.sample_rate, 1))


class TardyTTS(LateTTS):
    """Pushes once more while it handles the interruption."""

    async def _handle_interruption(
        self, frame: StartInterruptionFrame, direction: FrameDirection
    ) -> None:
        await super()._handle_interruption(frame, direction)
        await self.push_frame(TTSAudioRawFrame(samples(OLD), self.sample_rate, 1))


@pytest.mark.parametrize("make", [LateTTS, StubbornTTS, TardyTTS])
@pytest.mark.parametrize("wait_secs", [1.2, 2.0, 3.1])
async def test_late_audio_is_not_played(make: type[TTSService], wait_secs: float, run: Run) -> None:
    bot = Bot(make(), [OLD, NEW])
    await bot.talk(run, QUESTION, ("wait", wait_secs), QUESTION, ("wait", 4.0))
    check(bot)


@pytest.mark.parametrize("wait_secs", [0.9, 1.5, 2.0, 2.5])
async def test_a_receiver_is_silenced_before_it_begins(wait_secs: float, run: Run) -> None:
    bot = Bot(ReceiverTTS(), [OLD, NEW])
    await bot.talk(run, QUESTION, ("wait", wait_secs), QUESTION, ("wait", 5.0))
    check(bot)


class LazyTTS(TTSService):
    """Starts its only receiver with its first text."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._texts: asyncio.Queue[str] = asyncio.Queue(10)
        self._receiver: asyncio.Task[Any] | None = None

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        if self._receiver is None:
            self._receiver = self.create_task(self._receive(), "receive")
        await self._texts.put(text)
        yield TTSStartedFrame()

    async def _receive(self) -> None:
        while True:
            text = await self._texts.get()
            for _ in range(10 if text == OLD else 60):
                await self.push_frame(TTSAudioRawFrame(samples(text), self.sample_rate, 1))
                await asyncio.sleep(0.1)

    async def cleanup(self) -> None:
        if self._receiver is not None:
            await self.cancel_task(self._receiver)
        await super().cleanup()


async def test_a_receiver_started_by_the_first_answer_is_not_silenced_for_ever(run: Run) -> None:
    bot = Bot(LazyTTS(), [OLD, NEW, NEW])
    await bot.talk(run, QUESTION, ("wait", 1.2), QUESTION, ("wait", 9.0), QUESTION, ("wait", 9.0))
    last = bot.transport.audio[bot.tape.cuts[-1] :]
    assert len(last) == 60 * len(samples(NEW))


def check(bot: Bot) -> None:
    cut = bot.tape.cuts[-1]
    audio = bot.transport.audio
    assert set(audio[:cut]) <= {1}
    assert set(audio[cut:]) == {2}
