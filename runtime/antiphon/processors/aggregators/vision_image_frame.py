"""A question and the picture it is about."""

from __future__ import annotations

from typing import Any, ClassVar

from antiphon.frames.frames import Frame, InputImageRawFrame, TextFrame, VisionImageRawFrame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor


class VisionImageFrameAggregator(FrameProcessor):
    """Makes one frame of a text and the next image from the user.

    Texts are consumed, the latest one counts. Images for which there is no text are dropped.
    """

    movable: ClassVar[bool] = True

    def __init__(self, **kwargs: Any) -> None:
        """Makes the aggregator.

        Args:
            **kwargs: Passed to the base.
        """
        super().__init__(**kwargs)
        self._text: str | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Collects texts and images; other frames pass."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            self._text = frame.text
        elif isinstance(frame, InputImageRawFrame):
            if self._text:
                text, self._text = self._text, None
                await self.push_frame(
                    VisionImageRawFrame(
                        image=frame.image, size=frame.size, format=frame.format, text=text
                    ),
                    direction,
                )
        else:
            await self.push_frame(frame, direction)
