"""Voice activity: from windows of audio to "starts to speak" and "has stopped"."""

from abc import ABC, abstractmethod
from enum import Enum

from loguru import logger
from pydantic import BaseModel, Field

from antiphon.audio.utils import calculate_audio_volume, exp_smoothing
from antiphon.frames.codec import register_type
from antiphon.utils.checks import check_instance

VAD_CONFIDENCE = 0.7
VAD_START_SECS = 0.2
VAD_STOP_SECS = 0.8
VAD_MIN_VOLUME = 0.6

_BYTES_PER_SAMPLE = 2
_VOLUME_SMOOTHING = 0.2


class VADState(Enum):
    """Where the speaker is.

    Attributes:
        QUIET: Not speaking.
        STARTING: Voice heard, for less than ``start_secs`` so far.
        SPEAKING: Speaking.
        STOPPING: No voice, for less than ``stop_secs`` so far.
    """

    QUIET = 1
    STARTING = 2
    SPEAKING = 3
    STOPPING = 4


@register_type
class VADParams(BaseModel):
    """How eagerly speech is taken to start and to stop.

    Attributes:
        confidence: Least confidence of the model, 0 to 1, for a window to count as voice.
        start_secs: Seconds of uninterrupted voice after which the user is speaking.
        stop_secs: Seconds of uninterrupted silence after which the user has stopped.
        min_volume: Least smoothed volume, 0 to 1, for a window to count as voice.
    """

    confidence: float = Field(default=VAD_CONFIDENCE, ge=0.0, le=1.0)
    start_secs: float = Field(default=VAD_START_SECS, ge=0.0)
    stop_secs: float = Field(default=VAD_STOP_SECS, ge=0.0)
    min_volume: float = Field(default=VAD_MIN_VOLUME, ge=0.0, le=1.0)


class VADAnalyzer(ABC):
    """Turns a stream of audio into a :class:`VADState`, window by window.

    A subclass says how many samples its model wants at a time and how sure it is that a window holds
    a voice; this class cuts the stream, measures the volume and keeps the state. An analyzer belongs
    to one stream and must be called from one thread at a time.
    """

    def __init__(self, *, sample_rate: int | None = None, params: VADParams | None = None) -> None:
        """Keeps the settings; nothing is loaded before the sample rate is set.

        Args:
            sample_rate: Rate in Hz to insist on, or None to take the one of the transport.
            params: Thresholds and durations; the defaults of :class:`VADParams` if None.
        """
        self._init_sample_rate = sample_rate
        self._sample_rate = 0
        if params is not None:
            check_instance(f"{type(self).__name__}(params)", params, VADParams)
        self._params = params or VADParams()
        self._num_channels = 1

        self._buffer = bytearray()
        self._window_bytes = 0
        self._start_windows = 0
        self._stop_windows = 0

        self._state = VADState.QUIET
        # Consecutive windows heard in STARTING or in STOPPING.
        self._run_windows = 0
        self._volume = 0.0

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz, 0 until :meth:`set_sample_rate` was called."""
        return self._sample_rate

    @property
    def num_channels(self) -> int:
        """Number of channels expected, 1."""
        return self._num_channels

    @property
    def params(self) -> VADParams:
        """The thresholds and durations in force."""
        return self._params

    @abstractmethod
    def num_frames_required(self) -> int:
        """Number of samples in a window of the model, at the current sample rate."""

    @abstractmethod
    def voice_confidence(self, buffer: bytes) -> float:
        """How sure the model is that a window holds a voice.

        Args:
            buffer: One window, :meth:`num_frames_required` samples of int16 little-endian mono PCM.

        Returns:
            A probability, 0 to 1.
        """

    def set_sample_rate(self, sample_rate: int) -> None:
        """Sets the sample rate and starts over in QUIET.

        Args:
            sample_rate: Rate of the stream in Hz; a rate given to the constructor goes before it.
        """
        self._sample_rate = self._init_sample_rate or sample_rate
        self._buffer.clear()
        self.set_params(self._params)

    def set_params(self, params: VADParams) -> None:
        """Replaces the thresholds and durations, and goes back to QUIET.

        Args:
            params: The new settings.
        """
        self._params = params
        self._state = VADState.QUIET
        self._run_windows = 0
        if not self._sample_rate:
            return
        samples = self.num_frames_required()
        window_secs = samples / self._sample_rate
        self._window_bytes = samples * self._num_channels * _BYTES_PER_SAMPLE
        self._start_windows = round(params.start_secs / window_secs)
        self._stop_windows = round(params.stop_secs / window_secs)
        logger.debug(
            "voice activity parameters set",
            analyzer=type(self).__name__,
            sample_rate=self._sample_rate,
            **params.model_dump(),
        )

    def analyze_audio(self, buffer: bytes) -> VADState:
        """Takes in the next piece of the stream.

        Pieces may have any length; what does not fill a window waits for the next call. A piece that
        holds several windows is analyzed window by window, and the last state is returned, so pieces
        should be shorter than ``start_secs`` and ``stop_secs`` for no change to go unseen.

        Args:
            buffer: int16 little-endian mono PCM at :attr:`sample_rate` Hz.

        Returns:
            The state after this piece.

        Raises:
            RuntimeError: There is no sample rate, neither from the constructor nor set since.
        """
        self._take(buffer)
        while (window := self._next_window()) is not None:
            self._hear(window, self.voice_confidence(window))
        return self._state

    async def connect_model(self) -> None:  # noqa: B027 - most have nothing to connect to
        """Connects to the model, if that runs in another process. A transport calls it at its start."""

    async def disconnect_model(self) -> None:  # noqa: B027 - as above
        """Takes back :meth:`connect_model`. A transport calls it at its end. Idempotent."""

    async def analyze_audio_async(self, buffer: bytes) -> VADState:
        """Takes in the next piece of the stream, as :meth:`analyze_audio`.

        To be awaited before the next piece; while it waits for a model in another process, parameters may
        be changed. If cancelled, windows of the piece may not have been heard.
        """
        return self.analyze_audio(buffer)

    def _take(self, buffer: bytes) -> None:
        """Adds a piece to the stream.

        Raises:
            RuntimeError: There is no sample rate.
        """
        if not self._window_bytes:
            if not self._init_sample_rate:
                raise RuntimeError(
                    f"{type(self).__name__}: set_sample_rate() must be called before audio arrives"
                )
            self.set_sample_rate(self._init_sample_rate)

        self._buffer += buffer

    def _next_window(self) -> bytes | None:
        """Takes the next window off the stream; None if it is not complete."""
        size = self._window_bytes
        if len(self._buffer) < size:
            return None
        window = bytes(self._buffer[:size])
        del self._buffer[:size]
        return window

    def _hear(self, window: bytes, confidence: float) -> None:
        """Follows the state by one window.

        Args:
            window: As for :meth:`voice_confidence`.
            confidence: What that gave.
        """
        # The volume is followed in silence too: a quiet room before the first word is why a word has
        # to be loud, or to last, to count.
        volume = calculate_audio_volume(window, self._sample_rate)
        self._volume = exp_smoothing(volume, self._volume, _VOLUME_SMOOTHING)
        voice = confidence >= self._params.confidence and self._volume >= self._params.min_volume
        if voice:
            self._hear_voice()
        else:
            self._hear_silence()

    def _hear_voice(self) -> None:
        if self._state is VADState.QUIET:
            self._state = VADState.STARTING
            self._run_windows = 0
        elif self._state is VADState.STOPPING:
            self._state = VADState.SPEAKING
        if self._state is VADState.STARTING:
            self._run_windows += 1
            if self._run_windows >= self._start_windows:
                self._state = VADState.SPEAKING

    def _hear_silence(self) -> None:
        if self._state is VADState.STARTING:
            self._state = VADState.QUIET
        elif self._state is VADState.SPEAKING:
            self._state = VADState.STOPPING
            self._run_windows = 0
        if self._state is VADState.STOPPING:
            self._run_windows += 1
            if self._run_windows >= self._stop_windows:
                self._state = VADState.QUIET
