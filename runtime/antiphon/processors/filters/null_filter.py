"""A filter that lets nothing through."""

from __future__ import annotations

from typing import ClassVar

from antiphon.frames.frames import Frame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.passing import always_passes


class NullFilter(FrameProcessor):
    """Drops every frame but system frames and the frames that end a pipeline."""

    movable: ClassVar[bool] = True

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Drops the frame, unless the pipeline needs it."""
        await super().process_frame(frame, direction)
        if always_passes(frame):
            await self.push_frame(frame, direction)
