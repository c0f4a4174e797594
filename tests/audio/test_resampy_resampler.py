"""The resampler for bots that name resampy, with and without the package."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from antiphon.audio.resamplers.resampy_resampler import ResampyResampler
from antiphon.errors import ConfigError

AUDIO = np.array([0, 1000, -32768, 32767], "<i2").tobytes()


async def test_samples_go_through_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def resample(samples: Any, in_rate: int, out_rate: int, **kwargs: Any) -> Any:
        asked.append((in_rate, out_rate))
        return np.repeat(samples, out_rate // in_rate) * 1.1

    monkeypatch.setitem(sys.modules, "resampy", SimpleNamespace(resample=resample))
    converted = await ResampyResampler(quality="high").resample(AUDIO, 8000, 16000)
    assert asked == [(8000, 16000)]
    # What is too loud for a sample is the loudest sample.
    expected = [0, 0, 1100, 1100, -32768, -32768, 32767, 32767]
    assert np.frombuffer(converted, "<i2").tolist() == expected


async def test_equal_rates_need_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resampy", None)
    assert await ResampyResampler().resample(AUDIO, 16000, 16000) == AUDIO
    assert await ResampyResampler().resample(b"", 8000, 16000) == b""
    with pytest.raises(ConfigError, match="pip install resampy"):
        await ResampyResampler().resample(AUDIO, 8000, 16000)
