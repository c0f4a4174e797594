"""Less noise, by Picovoice's Koala."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from loguru import logger

from antiphon.audio.filters.base_audio_filter import BaseAudioFilter
from antiphon.errors import ConfigError
from antiphon.frames.frames import FilterControlFrame, FilterEnableFrame


class KoalaFilter(BaseAudioFilter):
    """Suppresses noise with the package ``pvkoala``, which needs an access key of Picovoice's.

    Koala works on audio of one sample rate. At another one, the audio passes as it is.
    """

    def __init__(self, *, access_key: str) -> None:
        """Makes the filter; Koala is loaded when it starts.

        Args:
            access_key: The key from the Picovoice console.
        """
        self._access_key = access_key
        self._filtering = True
        self._koala: Any = None
        # Less than one frame of Koala's.
        self._pending = bytearray()

    async def start(self, sample_rate: int) -> None:
        """Loads Koala.

        Args:
            sample_rate: Sample rate of the input in Hz.

        Raises:
            ConfigError: If pvkoala is not installed, or refuses the key.
        """
        await self.stop()
        try:
            pvkoala = importlib.import_module("pvkoala")
        except ImportError as error:
            raise ConfigError(
                "KoalaFilter needs the package pvkoala: pip install 'antiphon[koala]'"
            ) from error
        try:
            koala = pvkoala.create(access_key=self._access_key)
        except Exception as error:  # pvkoala has a class of its own for each reason
            # Its message may have the key in it.
            raise ConfigError(
                f"Koala cannot be started ({type(error).__name__}): is the access key valid?"
            ) from error
        if koala.sample_rate != sample_rate:
            logger.warning(
                "noise is not suppressed: Koala needs another sample rate",
                sample_rate=sample_rate,
                needed=koala.sample_rate,
            )
            koala.delete()
            return
        self._koala = koala

    async def stop(self) -> None:
        """Releases Koala."""
        self._pending.clear()
        if self._koala is not None:
            koala, self._koala = self._koala, None
            koala.delete()

    async def process_frame(self, frame: FilterControlFrame) -> None:
        """Follows a FilterEnableFrame.

        Args:
            frame: The control frame.
        """
        if isinstance(frame, FilterEnableFrame):
            self._filtering = frame.enable
            logger.debug("noise suppression switched", enable=frame.enable)

    async def filter(self, audio: bytes) -> bytes:
        """Filters the next piece.

        Args:
            audio: int16 little-endian PCM, mono.

        Returns:
            As much filtered audio as fills frames of Koala's; the rest comes with the next piece.
            While the filter is off, what was held back and the audio itself.
        """
        if self._koala is None:
            return audio
        self._pending.extend(audio)
        if not self._filtering:
            held = bytes(self._pending)
            self._pending.clear()
            return held
        frame_bytes = 2 * int(self._koala.frame_length)
        filtered = bytearray()
        while len(self._pending) >= frame_bytes:
            samples = np.frombuffer(bytes(self._pending[:frame_bytes]), "<i2")
            del self._pending[:frame_bytes]
            filtered += np.array(self._koala.process(samples.tolist()), "<i2").tobytes()
        return bytes(filtered)
