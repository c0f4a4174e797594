"""Speech synthesis that hums: a tone as long as the text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np

from antiphon.frames.frames import Frame, TTSAudioRawFrame, TTSStartedFrame, TTSStoppedFrame
from antiphon.services.tts_service import TTSService

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
        **kwargs: Any,
    ) -> None:
        """Makes a service.

        Args:
            ms_per_character: How long each character sounds, in milliseconds.
            tone_hz: The pitch.
            latency_secs: Time before the first audio of each text.
            **kwargs: Passed on to ``TTSService``.
        """
        super().__init__(**kwargs)
        self._ms_per_character = ms_per_character
        self._tone_hz = tone_hz
        self._latency_secs = latency_secs
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
        self._texts.append(text)
        await self.start_ttfb_metrics()
        await self.start_tts_usage_metrics(text)
        await asyncio.sleep(self._latency_secs)
        yield TTSStartedFrame()
        audio = self.tone(text)
        chunk_bytes = self.sample_rate * _CHUNK_MS // 1000 * _SAMPLE_BYTES
        for start in range(0, len(audio), chunk_bytes):
            await self.stop_ttfb_metrics()
            yield TTSAudioRawFrame(audio[start : start + chunk_bytes], self.sample_rate, 1)
        yield TTSStoppedFrame()

    def tone(self, text: str) -> bytes:
        """The audio of a text: int16 little-endian PCM, mono, at the service's rate."""
        samples = self.sample_rate * self._ms_per_character * len(text) // 1000
        phases = np.arange(samples) * (2.0 * np.pi * self._tone_hz / self.sample_rate)
        audio: bytes = (np.sin(phases) * _AMPLITUDE).astype("<i2").tobytes()
        return audio
