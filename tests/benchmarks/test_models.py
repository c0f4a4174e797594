from __future__ import annotations

import pytest
from benchmarks.models import whisper


@pytest.mark.timeout(120)
async def test_whisper_is_measured() -> None:
    figures = await whisper.measure(rounds=1, segments=1)
    assert figures.batched > 0
    assert figures.faster_whisper > 0
    assert figures.gain == figures.batched / figures.one_by_one
    assert figures.bar == whisper.BAR_ON_CPU
