"""The messages of ElevenLabs' websocket for several contexts.

Described at
https://elevenlabs.io/docs/api-reference/text-to-speech/v-1-text-to-speech-voice-id-multi-stream-input
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from antiphon.errors import ServiceError
from antiphon.services._vendor_errors import vendor_error
from antiphon.services.elevenlabs._speech import (
    MULTILINGUAL_MODELS,
    SpokenWords,
    output_format_from_sample_rate,
)

VENDOR = "ElevenLabs"
# The vendor closes a connection with this when it refuses the key, the voice, the quota, ...
POLICY_VIOLATION = 1008


@dataclass(slots=True)
class Speech:
    """One of the vendor's contexts: an answer, or a sentence said outside of one.

    Attributes:
        context_id: Its name at the vendor.
        voice: Settings it was begun with.
        texts: What was sent and is not answered by any audio yet; needed again if the connection
            is lost. Bounded by what a language model says before the first audio comes.
        words: Puts the words together.
        characters: Characters with times, in seconds, whose audio has not come.
        odd: Half a sample.
        has_audio: Whether audio has come.
        playing: Whether a TTSStartedFrame is not followed by a TTSStoppedFrame yet.
        closed_at: Time at which its text was complete.
        final: Whether nothing more will come.
        ends_answers: How many answers of the language model end with it.
    """

    context_id: str
    voice: dict[str, float | bool] | None
    texts: list[str] = field(default_factory=list)
    words: SpokenWords = field(default_factory=SpokenWords)
    characters: list[tuple[str, float]] = field(default_factory=list)
    odd: bytes = b""
    has_audio: bool = False
    playing: bool = False
    closed_at: float | None = None
    final: bool = False
    ends_answers: int = 0


def address(url: str, voice: str, model: str, sample_rate: int, settings: Mapping[str, Any]) -> str:
    """Where to connect for a voice and a model; both hold for the whole connection.

    Args:
        url: Address of the interface.
        voice: The voice's id.
        model: Name of the model.
        sample_rate: Rate of the audio in Hz.
        settings: The service's settings.
    """
    query = {
        "model_id": model,
        "output_format": output_format_from_sample_rate(sample_rate),
        # Characters come with the audio they are spoken in.
        "sync_alignment": "true",
    }
    for name in ("auto_mode", "enable_ssml_parsing", "enable_logging"):
        if settings[name] is not None:
            query[name] = str(settings[name]).lower()
    if settings["language"] and model in MULTILINGUAL_MODELS:
        query["language_code"] = settings["language"]
    path = f"/v1/text-to-speech/{quote(voice, safe='')}/multi-stream-input"
    return f"{url}{path}?{urlencode(query)}"


def beginning(speech: Speech) -> dict[str, Any]:
    """The message that begins a context."""
    message: dict[str, Any] = {"text": " ", "context_id": speech.context_id}
    if speech.voice:
        message["voice_settings"] = speech.voice
    return message


def timed_characters(alignment: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Characters with their times in seconds, from the beginning of the audio they came with."""
    starts = alignment.get("charStartTimesMs") or []
    return [(c, ms / 1000) for c, ms in zip(alignment.get("chars") or [], starts, strict=False)]


def refusal(code: object) -> ServiceError:
    """The error for a message that refuses something; such messages carry no HTTP status."""
    text = str(code or "").lower()
    if "api_key" in text or "unauthorized" in text:
        return vendor_error(VENDOR, status=401, code=code)
    if "quota" in text or "rate" in text or "too_many" in text:
        return vendor_error(VENDOR, status=429, code=code)
    return vendor_error(VENDOR, status=400, code=code)
