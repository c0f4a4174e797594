"""Text to speech with ElevenLabs."""

from antiphon.services.elevenlabs._http import ElevenLabsHttpTTSService
from antiphon.services.elevenlabs._speech import (
    build_elevenlabs_voice_settings,
    language_to_elevenlabs_language,
    output_format_from_sample_rate,
)
from antiphon.services.elevenlabs._websocket import ElevenLabsTTSService

__all__ = [
    "ElevenLabsHttpTTSService",
    "ElevenLabsTTSService",
    "build_elevenlabs_voice_settings",
    "language_to_elevenlabs_language",
    "output_format_from_sample_rate",
]
