"""The Silero network: any number of streams, one call.

`data/silero_vad_*.onnx` are the published weights (MIT, licence beside them) in an arrangement for batches
(`scripts/arrange_silero.py`), one file for each sample rate. A window is 512 samples at 16 kHz or 256 at
8 kHz, is preceded by the last 64 or 32 samples of the window before, and carries a recurrent state to the next.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from antiphon.errors import ServiceError

WINDOW_SAMPLES = {8000: 256, 16000: 512}
"""Samples of a window by the sample rate in Hz."""

_FILES = {8000: "silero_vad_8k.onnx", 16000: "silero_vad_16k.onnx"}
# Bytes of the context (an eighth of a window of int16) by the sample rate.
_CONTEXT_BYTES = {rate: samples // 4 for rate, samples in WINDOW_SAMPLES.items()}
_STATE_BYTES = 256 * 4
_WINDOWS_PER_SEC = 16000 / 512
_RESET_AFTER_WINDOWS = round(5.0 * _WINDOWS_PER_SEC)
# Confidence below which a window certainly ends no word.
_NO_VOICE = 0.35

_HEAD = struct.Struct("<IIf")

_load_lock = threading.Lock()


class SileroStream:
    """One stream of audio, as the network remembers it.

    Every 5 s it forgets what it has heard, because the published model drifts over long streams. Counted in
    audio, not by the clock, so that the same audio gives the same confidences.

    Attributes:
        rate: Sample rate in Hz.
        confidence: Of the last window.
        windows: Heard since it last forgot.
        state: The recurrent state, 256 float32.
        context: The last samples heard, int16.
    """

    __slots__ = ("confidence", "context", "rate", "state", "windows")

    def __init__(self, rate: int) -> None:
        """Makes one that has heard nothing.

        Args:
            rate: 8000 or 16000.
        """
        self.rate = rate
        self.forget()

    def forget(self) -> None:
        """Forgets what was heard."""
        self.windows = 0
        self.confidence = 0.0
        self.state = bytes(_STATE_BYTES)
        self.context = bytes(_CONTEXT_BYTES[self.rate])

    @property
    def forgets_now(self) -> bool:
        """Whether it forgets before the next window.

        The first window after that is heard without its past, and a voice in it may go unheard: so that
        waits for a pause, but no longer than once again its period.
        """
        if self.windows < _RESET_AFTER_WINDOWS:
            return False
        return self.confidence < _NO_VOICE or self.windows >= 2 * _RESET_AFTER_WINDOWS

    def to_bytes(self) -> bytes:
        """All of it, for another process."""
        return _HEAD.pack(self.rate, self.windows, self.confidence) + self.state + self.context

    @classmethod
    def from_bytes(cls, data: bytes) -> SileroStream:
        """The stream of which `to_bytes` gave this.

        Raises:
            ValueError: It is something else.
        """
        if len(data) < _HEAD.size:
            raise ValueError("the state of a Silero stream is too short")
        rate, windows, confidence = _HEAD.unpack_from(data)
        split = _HEAD.size + _STATE_BYTES
        if rate not in WINDOW_SAMPLES or len(data) != split + _CONTEXT_BYTES[rate]:
            raise ValueError("the state of a Silero stream has a wrong length")
        stream = cls(rate)
        stream.windows, stream.confidence = windows, confidence
        stream.state, stream.context = data[_HEAD.size : split], data[split:]
        return stream


class SileroNetwork:
    """The network of one sample rate. It holds nothing of any stream, and threads may share it.

    Args:
        rate: 8000 or 16000.
    """

    def __init__(self, rate: int) -> None:
        # From 1.29 on the official builds report sessions to their maker, over the network and through
        # a database in the home directory, unless told not to before the import.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # A window takes some 30 us: more threads than one only cost wake-ups.
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = 1
        model = resources.files("antiphon.audio.vad").joinpath("data", _FILES[rate]).read_bytes()
        self._session: Any = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self._window_bytes = 2 * WINDOW_SAMPLES[rate]
        self._context_bytes = _CONTEXT_BYTES[rate]
        self._row = (self._window_bytes + self._context_bytes) // 2

    def hear(self, streams: Sequence[SileroStream], windows: Sequence[bytes]) -> None:
        """Hears the next window of each stream; their `confidence` says how sure it is of a voice.

        Args:
            streams: All different, of the network's rate.
            windows: int16 little-endian mono PCM, of `WINDOW_SAMPLES` each.

        Raises:
            ServiceError: onnxruntime failed; the streams are as before.
        """
        pieces: list[bytes] = []
        states: list[bytes] = []
        for stream, window in zip(streams, windows, strict=True):
            if stream.forgets_now:
                stream.forget()
            pieces += (stream.context, window)
            states.append(stream.state)
        inputs = {
            "input": np.frombuffer(b"".join(pieces), "<i2").reshape(-1, self._row),
            "state": np.frombuffer(b"".join(states), np.float32).reshape(-1, 256),
        }
        try:
            confidences, next_states = self._session.run(None, inputs)
        except Exception as error:
            raise ServiceError(f"Silero VAD failed: {error}", provider="silero") from error
        raw = next_states.tobytes()
        start = 0
        for stream, window, confidence in zip(
            streams, windows, confidences[:, 0].tolist(), strict=True
        ):
            stream.state = raw[start : start + _STATE_BYTES]
            stream.context = window[-self._context_bytes :]
            stream.confidence = confidence
            stream.windows += 1
            start += _STATE_BYTES


@cache
def _load_network(rate: int) -> SileroNetwork:
    return SileroNetwork(rate)


def silero_network(rate: int) -> SileroNetwork:
    """The network of a rate, loaded once a process."""
    with _load_lock:
        return _load_network(rate)
