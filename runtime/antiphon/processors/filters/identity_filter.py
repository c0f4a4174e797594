"""A filter that filters nothing."""

from __future__ import annotations

from typing import ClassVar

from antiphon.frames.frames import Frame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor


class IdentityFilter(FrameProcessor):
    """Passes every frame on, in both directions: a placeholder, or a base to build on."""

    movable: ClassVar[bool] = True

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Passes the frame on."""
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
