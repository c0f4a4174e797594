"""Less noise, by statistics."""

from __future__ import annotations

import asyncio
import importlib
from types import ModuleType

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from antiphon.audio.filters.base_audio_filter import BaseAudioFilter
from antiphon.errors import ConfigError
from antiphon.frames.frames import FilterControlFrame, FilterEnableFrame

Samples = NDArray[np.float32]

_CONTEXT_SECS = 0.5
"""How much of the audio before a piece is looked at: one piece does not tell noise from speech."""

_PIECE_SECS = 0.06
"""How much is filtered at a time: each call of the package costs milliseconds, whatever it gets."""


class NoisereduceFilter(BaseAudioFilter):
    """Reduces steady background noise.

    Needs the package ``noisereduce``. What it knows of the noise it takes from the last half
    second. Audio is filtered in a thread, in pieces of 60 ms, and is that much late.
    """

    def __init__(self) -> None:
        """Makes the filter; the package is loaded when it starts."""
        self._filtering = True
        self._sample_rate = 0
        self._noisereduce: ModuleType | None = None
        self._context: Samples = np.zeros(0, np.float32)
        # Less than one piece.
        self._pending = b""

    async def start(self, sample_rate: int) -> None:
        """Loads the package.

        Args:
            sample_rate: Sample rate of the input in Hz.

        Raises:
            ConfigError: If noisereduce is not installed.
        """
        self._sample_rate = sample_rate
        await self.stop()
        try:
            self._noisereduce = await asyncio.to_thread(importlib.import_module, "noisereduce")
        except ImportError as error:
            raise ConfigError(
                "NoisereduceFilter needs the package noisereduce: "
                "pip install 'antiphon[noisereduce]'"
            ) from error

    async def stop(self) -> None:
        """Forgets the audio before."""
        self._context = np.zeros(0, np.float32)
        self._pending = b""

    async def process_frame(self, frame: FilterControlFrame) -> None:
        """Follows a FilterEnableFrame.

        Args:
            frame: The control frame.
        """
        if isinstance(frame, FilterEnableFrame):
            self._filtering = frame.enable
            logger.debug("noise reduction switched", enable=frame.enable)

    async def filter(self, audio: bytes) -> bytes:
        """Filters the next piece.

        Args:
            audio: int16 little-endian PCM, mono.

        Returns:
            Filtered audio, in larger pieces. While the filter is off, what was held back and the
            audio itself.
        """
        if self._noisereduce is None:
            return audio
        audio, self._pending = self._pending + audio, b""
        if self._filtering and len(audio) < 2 * int(_PIECE_SECS * self._sample_rate):
            self._pending = audio
            return b""
        samples = np.frombuffer(audio, "<i2").astype(np.float32) / 32768.0
        joined = np.concatenate((self._context, samples))
        self._context = joined[-int(_CONTEXT_SECS * self._sample_rate) :]
        # Silence has no statistics.
        if not self._filtering or not joined.any():
            return audio
        reduced = await asyncio.to_thread(self._reduced, joined)
        piece = np.clip(np.rint(reduced[-len(samples) :] * 32768.0), -32768, 32767)
        filtered: bytes = piece.astype("<i2").tobytes()
        return filtered

    def _reduced(self, samples: Samples) -> Samples:
        assert self._noisereduce is not None
        reduced: Samples = self._noisereduce.reduce_noise(y=samples, sr=self._sample_rate)
        return reduced
