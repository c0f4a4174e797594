"""Sentences out of streamed text, never split between tags."""

from __future__ import annotations

import re
from collections.abc import Sequence

from antiphon.utils.checks import check_sequence
from antiphon.utils.string import StartEndTags, match_endofsentence, parse_start_end_tags
from antiphon.utils.text.base_text_aggregator import BaseTextAggregator
from antiphon.utils.text.simple_text_aggregator import is_fragment


class SkipTagsAggregator(BaseTextAggregator):
    """Hands text on one sentence at a time; what stands between tags stays together.

    For speech markup such as ``<spell>a.b@example.org</spell>``. The tags stay in the text.
    """

    def __init__(self, tags: Sequence[StartEndTags]) -> None:
        """Begins without text.

        Args:
            tags: Pairs of a start tag and an end tag.

        Raises:
            TypeError: If they are no such pairs.
        """
        for pair in tags:
            check_sequence("a pair of SkipTagsAggregator(tags)", pair)
            if len(pair) != 2:
                raise TypeError(
                    f"SkipTagsAggregator(tags) must hold pairs (start tag, end tag), not {pair!r}"
                )
        self._tags = tags
        pairs = "|".join(f"{re.escape(start)}.*?{re.escape(end)}" for start, end in tags)
        self._tagged = re.compile(pairs, re.DOTALL) if pairs else None
        self._text = ""
        self._open: StartEndTags | None = None
        self._index = 0

    @property
    def text(self) -> str:
        """The text behind the last complete sentence."""
        return self._text

    async def aggregate(self, text: str) -> str | None:
        """Takes a piece of text and returns the first sentence, once it is complete."""
        self._text += text
        self._open, self._index = parse_start_end_tags(
            self._text, self._tags, self._open, self._index
        )
        if self._open is not None:
            return None
        # Of the same length, so that the index is right for the text.
        searched = self._text
        if self._tagged is not None:
            searched = self._tagged.sub(lambda match: "x" * len(match[0]), searched)
        end = match_endofsentence(searched, partial=is_fragment(text))
        if not end:
            return None
        sentence, self._text = self._text[:end], self._text[end:]
        self._index = max(0, self._index - end)
        return sentence

    async def handle_interruption(self) -> None:
        """Forgets the sentence in progress."""
        await self.reset()

    async def reset(self) -> None:
        """Forgets the sentence in progress and the open tag."""
        self._text = ""
        self._open = None
        self._index = 0
