"""Sentences out of streamed text."""

from antiphon.utils.string import match_endofsentence
from antiphon.utils.text.base_text_aggregator import BaseTextAggregator


def is_fragment(text: str) -> bool:
    """Whether a piece of text looks like a token of a stream: two words at most.

    Only then is it worth waiting for what follows "Mr." or "$29.": a longer piece is the whole of
    what somebody wanted to say.
    """
    return len(text.split()) <= 2


class SimpleTextAggregator(BaseTextAggregator):
    """Hands text on one sentence at a time."""

    def __init__(self) -> None:
        """Begins without text."""
        self._text = ""

    @property
    def text(self) -> str:
        """The text behind the last complete sentence."""
        return self._text

    async def aggregate(self, text: str) -> str | None:
        """Takes a piece of text and returns the first sentence, once it is complete.

        What follows the sentence stays, with its leading space. At most one sentence comes out of
        one piece.
        """
        self._text += text
        end = match_endofsentence(self._text, partial=is_fragment(text))
        if not end:
            return None
        sentence, self._text = self._text[:end], self._text[end:]
        return sentence

    async def handle_interruption(self) -> None:
        """Forgets the sentence in progress."""
        self._text = ""

    async def reset(self) -> None:
        """Forgets the sentence in progress."""
        self._text = ""
