"""How much of a text a speech service has spoken."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right

from antiphon.processors.heard_text import words_within
from antiphon.services.fallback.overlap import plain_word

# What a text is taken to need where only the length of its audio is known. English speech has 14 to
# 16 characters a second.
_CHARACTERS_PER_SEC = 15.0

_WORD = re.compile(r"\S+")

# Times of words and lengths of audio are rounded, to different units.
_ROUNDING_SECS = 0.001

# How far ahead a text that was told is looked for, in words: filters may leave some out.
_REACH = 20

# Audio that ends with this share of what was told or more is taken for all of it.
_MOST = 0.6

# So many words at the end of a sentence may be told otherwise than they are written.
_SLACK = 3


class Script:
    """A text that grows, its words and its sentences. Positions in it are numbers of words.

    Attributes:
        text: The text so far.
    """

    def __init__(self) -> None:
        """Begins without text."""
        self.text = ""
        self._spans: list[tuple[int, int]] = []
        self._plain: list[str] = []
        # Positions behind the sentences that have something to be spoken.
        self._ends: list[int] = []
        self._sentences_until = 0

    def __len__(self) -> int:
        return len(self._spans)

    def add(self, text: str) -> None:
        """Adds a piece; it may go on with the last word."""
        self.text += text
        done = self._spans.pop()[0] if self._spans else 0
        del self._plain[len(self._spans) :]
        for match in _WORD.finditer(self.text, done):
            self._spans.append(match.span())
            self._plain.append(plain_word(match.group()))

    def end_sentence(self, character: int) -> str:
        """Notes that a sentence ends before a character; returns it, if there is something to speak."""
        sentence = self.text[self._sentences_until : character]
        self._sentences_until = max(self._sentences_until, character)
        if not plain_word(sentence):
            return ""
        self._ends.append(bisect_right([end for _, end in self._spans], character))
        return sentence

    @property
    def last_end(self) -> int:
        """The position behind the last sentence; 0 if none is complete."""
        return self._ends[-1] if self._ends else 0

    @property
    def first_sentence(self) -> str:
        """The first sentence; empty if none is complete."""
        return self.between(0, self._ends[0]) if self._ends else ""

    def sentence_end(self, position: int) -> int:
        """The end of the sentence that goes on or begins at a position."""
        return next((end for end in self._ends if end > position), self.last_end)

    def start_of(self, word: int) -> int:
        """Where a word begins, in characters; the end of the text if there is no such word."""
        return self._spans[word][0] if word < len(self._spans) else len(self.text)

    def between(self, first: int, last: int) -> str:
        """The words from one to before another."""
        return self.text[self.start_of(first) : self._spans[last - 1][1]] if first < last else ""

    def after(self, position: int, text: str) -> int:
        """The position behind a text that was told, looked for from a position on.

        What a filter has changed is not found; it is taken for as many words as it has.
        """
        told = [plain_word(word) for word in text.split()]
        if not told:
            return position
        last = len(self._spans) - len(told)
        for start in range(position, min(last, position + _REACH) + 1):
            if self._plain[start : start + len(told)] == told:
                return start + len(told)
        return min(len(self._spans), position + len(told))

    def rounded(self, position: int) -> int:
        """The end of the sentence, if the position is all but there."""
        number = bisect_left(self._ends, position)
        if number < len(self._ends) and self._ends[number] - position <= _SLACK:
            return self._ends[number]
        return position


class SpokenText:
    """Follows one service that speaks a script from some word on.

    A service may say with the first audio of a text that it begins, tell a text behind its audio or
    ahead of it, or tell the words with their times.
    """

    def __init__(self, script: Script, start: int = 0, heard_until: float = 0.0) -> None:
        """Makes a count of nothing.

        Args:
            script: What is spoken.
            start: The first word of it.
            heard_until: When the audio ends that has come from others, on the clock of the words'
                times, in seconds.
        """
        self._script = script
        self._start = start
        self._audio_secs = 0.0
        self.heard_until = heard_until
        # What has been spoken for certain, and how much audio that was.
        self._certain = start
        self._certain_secs = 0.0
        self._told = start
        self._begun: str | None = None
        # Words with times: the position behind each, and when it is heard.
        self._times: list[tuple[int, float]] = []

    @property
    def told(self) -> int:
        """The position behind the last text or word that was told."""
        return self._told

    @property
    def is_in_text(self) -> bool:
        """Whether a text has begun whose end has not been told, or a word waits for its audio."""
        return self._begun is not None or any(not self.has_come(at) for _, at in self._times[-1:])

    def has_begun(self, text: str) -> bool:
        """Whether any audio of a text that is about to be told is known to have come."""
        return self._begun is not None or self._script.after(self._told, text) <= self._certain

    @property
    def owes(self) -> bool:
        """Whether it is known that a sentence has not been spoken, or not even begun."""
        if self._times:
            return self._script.rounded(self._told) < self._script.last_end
        return self._certain > self._start and not self.is_all

    @property
    def is_all(self) -> bool:
        """Whether all complete sentences have been spoken, as far as that is certain."""
        return self._certain >= self._script.last_end

    @property
    def is_nothing(self) -> bool:
        """Whether nothing at all has been spoken."""
        return not self._audio_secs

    @property
    def spoken(self) -> int:
        """The position up to which audio has come, by estimate within a text without times."""
        if self._times:
            # A word is spoken when the next one begins: half a word is said again as a whole.
            begun = sum(self.has_come(at) for _, at in self._times)
            return self._times[begun - 2][0] if begun > 1 else self._certain
        text = self._begun
        if text is None:
            text = self._script.between(self._certain, self._script.last_end)
        words = len(words_within(text, self._share_of(text)).split())
        return min(self._certain + words, len(self._script))

    def _share_of(self, text: str) -> float:
        """How much of a text the audio since the last certain position is taken for."""
        secs = self._audio_secs - self._certain_secs
        return secs * _CHARACTERS_PER_SEC / len(text) if text else 0.0

    def audio(self, secs: float, now: float, begins: str | None = None) -> None:
        """So much audio has come.

        Args:
            secs: Its length.
            now: The time, on the clock of the words' times, in seconds.
            begins: The text that begins with it, if the service says so.
        """
        if begins is not None:
            self._begun = begins
            self._certain_secs = self._audio_secs
        self._audio_secs += secs
        self.heard_until = max(self.heard_until, now) + secs

    def has_come(self, at: float) -> bool:
        """Whether the audio that is heard at a time has come."""
        return at <= self.heard_until + _ROUNDING_SECS

    def tell(self, text: str) -> bool:
        """The service tells a text; returns whether it is spoken to its end."""
        self._told = self._script.after(self._told, text)
        if self._begun is None:
            return False  # ahead of its audio
        self._begun = None
        self._settle(self._told)
        return True

    def tell_word(self, word: str, at: float) -> None:
        """The service tells a word and the time at which it is heard."""
        self._told = self._script.after(self._told, word)
        self._times.append((self._told, at))

    def complete(self) -> None:
        """All audio of what was begun or told has come."""
        begun, self._begun = self._begun, None
        times, self._times = self._times, []
        if begun is not None:
            self._settle(self._script.after(self._told, begun))
        elif times:
            self._settle(self._told)
        elif self._audio_secs > self._certain_secs:
            # Several sentences may have been told, and only the first of them spoken.
            told = self._told if self._told > self._certain else self._script.last_end
            whole = self._share_of(self._script.between(self._certain, told)) >= _MOST
            self._settle(told if whole else self._script.sentence_end(self.spoken))

    def _settle(self, position: int) -> None:
        self._certain = max(self._certain, self._script.rounded(position))
        self._certain_secs = self._audio_secs
