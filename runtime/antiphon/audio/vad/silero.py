"""Voice activity with the Silero model, through onnxruntime.

The model (``data/silero_vad.onnx``, MIT, licence beside it) takes windows of 512 samples at 16 kHz or
256 at 8 kHz, each preceded by the last 64 or 32 samples of the window before, and carries a recurrent
state of shape (2, 1, 128) from window to window.
"""

import os
import threading
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon.audio.vad.vad_analyzer import VADAnalyzer, VADParams

# sample rate in Hz: (samples in a window, samples of context before it)
_WINDOWS = {8000: (256, 32), 16000: (512, 64)}
_STATE_SHAPE = (2, 1, 128)
_RESET_AFTER_SECS = 5.0
# Confidence below which a window certainly ends no word.
_NO_VOICE = 0.35
_INT16_SCALE = np.float32(1.0 / 32768.0)

_load_lock = threading.Lock()


@cache
def _load_session() -> Any:
    # From 1.29 on the official builds report sessions to their maker, over the network and through a
    # database in the home directory, unless told not to before the import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # A window costs about 0.1 ms: more threads than one only cost wake-ups.
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = 1
    model = resources.files("antiphon.audio.vad").joinpath("data", "silero_vad.onnx").read_bytes()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _shared_session() -> Any:
    """The one session of this process; it holds no state, and its run() may be called by threads."""
    with _load_lock:
        return _load_session()


class SileroVADAnalyzer(VADAnalyzer):
    """Hears speech with the Silero VAD model, on the CPU.

    The weights are loaded once a process, when the first analyzer is given its sample rate; an
    analyzer itself holds a few kilobytes of state.
    """

    def __init__(self, *, sample_rate: int | None = None, params: VADParams | None = None) -> None:
        """Keeps the settings; the model is loaded when the sample rate is set.

        Args:
            sample_rate: 8000 or 16000, or None to take the rate of the transport.
            params: Thresholds and durations; the defaults of :class:`VADParams` if None.
        """
        super().__init__(sample_rate=sample_rate, params=params)
        self._session: Any = None
        self._rate_input: npt.NDArray[np.int64] = np.array(0, np.int64)
        self._model_state: npt.NDArray[np.float32] = np.zeros(_STATE_SHAPE, np.float32)
        self._input: npt.NDArray[np.float32] = np.zeros((1, 0), np.float32)
        self._context = 0
        self._windows_since_reset = 0
        self._confidence = 0.0

    def set_sample_rate(self, sample_rate: int) -> None:
        """Sets the sample rate, loads the model if this process has not yet, and starts over.

        Args:
            sample_rate: 8000 or 16000; a rate given to the constructor goes before it.

        Raises:
            ValueError: The rate is neither.
        """
        rate = self._init_sample_rate or sample_rate
        if rate not in _WINDOWS:
            raise ValueError(f"Silero VAD needs a sample rate of 8000 or 16000 Hz, not {rate}")
        samples, self._context = _WINDOWS[rate]
        self._input = np.zeros((1, self._context + samples), np.float32)
        self._rate_input = np.array(rate, np.int64)
        self._session = _shared_session()
        super().set_sample_rate(rate)
        self._reset_model()

    def num_frames_required(self) -> int:
        """512 samples at 16 kHz, 256 at 8 kHz: 32 ms."""
        return _WINDOWS[self._sample_rate][0] if self._sample_rate else _WINDOWS[16000][0]

    def voice_confidence(self, buffer: bytes) -> float:
        """Runs the model over one window.

        Args:
            buffer: One window of int16 little-endian mono PCM.

        Returns:
            Probability of speech, 0 to 1.

        Raises:
            RuntimeError: No sample rate was set.
            ValueError: The buffer is not exactly one window.
        """
        if self._session is None:
            raise RuntimeError("SileroVADAnalyzer: set_sample_rate() must be called before audio")
        if len(buffer) != 2 * self.num_frames_required():
            raise ValueError(
                f"Silero VAD takes windows of {self.num_frames_required()} samples at "
                f"{self._sample_rate} Hz, not {len(buffer) / 2:g}"
            )
        if self._reset_is_due():
            self._reset_model()
        self._windows_since_reset += 1

        audio = self._input[0]
        audio[: self._context] = audio[-self._context :]
        np.multiply(np.frombuffer(buffer, "<i2"), _INT16_SCALE, out=audio[self._context :])
        confidence, self._model_state = self._session.run(
            None, {"input": self._input, "state": self._model_state, "sr": self._rate_input}
        )
        self._confidence = float(confidence[0, 0])
        return self._confidence

    def _reset_is_due(self) -> bool:
        # Counted in audio, not by the clock, so that the same audio gives the same confidences. The
        # first window after a reset is heard without its past, and a voice in it may go unheard: a
        # reset waits for a pause, but no longer than once again its period.
        period = round(_RESET_AFTER_SECS * self._sample_rate / self.num_frames_required())
        if self._windows_since_reset < period:
            return False
        return self._confidence < _NO_VOICE or self._windows_since_reset >= 2 * period

    def _reset_model(self) -> None:
        self._windows_since_reset = 0
        self._confidence = 0.0
        self._model_state = np.zeros(_STATE_SHAPE, np.float32)
        self._input.fill(0.0)
