"""What is left of a conversation when it has ended, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from antiphon.observers.turn_record import STAGES, TurnRecord, summary
from antiphon.observers.turn_record_observer import SessionError, TurnRecordObserver


@dataclass(frozen=True)
class SessionReport:
    """A conversation: its turns, and what follows from them.

    Attributes:
        conversation_id: Its name, if it has one.
        duration_secs: From the start of the conversation to the last frame.
        turns: Its turns.
        errors: What went wrong.
    """

    conversation_id: str | None
    duration_secs: float
    turns: Sequence[TurnRecord]
    errors: Sequence[SessionError] = field(default_factory=list)

    @classmethod
    def of(cls, observer: TurnRecordObserver, conversation_id: str | None = None) -> SessionReport:
        """The report of what an observer has seen so far."""
        turns = list(observer.records)
        # Negative where the conversation goes on from another process.
        began_secs = min(0.0, turns[0].started_secs) if turns else 0.0
        return cls(conversation_id, observer.last_secs - began_secs, turns, list(observer.errors))

    @property
    def transcript(self) -> list[dict[str, Any]]:
        """What was said, in order: ``role``, ``text``, ``secs`` and whether it was interrupted."""
        said: list[dict[str, Any]] = []
        for turn in self.turns:
            if turn.user_text:
                secs = turn.user_started_secs
                said.append({"role": "user", "text": turn.user_text, "secs": secs})
            if turn.bot_text:
                said.append(
                    {
                        "role": "assistant",
                        "text": turn.bot_text,
                        "secs": turn.bot_started_secs,
                        "was_interrupted": turn.was_interrupted,
                    }
                )
        return said

    @property
    def latencies(self) -> dict[str, dict[str, float]]:
        """Count, average, least and greatest in seconds, of the whole (``total``) and each stage."""
        found = {"total": summary(turn.latency_secs for turn in self.turns)}
        for stage in STAGES:
            found[stage] = summary(turn.stages.get(stage) for turn in self.turns)
        return {name: values for name, values in found.items() if values}

    @property
    def usage(self) -> dict[str, int]:
        """Tokens and characters of all turns."""
        return {
            key: sum(getattr(turn, key) for turn in self.turns)
            for key in ("prompt_tokens", "completion_tokens", "tts_characters")
        }

    @property
    def interruptions(self) -> int:
        """How often the bot was cut off."""
        return sum(turn.was_interrupted for turn in self.turns)

    def to_plain(self, *, include_text: bool = True) -> dict[str, Any]:
        """The report as plain data.

        Args:
            include_text: Whether with what people said.
        """
        return {
            "conversation_id": self.conversation_id,
            "duration_secs": self.duration_secs,
            "transcript": self.transcript if include_text else [],
            "turns": [turn.to_plain(include_text=include_text) for turn in self.turns],
            "latencies": self.latencies,
            "usage": self.usage,
            "interruptions": self.interruptions,
            "errors": [asdict(error) for error in self.errors],
        }

    def save(self, path: str | Path, *, include_text: bool = True) -> None:
        """Writes the report to a JSON file.

        Args:
            path: The file; it is replaced.
            include_text: Whether with what people said.
        """
        text = json.dumps(self.to_plain(include_text=include_text), indent=1, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")
