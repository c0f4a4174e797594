"""Records each turn: what traces, reports and latency figures are made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FunctionCallsStartedFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    MetricsFrame,
    SpeechControlParamsFrame,
    StartFrame,
    StartInterruptionFrame,
    StopFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from antiphon.metrics.metrics import LLMUsageMetricsData, TTSUsageMetricsData
from antiphon.observers.base_observer import FramePushed
from antiphon.observers.turn_record import TurnRecord
from antiphon.observers.turn_tracking_observer import TurnTrackingObserver
from antiphon.processors.frame_processor import FrameProcessor
from antiphon.processors.heard_text import corrected, heard_text

RECORDS_KEPT = 1_000
"""Turns of one session that are kept; the oldest go."""

_ERRORS_KEPT = 100
_SEEN_IDS = 512


@dataclass(frozen=True)
class SessionError:
    """An error in a session.

    Attributes:
        secs: When, on the pipeline's clock.
        processor: Where; empty if that is unknown.
        error: What.
        fatal: Whether it ended the session.
    """

    secs: float
    processor: str
    error: str
    fatal: bool


class TurnRecordObserver(TurnTrackingObserver):
    """Tracks turns, and records what happens in each.

    It keeps what people say, in memory, as the conversation itself does.

    Events:
        on_turn_recorded(observer, record): A turn is over and the bot has stopped; the
            ``TurnRecord`` does not change any more.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Makes an observer that waits for the pipeline to start.

        Args:
            **kwargs: For ``TurnTrackingObserver``.
        """
        super().__init__(**kwargs)
        self.records: deque[TurnRecord] = deque(maxlen=RECORDS_KEPT)
        self.errors: deque[SessionError] = deque(maxlen=_ERRORS_KEPT)
        self._vad_stop_secs = 0.0
        self._last_secs = 0.0
        self._ending = False
        # The turn in which the bot began what it says now.
        self._answered: TurnRecord | None = None
        self._ids: deque[int] = deque(maxlen=_SEEN_IDS)
        self._register_event_handler("on_turn_recorded")

    @property
    def last_secs(self) -> float:
        """When the last thing happened, in seconds on the pipeline's clock."""
        return self._last_secs

    def record(self, turn_number: int) -> TurnRecord | None:
        """The record of a turn; None if it has not begun or is no longer kept."""
        return next((made for made in self.records if made.number == turn_number), None)

    async def on_push_frame(self, data: FramePushed) -> None:
        """Takes note of what makes up a turn."""
        note: Note | None = _NOTES.get(type(data.frame), _unknown)
        if note is _unknown:
            note = _note_for(type(data.frame))
        if note is None:
            return
        self._ending = self._ending or isinstance(data.frame, EndFrame)
        self._last_secs = max(self._last_secs, data.timestamp / 1e9)
        await super().on_push_frame(data)
        note(self, data.frame, data.timestamp / 1e9, data.source)
        if isinstance(data.frame, BotStoppedSpeakingFrame):
            await self._finish(self._answered)

    async def cleanup(self) -> None:
        """Closes the record of a turn in which the bot still spoke."""
        await self._finish(self._answered)
        await super().cleanup()

    # -- turns ---------------------------------------------------------------------------------

    async def _start_turn(self, now_ns: int) -> None:
        await super()._start_turn(now_ns)
        if self._open is None or self._open.number != self._turn_count:  # else it is resumed
            self.records.append(TurnRecord(self._turn_count, now_ns / 1e9))

    async def _end_turn(self, now_ns: int, *, was_interrupted: bool) -> None:
        record = self.records[-1] if self._is_turn_active and self.records else None
        await super()._end_turn(now_ns, was_interrupted=was_interrupted)
        if record is None:
            return
        record.ended_secs = now_ns / 1e9
        # For turn tracking every end of a session interrupts, whether or not the bot speaks; what
        # an EndFrame follows is played to its end.
        record.was_interrupted = was_interrupted and record is self._answered and not self._ending
        if record is not self._answered:
            await self._recorded(record)

    async def _finish(self, record: TurnRecord | None) -> None:
        """The bot has stopped; if its turn was over, the record of that is complete."""
        self._answered = None
        if record is not None and record.ended_secs is not None:
            await self._recorded(record)

    async def _recorded(self, record: TurnRecord) -> None:
        """Called with each record that is complete."""
        await self._call_event_handler("on_turn_recorded", record)

    @property
    def _open(self) -> TurnRecord | None:
        return self.records[-1] if self.records else None

    def _is_new(self, frame: Frame) -> bool:
        """Whether this is the first hop of a frame."""
        if frame.id in self._ids:
            return False
        self._ids.append(frame.id)
        return True

    # -- frames --------------------------------------------------------------------------------

    def _note_time(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        """Only the turns' bounds and the time matter."""

    def _note_params(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        if frame.vad_params is not None:
            self._vad_stop_secs = frame.vad_params.stop_secs

    def _note_user_started(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        record = self._open
        if record is None or not self._is_new(frame):
            return
        if record.user_started_secs is None:
            record.user_started_secs = secs
        # The user goes on: what was decided and begun does not count.
        record.speech_ended_secs = record.end_of_turn_secs = None
        if record.bot_started_secs is None:
            record.llm_started_secs = record.llm_first_token_secs = None
            record.tts_first_byte_secs = None

    def _note_silence(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        record = self._open
        if record is not None and record.bot_started_secs is None and self._is_new(frame):
            record.speech_ended_secs = secs - self._vad_stop_secs

    def _note_user_stopped(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        record = self._open
        if record is None or not self._is_new(frame):
            return
        record.end_of_turn_secs = secs
        if record.speech_ended_secs is None:
            record.speech_ended_secs = secs - self._vad_stop_secs

    def _note_transcript(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        record = self._open
        if record is not None and self._is_new(frame):
            record.user_text = f"{record.user_text} {frame.text.strip()}".strip()
            if record.bot_started_secs is None:
                record.transcript_secs = secs

    def _note_answer(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        record = self._open
        if record is not None and _is_answering(record) and record.llm_started_secs is None:
            record.llm_started_secs = secs

    def _note_token(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        record = self._open
        if record is not None and _is_answering(record) and record.llm_first_token_secs is None:
            record.llm_first_token_secs = secs

    def _note_audio(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        record = self._open
        if record is not None and _is_answering(record) and record.tts_first_byte_secs is None:
            record.tts_first_byte_secs = secs

    def _note_bot_started(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        record = self._open
        if record is not None and self._answered is None:
            self._answered = record
            if record.bot_started_secs is None:
                record.bot_started_secs = secs

    def _note_bot_stopped(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        if self._answered is not None:
            self._answered.bot_stopped_secs = secs

    def _note_heard(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        record = self._answered or self._open
        if record is not None and _plays(source) and self._is_new(frame):
            record.bot_text = f"{record.bot_text} {frame.text.strip()}".strip()

    def _note_interruption(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        record = self._answered
        if record is not None and _plays(source) and self._is_new(frame):
            record.bot_text = f"{record.bot_text} {heard_text(frame)}".strip()
            record.bot_text = corrected(frame, record.bot_text)

    def _note_calls(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        record = self._open
        # Announced in both directions, by a frame each.
        if record is not None and self._is_new(frame):
            calls = tuple(call.tool_call_id for call in frame.function_calls)
            if hash(calls) not in self._ids:
                self._ids.append(hash(calls))
                record.function_calls += [call.function_name for call in frame.function_calls]

    def _note_metrics(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        record = self._open
        if record is None or not self._is_new(frame):
            return
        for data in frame.data:
            if isinstance(data, LLMUsageMetricsData):
                record.prompt_tokens += data.value.prompt_tokens
                record.completion_tokens += data.value.completion_tokens
            elif isinstance(data, TTSUsageMetricsData):
                record.tts_characters += data.value

    def _note_error(self, frame: Any, secs: float, source: FrameProcessor) -> None:
        if not self._is_new(frame):
            return
        origin = frame.processor.name if isinstance(frame.processor, FrameProcessor) else ""
        self.errors.append(SessionError(secs, origin, frame.error, frame.fatal))
        if self._open is not None and len(self._open.errors) < _ERRORS_KEPT:
            self._open.errors.append(f"{origin}: {frame.error}" if origin else frame.error)


def _is_answering(record: TurnRecord) -> bool:
    """Whether what comes now can belong to the answer, rather than to one that was cut off."""
    return record.end_of_turn_secs is not None or record.user_started_secs is None


def _plays(source: FrameProcessor) -> bool:
    from antiphon.transports.base_output import BaseOutputTransport

    return isinstance(source, BaseOutputTransport)


Note = Callable[[TurnRecordObserver, Any, float, FrameProcessor], None]


def _unknown(observer: TurnRecordObserver, frame: Any, secs: float, source: Any) -> None:
    """Stands for a class of frames that has not been met."""


_BY_KIND: tuple[tuple[type[Frame], Note], ...] = (
    (SpeechControlParamsFrame, TurnRecordObserver._note_params),
    (UserStartedSpeakingFrame, TurnRecordObserver._note_user_started),
    (VADUserStoppedSpeakingFrame, TurnRecordObserver._note_silence),
    (UserStoppedSpeakingFrame, TurnRecordObserver._note_user_stopped),
    (TranscriptionFrame, TurnRecordObserver._note_transcript),
    (LLMFullResponseStartFrame, TurnRecordObserver._note_answer),
    (LLMTextFrame, TurnRecordObserver._note_token),
    (TTSAudioRawFrame, TurnRecordObserver._note_audio),
    (TTSTextFrame, TurnRecordObserver._note_heard),
    (BotStartedSpeakingFrame, TurnRecordObserver._note_bot_started),
    (BotStoppedSpeakingFrame, TurnRecordObserver._note_bot_stopped),
    (StartInterruptionFrame, TurnRecordObserver._note_interruption),
    (FunctionCallsStartedFrame, TurnRecordObserver._note_calls),
    (MetricsFrame, TurnRecordObserver._note_metrics),
    (ErrorFrame, TurnRecordObserver._note_error),
    (StartFrame, TurnRecordObserver._note_time),
    (EndFrame, TurnRecordObserver._note_time),
    (CancelFrame, TurnRecordObserver._note_time),
    (StopFrame, TurnRecordObserver._note_time),
)
# What to do with frames of a class; filled in as classes are met.
_NOTES: dict[type[Frame], Note | None] = {}


def _note_for(kind: type[Frame]) -> Note | None:
    note = next((note for base, note in _BY_KIND if issubclass(kind, base)), None)
    _NOTES[kind] = note
    return note
