"""Whole responses of a language model, for who wants to read them."""

from __future__ import annotations

from typing import Any

from antiphon.frames.frames import (
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    StartInterruptionFrame,
)
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.utils.asyncio.held import HeldFrames


class LLMFullResponseAggregator(FrameProcessor):
    """Reports each response of a language model as one text; every frame passes.

    Event handlers:
        on_completion(aggregator, text: str, completed: bool): A response ended (True), or an
            interruption came (False) with the text that had arrived until then.
    """

    movable = True

    def __init__(self, **kwargs: Any) -> None:
        """Makes the aggregator.

        Args:
            **kwargs: Passed on to ``FrameProcessor``.
        """
        super().__init__(**kwargs)
        self._aggregation = ""
        self._in_response = False
        self._held = HeldFrames()
        self._register_event_handler("on_completion")

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Collects the text between the start and the end of a response."""
        await super().process_frame(frame, direction)

        if isinstance(frame, StartInterruptionFrame):
            await self._complete(completed=False)
        elif isinstance(frame, LLMFullResponseStartFrame):
            self._in_response = True
            self._held.add()
        elif isinstance(frame, LLMFullResponseEndFrame):
            await self._complete(completed=True)
        elif isinstance(frame, LLMTextFrame) and self._in_response:
            self._aggregation += frame.text
            self._held.add()

        await self.push_frame(frame, direction)

    async def _complete(self, *, completed: bool) -> None:
        text, self._aggregation = self._aggregation, ""
        self._in_response = False
        await self._call_event_handler("on_completion", text, completed)
        self._held.release()
