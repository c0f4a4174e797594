"""Less noise, by Krisp."""

from __future__ import annotations

import asyncio
import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from antiphon.audio.filters.base_audio_filter import BaseAudioFilter
from antiphon.errors import ConfigError
from antiphon.frames.frames import FilterControlFrame, FilterEnableFrame

_SDK_MODULE = "pipecat_ai_krisp.audio.krisp_processor"


class KrispFilter(BaseAudioFilter):
    """Suppresses noise and other voices with Krisp's SDK.

    Needs the package ``pipecat-ai-krisp``, which is built over that SDK, and one of its models.
    """

    def __init__(
        self, sample_type: str = "PCM_16", channels: int = 1, model_path: str | None = None
    ) -> None:
        """Makes the filter; the SDK is loaded when it starts.

        Args:
            sample_type: The SDK's name of the format of samples.
            channels: Channels of the audio.
            model_path: Path of the model; None: the environment variable KRISP_MODEL_PATH.

        Raises:
            ConfigError: If there is no path.
        """
        path = model_path or os.environ.get("KRISP_MODEL_PATH")
        if not path:
            raise ConfigError("KrispFilter needs a model: give model_path, or set KRISP_MODEL_PATH")
        self._sample_type = sample_type
        self._channels = channels
        self._model_path = path
        self._filtering = True
        self._krisp: Any = None

    async def start(self, sample_rate: int) -> None:
        """Loads the SDK and the model.

        Args:
            sample_rate: Sample rate of the input in Hz.

        Raises:
            ConfigError: If the model or the package is not there.
        """
        # The loading takes a while and must not hold up the audio of other sessions.
        self._krisp = await asyncio.to_thread(self._load, sample_rate)

    async def stop(self) -> None:
        """Releases the SDK."""
        self._krisp = None

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
            audio: int16 little-endian PCM.

        Returns:
            What the SDK makes of it; the audio itself while the filter is off.
        """
        if self._krisp is None or not self._filtering or not audio:
            return audio
        filtered = self._krisp.process(np.frombuffer(audio, "<i2"))
        return np.asarray(filtered).astype("<i2").tobytes()

    def _load(self, sample_rate: int) -> Any:
        if not Path(self._model_path).is_file():
            raise ConfigError(f"there is no Krisp model at {self._model_path}")
        try:
            sdk = importlib.import_module(_SDK_MODULE)
        except ImportError as error:
            raise ConfigError(
                "KrispFilter needs the package pipecat-ai-krisp, which is built over Krisp's SDK: "
                "get that SDK from Krisp, then `pip install pipecat-ai-krisp`"
            ) from error
        return sdk.KrispAudioProcessor(
            sample_rate, self._sample_type, self._channels, self._model_path
        )
