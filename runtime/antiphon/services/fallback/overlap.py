"""Texts that go on where others broke off, without saying anything twice."""

from __future__ import annotations

import re

_WORD = re.compile(r"\s*\S+")
_NO_LETTERS = re.compile(r"[\W_]+")

# How many of its last words a continuation may begin with; or with all of them.
_REACH = 40


class Continuation:
    """Takes the continuation of a text piece by piece and gives what it adds.

    A continuation may begin with the last words of the text, or with all of it. Words are held back only as
    long as they may be such a repetition. Punctuation and upper case do not matter.
    """

    def __init__(self, before: str) -> None:
        """Makes the continuation of a text.

        Args:
            before: What was said.
        """
        self._said = [plain_word(word) for word in before.split()]
        self._needs_space = bool(before) and not before[-1].isspace()
        self._held = ""
        self._is_settled = not self._said

    def feed(self, text: str) -> str:
        """Takes a piece; returns what is certain to be new."""
        if self._is_settled:
            return text
        self._held += text
        words = _WORD.findall(self._held)
        # The last word may go on in the next piece.
        whole = [plain_word(word) for word in words[: len(words) - (not self._held[-1:].isspace())]]
        if not whole or any(
            self._said[-length:][: len(whole)] == whole for length in self._longer(whole)
        ):
            return ""
        return self._settle(whole)

    def rest(self) -> str:
        """Returns what was held back, now that nothing more comes."""
        if self._is_settled:
            return ""
        return self._settle([plain_word(word) for word in _WORD.findall(self._held)])

    def _longer(self, words: list[str]) -> list[int]:
        """The lengths of repetitions that would not be complete with these words."""
        lengths = {*range(1, min(_REACH, len(self._said)) + 1), len(self._said)}
        return [length for length in lengths if length > len(words)]

    def _settle(self, words: list[str]) -> str:
        self._is_settled = True
        lengths = range(min(len(words), len(self._said)), 0, -1)
        repeated = next((n for n in lengths if self._said[-n:] == words[:n]), 0)
        kept = list(_WORD.finditer(self._held))[repeated:]
        new = self._held[kept[0].start() :] if kept else ""
        if not self._needs_space:
            return new.lstrip()
        return f" {new}" if new[:1].isalnum() else new


def without_overlap(before: str, after: str) -> str:
    """What a text adds to one whose last words it may begin with."""
    continuation = Continuation(before)
    return (continuation.feed(after) + continuation.rest()).strip()


def plain_word(word: str) -> str:
    """A word without punctuation and case."""
    return _NO_LETTERS.sub("", word).casefold()
