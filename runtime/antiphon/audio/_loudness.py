"""Loudness of a short block of speech, as EBU R128 measures it.

The block is K-weighted (a high shelf for the head, then a high pass; ITU-R BS.1770-4, annex 1) from
rest, and its mean square is given in decibels. The integrated measure's gating blocks would be longer
than the 20 to 40 ms measured here, so the block is its own gating block.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

# BS.1770-4: loudness of a channel is this plus 10 log10 of the mean square.
_OFFSET_DB = -0.691
# The standard tabulates coefficients for 48 kHz alone; cookbook filters with these parameters follow
# them within half a decibel and exist at every rate.
_SHELF_GAIN_DB = 4.0
_SHELF_Q = math.sqrt(0.5)
_SHELF_HZ = 1500.0
_HIGH_PASS_Q = 0.5
_HIGH_PASS_HZ = 38.0
# Below this the shelf would lie beyond the highest frequency there is.
_MIN_RATE_HZ = 4000
# The high pass decays by exp(-2 pi 38 t): after 0.15 s by more than 300 dB.
_DECAY_SECS = 0.15

_Biquad = tuple[float, float, float, float, float]


def _high_shelf(rate: int) -> _Biquad:
    """High shelf by the audio EQ cookbook (R. Bristow-Johnson): b0, b1, b2, a1, a2."""
    w = 2.0 * math.pi * _SHELF_HZ / rate
    gain = 10.0 ** (_SHELF_GAIN_DB / 40.0)
    cos, slope = math.cos(w), 2.0 * math.sqrt(gain) * math.sin(w) / (2.0 * _SHELF_Q)
    a0 = (gain + 1) - (gain - 1) * cos + slope
    return (
        gain * ((gain + 1) + (gain - 1) * cos + slope) / a0,
        -2.0 * gain * ((gain - 1) + (gain + 1) * cos) / a0,
        gain * ((gain + 1) + (gain - 1) * cos - slope) / a0,
        2.0 * ((gain - 1) - (gain + 1) * cos) / a0,
        ((gain + 1) - (gain - 1) * cos - slope) / a0,
    )


def _high_pass(rate: int) -> _Biquad:
    """High pass by the audio EQ cookbook: b0, b1, b2, a1, a2."""
    w = 2.0 * math.pi * _HIGH_PASS_HZ / rate
    cos, alpha = math.cos(w), math.sin(w) / (2.0 * _HIGH_PASS_Q)
    a0 = 1.0 + alpha
    edge = (1.0 + cos) / 2.0 / a0
    return edge, -2.0 * edge, edge, -2.0 * cos / a0, (1.0 - alpha) / a0


def _run_biquad(signal: list[float], biquad: _Biquad) -> list[float]:
    b0, b1, b2, a1, a2 = biquad
    z1 = z2 = 0.0
    out = []
    for x in signal:
        y = b0 * x + z1
        z1 = b1 * x - a1 * y + z2
        z2 = b2 * x - a2 * y
        out.append(y)
    return out


@lru_cache(maxsize=32)
def _k_weighting(rate: int, fft_size: int) -> npt.NDArray[np.complex128]:
    """Spectrum of the K-weighting impulse response, cut where no output in use can see it."""
    length = min(int(_DECAY_SECS * rate), fft_size // 2)
    impulse = [1.0] + [0.0] * (length - 1)
    response = _run_biquad(_run_biquad(impulse, _high_shelf(rate)), _high_pass(rate))
    return np.fft.rfft(np.array(response), fft_size)


def block_loudness(samples: npt.NDArray[np.int16], rate: int) -> float:
    """Loudness of one block, in dB relative to a K-weighted mean square of 1.

    The samples are taken at their int16 values, so full scale lies near +90 dB, not 0.

    Args:
        samples: Mono samples.
        rate: Sample rate in Hz.

    Returns:
        The loudness in dB; minus infinity for an empty or all-zero block.

    Raises:
        ValueError: The sample rate is below 4000 Hz.
    """
    if rate < _MIN_RATE_HZ:
        raise ValueError(f"loudness needs a sample rate of at least {_MIN_RATE_HZ} Hz, not {rate}")
    n = len(samples)
    if n == 0 or not samples.any():
        return -math.inf
    # Filtering from rest is a convolution, and a fast one: n outputs need n taps, or as many as have
    # not decayed.
    fft_size = 1 << (n + min(n, int(_DECAY_SECS * rate)) - 1).bit_length()
    fft_size = max(fft_size, 2)
    spectrum = np.fft.rfft(samples, fft_size) * _k_weighting(rate, fft_size)
    weighted = np.fft.irfft(spectrum, fft_size)[:n]
    return _OFFSET_DB + 10.0 * math.log10(float(weighted @ weighted) / n)
