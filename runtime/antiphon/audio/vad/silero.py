"""Voice activity with the Silero model, through onnxruntime."""

from __future__ import annotations

import asyncio
from collections import deque

from loguru import logger

from antiphon.audio.vad._silero_model import SileroModel
from antiphon.audio.vad._silero_network import (
    WINDOW_SAMPLES,
    SileroNetwork,
    SileroStream,
    silero_network,
)
from antiphon.audio.vad.vad_analyzer import VADAnalyzer, VADParams, VADState
from antiphon.errors import AntiphonError, OverloadedError
from antiphon.models.client import ModelClient, ModelSession
from antiphon.models.model import ModelSpec
from antiphon.models.provider import connect_model, runs_in_process

SHARED_MODEL = ModelSpec(SileroModel)
"""The model that `SileroVADAnalyzer.connect_model` connects to, where it is shared."""

CONNECT_SECS = 5.0
"""How long the shared model may take to be there; else windows are heard in this process."""

ANSWER_SECS = 0.25
"""How long the shared model may take for a window; else it is heard in this process, as all that follow."""

# Windows kept for that: what the network has to hear again to be as sure as it was.
_KEPT_WINDOWS = 16


class SileroVADAnalyzer(VADAnalyzer):
    """Hears speech with the Silero VAD model, on the CPU.

    The weights are loaded once a process, when the first analyzer is given its sample rate; an
    analyzer itself holds a few kilobytes of state.

    Where the operator has the model run in an actor (`connect_model`), windows are heard there, together with
    those of other sessions. If that fails, the analyzer goes on in its own process.
    """

    def __init__(self, *, sample_rate: int | None = None, params: VADParams | None = None) -> None:
        """Keeps the settings; the model is loaded when the sample rate is set.

        Args:
            sample_rate: 8000 or 16000, or None to take the rate of the transport.
            params: Thresholds and durations; the defaults of :class:`VADParams` if None.
        """
        super().__init__(sample_rate=sample_rate, params=params)
        self._network: SileroNetwork | None = None
        self._stream = SileroStream(16000)
        self._client: ModelClient | None = None
        self._session: ModelSession | None = None
        # The last windows that the shared model has heard.
        self._heard: deque[bytes] = deque(maxlen=_KEPT_WINDOWS)

    def set_sample_rate(self, sample_rate: int) -> None:
        """Sets the sample rate, loads the model if this process has not yet, and starts over.

        Args:
            sample_rate: 8000 or 16000; a rate given to the constructor goes before it.

        Raises:
            ValueError: The rate is neither.
        """
        rate = self._init_sample_rate or sample_rate
        if rate not in WINDOW_SAMPLES:
            raise ValueError(f"Silero VAD needs a sample rate of 8000 or 16000 Hz, not {rate}")
        self._stream = SileroStream(rate)
        self._network = silero_network(rate) if runs_in_process(SHARED_MODEL) else None
        super().set_sample_rate(rate)

    def num_frames_required(self) -> int:
        """512 samples at 16 kHz, 256 at 8 kHz: 32 ms."""
        return WINDOW_SAMPLES[self._sample_rate or 16000]

    def voice_confidence(self, buffer: bytes) -> float:
        """Runs the model over one window, in this process.

        Args:
            buffer: One window of int16 little-endian mono PCM.

        Returns:
            Probability of speech, 0 to 1.

        Raises:
            RuntimeError: No sample rate was set.
            ValueError: The buffer is not exactly one window.
            ServiceError: onnxruntime failed.
        """
        if not self._sample_rate:
            raise RuntimeError("SileroVADAnalyzer: set_sample_rate() must be called before audio")
        if len(buffer) != 2 * self.num_frames_required():
            raise ValueError(
                f"Silero VAD takes windows of {self.num_frames_required()} samples at "
                f"{self._sample_rate} Hz, not {len(buffer) / 2:g}"
            )
        if self._network is None:
            self._network = silero_network(self._sample_rate)
        self._network.hear([self._stream], [buffer])
        return self._stream.confidence

    async def connect_model(self) -> None:
        """Connects to the shared model, if the operator has it run in another process."""
        await self.disconnect_model()
        if runs_in_process(SHARED_MODEL):
            return
        try:
            async with asyncio.timeout(CONNECT_SECS):
                self._client = await connect_model(SHARED_MODEL)
        except (AntiphonError, TimeoutError) as error:
            logger.warning(
                "voice activity is heard in this process: the shared model cannot be had",
                reason=str(error) or f"not there within {CONNECT_SECS:g} s",
            )
            return
        self._session = self._client.open_session(self._stream.to_bytes())

    async def disconnect_model(self) -> None:
        """Ends the session with the shared model; windows that follow are heard in this process."""
        client, self._client, self._session = self._client, None, None
        self._heard.clear()
        if client is not None:
            await client.aclose()

    async def analyze_audio_async(self, buffer: bytes) -> VADState:
        """Takes in the next piece of the stream; see :meth:`VADAnalyzer.analyze_audio_async`."""
        if self._session is None:
            return self.analyze_audio(buffer)
        self._take(buffer)
        while (window := self._next_window()) is not None:
            confidence = await self._shared_confidence(window)
            self._hear(window, confidence)
        return self._state

    async def _shared_confidence(self, window: bytes) -> float:
        session = self._session
        if session is None:  # given up, in the middle of a piece
            return self.voice_confidence(window)
        try:
            confidence = await ask(session, window)
        except AntiphonError as error:
            if session is not self._session:  # disconnected meanwhile
                return self.voice_confidence(window)
            logger.warning("voice activity is heard in this process from now on", reason=str(error))
            return await self._go_on_here(window)
        self._heard.append(window)
        return confidence

    async def _go_on_here(self, window: bytes) -> float:
        """Hears again what the network has to remember, and then the window."""
        heard = list(self._heard)
        await self.disconnect_model()
        self._network = await asyncio.to_thread(silero_network, self._sample_rate)
        self._stream = SileroStream(self._sample_rate)
        for each in heard:
            self.voice_confidence(each)
        return self.voice_confidence(window)


async def ask(session: ModelSession, window: bytes) -> float:
    """Has a window heard within `ANSWER_SECS`; a model that is busy for a moment is asked again.

    Raises:
        AntiphonError: It was not.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + ANSWER_SECS
    while True:
        try:
            confidence: float = await session.request(window, deadline_secs=until - loop.time())
        except OverloadedError as error:
            pause = error.retry_after or 0.0
            if loop.time() + pause >= until:
                raise
            await asyncio.sleep(pause)
        else:
            return confidence
