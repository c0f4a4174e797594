from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from loguru import logger

from antiphon.errors import ConfigError
from antiphon.transports._file.recorder import Layout, Recorder
from antiphon.transports._file.wav import load_mono, read_wav


def write(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        wav.setsampwidth(2)
        wav.setframerate(rate)
        wav.writeframes(samples.astype("<i2").tobytes())
    return path


def riff(fmt: bytes, data: bytes, *, extra: bytes = b"", size: int | None = None) -> bytes:
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + extra
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def fmt(code: int = 1, channels: int = 1, rate: int = 16000, bits: int = 16) -> bytes:
    block = channels * bits // 8
    return struct.pack("<HHIIHH", code, channels, rate, rate * block, block, bits)


def read(path: Path) -> tuple[int, np.ndarray]:
    with wave.open(str(path)) as wav:
        samples = np.frombuffer(wav.readframes(wav.getnframes()), "<i2")
        return wav.getframerate(), samples.reshape(-1, wav.getnchannels())


def test_reads_what_the_standard_library_writes(tmp_path: Path) -> None:
    samples = np.arange(-100, 100, dtype=np.int16).reshape(100, 2)
    wav = read_wav(write(tmp_path / "a.wav", samples, 8000))
    assert np.array_equal(wav.samples, samples)
    assert (wav.sample_rate, wav.channels, wav.seconds) == (8000, 2, 100 / 8000)


def test_reads_extensible_pcm_and_skips_other_chunks(tmp_path: Path) -> None:
    guid = struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
    extensible = fmt(0xFFFE) + struct.pack("<HHI", 22, 16, 4) + guid
    note = b"LIST" + struct.pack("<I", 3) + b"odd\0"
    path = tmp_path / "a.wav"
    path.write_bytes(riff(extensible, b"\1\0\2\0", extra=note))
    assert read_wav(path).samples[:, 0].tolist() == [1, 2]


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 1000])
def test_a_recording_that_was_cut_off_counts_as_far_as_it_goes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(riff(fmt(), b"\1\0\2\0\3", size=size))
    assert read_wav(path).samples[:, 0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a WAV file"),
        (b"ID3\4 an mp3 file", "not a WAV file"),
        (riff(b"", b"\1\0"), "does not say its format"),
        (riff(fmt(3, bits=32), b"\0" * 8), "floating point"),
        (riff(fmt(7, bits=8), b"\0" * 8), "mu-law"),
        (riff(fmt(0x0055), b"\0" * 8), "MP3"),
        (riff(fmt(0x1234), b"\0" * 8), "0x1234"),
        (riff(fmt(bits=24), b"\0" * 9), "24-bit"),
        (riff(fmt(channels=0), b"\0" * 8), "damaged"),
        (riff(fmt(), b""), "holds no audio"),
        (riff(fmt(), b"\1"), "holds no audio"),
        (b"RIFF\4\0\0\0WAVE", "does not say its format"),
    ],
)
def test_other_files_are_refused_with_a_reason(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_wav(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["missing.wav", "."])
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_wav(tmp_path / name)


def test_loading_mixes_and_resamples_and_says_so(tmp_path: Path) -> None:
    tone = 8000 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)
    stereo = np.stack([tone * 2, np.zeros(44100)], axis=1)
    lines: list[str] = []
    sink = logger.add(lines.append, level="INFO", format="{message} {extra}")
    try:
        samples = load_mono(write(tmp_path / "a.wav", stereo, 44100), 16000)
    finally:
        logger.remove(sink)
    assert len(samples) == 16000
    expected = 8000 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(samples[200:-200] - expected[200:-200]).max() < 100
    assert "sound file converted" in lines[0]
    assert "44100" in lines[0]


def test_loading_a_fitting_file_changes_nothing(tmp_path: Path) -> None:
    samples = np.arange(100, dtype=np.int16)
    assert np.array_equal(load_mono(write(tmp_path / "a.wav", samples), 16000), samples)


def ones(count: int, value: int = 1) -> np.ndarray:
    return np.full(count, value, np.int16)


def test_a_recording_keeps_positions_and_fills_with_silence(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.wav", sample_rate=1000)
    recorder.add(100, ones(50))
    recorder.add(150, ones(50, 2))
    recorder.advance(700)
    recorder.add(800, ones(1000, 3))
    recorder.advance(1500)
    recorder.close(2000)
    rate, samples = read(tmp_path / "a.wav")
    expected = np.concatenate(
        [ones(100, 0), ones(50), ones(50, 2), ones(600, 0), ones(1000, 3), ones(200, 0)]
    )
    assert rate == 1000
    assert np.array_equal(samples[:, 0], expected)


def test_what_was_cut_is_not_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.wav", sample_rate=1000)
    for start in (0, 100, 200):
        recorder.add(start, ones(100))
    recorder.cut(150)
    assert recorder.end == 150
    recorder.add(180, ones(100, 2))
    recorder.close(250)
    _, samples = read(tmp_path / "a.wav")
    assert np.array_equal(samples[:, 0], np.concatenate([ones(150), ones(30, 0), ones(70, 2)]))


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_a_recording_is_a_valid_file_all_along(tmp_path: Path, layout: Layout) -> None:
    path = tmp_path / "a.wav"
    recorder = Recorder(path, sample_rate=1000, layout=layout, caller=ones(300, 7))
    assert len(read(path)[1]) == 0
    recorder.add(0, ones(2000))
    recorder.advance(400)  # less than a block
    assert len(read(path)[1]) == 0
    recorder.advance(1000)
    _, samples = read(path)
    assert len(samples) == 1000
    assert samples[:, -1].tolist() == [1] * 1000
    if layout == "stereo":
        assert samples[:, 0].tolist() == [7] * 300 + [0] * 700
    recorder.close(1000)
    recorder.close(5000)
    assert len(read(path)[1]) == 1000


def test_a_recording_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        Recorder(tmp_path / "missing" / "a.wav", sample_rate=1000)
