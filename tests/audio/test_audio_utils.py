"""Volume, mixing, silence and companding."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.audio.resamplers.soxr_resampler import SOXRAudioResampler
from antiphon.audio.utils import (
    alaw_to_pcm,
    calculate_audio_volume,
    create_default_resampler,
    create_stream_resampler,
    exp_smoothing,
    interleave_stereo_audio,
    is_silence,
    mix_audio,
    normalize_value,
    pcm_to_alaw,
    pcm_to_ulaw,
    ulaw_to_pcm,
)


def pcm(*samples: int) -> bytes:
    return np.array(samples, "<i2").tobytes()


def values(audio: bytes) -> npt.NDArray[np.int16]:
    return np.frombuffer(audio, "<i2")


def sine(amplitude: float, hz: float, samples: int, rate: int) -> bytes:
    return (
        np.rint(amplitude * np.sin(2 * np.pi * hz * np.arange(samples) / rate))
        .astype("<i2")
        .tobytes()
    )


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000])
def test_volume_of_a_sine_at_its_known_loudness(rate: int) -> None:
    # A sine of 997 Hz has its loudness at its level -3.01 dB, by the definition of the scale.
    level_db = 20 * math.log10(1000) - 10 * math.log10(2)
    volume = calculate_audio_volume(sine(1000, 997, rate // 2, rate), rate)
    assert volume == pytest.approx((level_db + 20) / 100, abs=0.005)


def test_ten_decibels_are_a_tenth() -> None:
    quiet, loud = (calculate_audio_volume(sine(a, 500, 512, 16000), 16000) for a in (500, 5000))
    assert loud - quiet == pytest.approx(0.2, abs=0.001)


def test_volume_of_a_block_does_not_depend_on_its_length() -> None:
    rng = np.random.default_rng(3)
    for samples in (160, 256, 320, 512, 4096, 40000):
        noise = (rng.standard_normal(samples) * 1000).astype("<i2").tobytes()
        assert calculate_audio_volume(noise, 16000) == pytest.approx(0.826, abs=0.015)


def test_volume_matches_filtering_sample_by_sample() -> None:
    # The K-weighting of BS.1770 as difference equations at 48 kHz, coefficients as tabulated there.
    rng = np.random.default_rng(4)
    x = (rng.standard_normal(4800) * 2000).astype("<i2")
    y = [float(v) for v in x]
    for b, a in (
        (
            (1.53512485958697, -2.69169618940638, 1.19839281085285),
            (-1.69065929318241, 0.73248077421585),
        ),
        ((1.0, -2.0, 1.0), (-1.99004745483398, 0.99007225036621)),
    ):
        z1 = z2 = 0.0
        for i, v in enumerate(y):
            y[i] = b[0] * v + z1
            z1 = b[1] * v - a[0] * y[i] + z2
            z2 = b[2] * v - a[1] * y[i]
    loudness = -0.691 + 10 * math.log10(sum(v * v for v in y) / len(y))
    assert calculate_audio_volume(x.tobytes(), 48000) == pytest.approx(
        (loudness + 20) / 100, abs=0.005
    )


def test_volume_at_the_ends_of_the_scale() -> None:
    assert calculate_audio_volume(b"", 16000) == 0.0
    assert calculate_audio_volume(bytes(1024), 16000) == 0.0
    assert calculate_audio_volume(sine(32767, 3000, 512, 16000), 16000) > 0.99
    assert 0.0 <= calculate_audio_volume(pcm(1), 16000) < 0.3
    with pytest.raises(ValueError, match="sample rate"):
        calculate_audio_volume(pcm(1, 2), 0)


def test_normalize_and_smooth() -> None:
    assert [normalize_value(v, 0, 10) for v in (-5, 0, 5, 15)] == [0.0, 0.0, 0.5, 1.0]
    assert exp_smoothing(1.0, 0.0, 0.2) == pytest.approx(0.2)
    assert exp_smoothing(0.0, 1.0, 0.2) == pytest.approx(0.8)


def test_mixing_limits_and_pads() -> None:
    long, short = pcm(30000, -30000, 5, 7), pcm(30000, -30000)
    assert values(mix_audio(long, short)).tolist() == [32767, -32768, 5, 7]
    assert mix_audio(short, long) == mix_audio(long, short)
    assert mix_audio(long, b"") == long
    assert mix_audio(b"", b"") == b""


def test_interleaving_cuts_to_the_shorter() -> None:
    assert interleave_stereo_audio(pcm(1, 2, 3), pcm(-1, -2)) == pcm(1, -1, 2, -2)
    assert interleave_stereo_audio(b"", pcm(1)) == b""


@given(st.lists(st.integers(-32768, 32767), max_size=50))
def test_interleaved_channels_come_apart_again(samples: list[int]) -> None:
    other = samples[::-1]
    stereo = values(interleave_stereo_audio(pcm(*samples), pcm(*other)))
    assert stereo[0::2].tolist() == samples
    assert stereo[1::2].tolist() == other


def test_silence() -> None:
    assert is_silence(b"")
    assert is_silence(pcm(0, 20, -20))
    assert not is_silence(pcm(0, 21))
    assert not is_silence(pcm(0, -21))
    assert not is_silence(pcm(-32768))


async def test_mulaw_known_codes() -> None:
    resampler = create_stream_resampler()
    samples = pcm(0, 100, -100, 1000, -1000, 8000, -8000, 32767, -32768)
    assert await pcm_to_ulaw(samples, 8000, 8000, resampler) == bytes.fromhex("fff272ce4ea0208000")


async def test_alaw_known_codes() -> None:
    resampler = create_stream_resampler()
    samples = pcm(0, 100, -100, 1000, -1000, 8000, -8000, 32767, -32768)
    assert await pcm_to_alaw(samples, 8000, 8000, resampler) == bytes.fromhex("d5d353fa7a8a0aaa2a")


async def test_every_code_survives_a_round_trip() -> None:
    resampler = create_stream_resampler()
    codes = bytes(range(256))
    linear = await alaw_to_pcm(codes, 8000, 8000, resampler)
    assert await pcm_to_alaw(linear, 8000, 8000, resampler) == codes
    linear = await ulaw_to_pcm(codes, 8000, 8000, resampler)
    # Mu-law has two zeros, 0x7f and 0xff.
    assert await pcm_to_ulaw(linear, 8000, 8000, resampler) == codes.replace(b"\x7f", b"\xff")


@pytest.mark.parametrize("law", ["mu", "a"])
async def test_companding_keeps_a_round_trip_within_a_step(law: str) -> None:
    encode, decode = (pcm_to_ulaw, ulaw_to_pcm) if law == "mu" else (pcm_to_alaw, alaw_to_pcm)
    resampler = create_stream_resampler()
    samples = np.arange(-32768, 32768, dtype=np.int32)
    coded = await encode(samples.astype("<i2").tobytes(), 8000, 8000, resampler)
    back = values(await decode(coded, 8000, 8000, resampler)).astype(np.int32)
    # Both codes end a little below full scale. A step is a sixteenth of its segment, so the error is
    # at most 1/32 of the biased value, and the low bits that were lost before.
    samples = np.clip(samples, back.min(), back.max())
    assert np.all(np.abs(back - samples) <= (np.abs(samples) + 132) / 32 + 8)


async def test_companding_resamples() -> None:
    ulaw = await pcm_to_ulaw(bytes(640), 16000, 8000, create_stream_resampler())
    assert ulaw == b"\xff" * 160
    assert await ulaw_to_pcm(ulaw, 8000, 24000, create_stream_resampler()) == bytes(960)
    alaw = await pcm_to_alaw(bytes(640), 16000, 8000, create_stream_resampler())
    assert len(await alaw_to_pcm(alaw, 8000, 16000, create_stream_resampler())) == 640


def test_the_older_maker_of_resamplers_still_works() -> None:
    with pytest.warns(DeprecationWarning, match="create_stream_resampler"):
        assert isinstance(create_default_resampler(), SOXRAudioResampler)
