"""Small operations on blocks of PCM audio, and the makers of resamplers.

Audio is ``bytes`` of int16 little-endian PCM, mono unless said otherwise.
"""

import io
import warnings
import wave
from typing import Any

import numpy as np

from antiphon.audio._g711 import decode_alaw, decode_ulaw, encode_alaw, encode_ulaw
from antiphon.audio._loudness import block_loudness
from antiphon.audio.resamplers.base_audio_resampler import BaseAudioResampler
from antiphon.audio.resamplers.polyphase_stream_resampler import PolyphaseStreamResampler
from antiphon.audio.resamplers.soxr_resampler import SOXRAudioResampler

# Largest absolute int16 value that still counts as silence: dither and line noise, no speech.
SPEAKING_THRESHOLD = 20

# Loudness in dB (see block_loudness) that become the volumes 0 and 1.
_QUIETEST_DB = -20.0
_LOUDEST_DB = 80.0


def create_default_resampler(**kwargs: Any) -> BaseAudioResampler:
    """Makes a resampler for whole recordings, under its older name.

    Deprecated: use :func:`create_stream_resampler` or :func:`create_file_resampler`.

    Args:
        **kwargs: Passed to the resampler.
    """
    warnings.warn(
        "create_default_resampler is deprecated: use create_stream_resampler for audio that arrives "
        "in pieces, create_file_resampler for whole recordings",
        DeprecationWarning,
        stacklevel=2,
    )
    return create_file_resampler(**kwargs)


def create_file_resampler(**kwargs: Any) -> BaseAudioResampler:
    """Makes a resampler that takes every call for a whole recording.

    Args:
        **kwargs: Passed to the resampler.
    """
    return SOXRAudioResampler(**kwargs)


def create_stream_resampler(**kwargs: Any) -> BaseAudioResampler:
    """Makes a resampler for one stream that arrives in pieces.

    Each piece comes back resampled at once, a few milliseconds late, without clicks where pieces
    meet. A stream needs a resampler of its own.

    Args:
        **kwargs: Passed to the resampler.
    """
    return PolyphaseStreamResampler(**kwargs)


def mix_audio(audio1: bytes, audio2: bytes) -> bytes:
    """Adds two blocks, the shorter padded with silence, limited to the int16 range.

    Args:
        audio1: One block.
        audio2: The other, at the same sample rate.

    Returns:
        A block as long as the longer of the two.
    """
    a, b = np.frombuffer(audio1, "<i2"), np.frombuffer(audio2, "<i2")
    if len(a) < len(b):
        a, b = b, a
    mixed = a.astype(np.int32)
    mixed[: len(b)] += b
    return np.clip(mixed, -32768, 32767).astype("<i2").tobytes()


def interleave_stereo_audio(left_audio: bytes, right_audio: bytes) -> bytes:
    """Joins two mono blocks into a stereo one; the longer is cut to the length of the shorter.

    Args:
        left_audio: The left channel.
        right_audio: The right channel.

    Returns:
        Interleaved stereo, left first.
    """
    left, right = np.frombuffer(left_audio, "<i2"), np.frombuffer(right_audio, "<i2")
    n = min(len(left), len(right))
    return np.stack((left[:n], right[:n]), axis=1).tobytes()


def normalize_value(value: float, min_value: float, max_value: float) -> float:
    """Maps a value from a range to 0..1; values beyond the range become 0 or 1.

    Args:
        value: The value.
        min_value: What becomes 0.
        max_value: What becomes 1.
    """
    return max(0.0, min(1.0, (value - min_value) / (max_value - min_value)))


def calculate_audio_volume(audio: bytes, sample_rate: int) -> float:
    """Volume of a block, from its EBU R128 loudness.

    Ordinary speech on a line lies near 0.8, a quiet room below 0.5.

    Args:
        audio: A mono block, some tens of milliseconds long.
        sample_rate: Its sample rate in Hz, at least 4000.

    Returns:
        0 (silence) to 1.
    """
    loudness = block_loudness(np.frombuffer(audio, "<i2"), sample_rate)
    return normalize_value(loudness, _QUIETEST_DB, _LOUDEST_DB)


def exp_smoothing(value: float, prev_value: float, factor: float) -> float:
    """Exponential smoothing, one step.

    Args:
        value: The new measurement.
        prev_value: The smoothed value so far.
        factor: Weight of the new measurement, 0 to 1.
    """
    return prev_value + factor * (value - prev_value)


async def ulaw_to_pcm(
    ulaw_bytes: bytes, in_rate: int, out_rate: int, resampler: BaseAudioResampler
) -> bytes:
    """Decodes mu-law and resamples it.

    Args:
        ulaw_bytes: G.711 mu-law, one byte a sample.
        in_rate: Its sample rate in Hz.
        out_rate: Sample rate wanted, in Hz.
        resampler: The resampler of this stream.
    """
    return await resampler.resample(decode_ulaw(ulaw_bytes), in_rate, out_rate)


async def pcm_to_ulaw(
    pcm_bytes: bytes, in_rate: int, out_rate: int, resampler: BaseAudioResampler
) -> bytes:
    """Resamples PCM and codes it as mu-law.

    Args:
        pcm_bytes: A mono block.
        in_rate: Its sample rate in Hz.
        out_rate: Sample rate wanted, in Hz.
        resampler: The resampler of this stream.
    """
    return encode_ulaw(await resampler.resample(pcm_bytes, in_rate, out_rate))


async def alaw_to_pcm(
    alaw_bytes: bytes, in_rate: int, out_rate: int, resampler: BaseAudioResampler
) -> bytes:
    """Decodes A-law and resamples it.

    Args:
        alaw_bytes: G.711 A-law, one byte a sample.
        in_rate: Its sample rate in Hz.
        out_rate: Sample rate wanted, in Hz.
        resampler: The resampler of this stream.
    """
    return await resampler.resample(decode_alaw(alaw_bytes), in_rate, out_rate)


async def pcm_to_alaw(
    pcm_bytes: bytes, in_rate: int, out_rate: int, resampler: BaseAudioResampler
) -> bytes:
    """Resamples PCM and codes it as A-law.

    Args:
        pcm_bytes: A mono block.
        in_rate: Its sample rate in Hz.
        out_rate: Sample rate wanted, in Hz.
        resampler: The resampler of this stream.
    """
    return encode_alaw(await resampler.resample(pcm_bytes, in_rate, out_rate))


def is_silence(pcm_bytes: bytes) -> bool:
    """Whether no sample of a block is louder than 20 in 32768; an empty block is silent.

    Args:
        pcm_bytes: A block, of any number of channels.
    """
    samples = np.frombuffer(pcm_bytes, "<i2")
    if len(samples) == 0:
        return True
    # Not the absolute value, which -32768 does not have in 16 bits.
    return int(samples.max()) <= SPEAKING_THRESHOLD and int(samples.min()) >= -SPEAKING_THRESHOLD


def unpack_wav(data: bytes) -> tuple[bytes, int]:
    """Takes mono audio out of a WAV file in memory.

    Args:
        data: A WAV file of int16 PCM with one channel.

    Returns:
        The audio (int16 little-endian PCM), and its rate in Hz.

    Raises:
        wave.Error: It is no WAV file.
    """
    with wave.open(io.BytesIO(data)) as wav:
        return wav.readframes(wav.getnframes()), wav.getframerate()
