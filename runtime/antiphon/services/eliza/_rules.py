"""ELIZA's rules, applied the same way in every process.

The rules are Joseph Weizenbaum's program as Joe Strout and others wrote it down in Python, shipped
with NLTK as ``nltk.chat.eliza``. NLTK picks among a rule's answers by the process's random state;
here the choice follows from the text, the turn and a seed. Thanks and farewells, which those rules
only turn around, have rules of their own before them.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    answers: tuple[str, ...]


_GREETINGS = (
    "Hello. How are you feeling today?",
    "Hello. What would you like to talk about?",
    "Hi there. What is on your mind today?",
)

_POLITE = r"^(?:(?:oh|ok|okay|well|so|and|yes|no|now|then|thanks|thank you|very much|a lot)\W+)*"
_COURTESIES = (
    _Rule(
        re.compile(
            _POLITE + r"(?:good[ -]?bye|bye(?:[ -]bye)?|farewell|see you\b.*)\W*$", re.IGNORECASE
        ),
        (
            "Goodbye. It was good to talk to you.",
            "Goodbye. Take good care of yourself.",
            "Goodbye. Come back whenever you like.",
        ),
    ),
    _Rule(
        re.compile(_POLITE + r"(?:thanks|thank you)\b", re.IGNORECASE),
        (
            "You are welcome. Is there anything else on your mind?",
            "I am glad to listen. What else would you like to talk about?",
        ),
    ),
)

_SENTENCE = re.compile(r"[^.!?]+[.!?]*")
_PLACEHOLDER = re.compile(r"%(\d)")


class ElizaRules:
    """Answers a sentence with the first rule that fits it."""

    def __init__(self) -> None:
        """Loads the rules; importing NLTK takes about a second."""
        from nltk.chat.eliza import pairs
        from nltk.chat.util import reflections

        self._rules = [
            *_COURTESIES,
            *(_Rule(re.compile(pattern, re.IGNORECASE), tuple(said)) for pattern, said in pairs),
        ]
        self._reflections: dict[str, str] = dict(reflections)
        # Longest first, so that "i am" is found before "i".
        phrases = sorted(self._reflections, key=len, reverse=True)
        self._reflected = re.compile(
            r"\b(" + "|".join(re.escape(phrase) for phrase in phrases) + r")\b", re.IGNORECASE
        )

    def greet(self, seed: int) -> str:
        """A greeting."""
        return random.Random(seed).choice(_GREETINGS)

    def answer(self, text: str, *, seed: int, turn: int, said_before: str, sentences: int) -> str:
        """The answer to what a user said: the same for the same arguments, in any process.

        Args:
            text: What the user said.
            seed: Varies the choice among answers.
            turn: Number of the user's message in the conversation.
            said_before: The bot's last message; a rule with several answers does not repeat it.
            sentences: At most so many of the user's sentences are answered, one after the other;
                1 answers the text as a whole.
        """
        parts = [text]
        if sentences > 1:
            parts = [found.strip() for found in _SENTENCE.findall(text)]
            parts = [part for part in parts if part][:sentences] or [text]
        answers: list[str] = []
        for position, part in enumerate(parts):
            digest = hashlib.sha256(f"{seed}:{turn}:{position}:{part}".encode()).digest()
            choice = random.Random(int.from_bytes(digest[:8], "big"))
            answers.append(self._answer_one(part, choice, {said_before, *answers}))
        return " ".join(answers)

    def _answer_one(self, text: str, choice: random.Random, avoid: set[str]) -> str:
        text = text.strip().rstrip(".!").strip()
        if not text:
            return choice.choice(_GREETINGS)
        for rule in self._rules:
            if match := rule.pattern.match(text):
                answers = [self._fill(template, match) for template in rule.answers]
                fresh = [answer for answer in answers if answer not in avoid]
                return choice.choice(fresh or answers)
        raise AssertionError("the last rule fits everything")

    def _fill(self, template: str, match: re.Match[str]) -> str:
        def reflected(placeholder: re.Match[str]) -> str:
            found = match.group(int(placeholder[1])).strip().rstrip("?.!,; ")
            return self._reflected.sub(lambda word: self._reflections[word[0].lower()], found)

        return " ".join(_PLACEHOLDER.sub(reflected, template).split())
