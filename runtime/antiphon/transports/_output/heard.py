"""Keeps count of what was played of the texts that are being spoken."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from antiphon.processors.heard_text import words_within

# What a text is taken to need while its audio may not be complete. English speech has 14 to 16
# characters a second.
_CHARACTERS_PER_SEC = 15.0

# Bounds the texts of one stretch of speech; far more than wait in an audio lane.
_TEXTS = 1_000


@dataclass
class _Text:
    """A text and its audio, as positions in the stream in bytes.

    Attributes:
        text: The text.
        start: Where its audio begins.
        end: Where it ends; None while that is not known.
        told: Whether the frame that follows its audio has come.
    """

    text: str
    start: int
    end: int | None = None
    told: bool = False


@dataclass(frozen=True)
class Cut:
    """What an interruption has cut.

    Attributes:
        heard: What was heard of texts that have not been passed on.
        ahead: Texts that were passed on ahead of their audio.
        ahead_heard: What was heard of those.
    """

    heard: str
    ahead: str
    ahead_heard: str


class HeardText:
    """Follows one stream of audio and the texts that are spoken in it.

    A text is told behind its audio by most services, and may be named at its beginning. Services
    whose audio comes over a connection of its own tell all texts ahead of it.
    """

    def __init__(self, bytes_per_sec: int) -> None:
        """Makes a count of nothing.

        Args:
            bytes_per_sec: Of the stream.
        """
        self._bytes_per_sec = bytes_per_sec
        self.reset()

    def reset(self) -> None:
        """Begins anew: everything was played, or was dropped."""
        self._texts: deque[_Text] = deque(maxlen=_TEXTS)
        self._ahead: deque[str] = deque(maxlen=_TEXTS)
        self._received = 0
        self._played = 0
        self._boundary = 0
        self._is_complete = False

    def begins(self, text: str) -> None:
        """The audio received from now on belongs to this text."""
        if self._texts and self._texts[-1].end is None:
            self._texts[-1].end = self._received
        self._texts.append(_Text(text, self._received))

    def received(self, count: int) -> None:
        """So many bytes wait to be played."""
        self._received += count
        self._is_complete = False

    def played(self, count: int) -> None:
        """So many bytes were played."""
        self._played += count

    def told(self, text: str) -> None:
        """The text itself has come: all its audio has, or none."""
        last = self._texts[-1] if self._texts else None
        if last is not None and not last.told:
            last.text, last.end, last.told = text, self._received, True
        else:
            self._texts.append(_Text(text, self._boundary, self._received, told=True))
        self._boundary = self._received

    def complete(self) -> None:
        """All audio of the texts so far has come."""
        self._is_complete = True
        if self._texts and self._texts[-1].end is None:
            self._texts[-1].end = self._received

    def passed_on(self) -> None:
        """The oldest text that was told has been passed on: it counts as heard, or is ahead."""
        while self._texts:
            entry = self._texts.popleft()
            if entry.told:
                if entry.start == entry.end:
                    self._ahead.append(entry.text)
                return

    def cut(self) -> Cut:
        """What was heard of all this, now that it is cut; the count begins anew."""
        heard: list[str] = []
        for entry in self._texts:
            if self._played <= entry.start:
                break
            end = entry.end
            if end is None:
                end = max(self._received, entry.start + self._needed(entry.text))
            share = (self._played - entry.start) / max(1, end - entry.start)
            heard.append(words_within(entry.text, share))
        ahead = " ".join(self._ahead)
        all_of_it = self._received
        if not self._is_complete:
            all_of_it = max(all_of_it, self._needed(ahead))
        share = self._played / max(1, all_of_it)
        cut = Cut(" ".join(filter(None, heard)), ahead, words_within(ahead, share))
        self.reset()
        return cut

    def _needed(self, text: str) -> int:
        return round(len(text) / _CHARACTERS_PER_SEC * self._bytes_per_sec)
