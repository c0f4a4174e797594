"""Sample rate conversion: frequency, length, and the places where pieces meet."""

import asyncio

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.audio.resamplers.base_audio_resampler import BaseAudioResampler
from antiphon.audio.resamplers.soxr_stream_resampler import SOXRStreamAudioResampler
from antiphon.audio.utils import create_file_resampler, create_stream_resampler

RATES = [
    (24000, 16000),
    (16000, 8000),
    (8000, 16000),
    (24000, 8000),
    (44100, 16000),
    (16000, 24000),
]


def sine(hz: float, rate: int, seconds: float = 1.0) -> bytes:
    t = np.arange(round(seconds * rate)) / rate
    samples: npt.NDArray[np.int16] = np.rint(20000 * np.sin(2 * np.pi * hz * t)).astype("<i2")
    return samples.tobytes()


def values(audio: bytes) -> npt.NDArray[np.float64]:
    return np.frombuffer(audio, "<i2").astype(np.float64)


async def in_pieces(
    resampler: BaseAudioResampler, audio: bytes, in_rate: int, out_rate: int, millis: int = 20
) -> list[bytes]:
    size = 2 * (in_rate * millis // 1000)
    return [
        await resampler.resample(audio[i : i + size], in_rate, out_rate)
        for i in range(0, len(audio), size)
    ]


def residue_db(audio: bytes, hz: float, rate: int) -> float:
    """Power of all that is not the sine, relative to the sine, its first 50 ms left out."""
    y = values(audio)[rate // 20 :]
    t = np.arange(len(y)) / rate
    basis = np.stack((np.sin(2 * np.pi * hz * t), np.cos(2 * np.pi * hz * t)), axis=1)
    fitted = basis @ np.linalg.lstsq(basis, y, rcond=None)[0]
    return float(10 * np.log10(np.mean((y - fitted) ** 2) / np.mean(fitted**2)))


@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
@pytest.mark.parametrize("hz", [440.0, 3200.0])
async def test_a_stream_keeps_frequency_amplitude_and_length(
    in_rate: int, out_rate: int, hz: float
) -> None:
    pieces = await in_pieces(create_stream_resampler(), sine(hz, in_rate), in_rate, out_rate)
    # 20 ms in, 20 ms out, from the first piece on.
    assert {len(piece) for piece in pieces} == {2 * out_rate // 50}
    audio = b"".join(pieces)
    assert residue_db(audio, hz, out_rate) < -75
    assert np.sqrt(np.mean(values(audio)[out_rate // 20 :] ** 2)) == pytest.approx(14142, rel=0.001)


async def test_a_chain_of_streams_keeps_a_sine() -> None:
    wide = await in_pieces(create_stream_resampler(), sine(1000, 24000), 24000, 16000)
    narrow = await in_pieces(create_stream_resampler(), b"".join(wide), 16000, 8000)
    audio = b"".join(narrow)
    assert len(audio) == 2 * 8000
    assert residue_db(audio, 1000, 8000) < -75


@pytest.mark.parametrize(("in_rate", "out_rate"), [r for r in RATES if r[0] > r[1]])
async def test_what_the_lower_rate_cannot_hold_is_gone(in_rate: int, out_rate: int) -> None:
    audio = await create_stream_resampler().resample(
        sine(0.55 * out_rate, in_rate), in_rate, out_rate
    )
    assert np.sqrt(np.mean(values(audio)[out_rate // 20 :] ** 2)) < 14142 * 10 ** (-75 / 20)


async def test_the_delay_is_a_few_milliseconds() -> None:
    impulse = np.zeros(2400, "<i2")
    impulse[1200] = 30000
    out = values(await create_stream_resampler().resample(impulse.tobytes(), 24000, 16000))
    assert np.argmax(out) == 800 + 32


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([*RATES, (22050, 16000), (16000, 22050)]),
    st.lists(st.integers(0, 700), min_size=1, max_size=8),
)
def test_pieces_of_any_length_give_the_same_stream(
    rates: tuple[int, int], sizes: list[int]
) -> None:
    in_rate, out_rate = rates
    total = sum(sizes)
    samples = np.random.default_rng(total).integers(-32768, 32768, total).astype("<i2")

    async def convert() -> tuple[bytes, bytes]:
        whole = await create_stream_resampler().resample(samples.tobytes(), in_rate, out_rate)
        stream, cut, done = create_stream_resampler(), [], 0
        for size in sizes:
            piece = samples[done : done + size].tobytes()
            cut.append(await stream.resample(piece, in_rate, out_rate))
            done += size
            assert sum(map(len, cut)) == 2 * -(-done * out_rate // in_rate)
        return whole, b"".join(cut)

    whole, cut = asyncio.run(convert())
    assert len(whole) == len(cut)
    # The order of summation may differ with the size of a piece; the rounding then does, by one.
    assert np.abs(values(whole) - values(cut)).max(initial=0) <= 1


async def test_a_constant_stays_constant() -> None:
    audio = np.full(4410, 12345, "<i2").tobytes()
    out = values(await create_stream_resampler().resample(audio, 44100, 16000))
    assert set(out[100:]) == {12345.0}


async def test_loud_audio_is_limited_not_wrapped() -> None:
    square = np.where(np.arange(4800) % 48 < 24, 32767, -32768).astype("<i2").tobytes()
    out = values(await create_stream_resampler().resample(square, 48000, 16000))
    # A wrapped overshoot would put a sample of the other sign into a half wave.
    halves = np.sign(out[100:]).reshape(-1)
    assert np.count_nonzero(np.diff(halves)) <= 2 * (len(out) // 16)


async def test_a_change_of_rate_begins_a_new_stream() -> None:
    stream = create_stream_resampler()
    await stream.resample(sine(440, 24000, 0.02), 24000, 16000)
    again = await stream.resample(sine(440, 8000, 0.1), 8000, 16000)
    assert again == await create_stream_resampler().resample(sine(440, 8000, 0.1), 8000, 16000)


@pytest.mark.parametrize("make", [create_stream_resampler, create_file_resampler])
async def test_equal_rates_and_nothing_pass_through(make: type[BaseAudioResampler]) -> None:
    resampler = make()
    audio = sine(440, 16000, 0.01)
    assert await resampler.resample(audio, 16000, 16000) is audio
    assert await resampler.resample(b"", 16000, 8000) == b""


async def test_impossible_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        await create_stream_resampler().resample(bytes(2), 0, 16000)


@pytest.mark.parametrize("seconds", [0.5, 3.0])
async def test_a_recording_keeps_frequency_and_duration(seconds: float) -> None:
    audio = await create_file_resampler().resample(sine(440, 24000, seconds), 24000, 16000)
    assert len(audio) == 2 * round(16000 * seconds)
    assert residue_db(audio[: -2 * 1600], 440, 16000) < -75


async def test_soxr_stream() -> None:
    resampler = SOXRStreamAudioResampler()
    audio = b"".join(await in_pieces(resampler, sine(440, 24000, 2.0), 24000, 16000))
    assert 2 * 16000 * 1.8 < len(audio) <= 2 * 16000 * 2
    assert residue_db(audio, 440, 16000) < -75
