"""Recorded speech of the repository, and how many words of it were understood wrongly."""

from __future__ import annotations

import json
import re
import wave
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]
SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True)
class Sentence:
    """A recorded sentence.

    Attributes:
        text: Lower case, without marks.
        audio: int16 PCM, mono, 16 kHz, with some silence around it.
    """

    text: str
    audio: bytes


def caller() -> list[Sentence]:
    """What the caller of the demonstration says."""
    told = json.loads((_ROOT / "examples" / "caller.json").read_text())
    audio = read(_ROOT / "examples" / "caller.wav")

    def part(start: float, end: float) -> bytes:
        return audio[2 * int(start * SAMPLE_RATE_HZ) : 2 * int(end * SAMPLE_RATE_HZ)]

    return [
        Sentence(one["text"], part(one["start"] - 0.3, one["end"] + 0.3))
        for one in told["sentences"]
    ]


def espeak() -> Sentence:
    """A sentence of eSpeak's."""
    return Sentence(
        "i would like a table for two please", read(_ROOT / "tests/data/espeak_16k.wav")
    )


def read(path: Path) -> bytes:
    """The audio of a mono file with 16-bit samples at 16 kHz."""
    with wave.open(str(path)) as file:
        assert file.getframerate() == SAMPLE_RATE_HZ
        return bytes(file.readframes(file.getnframes()))


def word_errors(said: str, understood: str) -> int:
    """Words to insert, remove or replace to get from one text to the other."""
    wanted, found = _words(said), _words(understood)
    distances = list(range(len(found) + 1))
    for row, word in enumerate(wanted, 1):
        diagonal, distances[0] = distances[0], row
        for column, other in enumerate(found, 1):
            changed = diagonal + (word != other)
            diagonal = distances[column]
            distances[column] = min(changed, diagonal + 1, distances[column - 1] + 1)
    return distances[-1]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())
