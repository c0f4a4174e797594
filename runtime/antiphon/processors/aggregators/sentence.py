"""Sentences out of pieces of text."""

from __future__ import annotations

from antiphon.frames.frames import EndFrame, Frame, InterimTranscriptionFrame, TextFrame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.utils.asyncio.held import HeldFrames
from antiphon.utils.string import match_endofsentence


class SentenceAggregator(FrameProcessor):
    """Replaces text frames by one for each sentence.

    Interim transcriptions are dropped. What is left when the pipeline ends is pushed as it is.
    """

    movable = True

    def __init__(self) -> None:
        """Makes the aggregator."""
        super().__init__()
        self._aggregation = ""
        self._held = HeldFrames()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Collects text; other frames pass."""
        await super().process_frame(frame, direction)

        if isinstance(frame, InterimTranscriptionFrame):
            return
        if isinstance(frame, TextFrame):
            self._aggregation += frame.text
            self._held.add()
            if match_endofsentence(self._aggregation):
                await self._push_sentence()
            return
        if isinstance(frame, EndFrame) and self._aggregation:
            await self._push_sentence()
        await self.push_frame(frame, direction)

    async def _push_sentence(self) -> None:
        text, self._aggregation = self._aggregation, ""
        await self.push_frame(TextFrame(text=text))
        self._held.release()
