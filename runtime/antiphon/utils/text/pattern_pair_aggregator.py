"""Sentences out of streamed text, with handlers for what stands between pairs of patterns."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from loguru import logger

from antiphon.utils.checks import check_callable
from antiphon.utils.string import match_endofsentence
from antiphon.utils.text.base_text_aggregator import BaseTextAggregator
from antiphon.utils.text.simple_text_aggregator import is_fragment


@dataclass
class PatternMatch:
    """What was found between a pair of patterns.

    Attributes:
        pattern_id: Name of the pair.
        full_match: The text with both patterns.
        content: The text between them, as it is.
    """

    pattern_id: str
    full_match: str
    content: str

    def __str__(self) -> str:
        return f"PatternMatch(id={self.pattern_id}, content={self.content})"


PatternHandler = Callable[[PatternMatch], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class _Pair:
    pattern_id: str
    start: str
    end: str
    remove: bool


class PatternPairAggregator(BaseTextAggregator):
    """Hands text on one sentence at a time, and calls handlers for what stands between patterns.

    Pairs are found in the order in which they begin in the text, each once. What is inside a pair
    is its content, whatever it looks like. While a pair is open, nothing is handed on.
    """

    def __init__(self) -> None:
        """Begins without text and without patterns."""
        self._text = ""
        # Before this index all pairs are handled.
        self._handled = 0
        self._pairs: dict[str, _Pair] = {}
        self._handlers: dict[str, PatternHandler] = {}

    @property
    def text(self) -> str:
        """The text that was not yet handed on, an open pair included."""
        return self._text

    def add_pattern_pair(
        self, pattern_id: str, start_pattern: str, end_pattern: str, remove_match: bool = True
    ) -> PatternPairAggregator:
        """Looks for a pair of patterns from now on.

        Args:
            pattern_id: Name of the pair; one of the same name is replaced.
            start_pattern: Text that begins it.
            end_pattern: Text that ends it.
            remove_match: Whether to take the pair and what is between out of the text.

        Returns:
            This aggregator.

        Raises:
            ValueError: A pattern is empty.
        """
        if not start_pattern or not end_pattern:
            raise ValueError("a pattern that is empty would be found everywhere")
        self._pairs[pattern_id] = _Pair(pattern_id, start_pattern, end_pattern, remove_match)
        return self

    def on_pattern_match(self, pattern_id: str, handler: PatternHandler) -> PatternPairAggregator:
        """Sets what to call with each match of a pair, before the text around it is handed on.

        Args:
            pattern_id: Name of the pair.
            handler: A function, async or not. If it raises, that is logged and no more.

        Returns:
            This aggregator.

        Raises:
            TypeError: If the handler cannot take a match.
        """
        check_callable(f"the handler of pattern {pattern_id!r}", handler, "match")
        self._handlers[pattern_id] = handler
        return self

    async def aggregate(self, text: str) -> str | None:
        """Takes a piece of text, calls handlers, and returns the first sentence once complete."""
        self._text += text
        if not await self._handle_pairs():
            return None
        end = match_endofsentence(self._text, partial=is_fragment(text))
        if not end:
            return None
        sentence, self._text = self._text[:end], self._text[end:]
        self._handled = max(0, self._handled - end)
        return sentence

    async def handle_interruption(self) -> None:
        """Forgets the text in progress."""
        await self.reset()

    async def reset(self) -> None:
        """Forgets the text in progress; the patterns stay."""
        self._text = ""
        self._handled = 0

    async def _handle_pairs(self) -> bool:
        """Handles complete pairs; returns whether none is open."""
        while True:
            starts = [
                (at, -len(pair.start), pair)
                for pair in self._pairs.values()
                if (at := self._text.find(pair.start, self._handled)) >= 0
            ]
            if not starts:
                return True
            begin, _, pair = min(starts, key=lambda start: start[:2])
            inner = begin + len(pair.start)
            end = self._text.find(pair.end, inner)
            if end < 0:
                return False
            behind = end + len(pair.end)
            match = PatternMatch(pair.pattern_id, self._text[begin:behind], self._text[inner:end])
            if pair.remove:
                self._text = self._text[:begin] + self._text[behind:]
            self._handled = begin if pair.remove else behind
            await self._call_handler(match)

    async def _call_handler(self, match: PatternMatch) -> None:
        handler = self._handlers.get(match.pattern_id)
        if handler is None:
            return
        try:
            result = handler(match)
            if inspect.isawaitable(result):
                await result
        except Exception as error:  # noqa: BLE001 - a handler's fault must not silence the bot
            logger.error(
                "pattern handler failed", pattern_id=match.pattern_id, reason=type(error).__name__
            )
