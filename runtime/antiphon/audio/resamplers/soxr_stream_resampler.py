"""Resampling of a stream with libsoxr."""

from typing import Any

import numpy as np

from antiphon.audio.resamplers.base_audio_resampler import BaseAudioResampler


class SOXRStreamAudioResampler(BaseAudioResampler):
    """Resamples one stream with libsoxr at its highest quality.

    libsoxr works in blocks: output comes in bursts, 70 to 100 ms late. In a conversation prefer
    :func:`antiphon.audio.utils.create_stream_resampler`.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Prepares for a stream whose rates the first piece tells.

        Args:
            **kwargs: Accepted so that resamplers can be exchanged; none is used.
        """
        self._rates: tuple[int, int] = (0, 0)
        self._stream: Any = None

    async def resample(self, audio: bytes, in_rate: int, out_rate: int) -> bytes:
        """Converts the next piece of the stream. A change of either rate begins a new stream.

        Args:
            audio: int16 little-endian mono PCM.
            in_rate: Its sample rate in Hz.
            out_rate: Sample rate wanted, in Hz.

        Returns:
            What output there is so far, often none; the piece itself if the rates are equal.
        """
        if in_rate == out_rate:
            return audio
        if self._rates != (in_rate, out_rate):
            import soxr

            self._stream = soxr.ResampleStream(in_rate, out_rate, 1, dtype="int16", quality="VHQ")
            self._rates = (in_rate, out_rate)
        out = self._stream.resample_chunk(np.frombuffer(audio, "<i2"))
        return np.asarray(out, "<i2").tobytes()
