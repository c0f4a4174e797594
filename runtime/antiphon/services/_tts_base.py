"""The base of the text-to-speech services."""

from __future__ import annotations

import asyncio
import contextvars
import warnings
from abc import abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from loguru import logger

from antiphon.frames.frames import (
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InterimTranscriptionFrame,
    LLMFullResponseEndFrame,
    StartFrame,
    StartInterruptionFrame,
    TextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    TTSUpdateSettingsFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.processors.heard_text import begin_text
from antiphon.processors.relay import lasting, relayed
from antiphon.services.ai_service import AIService
from antiphon.transcriptions.language import Language
from antiphon.utils.text.base_text_aggregator import BaseTextAggregator
from antiphon.utils.text.base_text_filter import BaseTextFilter
from antiphon.utils.text.simple_text_aggregator import SimpleTextAggregator
from antiphon.utils.tracing.service_decorators import describe_tts, service_span, traces_itself

_CHUNK_SECS = 0.5
_SAMPLE_BYTES = 2
# So long after a new text only late audio comes: then it is taken for the new text's.
_RECEIVER_SECS = 3.0

# Which answer of which service the running code speaks. Tasks that run_tts() starts inherit it, so
# what they send after an interruption is known to be late.
_speaking: contextvars.ContextVar[tuple[TTSService, object] | None] = contextvars.ContextVar(
    "antiphon_speaking", default=None
)


class TTSService(AIService):
    """A service that speaks text.

    Text is collected into sentences, each is given to ``run_tts``, and what was spoken follows as a
    TTSTextFrame. The text frames themselves go no further. Subclasses write ``run_tts``.
    """

    # Whether one task sends the audio of all answers, so that its origin says nothing of its age.
    _one_receiver = False

    def __init__(
        self,
        *,
        aggregate_sentences: bool = True,
        push_text_frames: bool = True,
        push_stop_frames: bool = False,
        stop_frame_timeout_s: float = 2.0,
        push_silence_after_stop: bool = False,
        silence_time_s: float = 2.0,
        pause_frame_processing: bool = False,
        sample_rate: int | None = None,
        text_aggregator: BaseTextAggregator | None = None,
        text_filters: Sequence[BaseTextFilter] | None = None,
        text_filter: BaseTextFilter | None = None,
        transport_destination: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes a service.

        Args:
            aggregate_sentences: Speak whole sentences; else every piece of text as it comes.
            push_text_frames: Push a TTSTextFrame after each sentence, and the end of the language
                model's answer at once. Services that time words push both themselves.
            push_stop_frames: Push a TTSStoppedFrame when no audio came for a while.
            stop_frame_timeout_s: For how long, in seconds.
            push_silence_after_stop: Push silence before each TTSStoppedFrame.
            silence_time_s: How much, in seconds.
            pause_frame_processing: Hold later frames back while the bot speaks.
            sample_rate: Rate of the audio in Hz; the pipeline's output rate if left out.
            text_aggregator: Collects text into what is spoken at once.
            text_filters: Change the text before it is spoken, in this order.
            text_filter: A single filter. Deprecated: use ``text_filters``.
            transport_destination: Where the output transport is to play the audio.
            **kwargs: Passed on to ``AIService``.
        """
        super().__init__(**kwargs)
        self._aggregate_sentences = aggregate_sentences
        self._push_text_frames = push_text_frames
        self._push_stop_frames = push_stop_frames
        self._stop_frame_timeout_s = stop_frame_timeout_s
        self._push_silence_after_stop = push_silence_after_stop
        self._silence_time_s = silence_time_s
        self._pause_frame_processing = pause_frame_processing
        self._init_sample_rate = sample_rate
        self._sample_rate = 0
        self._voice_id = ""
        self._text_aggregator: BaseTextAggregator = text_aggregator or SimpleTextAggregator()
        self._text_filters: list[BaseTextFilter] = list(text_filters or ())
        self._transport_destination = transport_destination
        self._processing_text = False
        # Stands for the answer under way; another one after each interruption.
        self._answer_token = object()
        # Whether a text was given to run_tts() since the last interruption.
        self._asked_to_speak = True
        self._asked_at = 0.0
        self._heard_from_answer = False
        # Whether more audio may come: asked for, and not said to be over.
        self._answering = False
        self._passing: Frame | None = None
        # A text whose first audio has not been pushed.
        self._text_to_begin = ""
        self._stop_timer: asyncio.TimerHandle | None = None
        self._stop_task: asyncio.Task[Any] | None = None
        if text_filter is not None:
            warnings.warn(
                "text_filter is deprecated: use text_filters", DeprecationWarning, stacklevel=2
            )
            self._text_filters = [text_filter]

    @property
    def sample_rate(self) -> int:
        """Rate of the audio in Hz; 0 before the start."""
        return self._sample_rate

    @property
    def chunk_size(self) -> int:
        """How many bytes of audio to read at once: half a second."""
        return int(self.sample_rate * _CHUNK_SECS * _SAMPLE_BYTES)

    @lasting
    @relayed
    async def set_model(self, model: str) -> None:
        """Sets the model to speak with."""
        self.set_model_name(model)

    @relayed
    def set_voice(self, voice: str) -> None:
        """Sets the voice to speak with, from the next sentence on."""
        self._voice_id = voice

    @lasting
    @relayed
    async def set_language(self, language: Language) -> None:
        """Sets the language to speak, from the next sentence on."""
        await self._update_settings({"language": language})

    @abstractmethod
    def run_tts(self, text: str) -> AsyncGenerator[Frame | None, None]:
        """Speaks a text; an async generator.

        Args:
            text: A sentence or so.

        Yields:
            TTSStartedFrame, TTSAudioRawFrames, TTSStoppedFrame, or an ErrorFrame. A service whose
            audio comes another way yields None.
        """

    def language_to_service_language(self, language: Language) -> str | None:
        """Translates a language into the service's code; None if the service does not speak it."""
        return Language(language)

    @lasting
    @relayed
    async def update_setting(self, key: str, value: Any) -> None:
        """Changes one setting of the service."""

    @relayed
    async def flush_audio(self) -> None:
        """Makes a service that waits for more text speak what it has."""

    async def start(self, frame: StartFrame) -> None:
        """Settles the sample rate."""
        await super().start(frame)
        self._sample_rate = self._init_sample_rate or frame.audio_out_sample_rate

    async def stop(self, frame: EndFrame) -> None:
        """Forgets the stop frame that was due."""
        await super().stop(frame)
        self._end_late_span()
        await self._disarm_stop()

    async def cancel(self, frame: CancelFrame) -> None:
        """Forgets the stop frame that was due."""
        await super().cancel(frame)
        self._end_late_span()
        await self._disarm_stop()

    async def cleanup(self) -> None:
        """Forgets the stop frame that was due."""
        await self._disarm_stop()
        await super().cleanup()

    async def _update_settings(self, settings: Mapping[str, Any]) -> None:
        for key, value in settings.items():
            if key == "language" and key in self._settings:
                self._settings[key] = self.language_to_service_language(value)
            elif key == "model":
                await self.set_model(value)
            elif key in {"voice", "voice_id"}:
                self.set_voice(value)
            elif key == "text_filter":
                for text_filter in self._text_filters:
                    await text_filter.update_settings(value)
            elif key in self._settings:
                self._settings[key] = value
            else:
                logger.warning("unknown setting ignored", processor=self.name, setting=key)

    @relayed
    async def say(self, text: str) -> None:
        """Speaks a text at once, outside the language model's answer."""
        await self.queue_frame(TTSSpeakFrame(text))

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Speaks text frames; everything else passes."""
        if isinstance(frame, EndFrame):
            # Before stop(): it may close the connection that the last words need.
            await self._speak_rest()
            await self.flush_audio()
        await super().process_frame(frame, direction)

        if isinstance(frame, (InterimTranscriptionFrame, TranscriptionFrame)):
            await self.push_frame(frame, direction)
        elif isinstance(frame, TextFrame):
            await self._process_text_frame(frame)
        elif isinstance(frame, StartInterruptionFrame):
            await self._handle_interruption(frame, direction)
            await self.push_frame(frame, direction)
        elif isinstance(frame, LLMFullResponseEndFrame):
            await self._speak_rest()
            if self._push_text_frames:
                await self.push_frame(frame, direction)
            await self._maybe_pause_frame_processing()
        elif isinstance(frame, TTSSpeakFrame):
            # What the language model has begun to say is finished by its next words.
            await self._push_tts_frames(frame.text)
            await self.flush_audio()
            await self._maybe_pause_frame_processing()
        elif isinstance(frame, TTSUpdateSettingsFrame):
            await self._update_settings(frame.settings)
        elif isinstance(frame, BotStoppedSpeakingFrame):
            await self._maybe_resume_frame_processing()
            await self.push_frame(frame, direction)
        else:
            self._passing = frame
            await self.push_frame(frame, direction)

    async def push_frame(
        self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Pushes a frame, the audio with its destination, and keeps time for the stop frame.

        Audio and texts of an answer that was interrupted are dropped.
        """
        if isinstance(frame, TTSStoppedFrame):
            self._answering = False
        if isinstance(frame, TTSStoppedFrame) and self._push_silence_after_stop:
            await self.push_frame(self._silence(self._silence_time_s))
        if isinstance(frame, (TTSAudioRawFrame, TTSTextFrame)):
            if self._is_late(frame):
                self.statistics.frames_dropped += 1
                return
            if self._text_to_begin and isinstance(frame, TTSAudioRawFrame):
                begin_text(frame, self._text_to_begin)
                self._text_to_begin = ""
        if isinstance(frame, (TTSStartedFrame, TTSStoppedFrame, TTSAudioRawFrame, TTSTextFrame)):
            frame.transport_destination = self._transport_destination
        await super().push_frame(frame, direction)
        if not self._push_stop_frames:
            return
        if isinstance(frame, (TTSStartedFrame, TTSAudioRawFrame)):
            self._arm_stop(started=isinstance(frame, TTSStartedFrame))
        elif isinstance(frame, (TTSStoppedFrame, StartInterruptionFrame)):
            self._cancel_stop_timer()

    async def _handle_interruption(
        self, frame: StartInterruptionFrame, direction: FrameDirection
    ) -> None:
        self._processing_text = False
        self._answer_token = object()
        self._asked_to_speak = self._answering = self._heard_from_answer = False
        self._text_to_begin = ""
        self._end_late_span()
        await self._text_aggregator.handle_interruption()
        for text_filter in self._text_filters:
            await text_filter.handle_interruption()

    def _is_late(self, frame: Frame) -> bool:
        """Whether audio or text belongs to an answer that was interrupted."""
        if frame is self._passing:
            return False
        speaking = _speaking.get()
        if self._one_receiver or speaking is None or speaking[0] is not self:
            return not self._asked_to_speak
        if speaking[1] is self._answer_token:
            self._heard_from_answer |= isinstance(frame, TTSAudioRawFrame)
            return False
        if self._heard_from_answer or not self._asked_to_speak:
            return True
        # It may be a receiver that the first answer started and all others share: then nothing else
        # will ever come.
        if self.get_event_loop().time() < self._asked_at + _RECEIVER_SECS:
            return True
        logger.warning(
            "a task started by run_tts() sends the audio of later answers", processor=self.name
        )
        self._one_receiver = True
        return False

    async def _maybe_pause_frame_processing(self) -> None:
        if self._processing_text and self._pause_frame_processing:
            await self.pause_processing_frames()

    async def _maybe_resume_frame_processing(self) -> None:
        if self._pause_frame_processing:
            self._processing_text = False
            await self.resume_processing_frames()

    async def _process_text_frame(self, frame: TextFrame) -> None:
        text: str | None = frame.text
        if self._aggregate_sentences:
            text = await self._text_aggregator.aggregate(frame.text)
        if text:
            await self._push_tts_frames(text)

    async def _speak_rest(self) -> None:
        """Speaks the text that no sentence end came for."""
        rest = self._text_aggregator.text
        await self._text_aggregator.reset()
        await self._push_tts_frames(rest)

    async def _push_tts_frames(self, text: str) -> None:
        # White space inside shapes the speech; a text of nothing else upsets some vendors.
        if not text.strip():
            return
        text = text.lstrip("\n")
        self._processing_text = True
        await self.start_processing_metrics()
        for text_filter in self._text_filters:
            await text_filter.reset_interruption()
            text = await text_filter.filter(text)
        if text.strip():
            if not self._asked_to_speak:
                self._asked_at = self.get_event_loop().time()
            self._asked_to_speak = self._answering = True
            _speaking.set((self, self._answer_token))
            self._text_to_begin = text if self._push_text_frames else ""
            await self._run_traced(text)
            # If none came, it comes another way, and nobody knows which text it will be.
            self._text_to_begin = ""
        await self.stop_processing_metrics()
        if self._push_text_frames and text.strip():
            await self.push_frame(TTSTextFrame(text))

    async def _run_traced(self, text: str) -> None:
        self._end_late_span()
        if self.report_span is None or traces_itself(type(self), "tts"):
            await self.process_generator(self.run_tts(text))
            return
        with service_span(self, "tts") as span:
            if span is not None:
                describe_tts(self, span, text)
            await self.process_generator(self.run_tts(text))
            measuring = self.measured_ttfb is None and self._metrics.ttfb is not None
            if measuring and not self.report_only_initial_ttfb:
                # Its audio comes another way, and ends the span.
                self.late_span = span

    def _silence(self, secs: float) -> TTSAudioRawFrame:
        samples = int(secs * self.sample_rate)
        return TTSAudioRawFrame(bytes(samples * _SAMPLE_BYTES), self.sample_rate, 1)

    def _arm_stop(self, *, started: bool) -> None:
        """Begins an answer, or puts off the end of the one that is under way."""
        if not started and self._stop_timer is None:
            return
        self._cancel_stop_timer()
        loop = self.get_event_loop()
        self._stop_timer = loop.call_later(self._stop_frame_timeout_s, self._stop_is_due)

    def _stop_is_due(self) -> None:
        self._stop_timer = None
        self._stop_task = self.create_task(self.push_frame(TTSStoppedFrame()), "stop_frame")

    def _cancel_stop_timer(self) -> None:
        if self._stop_timer is not None:
            self._stop_timer.cancel()
            self._stop_timer = None

    async def _disarm_stop(self) -> None:
        self._cancel_stop_timer()
        if self._stop_task is not None:
            task, self._stop_task = self._stop_task, None
            if not task.done():
                await self.cancel_task(task)
