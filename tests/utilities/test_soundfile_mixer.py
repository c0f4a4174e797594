"""Background sound out of files."""

from __future__ import annotations

import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon.audio.mixers.soundfile_mixer import SoundfileMixer
from antiphon.errors import ConfigError
from antiphon.frames.frames import MixerEnableFrame, MixerUpdateSettingsFrame

RATE = 16_000


def write(path: Path, values: list[int], *, rate: int = RATE, channels: int = 1) -> str:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(np.array(values, "<i2").tobytes())
    return str(path)


def pcm(*values: int) -> bytes:
    return np.array(values, "<i2").tobytes()


@pytest.fixture
def sounds(tmp_path: Path) -> dict[str, str]:
    pytest.importorskip("soundfile")
    return {
        "count": write(tmp_path / "count.wav", [100, 200, 300]),
        "loud": write(tmp_path / "loud.wav", [30_000] * 10),
        "stereo": write(tmp_path / "stereo.wav", [1, 2] * 10, channels=2),
        "slow": write(tmp_path / "slow.wav", [1000] * 800, rate=8000),
    }


async def started(sounds: dict[str, str], default_sound: str, **kwargs: Any) -> SoundfileMixer:
    mixer = SoundfileMixer(sound_files=sounds, default_sound=default_sound, **kwargs)
    await mixer.start(RATE)
    return mixer


async def test_a_sound_begins_again_without_a_gap(sounds: dict[str, str]) -> None:
    mixer = await started(sounds, "count", volume=1.0)
    assert await mixer.mix(pcm(0, 0)) == pcm(100, 200)
    assert await mixer.mix(pcm(1, 1, 1, 1, 1)) == pcm(301, 101, 201, 301, 101)
    await mixer.stop()
    assert await mixer.mix(pcm(7)) == pcm(7)


async def test_without_loop_it_ends(sounds: dict[str, str]) -> None:
    mixer = await started(sounds, "count", volume=0.5, loop=False)
    assert await mixer.mix(pcm(0, 0, 0, 0)) == pcm(50, 100, 150, 0)
    assert await mixer.mix(pcm(5)) == pcm(5)


async def test_loud_sounds_are_limited(sounds: dict[str, str]) -> None:
    mixer = await started(sounds, "loud", volume=2.0)
    assert await mixer.mix(pcm(0, -32_768)) == pcm(32_767, 27_232)


async def test_settings_change_while_it_runs(sounds: dict[str, str]) -> None:
    mixer = await started(sounds, "loud", mixing=False)
    assert await mixer.mix(pcm(1)) == pcm(1)
    await mixer.process_frame(MixerEnableFrame(True))
    await mixer.process_frame(
        MixerUpdateSettingsFrame({"sound": "count", "volume": 0.1, "loop": False, "odd": 1})
    )
    await mixer.process_frame(MixerUpdateSettingsFrame({"sound": "no such sound"}))
    assert await mixer.mix(pcm(0, 0, 0, 0)) == pcm(10, 20, 30, 0)
    await mixer.process_frame(MixerEnableFrame(False))
    assert await mixer.mix(pcm(3)) == pcm(3)


async def test_another_rate_is_resampled_and_stereo_is_not_mixed(sounds: dict[str, str]) -> None:
    mixer = await started(sounds, "slow", volume=1.0, loop=False)
    mixed = np.frombuffer(await mixer.mix(bytes(4 * 1000)), "<i2")
    assert np.count_nonzero(mixed > 900) == pytest.approx(1600, rel=0.02)
    mixer = await started(sounds, "stereo")
    assert await mixer.mix(pcm(1)) == pcm(1)


async def test_what_cannot_be_used_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="default sound"):
        SoundfileMixer(sound_files={}, default_sound="office")
    missing = SoundfileMixer(sound_files={"a": tmp_path / "a.wav"}, default_sound="a")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ConfigError, match=r"antiphon\[soundfile\]"):
        await missing.start(RATE)
    monkeypatch.undo()
    pytest.importorskip("soundfile")
    with pytest.raises(ConfigError, match=r"a\.wav"):
        await missing.start(RATE)
