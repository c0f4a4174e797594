"""What a user said, as one text."""

from __future__ import annotations

from typing import Any

from antiphon.frames.frames import TextFrame
from antiphon.processors.aggregators.llm_response import LLMUserContextAggregator
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext


class UserResponseAggregator(LLMUserContextAggregator):
    """Joins transcriptions like the user's half of a context aggregator, into a ``TextFrame``."""

    def __init__(self, **kwargs: Any) -> None:
        """Makes the aggregator.

        Args:
            **kwargs: Passed on to ``LLMUserContextAggregator``.
        """
        super().__init__(context=OpenAILLMContext(), **kwargs)

    async def push_aggregation(self) -> None:
        """Pushes the text collected so far; without any nothing happens."""
        text = self._aggregation.strip()
        await self.reset()
        if text:
            await self.push_frame(TextFrame(text=text))
