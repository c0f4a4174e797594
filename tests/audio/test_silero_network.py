"""The network in its arrangement for batches, beside the model as published."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soxr

from antiphon.audio.vad._silero_network import WINDOW_SAMPLES, SileroStream, silero_network
from antiphon.errors import ServiceError

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
LARGEST_DIFFERENCE = 1e-4

Samples = npt.NDArray[np.int16]


def read(path: Path) -> Samples:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


@pytest.fixture(scope="module")
def speech() -> Samples:
    """Half a minute of a caller's sentences and pauses, and one of another voice."""
    return np.concatenate((read(ROOT / "examples" / "caller.wav"), read(DATA / "espeak_16k.wav")))


@pytest.fixture(scope="module")
def published() -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(DATA / "silero_vad.onnx"))


def windows_of(speech: Samples, rate: int) -> list[bytes]:
    samples = np.asarray(soxr.resample(speech, 16000, rate) if rate != 16000 else speech, "<i2")
    n = WINDOW_SAMPLES[rate]
    return [samples[at : at + n].tobytes() for at in range(0, len(samples) - n + 1, n)]


def heard_by(published: Any, windows: Sequence[bytes], rate: int) -> list[float]:
    """What the published model makes of a stream, as its authors call it."""
    state = np.zeros((2, 1, 128), np.float32)
    context: npt.NDArray[Any] = np.zeros(WINDOW_SAMPLES[rate] // 8, np.float32)
    found = []
    for window in windows:
        samples = np.frombuffer(window, "<i2").astype(np.float32) / 32768
        audio = np.concatenate((context, samples))[None]
        context = samples[-len(context) :]
        confidence, state = published.run(
            None, {"input": audio, "state": state, "sr": np.array(rate, np.int64)}
        )
        found.append(float(confidence[0, 0]))
    return found


class NeverForgetting(SileroStream):
    """A stream as the published model has it, which leaves forgetting to its caller."""

    @property
    def forgets_now(self) -> bool:
        return False


def heard(windows: Sequence[bytes], rate: int, stream: SileroStream | None = None) -> list[float]:
    stream = stream or SileroStream(rate)
    network = silero_network(rate)
    found = []
    for window in windows:
        network.hear([stream], [window])
        found.append(stream.confidence)
    return found


def difference(one: Sequence[float], other: Sequence[float]) -> float:
    return float(np.max(np.abs(np.array(one) - np.array(other))))


@pytest.mark.parametrize("rate", [8000, 16000])
def test_it_hears_what_the_published_model_hears(
    speech: Samples, published: Any, rate: int
) -> None:
    windows = windows_of(speech, rate)
    theirs = heard_by(published, windows, rate)
    assert max(theirs) > 0.99
    assert min(theirs) < 0.01
    ours = heard(windows, rate, NeverForgetting(rate))
    assert difference(ours, theirs) < LARGEST_DIFFERENCE


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("streams", [2, 7, 64])
def test_in_a_batch_as_alone(speech: Samples, rate: int, streams: int) -> None:
    windows = windows_of(speech, rate)[:200]
    # Each stream begins at another place, so that no two hear the same at a time.
    parts = [windows[3 * number :] + windows[: 3 * number] for number in range(streams)]
    together = [SileroStream(rate) for _ in parts]
    found: list[list[float]] = [[] for _ in parts]
    for at in range(len(windows)):
        silero_network(rate).hear(together, [part[at] for part in parts])
        for number, stream in enumerate(together):
            found[number].append(stream.confidence)
    for part, confidences in zip(parts, found, strict=True):
        assert difference(confidences, heard(part, rate)) < LARGEST_DIFFERENCE


@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_stream_goes_on_from_its_bytes(speech: Samples, rate: int) -> None:
    windows = windows_of(speech, rate)[:240]
    whole = heard(windows, rate)
    for cut in (0, 1, 100, 170):
        stream = SileroStream(rate)
        first = heard(windows[:cut], rate, stream)
        rest = heard(windows[cut:], rate, SileroStream.from_bytes(stream.to_bytes()))
        assert first + rest == whole


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 11,
        b"\0" * 12,
        SileroStream(16000).to_bytes()[:-1],
        SileroStream(8000).to_bytes() + b"\0",
    ],
)
def test_bytes_that_are_no_stream_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="state of a Silero stream"):
        SileroStream.from_bytes(data)


def test_what_onnxruntime_refuses_is_an_error_and_changes_nothing(speech: Samples) -> None:
    network, stream = silero_network(16000), SileroStream(16000)
    (before, *_) = heard(windows_of(speech, 16000)[:30], 16000, stream)[-1:]
    state = stream.to_bytes()
    stream.state += b"\0" * 4
    with pytest.raises((ServiceError, ValueError)):
        network.hear([stream], [bytes(1024)])
    stream.state = stream.state[:-4]
    assert stream.to_bytes() == state
    assert stream.confidence == before


@pytest.mark.skipif(
    importlib.util.find_spec("onnx") is None, reason="the package onnx makes the files"
)
def test_the_files_are_those_that_the_script_makes() -> None:
    script = ROOT / "scripts" / "arrange_silero.py"
    made = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), "--check"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert made.returncode == 0, made.stderr
