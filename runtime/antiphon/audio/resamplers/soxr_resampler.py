"""Resampling of whole recordings."""

import asyncio
from typing import Any

import numpy as np

from antiphon.audio.resamplers.base_audio_resampler import BaseAudioResampler

# About 1 ms of work per second of audio: what is longer leaves the event loop alone.
_INLINE_SECS = 2.0


def _resample(audio: bytes, in_rate: int, out_rate: int) -> bytes:
    import soxr

    samples = np.frombuffer(audio, "<i2")
    converted = soxr.resample(samples, in_rate, out_rate, quality="VHQ")
    return np.asarray(converted, "<i2").tobytes()


class SOXRAudioResampler(BaseAudioResampler):
    """Resamples with libsoxr at its highest quality; every call is a recording of its own.

    For audio that arrives in pieces use the stream resampler: here each piece would begin and end
    in assumed silence, which is heard as a click.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Holds nothing.

        Args:
            **kwargs: Accepted so that resamplers can be exchanged; none is used.
        """

    async def resample(self, audio: bytes, in_rate: int, out_rate: int) -> bytes:
        """Converts a whole recording. Long ones are converted in a thread.

        Args:
            audio: int16 little-endian mono PCM.
            in_rate: Its sample rate in Hz.
            out_rate: Sample rate wanted, in Hz.

        Returns:
            The converted recording, of the same duration.
        """
        if in_rate == out_rate or not audio:
            return audio
        if len(audio) <= 2 * in_rate * _INLINE_SECS:
            return _resample(audio, in_rate, out_rate)
        return await asyncio.to_thread(_resample, audio, in_rate, out_rate)
