"""What is known of one turn of a conversation: what happened when, and what was said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

STAGES = ("end_of_turn", "transcription", "aggregation", "llm", "tts", "output")
"""What the user waits for, in order: see ``TurnRecord.stages``."""


@dataclass
class TurnRecord:
    """One turn: the user speaks, the bot answers.

    Times are seconds on the pipeline's clock, None for what has not happened. They are negative for
    what was before the start of the pipeline, in another process, from which it goes on.

    Attributes:
        number: Number of the turn, from 1.
        started_secs: When it began.
        ended_secs: When it ended.
        was_interrupted: Whether the user, or the session's being cancelled, cut the bot off.
        user_started_secs: When the user was first heard.
        speech_ended_secs: When the user was last heard.
        end_of_turn_secs: When it was decided that the user had finished.
        transcript_secs: When the last final transcript came.
        llm_started_secs: When the model was asked.
        llm_first_token_secs: When the first token of the answer came.
        tts_first_byte_secs: When the first audio of the answer came.
        bot_started_secs: When the first sample of the answer was played.
        bot_stopped_secs: When the last one was played.
        user_text: What the user said.
        bot_text: What the user has heard of the bot's answer.
        prompt_tokens: Tokens the model read.
        completion_tokens: Tokens it wrote.
        tts_characters: Characters that were spoken.
        function_calls: Names of the functions that were called.
        errors: What went wrong, each ``processor: error``.
    """

    number: int
    started_secs: float
    ended_secs: float | None = None
    was_interrupted: bool = False
    user_started_secs: float | None = None
    speech_ended_secs: float | None = None
    end_of_turn_secs: float | None = None
    transcript_secs: float | None = None
    llm_started_secs: float | None = None
    llm_first_token_secs: float | None = None
    tts_first_byte_secs: float | None = None
    bot_started_secs: float | None = None
    bot_stopped_secs: float | None = None
    user_text: str = ""
    bot_text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tts_characters: int = 0
    function_calls: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def latency_secs(self) -> float | None:
        """How long the user waited: from the end of speech to the bot's first sample."""
        if self.speech_ended_secs is None or self.bot_started_secs is None:
            return None
        return self.bot_started_secs - self.speech_ended_secs

    @property
    def stages(self) -> dict[str, float]:
        """Where that time went, in seconds; together they are the latency.

        ``end_of_turn``: until it was decided that the user had finished; ``transcription``: until
        the transcript was there; ``aggregation``: until the model was asked; ``llm``: until its
        first token; ``tts``: until the first audio; ``output``: until it was played. A stage that was not seen counts with the next one, one that
        was over before the stage before it takes no time.
        """
        if self.latency_secs is None or self.speech_ended_secs is None:
            return {}
        times = (
            self.end_of_turn_secs,
            self.transcript_secs,
            self.llm_started_secs,
            self.llm_first_token_secs,
            self.tts_first_byte_secs,
            self.bot_started_secs,
        )
        found: dict[str, float] = {}
        reached = self.speech_ended_secs
        for stage, secs in zip(STAGES, times, strict=True):
            if secs is not None:
                found[stage] = max(0.0, secs - reached)
                reached = max(reached, secs)
        return found

    def shifted(self, by_secs: float) -> TurnRecord:
        """The record on a clock that reads less by so many seconds."""
        times = {
            each.name: secs - by_secs
            for each in fields(self)
            if each.name.endswith("_secs") and (secs := getattr(self, each.name)) is not None
        }
        return replace(self, **times)

    def to_plain(self, *, include_text: bool = True) -> dict[str, Any]:
        """The record as plain data.

        Args:
            include_text: Whether with what was said.
        """
        plain = asdict(self)
        if not include_text:
            del plain["user_text"], plain["bot_text"]
        return {**plain, "latency_secs": self.latency_secs, "stages": self.stages}


def summary(values: Iterable[float | None]) -> dict[str, float]:
    """Count, average, least and greatest of the values there are; empty without any."""
    known = [value for value in values if value is not None]
    if not known:
        return {}
    return {
        "count": len(known),
        "average": sum(known) / len(known),
        "least": min(known),
        "greatest": max(known),
    }
