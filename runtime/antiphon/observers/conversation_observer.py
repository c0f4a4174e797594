"""Follows a conversation: who speaks when, what is said, who interrupts whom."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    SpeechControlParamsFrame,
    StartInterruptionFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.processors.frame_processor import FrameDirection

Kind = Literal[
    "user_started",
    "user_stopped",
    "user_said",
    "bot_started",
    "bot_stopped",
    "bot_says",
    "interruption",
]

_SEEN_IDS = 512
"""A frame crosses far fewer hops than this many other frames later."""

_WATCHED: tuple[type[Frame], ...] = (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    SpeechControlParamsFrame,
    StartInterruptionFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)


@dataclass(frozen=True)
class ConversationEvent:
    """Something that happened in a conversation.

    Attributes:
        secs: When, in seconds on the pipeline's clock.
        kind: What. ``user_stopped`` is when the voice activity detector was sure, which is its
            ``stop_secs`` after the user's last sound; ``bot_says`` is when the answer was complete
            as text, and ``interruption`` only counts while the bot speaks.
        text: What was said.
    """

    secs: float
    kind: Kind
    text: str = ""


@dataclass(frozen=True)
class TurnLatency:
    """How long the user waited for an answer.

    Attributes:
        user_stopped_secs: When the user's speech had ended.
        from_speech_secs: From there to the bot's first audio.
        from_detection_secs: From when the end of speech was detected to the bot's first audio.
    """

    user_stopped_secs: float
    from_speech_secs: float
    from_detection_secs: float


class ConversationObserver(BaseObserver):
    """Keeps the events of a conversation, and shows them as they happen if asked to.

    It holds what people say: use it where that is wanted.
    """

    def __init__(self, *, on_event: Callable[[ConversationEvent], None] | None = None) -> None:
        """Makes an observer.

        Args:
            on_event: Called for each event.
        """
        super().__init__()
        self.events: list[ConversationEvent] = []
        self.vad_stop_secs = 0.0
        self._on_event = on_event
        self._seen: deque[int] = deque(maxlen=_SEEN_IDS)
        self._bot_speaks = False
        self._answer: list[str] = []

    async def on_push_frame(self, data: FramePushed) -> None:
        """Takes note of the frames that make up a conversation, each once."""
        frame = data.frame
        if not isinstance(frame, _WATCHED) or frame.id in self._seen:
            return
        if data.direction is FrameDirection.UPSTREAM and isinstance(
            frame, (BotStartedSpeakingFrame, BotStoppedSpeakingFrame)
        ):
            return  # these come in pairs, one for each direction
        self._seen.append(frame.id)
        secs = data.timestamp / 1e9
        match frame:
            case SpeechControlParamsFrame():
                if frame.vad_params is not None:
                    self.vad_stop_secs = frame.vad_params.stop_secs
            case UserStartedSpeakingFrame():
                self._note(secs, "user_started")
            case UserStoppedSpeakingFrame():
                self._note(secs, "user_stopped")
            case TranscriptionFrame():
                self._note(secs, "user_said", frame.text.strip())
            case StartInterruptionFrame():
                if self._bot_speaks:
                    self._note(secs, "interruption")
            case BotStartedSpeakingFrame():
                self._bot_speaks = True
                self._note(secs, "bot_started")
            case BotStoppedSpeakingFrame():
                self._bot_speaks = False
                self._note(secs, "bot_stopped")
            case LLMFullResponseStartFrame():
                self._answer = []
            case LLMTextFrame():
                self._answer.append(frame.text)
            case LLMFullResponseEndFrame():
                self._note(secs, "bot_says", "".join(self._answer).strip())

    def turn_latencies(self) -> list[TurnLatency]:
        """The user's waits, one for each turn the bot answered."""
        latencies = []
        stopped: float | None = None
        for event in self.events:
            if event.kind == "user_stopped":
                stopped = event.secs
            elif event.kind == "user_started":
                stopped = None
            elif event.kind == "bot_started" and stopped is not None:
                detection = event.secs - stopped
                latencies.append(
                    TurnLatency(
                        stopped - self.vad_stop_secs, detection + self.vad_stop_secs, detection
                    )
                )
                stopped = None
        return latencies

    def to_plain(self) -> dict[str, Any]:
        """The conversation as plain data."""
        return {
            "vad_stop_secs": self.vad_stop_secs,
            "events": [asdict(event) for event in self.events],
            "turn_latencies": [asdict(latency) for latency in self.turn_latencies()],
        }

    def save(self, path: str | Path) -> None:
        """Writes the conversation to a JSON file."""
        Path(path).write_text(json.dumps(self.to_plain(), indent=1), encoding="utf-8")

    def _note(self, secs: float, kind: Kind, text: str = "") -> None:
        event = ConversationEvent(secs, kind, text)
        self.events.append(event)
        if self._on_event is not None:
            self._on_event(event)
