"""Speech synthesis that hums: a tone as long as the text."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np

from antiphon.frames.frames import (
    Frame,
    StartInterruptionFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services.tts_service import TTSService, WordTTSService
from antiphon.testing.fake_fault import FakeFault, commit, fault_at

_CHUNK_MS = 100
_SAMPLE_BYTES = 2
_AMPLITUDE = 8000


class FakeTTSService(TTSService):
    """Speaks each text as a tone of a fixed length per character.

    The same text at the same rate gives the same bytes.
    """

    def __init__(
        self,
        *,
        ms_per_character: int = 20,
        tone_hz: float = 440.0,
        latency_secs: float = 0.0,
        faults: Sequence[FakeFault | None] = (),
        **kwargs: Any,
    ) -> None:
        """Makes a service.

        Args:
            ms_per_character: How long each character sounds, in milliseconds.
            tone_hz: The pitch.
            latency_secs: Time before the first audio of each text.
            faults: What goes wrong, text by text; nothing from their end on.
            **kwargs: Passed on to ``TTSService``.
        """
        super().__init__(**kwargs)
        self._ms_per_character = ms_per_character
        self._tone_hz = tone_hz
        self._latency_secs = latency_secs
        self._faults = list(faults)
        self._texts: list[str] = []
        self.set_model_name("fake")

    @property
    def texts(self) -> list[str]:
        """What it was given to speak, text by text.

        Kept where the service runs: empty in the bot's process if that is another one.
        """
        return self._texts

    def can_generate_metrics(self) -> bool:
        """It reports times and characters like a real one."""
        return True

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        """Hums a text."""
        fault = fault_at(self._faults, len(self._texts))
        self._texts.append(text)
        await self.start_ttfb_metrics()
        await self.start_tts_usage_metrics(text)
        await asyncio.sleep(self._latency_secs)
        yield TTSStartedFrame()
        for frame in _pieces(self.tone(text), self.sample_rate, fault):
            await self.stop_ttfb_metrics()
            yield frame
        if fault is not None:
            async with aclosing(commit(fault)) as failures:
                async for failure in failures:
                    yield failure
        yield TTSStoppedFrame()

    def tone(self, text: str) -> bytes:
        """The audio of a text: int16 little-endian PCM, mono, at the service's rate."""
        return _tone(self.sample_rate, self._ms_per_character * len(text), self._tone_hz)


class FakeWordTTSService(WordTTSService):
    """Hums like ``FakeTTSService``, and says when each word is spoken."""

    def __init__(
        self,
        *,
        ms_per_character: int = 20,
        tone_hz: float = 440.0,
        latency_secs: float = 0.0,
        faults: Sequence[FakeFault | None] = (),
        **kwargs: Any,
    ) -> None:
        """Makes a service.

        Args:
            ms_per_character: How long each character sounds, in milliseconds.
            tone_hz: The pitch.
            latency_secs: Time before the first audio of each text.
            faults: What goes wrong, text by text; nothing from their end on.
            **kwargs: Passed on to ``WordTTSService``.
        """
        super().__init__(**{"push_text_frames": False, **kwargs})
        self._ms_per_character = ms_per_character
        self._tone_hz = tone_hz
        self._latency_secs = latency_secs
        self._faults = list(faults)
        self._texts: list[str] = []
        self._spoken_secs = 0.0
        self.set_model_name("fake")

    @property
    def texts(self) -> list[str]:
        """What it was given to speak, text by text.

        Kept where the service runs: empty in the bot's process if that is another one.
        """
        return self._texts

    def can_generate_metrics(self) -> bool:
        """It reports times and characters like a real one."""
        return True

    async def flush_audio(self) -> None:
        """Ends the answer behind its last word."""
        if self._spoken_secs:
            self._spoken_secs = 0.0
            await self.add_word_timestamps([("TTSStoppedFrame", 0), ("Reset", 0)])

    async def _handle_interruption(
        self, frame: StartInterruptionFrame, direction: FrameDirection
    ) -> None:
        await super()._handle_interruption(frame, direction)
        self._spoken_secs = 0.0

    async def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        """Hums a text; the words' times are those of their first characters."""
        fault = fault_at(self._faults, len(self._texts))
        self._texts.append(text)
        await self.start_ttfb_metrics()
        await self.start_tts_usage_metrics(text)
        await asyncio.sleep(self._latency_secs)
        await self.stop_ttfb_metrics()
        if not self._spoken_secs:
            yield TTSStartedFrame()
            self.start_word_timestamps()
        secs_per_character = self._ms_per_character / 1000
        times = [
            (match.group(), self._spoken_secs + match.start() * secs_per_character)
            for match in re.finditer(r"\S+", text)
        ]
        self._spoken_secs += len(text) * secs_per_character
        # Time 0 would make marks of words that are called like one.
        await self.add_word_timestamps([(word, max(secs, 1e-6)) for word, secs in times])
        audio = _tone(self.sample_rate, self._ms_per_character * len(text), self._tone_hz)
        for frame in _pieces(audio, self.sample_rate, fault):
            yield frame
        if fault is not None:
            async with aclosing(commit(fault)) as failures:
                async for failure in failures:
                    yield failure


def _pieces(audio: bytes, sample_rate: int, fault: FakeFault | None) -> list[TTSAudioRawFrame]:
    """The audio up to where it breaks off."""
    if fault is not None:
        audio = audio[: int(fault.after_secs * sample_rate) * _SAMPLE_BYTES]
    chunk_bytes = sample_rate * _CHUNK_MS // 1000 * _SAMPLE_BYTES
    return [
        TTSAudioRawFrame(audio[start : start + chunk_bytes], sample_rate, 1)
        for start in range(0, len(audio), chunk_bytes)
    ]


def _tone(sample_rate: int, ms: int, tone_hz: float) -> bytes:
    phases = np.arange(sample_rate * ms // 1000) * (2.0 * np.pi * tone_hz / sample_rate)
    audio: bytes = (np.sin(phases) * _AMPLITUDE).astype("<i2").tobytes()
    return audio
