"""What ElevenLabs' two interfaces have in common: settings, and the times of words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from antiphon.errors import ConfigError
from antiphon.transcriptions.language import Language

SAMPLE_BYTES = 2
DEFAULT_RATE_HZ = 24000
_RATES_HZ = frozenset({8000, 16000, 22050, DEFAULT_RATE_HZ, 44100})

# Models that may be told a language; others answer with an error.
MULTILINGUAL_MODELS = frozenset({"eleven_flash_v2_5", "eleven_turbo_v2_5"})

_LANGUAGES = frozenset(
    """
    ar bg cs da de el en es fi fil fr hi hr hu id it ja ko ms nl no pl pt ro ru sk sv ta tr uk vi zh
    """.split()
)

_VOICE_SETTINGS = ("stability", "similarity_boost", "style", "use_speaker_boost", "speed")


def language_to_elevenlabs_language(language: Language) -> str | None:
    """Translates a language, with or without a region, into ElevenLabs' code.

    Returns:
        The code, or None if no model speaks the language.
    """
    base = str(language).split("-", 1)[0].lower()
    return base if base in _LANGUAGES else None


def supported_rate(sample_rate: int) -> int:
    """The rate in Hz to ask for: the wanted one, or 24000 if ElevenLabs does not make that."""
    return sample_rate if sample_rate in _RATES_HZ else DEFAULT_RATE_HZ


def output_format_from_sample_rate(sample_rate: int) -> str:
    """ElevenLabs' name for int16 PCM of a rate in Hz, or of 24000 if it does not make that."""
    return f"pcm_{supported_rate(sample_rate)}"


def build_elevenlabs_voice_settings(
    settings: Mapping[str, Any],
) -> dict[str, float | bool] | None:
    """The part of a service's settings that shapes the voice; None if all is left to the voice."""
    voice = {name: settings[name] for name in _VOICE_SETTINGS if settings.get(name) is not None}
    return voice or None


class SpokenWords:
    """Words out of characters with times. A word may arrive in pieces."""

    def __init__(self) -> None:
        """Begins without a word."""
        self._word = ""
        self._start_ns = 0

    def feed(self, characters: Iterable[tuple[str, float]], begin_ns: int) -> list[tuple[str, int]]:
        """Takes characters.

        Args:
            characters: Each with its time in seconds.
            begin_ns: The clock's time at the zero of those, in ns.

        Returns:
            The words that are complete now, each with the clock's time in ns.
        """
        words = []
        for character, secs in characters:
            if character.isspace():
                words += self.finish()
                continue
            if not self._word:
                self._start_ns = begin_ns + int(secs * 1e9)
            self._word += character
        return words

    def finish(self) -> list[tuple[str, int]]:
        """The last word, if one is in progress: nothing more of it will come."""
        word, self._word = self._word, ""
        return [(word, self._start_ns)] if word else []


class SpeechClock:
    """When audio that is pushed now will be heard, as far as a service can tell.

    Audio comes faster than it plays: each piece begins where the one before it ends, or now.
    """

    def __init__(self) -> None:
        """Begins in silence."""
        self._end_ns = 0

    def begin(self, now_ns: int) -> int:
        """The clock's time in ns at which the next piece begins."""
        self._end_ns = max(self._end_ns, now_ns)
        return self._end_ns

    def add(self, audio_bytes: int, rate_hz: int) -> None:
        """Takes a piece of mono int16 audio into account."""
        self._end_ns += audio_bytes * 1_000_000_000 // (SAMPLE_BYTES * rate_hz)

    def reset(self) -> None:
        """Forgets the audio that waits: it will not be played."""
        self._end_ns = 0


def relative_times(words: list[tuple[str, int]], zero_ns: int) -> list[tuple[str, float]]:
    """Turns clock times into seconds after ``zero_ns``, as ``add_word_timestamps`` takes them."""
    # Never 0: a word at 0 is taken for a mark, if somebody says "Reset".
    return [(word, max((start_ns - zero_ns) / 1e9, 1e-6)) for word, start_ns in words]


def require_access(service: object, api_key: str, voice_id: str) -> None:
    """Makes sure that a service has what the vendor asks for.

    Raises:
        ConfigError: There is no key or no voice.
    """
    if not api_key or not voice_id:
        raise ConfigError(f"{service} cannot be used: it needs api_key and voice_id")
