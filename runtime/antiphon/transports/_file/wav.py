"""Reading WAV files, with errors that say what to do."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from antiphon.errors import ConfigError

Samples = NDArray[np.int16]

_PCM = 0x0001
_EXTENSIBLE = 0xFFFE
# Registered codes of the formats somebody is likely to have (RFC 2361 and Microsoft's mmreg.h).
_FORMATS = {
    0x0002: "Microsoft ADPCM",
    0x0003: "floating point",
    0x0006: "A-law",
    0x0007: "mu-law",
    0x0011: "IMA ADPCM",
    0x0031: "GSM 6.10",
    0x0050: "MPEG",
    0x0055: "MP3",
}


@dataclass(frozen=True)
class WavAudio:
    """The content of a WAV file.

    Attributes:
        samples: int16, shape (samples, channels).
        sample_rate: Hz.
    """

    samples: Samples
    sample_rate: int

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.samples.shape[1])

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate


def read_wav(path: Path) -> WavAudio:
    """Reads a WAV file of 16-bit PCM, with any sample rate and number of channels.

    A recording that was cut off counts as far as it goes.

    Raises:
        ConfigError: The file cannot be read, is no WAV file, holds another format, or is empty.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror or error}): give the path of a WAV file"
        ) from error
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise ConfigError(f"{path}: is not a WAV file: {_convert(path)}")
    chunks = _chunks(content)
    if len(chunks.get(b"fmt ", b"")) < 16:
        raise ConfigError(
            f"{path}: is a damaged WAV file, it does not say its format: record it anew"
        )
    channels, sample_rate = _checked_format(path, bytes(chunks[b"fmt "]))
    data = chunks.get(b"data", memoryview(b""))
    whole = len(data) // (2 * channels)
    if whole == 0:
        raise ConfigError(f"{path}: holds no audio, there is nothing to play: give another file")
    samples = np.frombuffer(data[: whole * 2 * channels], "<i2").reshape(whole, channels)
    return WavAudio(samples=samples, sample_rate=sample_rate)


def load_mono(path: Path, sample_rate: int, *, tell: bool = True) -> Samples:
    """Reads a WAV file as mono audio at a sample rate in Hz, converting it if need be.

    Args:
        path: The file.
        sample_rate: Hz.
        tell: Whether a conversion is worth a warning: what the bot hears differs from the file.

    Raises:
        ConfigError: As for :func:`read_wav`.
    """
    wav = read_wav(path)
    samples = wav.samples[:, 0]
    if wav.channels > 1:
        samples = np.rint(wav.samples.mean(axis=1)).astype(np.int16)
    if wav.sample_rate != sample_rate:
        import soxr

        samples = np.asarray(soxr.resample(samples, wav.sample_rate, sample_rate), np.int16)
    if wav.channels > 1 or wav.sample_rate != sample_rate:
        logger.log(
            "WARNING" if tell else "DEBUG",
            "sound file converted",
            path=str(path),
            channels=wav.channels,
            file_sample_rate=wav.sample_rate,
            sample_rate=sample_rate,
        )
    return samples


def _chunks(content: bytes) -> dict[bytes, memoryview]:
    """The first chunk of each kind; one that ends beyond the file ends with it."""
    view = memoryview(content)
    found: dict[bytes, memoryview] = {}
    at = 12
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, at)
        # A recorder that was cut off, or wrote to a pipe, left the size open.
        if kind == b"data" and size == 0:
            size = len(content)
        found.setdefault(kind, view[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    return found


def _checked_format(path: Path, fmt: bytes) -> tuple[int, int]:
    """Channels and sample rate of 16-bit PCM; anything else is an error."""
    code, channels, sample_rate, _, _, bits = struct.unpack_from("<HHIIHH", fmt)
    if code == _EXTENSIBLE and len(fmt) >= 26:
        (code,) = struct.unpack_from("<H", fmt, 24)
    if code != _PCM:
        name = _FORMATS.get(code, f"format {code:#06x}")
        raise ConfigError(f"{path}: holds {name} audio, not 16-bit PCM: {_convert(path)}")
    if bits != 16:
        raise ConfigError(f"{path}: holds {bits}-bit PCM, not 16-bit: {_convert(path)}")
    if channels == 0 or sample_rate == 0:
        raise ConfigError(
            f"{path}: is a damaged WAV file ({channels} channels, {sample_rate} Hz): record it anew"
        )
    return channels, sample_rate


def _convert(path: Path) -> str:
    return f"convert it, for example with: ffmpeg -i {path.name} -c:a pcm_s16le converted.wav"
