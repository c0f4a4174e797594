"""Audio that clients send in messages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from antiphon.frames.frames import InputAudioRawFrame
from antiphon.processors.frameworks._rtvi.refusals import RefusedError

AUDIO_TYPES = ("raw-audio", "raw-audio-batch")
"""The messages that carry audio."""

_SAMPLE_BYTES = 2


def audio_of(data: Any) -> list[InputAudioRawFrame]:
    """The frames in the data of a message with audio.

    Args:
        data: ``base64Audio``, a text, or ``base64AudioBatch``, a list of texts: int16 little-endian
            PCM; ``sampleRate`` in Hz; ``numChannels``.

    Raises:
        RefusedError: Something of this is missing or wrong.
    """
    if not isinstance(data, Mapping):
        raise RefusedError("Invalid audio: no data")
    batch = data.get("base64AudioBatch", data.get("base64Audio"))
    pieces = batch if isinstance(batch, list) else [batch]
    rate, channels = _count(data, "sampleRate"), _count(data, "numChannels")
    frames = []
    for piece in pieces:
        try:
            audio = base64.b64decode(piece, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise RefusedError("Invalid audio: not base64") from None
        if len(audio) % (_SAMPLE_BYTES * channels):
            raise RefusedError("Invalid audio: not a whole number of samples")
        frames.append(InputAudioRawFrame(audio, rate, channels))
    return frames


def _count(data: Mapping[Any, Any], name: str) -> int:
    value = data.get(name)
    if type(value) is not int or value < 1:
        raise RefusedError(f"Invalid audio: {name} has to be a positive whole number")
    return value
