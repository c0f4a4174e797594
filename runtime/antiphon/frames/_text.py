"""Frames that carry text: model output, speech to be, transcriptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from antiphon.frames._base import DataFrame, SystemFrame, format_pts

if TYPE_CHECKING:
    from antiphon.transcriptions.language import Language


@dataclass
class TextFrame(DataFrame):
    """A piece of text on its way through the pipeline, in the end to a speech service.

    Attributes:
        text: The text.
    """

    text: str

    def __str__(self) -> str:
        return f"{self.name}(pts: {format_pts(self.pts)}, text: [{self.text}])"


@dataclass
class LLMTextFrame(TextFrame):
    """Text that a language model generated."""


@dataclass
class TTSTextFrame(TextFrame):
    """Text that a speech service has spoken."""


@dataclass
class InputTextRawFrame(SystemFrame, TextFrame):
    """Text a user typed, from the input transport."""

    def __str__(self) -> str:
        return (
            f"{self.name}(pts: {format_pts(self.pts)}, source: {self.transport_source}, "
            f"text: [{self.text}])"
        )


@dataclass
class TranscriptionFrame(TextFrame):
    """What a user said, as the speech recogniser finally understood it.

    Attributes:
        user_id: Who said it.
        timestamp: When, ISO 8601.
        language: In which language, if known.
        result: The recogniser's own result, if it gives one.
    """

    user_id: str
    timestamp: str
    language: Language | None = None
    result: Any | None = None

    def __str__(self) -> str:
        return _describe_spoken(self)


@dataclass
class InterimTranscriptionFrame(TextFrame):
    """What a user is saying, as understood so far; a later frame may correct it.

    Attributes:
        user_id: Who says it.
        timestamp: When, ISO 8601.
        language: In which language, if known.
        result: The recogniser's own result, if it gives one.
    """

    text: str
    user_id: str
    timestamp: str
    language: Language | None = None
    result: Any | None = None

    def __str__(self) -> str:
        return _describe_spoken(self)


@dataclass
class TranslationFrame(TextFrame):
    """What a user said, translated.

    Attributes:
        user_id: Who said it.
        timestamp: When, ISO 8601.
        language: The language translated into, if known.
    """

    user_id: str
    timestamp: str
    language: Language | None = None

    def __str__(self) -> str:
        return _describe_spoken(self)


def _describe_spoken(
    frame: TranscriptionFrame | InterimTranscriptionFrame | TranslationFrame,
) -> str:
    return (
        f"{frame.name}(user: {frame.user_id}, text: [{frame.text}], "
        f"language: {frame.language}, timestamp: {frame.timestamp})"
    )


@dataclass
class TranscriptionMessage:
    """One message of a conversation's transcript.

    Attributes:
        role: Who spoke, in the same words for every language model.
        content: What was said.
        user_id: Which user, if the user spoke.
        timestamp: When, ISO 8601.
    """

    role: Literal["user", "assistant"]
    content: str
    user_id: str | None = None
    timestamp: str | None = None


@dataclass
class TranscriptionUpdateFrame(DataFrame):
    """Messages that have just been added to the transcript of the conversation.

    Attributes:
        messages: The new ones only, in order, whatever format the language model itself uses.
    """

    messages: list[TranscriptionMessage]

    def __str__(self) -> str:
        return f"{self.name}(pts: {format_pts(self.pts)}, messages: {len(self.messages)})"


@dataclass
class TTSSpeakFrame(DataFrame):
    """Text for the speech service to speak as it is, outside the language model's answer.

    Attributes:
        text: What to say.
    """

    text: str
