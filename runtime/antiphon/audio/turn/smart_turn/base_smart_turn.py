"""The part that all smart-turn analyzers share: which audio to judge, and the silence that overrules."""

import time
from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from loguru import logger
from pydantic import BaseModel, Field

from antiphon.audio.turn.base_turn_analyzer import BaseTurnAnalyzer, EndOfTurnState
from antiphon.frames.codec import register_type
from antiphon.metrics.metrics import MetricsData, SmartTurnMetricsData

STOP_SECS = 3.0
PRE_SPEECH_MS = 0.0
MAX_DURATION_SECONDS = 8.0

_BYTES_PER_SAMPLE = 2
_INT16_SCALE = np.float32(1.0 / 32768.0)


@register_type
class SmartTurnParams(BaseModel):
    """Which audio the model hears, and how long it may leave the user's silence alone.

    Attributes:
        stop_secs: Seconds of silence after an "incomplete" verdict that end the turn all the same.
        pre_speech_ms: Milliseconds of audio before the first speech that the model hears too.
        max_duration_secs: Longest audio the model hears, in seconds; of longer speech, the end.
    """

    stop_secs: float = Field(default=STOP_SECS, ge=0.0)
    pre_speech_ms: float = Field(default=PRE_SPEECH_MS, ge=0.0)
    max_duration_secs: float = Field(default=MAX_DURATION_SECONDS, gt=0.0)


class SmartTurnTimeoutException(Exception):
    """The model did not answer within ``stop_secs``; the turn then counts as complete."""


class BaseSmartTurn(BaseTurnAnalyzer):
    """Asks a model, at every pause, whether the user's turn is over.

    The model hears the speech since its last verdict, silence within it included. Time is counted in
    samples, never by the clock. A subclass supplies the model with :meth:`_predict_endpoint`.
    """

    def __init__(
        self, *, sample_rate: int | None = None, params: SmartTurnParams | None = None
    ) -> None:
        """Keeps the settings.

        Args:
            sample_rate: Rate in Hz to insist on, or None to take the one of the transport.
            params: The defaults of :class:`SmartTurnParams` if None.
        """
        super().__init__(sample_rate=sample_rate)
        self._params = params or SmartTurnParams()
        # Bounded: never more than pre_speech_ms without speech, max_duration_secs with it.
        self._audio = bytearray()
        # Speech in _audio; differs from _speech_triggered after an "incomplete" verdict.
        self._has_speech = False
        self._speech_triggered = False
        self._silent_samples = 0
        # Tells a verdict that comes back whether clear() was called meanwhile.
        self._cleared = 0

    @property
    def speech_triggered(self) -> bool:
        """Whether a turn is under way: speech was heard and its end was not."""
        return self._speech_triggered

    @property
    def params(self) -> SmartTurnParams:
        """The parameters in force."""
        return self._params

    def append_audio(self, buffer: bytes, is_speech: bool) -> EndOfTurnState:
        """Takes in the next piece of input.

        Args:
            buffer: int16 little-endian mono PCM at :attr:`sample_rate` Hz.
            is_speech: Whether voice activity holds this piece for speech.

        Returns:
            COMPLETE if the silence has now lasted ``stop_secs``, which ends the turn; else INCOMPLETE.

        Raises:
            RuntimeError: There is no sample rate, neither from the constructor nor set since.
        """
        if not self._sample_rate:
            if not self._init_sample_rate:
                raise RuntimeError(
                    f"{type(self).__name__}: set_sample_rate() must be called before audio arrives"
                )
            self.set_sample_rate(self._init_sample_rate)

        if is_speech:
            self._has_speech = True
            self._speech_triggered = True
            self._silent_samples = 0
        self._audio += buffer
        self._trim()

        if not is_speech and self._speech_triggered:
            self._silent_samples += len(buffer) // _BYTES_PER_SAMPLE
            if self._silent_samples >= self._samples(self._params.stop_secs):
                logger.debug("turn ended by silence", stop_secs=self._params.stop_secs)
                self.clear()
                return EndOfTurnState.COMPLETE
        return EndOfTurnState.INCOMPLETE

    async def analyze_end_of_turn(self) -> tuple[EndOfTurnState, MetricsData | None]:
        """Has the model judge the speech since its last verdict.

        Audio taken in while the model works belongs to what comes next. If cancelled, or if the model
        fails, the audio in question is gone and the turn is still under way, so the silence ends it.

        Returns:
            The verdict and its metrics: INCOMPLETE and None if there is no speech to judge, COMPLETE
            and None if the model took too long.
        """
        if not self._has_speech:
            return EndOfTurnState.INCOMPLETE, None
        samples = np.frombuffer(bytes(self._audio), "<i2")
        audio = np.multiply(samples, _INT16_SCALE, dtype=np.float32)
        self._audio.clear()
        self._has_speech = False
        self._silent_samples = 0
        cleared = self._cleared

        metrics: MetricsData | None = None
        started = time.perf_counter()
        try:
            result = await self._predict_endpoint(audio)
        except SmartTurnTimeoutException:
            logger.debug("end of turn assumed, the model took too long")
            state = EndOfTurnState.COMPLETE
        else:
            complete = result["prediction"] == 1
            state = EndOfTurnState.COMPLETE if complete else EndOfTurnState.INCOMPLETE
            times = result.get("metrics") or {}
            metrics = SmartTurnMetricsData(
                processor="BaseSmartTurn",
                is_complete=complete,
                probability=result["probability"],
                inference_time_ms=times.get("inference_time", 0.0) * 1000,
                server_total_time_ms=times.get("total_time", 0.0) * 1000,
                e2e_processing_time_ms=(time.perf_counter() - started) * 1000,
            )
        if state is EndOfTurnState.COMPLETE and cleared == self._cleared:
            # Speech that came in meanwhile has opened the next turn already.
            self._speech_triggered = self._has_speech
        return state, metrics

    def clear(self) -> None:
        """Forgets the audio and the turn under way."""
        self._audio.clear()
        self._has_speech = False
        self._speech_triggered = False
        self._silent_samples = 0
        self._cleared += 1

    @abstractmethod
    async def _predict_endpoint(self, audio_array: npt.NDArray[np.float32]) -> dict[str, Any]:
        """Has the model judge a piece of speech.

        Args:
            audio_array: float32 samples, -1 to 1, mono, at :attr:`sample_rate` Hz.

        Returns:
            ``prediction`` (1: complete, 0: not), ``probability`` (of completeness, 0 to 1) and
            optionally ``metrics`` with ``inference_time`` and ``total_time`` in seconds.

        Raises:
            SmartTurnTimeoutException: No answer within ``stop_secs``.
        """

    def _samples(self, seconds: float) -> int:
        return round(seconds * self._sample_rate)

    def _trim(self) -> None:
        limit = self._params.max_duration_secs
        if not self._has_speech:
            limit = min(limit, self._params.pre_speech_ms / 1000)
        excess = len(self._audio) - self._samples(limit) * _BYTES_PER_SAMPLE
        if excess > 0:
            del self._audio[:excess]
