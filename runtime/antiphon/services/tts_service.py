"""Base classes of the text-to-speech services."""

from antiphon.services._tts_base import TTSService
from antiphon.services._tts_websocket import (
    AudioContextWordTTSService,
    InterruptibleTTSService,
    InterruptibleWordTTSService,
    WebsocketTTSService,
    WebsocketWordTTSService,
)
from antiphon.services._tts_word import WordTTSService

__all__ = [
    "AudioContextWordTTSService",
    "InterruptibleTTSService",
    "InterruptibleWordTTSService",
    "TTSService",
    "WebsocketTTSService",
    "WebsocketWordTTSService",
    "WordTTSService",
]
