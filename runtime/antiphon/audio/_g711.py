"""G.711 companding, mu-law and A-law, by table.

ITU-T G.711 codes 14-bit (mu-law) or 13-bit (A-law) samples; 16-bit ones lose their low bits first.
"""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

_MU_BIAS = 33
_MU_CLIP = 8158
# A-law inverts every other bit of the code, so that silence is not a long run of equal bits.
_A_MASK = 0x55


@cache
def _all_samples() -> npt.NDArray[np.int32]:
    """Every int16 value, in the order of its bits read as an unsigned number."""
    return np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)


def _exponent(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Index of the highest bit set, for values of at least 1."""
    exponents: npt.NDArray[np.int32] = np.frexp(values.astype(np.float64))[1]
    return exponents - 1


def _look_up(table: npt.NDArray[Any], index: npt.NDArray[Any]) -> bytes:
    found: npt.NDArray[Any] = table[index]
    return found.tobytes()


@cache
def _mu_encode_table() -> npt.NDArray[np.uint8]:
    sample = _all_samples() >> 2
    magnitude = np.minimum(np.abs(sample), _MU_CLIP) + _MU_BIAS
    segment = _exponent(magnitude) - 5
    code = (segment << 4) | ((magnitude >> (segment + 1)) & 0x0F)
    sign = np.where(sample < 0, 0x80, 0)
    table: npt.NDArray[np.uint8] = (0xFF ^ (sign | code)).astype(np.uint8)
    return table


@cache
def _mu_decode_table() -> npt.NDArray[np.int16]:
    code = np.arange(256, dtype=np.int32) ^ 0xFF
    segment, mantissa = (code >> 4) & 0x07, code & 0x0F
    magnitude = ((((mantissa << 1) + _MU_BIAS) << segment) - _MU_BIAS) << 2
    table: npt.NDArray[np.int16] = np.where(code & 0x80, -magnitude, magnitude).astype("<i2")
    return table


@cache
def _a_encode_table() -> npt.NDArray[np.uint8]:
    sample = _all_samples() >> 3
    # -1 and 0 are both of magnitude 0: the code has no zero of its own.
    magnitude = np.where(sample < 0, -sample - 1, sample)
    segment = np.maximum(_exponent(np.maximum(magnitude, 1)) - 4, 0)
    code = (segment << 4) | ((magnitude >> np.maximum(segment, 1)) & 0x0F)
    sign = np.where(sample < 0, 0, 0x80)
    table: npt.NDArray[np.uint8] = ((sign | code) ^ _A_MASK).astype(np.uint8)
    return table


@cache
def _a_decode_table() -> npt.NDArray[np.int16]:
    code = np.arange(256, dtype=np.int32) ^ _A_MASK
    segment, mantissa = (code >> 4) & 0x07, code & 0x0F
    # Codes stand for the middle of their interval.
    step = (mantissa << 1) + 1 + np.where(segment > 0, 32, 0)
    magnitude = (step << np.maximum(segment - 1, 0)) << 3
    table: npt.NDArray[np.int16] = np.where(code & 0x80, magnitude, -magnitude).astype("<i2")
    return table


def encode_ulaw(pcm: bytes) -> bytes:
    """Codes int16 little-endian PCM as mu-law, one byte a sample."""
    return _look_up(_mu_encode_table(), np.frombuffer(pcm, "<u2"))


def decode_ulaw(ulaw: bytes) -> bytes:
    """Decodes mu-law into int16 little-endian PCM."""
    return _look_up(_mu_decode_table(), np.frombuffer(ulaw, np.uint8))


def encode_alaw(pcm: bytes) -> bytes:
    """Codes int16 little-endian PCM as A-law, one byte a sample."""
    return _look_up(_a_encode_table(), np.frombuffer(pcm, "<u2"))


def decode_alaw(alaw: bytes) -> bytes:
    """Decodes A-law into int16 little-endian PCM."""
    return _look_up(_a_decode_table(), np.frombuffer(alaw, np.uint8))
