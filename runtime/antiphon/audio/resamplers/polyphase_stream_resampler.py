"""Resampling of a stream, piece by piece, with a few milliseconds of delay.

A rational conversion by L/M is a low pass at L times the input rate of which only every M-th output is
computed. Block resamplers that work in large transforms hold back 70 to 100 ms of a stream at a time;
a direct filter answers every piece with its full length.
"""

from functools import lru_cache
from math import gcd
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon.audio.resamplers.base_audio_resampler import BaseAudioResampler

# Filter length on each side, in samples of the lower rate; it is also the delay: 4 ms at 8 kHz, 2 ms
# at 16 kHz.
_HALF_WIDTH = 32
# Outputs computed at a time: bounds the memory a long piece takes.
_BLOCK = 2048
# Kaiser's design formulas: 80 dB of attenuation over _HALF_WIDTH make a transition band of 0.078 of
# the lower rate, which is put so that it ends at half that rate: nothing aliases.
_ATTENUATION_DB = 80.0
_KAISER_BETA = 0.1102 * (_ATTENUATION_DB - 8.7)
_TRANSITION = (_ATTENUATION_DB - 8.0) / (2.285 * 2.0 * np.pi * 2.0 * _HALF_WIDTH)


@lru_cache(maxsize=32)
def _phases(up: int, down: int) -> npt.NDArray[np.float32]:
    """The low pass, one row per phase: (up, taps), taps ordered oldest input first."""
    half = -(-_HALF_WIDTH * max(up, down) // up)
    taps = 2 * half
    # Offsets from the centre, in input samples.
    t = np.arange(taps * up) / up - half
    cutoff = (0.5 - _TRANSITION / 2.0) * min(1.0, up / down)
    window = np.i0(_KAISER_BETA * np.sqrt(1.0 - (t / half) ** 2))
    h = np.sinc(2.0 * cutoff * t) * window
    rows = h.reshape(taps, up).T[:, ::-1]
    # Each phase passes a constant unchanged, so that none of them is heard as a tone.
    rows = rows / rows.sum(axis=1, keepdims=True)
    return np.ascontiguousarray(rows, np.float32)


class PolyphaseStreamResampler(BaseAudioResampler):
    """Resamples one stream that arrives in pieces of any length.

    After n input samples exactly ceil(n * out_rate / in_rate) output samples have been given, whatever
    the pieces: 20 ms in are 20 ms out. The output lags by 32 samples of the lower rate. The passband
    reaches 0.42 of the lower rate, aliases are 80 dB down.

    A change of either rate begins a new stream.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Prepares for a stream whose rates the first piece tells.

        Args:
            **kwargs: Accepted so that resamplers can be exchanged; none is used.
        """
        self._rates: tuple[int, int] = (0, 0)
        self._up = 1
        self._down = 1
        self._filter: npt.NDArray[np.float32] = np.ones((1, 1), np.float32)
        self._history: npt.NDArray[np.float32] = np.zeros(0, np.float32)
        # Position of the next output, in 1/up of an input sample, from the first sample of the next
        # piece on.
        self._position = 0

    async def resample(self, audio: bytes, in_rate: int, out_rate: int) -> bytes:
        """Converts the next piece of the stream.

        Args:
            audio: int16 little-endian mono PCM.
            in_rate: Its sample rate in Hz.
            out_rate: Sample rate wanted, in Hz.

        Returns:
            The output that has become due; the piece itself if the rates are equal.

        Raises:
            ValueError: A rate is not positive, or the piece ends within a sample.
        """
        if in_rate == out_rate:
            return audio
        if self._rates != (in_rate, out_rate):
            self._begin(in_rate, out_rate)
        piece = np.frombuffer(audio, "<i2")
        if len(piece) == 0:
            return b""

        signal = np.concatenate((self._history, piece), dtype=np.float32)
        end = len(piece) * self._up
        positions = np.arange(self._position, end, self._down)
        self._position += len(positions) * self._down - end

        taps = self._filter.shape[1]
        windows = np.lib.stride_tricks.sliding_window_view(signal, taps)
        newest, phase = np.divmod(positions, self._up)
        out = np.empty(len(positions), np.float32)
        for start in range(0, len(out), _BLOCK):
            block = slice(start, start + _BLOCK)
            if self._up == 1:
                out[block] = windows[newest[block]] @ self._filter[0]
            else:
                out[block] = np.einsum(
                    "ij,ij->i", windows[newest[block]], self._filter[phase[block]]
                )
        self._history = signal[len(signal) - taps + 1 :].copy()
        return np.clip(np.rint(out), -32768, 32767).astype("<i2").tobytes()

    def _begin(self, in_rate: int, out_rate: int) -> None:
        if in_rate <= 0 or out_rate <= 0:
            raise ValueError(f"sample rates must be positive, not {in_rate} and {out_rate}")
        divisor = gcd(in_rate, out_rate)
        self._up, self._down = out_rate // divisor, in_rate // divisor
        self._filter = _phases(self._up, self._down)
        self._history = np.zeros(self._filter.shape[1] - 1, np.float32)
        self._position = 0
        self._rates = (in_rate, out_rate)
