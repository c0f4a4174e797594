"""Resampling of whole recordings with resampy."""

import asyncio
import importlib
from typing import Any

import numpy as np

from antiphon.audio.resamplers.base_audio_resampler import BaseAudioResampler
from antiphon.errors import ConfigError


def _resample(audio: bytes, in_rate: int, out_rate: int) -> bytes:
    try:
        resampy: Any = importlib.import_module("resampy")
    except ImportError as error:
        raise ConfigError(
            "ResampyResampler needs the package resampy: pip install resampy"
        ) from error
    converted = resampy.resample(np.frombuffer(audio, "<i2").astype(np.float32), in_rate, out_rate)
    samples = np.asarray(np.clip(np.rint(converted), -32768, 32767), "<i2")
    return samples.tobytes()


class ResampyResampler(BaseAudioResampler):
    """Resamples with the package ``resampy``; every call is a recording of its own.

    For bots that name it: the other resamplers need no further package and are faster. The package
    compiles itself at its first use, which takes seconds.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Holds nothing; the package is loaded when it is first needed.

        Args:
            **kwargs: Accepted so that resamplers can be exchanged; none is used.
        """

    async def resample(self, audio: bytes, in_rate: int, out_rate: int) -> bytes:
        """Converts a whole recording, in a thread.

        Args:
            audio: int16 little-endian mono PCM.
            in_rate: Its sample rate in Hz.
            out_rate: Sample rate wanted, in Hz.

        Returns:
            The converted recording, of the same duration.

        Raises:
            ConfigError: If resampy is not installed.
        """
        if in_rate == out_rate or not audio:
            return audio
        return await asyncio.to_thread(_resample, audio, in_rate, out_rate)
