"""The audio that smart-turn models take."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Samples: TypeAlias = npt.NDArray[np.float32]

MODEL_RATE_HZ = 16000
"""The sample rate all smart-turn models were trained at."""


def for_model(audio: Samples, sample_rate: int) -> Samples:
    """Audio at the rate of the models.

    Args:
        audio: float32 samples, mono, at sample_rate Hz.
        sample_rate: In Hz.
    """
    if sample_rate == MODEL_RATE_HZ:
        return audio
    import soxr

    return np.asarray(soxr.resample(audio, sample_rate, MODEL_RATE_HZ), np.float32)
