"""A filter by class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from antiphon.frames.frames import Frame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.passing import always_passes
from antiphon.utils.checks import check_classes


class FrameFilter(FrameProcessor):
    """Passes the frames of some classes on and drops the others, in both directions.

    System frames and the frames that end a pipeline always pass.
    """

    movable: ClassVar[bool] = True

    def __init__(self, types: Iterable[type[Frame]], **kwargs: Any) -> None:
        """Makes the filter.

        Args:
            types: The classes that pass, with their subclasses.
            **kwargs: Passed to the base.

        Raises:
            TypeError: If one of them is no class of frames.
        """
        super().__init__(**kwargs)
        self._types = check_classes("FrameFilter(types)", types, Frame)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Passes the frame on or drops it."""
        await super().process_frame(frame, direction)
        if isinstance(frame, self._types) or always_passes(frame):
            await self.push_frame(frame, direction)
