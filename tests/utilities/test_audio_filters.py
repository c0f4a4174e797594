"""Filters over vendors' packages, with packages made by the test."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from antiphon.audio.filters.base_audio_filter import BaseAudioFilter
from antiphon.audio.filters.koala_filter import KoalaFilter
from antiphon.audio.filters.krisp_filter import KrispFilter
from antiphon.audio.filters.noisereduce_filter import NoisereduceFilter
from antiphon.errors import ConfigError
from antiphon.frames.frames import FilterEnableFrame

RATE = 16_000
KRISP = "pipecat_ai_krisp.audio.krisp_processor"


def pcm(value: int, count: int) -> bytes:
    return np.full(count, value, "<i2").tobytes()


def install(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = ModuleType(name)
    for key, value in members.items():
        setattr(module, key, value)
    parts = name.split(".")
    for depth in range(1, len(parts)):
        parent = ".".join(parts[:depth])
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    monkeypatch.setitem(sys.modules, name, module)


class FakeKoala:
    frame_length = 256
    sample_rate = RATE

    def __init__(self) -> None:
        self.deleted = False

    def process(self, samples: list[int]) -> list[int]:
        assert len(samples) == self.frame_length
        return [sample // 2 for sample in samples]

    def delete(self) -> None:
        self.deleted = True


async def test_koala_takes_frames_of_its_own_length(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    koala = FakeKoala()

    def create(access_key: str) -> FakeKoala:
        keys.append(access_key)
        return koala

    install(monkeypatch, "pvkoala", create=create)
    noise = KoalaFilter(access_key="secret")
    assert await noise.filter(pcm(10, 5)) == pcm(10, 5)
    await noise.start(RATE)
    assert keys == ["secret"]
    assert await noise.filter(pcm(10, 200)) == b""
    assert await noise.filter(pcm(10, 400)) == pcm(5, 512)
    await noise.process_frame(FilterEnableFrame(False))
    assert await noise.filter(pcm(10, 12)) == pcm(10, 100)
    await noise.process_frame(FilterEnableFrame(True))
    assert await noise.filter(pcm(10, 256)) == pcm(5, 256)
    await noise.stop()
    assert koala.deleted


async def test_koala_at_another_rate_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    koala = FakeKoala()
    install(monkeypatch, "pvkoala", create=lambda access_key: koala)
    noise = KoalaFilter(access_key="secret")
    await noise.start(8000)
    assert koala.deleted
    assert await noise.filter(pcm(10, 300)) == pcm(10, 300)


async def test_a_refused_key_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(access_key: str) -> FakeKoala:
        raise RuntimeError(f"{access_key} is not valid")

    install(monkeypatch, "pvkoala", create=create)
    with pytest.raises(ConfigError) as error:
        await KoalaFilter(access_key="secret").start(RATE)
    assert "secret" not in str(error.value)


async def test_krisp_gets_its_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[tuple[Any, ...]] = []

    class KrispAudioProcessor:
        def __init__(self, *args: Any) -> None:
            made.append(args)

        def process(self, samples: Any) -> Any:
            return samples // 2

    model = tmp_path / "model.kef"
    model.write_bytes(b"")
    install(monkeypatch, KRISP, KrispAudioProcessor=KrispAudioProcessor)
    monkeypatch.setenv("KRISP_MODEL_PATH", str(model))
    noise = KrispFilter()
    assert await noise.filter(pcm(10, 5)) == pcm(10, 5)
    await noise.start(RATE)
    assert made == [(RATE, "PCM_16", 1, str(model))]
    assert await noise.filter(pcm(10, 160)) == pcm(5, 160)
    await noise.process_frame(FilterEnableFrame(False))
    assert await noise.filter(pcm(10, 160)) == pcm(10, 160)
    await noise.stop()


async def test_krisp_without_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KRISP_MODEL_PATH", raising=False)
    with pytest.raises(ConfigError, match="KRISP_MODEL_PATH"):
        KrispFilter()
    with pytest.raises(ConfigError, match=r"none\.kef"):
        await KrispFilter(model_path=str(tmp_path / "none.kef")).start(RATE)


async def test_noisereduce_sees_the_audio_before(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def reduce_noise(y: Any, sr: int) -> Any:
        assert sr == RATE
        lengths.append(len(y))
        return y / 2

    install(monkeypatch, "noisereduce", reduce_noise=reduce_noise)
    noise = NoisereduceFilter()
    assert await noise.filter(pcm(100, 5)) == pcm(100, 5)
    await noise.start(RATE)
    out = b""
    for _ in range(60):
        out += await noise.filter(pcm(100, 320))
    assert out == pcm(50, 60 * 320)
    assert (lengths[0], lengths[-1]) == (960, 8000 + 960)
    await noise.filter(pcm(100, 320))
    await noise.process_frame(FilterEnableFrame(False))
    assert await noise.filter(pcm(100, 320)) == pcm(100, 640)
    await noise.stop()


async def test_real_noise_is_reduced() -> None:
    pytest.importorskip("noisereduce")
    noise = NoisereduceFilter()
    await noise.start(RATE)
    audio = np.random.default_rng(0).normal(0, 600, RATE).astype("<i2")
    filtered = np.frombuffer(await noise.filter(audio.tobytes()), "<i2")
    assert len(filtered) == len(audio)
    assert filtered.astype(float).std() < 0.9 * audio.astype(float).std()


@pytest.mark.parametrize(
    ("make", "package"),
    [
        (lambda _: NoisereduceFilter(), "noisereduce"),
        (lambda _: KoalaFilter(access_key="x"), "pvkoala"),
        (lambda model: KrispFilter(model_path=model), "pipecat_ai_krisp"),
    ],
)
async def test_a_missing_package_is_named(
    make: Any, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = tmp_path / "model.kef"
    model.write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    noise: BaseAudioFilter = make(str(model))
    with pytest.raises(ConfigError, match=r"pip install"):
        await noise.start(RATE)
