"""Base classes of the speech-to-text services."""

from __future__ import annotations

import asyncio
import io
import wave
from abc import abstractmethod
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from loguru import logger

from antiphon.frames.frames import (
    AudioRawFrame,
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    StartFrame,
    STTMuteFrame,
    STTUpdateSettingsFrame,
    SystemFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.processors.relay import lasting, relayed
from antiphon.services.ai_service import AIService
from antiphon.transcriptions.language import Language
from antiphon.utils.tracing.service_decorators import describe_stt, service_span, traces_itself

_SAMPLE_BYTES = 2
# A user who is said to speak for longer than this is noise or a lost stop frame.
_MAX_SEGMENT_SECS = 300
# Segments that wait for a recogniser slower than speech.
_MAX_WAITING_SEGMENTS = 16


class STTService(AIService):
    """A service that turns the audio of a user into text.

    Subclasses write ``run_stt``. The audio goes on downstream as well, unless
    ``audio_passthrough`` is off.
    """

    def __init__(
        self,
        audio_passthrough: bool = True,
        sample_rate: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes a service.

        Args:
            audio_passthrough: Whether audio frames are also pushed on.
            sample_rate: Rate in Hz of the audio it gets; the pipeline's input rate if left out.
            **kwargs: Passed on to ``AIService``.
        """
        super().__init__(**kwargs)
        self._audio_passthrough = audio_passthrough
        self._init_sample_rate = sample_rate
        self._sample_rate = 0
        self._muted = False
        self._user_id = ""
        # For tracing: since when it works on what was said, on the pipeline's clock; None: unknown.
        self._recognising_since_ns: int | None = None
        self._vad_seen = False

    @property
    def is_muted(self) -> bool:
        """Whether audio is ignored at present."""
        return self._muted

    @property
    def sample_rate(self) -> int:
        """Rate in Hz of the audio it gets; 0 before the start."""
        return self._sample_rate

    @property
    def vad_enabled(self) -> bool:
        """Whether a voice activity detector tells it when the user speaks."""
        return self._vad_seen

    @lasting
    @relayed
    async def set_model(self, model: str) -> None:
        """Sets the model to recognise with."""
        self.set_model_name(model)

    @lasting
    @relayed
    async def set_language(self, language: Language) -> None:
        """Sets the language to recognise; services that cannot change it ignore this."""

    @abstractmethod
    def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Recognises a piece of audio; an async generator.

        Args:
            audio: int16 little-endian PCM, mono, ``sample_rate`` Hz. For a segmented service: a
                whole WAV file.

        Yields:
            Transcription frames, or an ErrorFrame; None is skipped.
        """

    async def start(self, frame: StartFrame) -> None:
        """Settles the sample rate."""
        await super().start(frame)
        self._sample_rate = self._init_sample_rate or frame.audio_in_sample_rate

    async def _update_settings(self, settings: Mapping[str, Any]) -> None:
        for key, value in settings.items():
            if key == "language":
                await self.set_language(value)
                # Services that keep the language elsewhere do so in set_language().
                if key in self._settings:
                    self._settings[key] = value
            elif key == "model":
                await self.set_model(value)
            else:
                await super()._update_settings({key: value})

    async def process_audio_frame(self, frame: AudioRawFrame, direction: FrameDirection) -> None:
        """Recognises one audio frame, unless muted."""
        if self._muted:
            return
        self._user_id = getattr(frame, "user_id", "")
        if not frame.audio:
            logger.warning("empty audio frame ignored", processor=self.name)
            return
        await self.process_generator(self.run_stt(frame.audio))

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Takes audio, muting and settings; everything else passes."""
        await super().process_frame(frame, direction)
        if isinstance(frame, (UserStartedSpeakingFrame, UserStoppedSpeakingFrame)):
            self._vad_seen = self._vad_seen or not frame.emulated
            stopped = isinstance(frame, UserStoppedSpeakingFrame)
            self._recognising_since_ns = self.get_clock().get_time() if stopped else None
        if isinstance(frame, AudioRawFrame):
            if self._audio_passthrough:
                await self.push_frame(frame, direction)
            await self.process_audio_frame(frame, direction)
        elif isinstance(frame, STTUpdateSettingsFrame):
            await self._update_settings(frame.settings)
        elif isinstance(frame, STTMuteFrame):
            self._muted = frame.mute
            logger.debug(
                "speech recognition muted or unmuted", processor=self.name, mute=frame.mute
            )
        else:
            await self.push_frame(frame, direction)

    async def push_frame(
        self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Pushes a frame, and notes a transcript in the trace."""
        if self.report_span is not None and isinstance(frame, TranscriptionFrame):
            self._trace(frame)
        await super().push_frame(frame, direction)

    def _trace(self, frame: TranscriptionFrame) -> None:
        if traces_itself(type(self), "stt"):
            return
        ttfb = self.measured_ttfb  # was measured before the span begins
        with service_span(self, "stt") as span:
            if span is not None:
                if self._recognising_since_ns is not None:
                    span.start_ns = self._recognising_since_ns
                self.measured_ttfb = ttfb
                describe_stt(self, span, frame.text, True, frame.language, frame.user_id)
        self._recognising_since_ns = None


class SegmentedSTTService(STTService):
    """A service that recognises what was said from one pause to the next as a whole.

    Needs voice activity detection in the pipeline. The second before the user began to speak is
    kept and recognised too, because detection comes late. ``run_stt`` gets a WAV file a segment.

    Recognition runs beside the frames: system frames (audio, interruptions) pass meanwhile, other
    frames wait until the segments before them are transcribed, so the order of what reaches the
    rest of the pipeline is the order in which it was said.
    """

    def __init__(self, *, sample_rate: int | None = None, **kwargs: Any) -> None:
        """Makes a service.

        Args:
            sample_rate: Rate in Hz of the audio it gets; the pipeline's input rate if left out.
            **kwargs: Passed on to ``STTService``.
        """
        super().__init__(sample_rate=sample_rate, **kwargs)
        self._audio_buffer = bytearray()
        self._user_speaking = False
        self._segments: asyncio.Queue[bytes] = asyncio.Queue(_MAX_WAITING_SEGMENTS)
        self._segment_task: asyncio.Task[Any] | None = None

    async def start(self, frame: StartFrame) -> None:
        """Begins to wait for segments."""
        await super().start(frame)
        if self._segment_task is None:
            self._segment_task = self.create_task(self._transcribe_segments(), "segments")

    async def stop(self, frame: EndFrame) -> None:
        """Ends after the segments that still wait."""
        await self._segments.join()
        await self._end_segments()
        await super().stop(frame)

    async def cancel(self, frame: CancelFrame) -> None:
        """Ends at once."""
        await self._end_segments()
        await super().cancel(frame)

    async def cleanup(self) -> None:
        """Ends at once, if it was neither stopped nor cancelled."""
        await self._end_segments()
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Begins and ends segments with the user's turns."""
        if direction is FrameDirection.DOWNSTREAM and not isinstance(frame, SystemFrame):
            # Ends with run_stt(), whose requests have deadlines of their own.
            await self._segments.join()
        await super().process_frame(frame, direction)
        if isinstance(frame, UserStartedSpeakingFrame) and not frame.emulated:
            self._user_speaking = True
        elif isinstance(frame, UserStoppedSpeakingFrame) and not frame.emulated:
            await self._end_of_segment()

    async def process_audio_frame(self, frame: AudioRawFrame, direction: FrameDirection) -> None:
        """Keeps the audio: all of it while the user speaks, else the last second."""
        if self._muted:
            self._audio_buffer.clear()
            return
        self._user_id = getattr(frame, "user_id", "")
        self._audio_buffer += frame.audio
        limit_secs = _MAX_SEGMENT_SECS if self._user_speaking else 1
        excess = len(self._audio_buffer) - limit_secs * self.sample_rate * _SAMPLE_BYTES
        if excess > 0:
            del self._audio_buffer[:excess]

    async def _end_of_segment(self) -> None:
        self._user_speaking = False
        audio, self._audio_buffer = bytes(self._audio_buffer), bytearray()
        if self._muted or not audio:
            return
        try:
            self._segments.put_nowait(_wav(audio, self.sample_rate))
        except asyncio.QueueFull:
            logger.error("segment dropped: recognition is too slow", processor=self.name)
            await self.push_error(ErrorFrame("speech recognition is too slow: a segment was lost"))

    async def _transcribe_segments(self) -> None:
        while True:
            wav = await self._segments.get()
            self._recognising_since_ns = self.get_clock().get_time()
            try:
                await self.process_generator(self.run_stt(wav))
            except Exception as error:  # noqa: BLE001 - one bad segment must not end recognition
                logger.opt(exception=error).error("recognition failed", processor=self.name)
                await self.push_error(ErrorFrame(str(error)))
            finally:
                self._segments.task_done()

    async def _end_segments(self) -> None:
        if self._segment_task is not None:
            task, self._segment_task = self._segment_task, None
            await self.cancel_task(task)
        while not self._segments.empty():
            self._segments.get_nowait()
            self._segments.task_done()
        self._audio_buffer.clear()
        self._user_speaking = False


def _wav(audio: bytes, sample_rate: int) -> bytes:
    """Wraps mono int16 PCM in a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setsampwidth(_SAMPLE_BYTES)
        wav.setnchannels(1)
        wav.setframerate(sample_rate)
        wav.writeframes(audio)
    return file.getvalue()
