"""A filter that asks a function."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from antiphon.frames.frames import Frame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.passing import always_passes
from antiphon.utils.checks import check_callable, check_instance


class FunctionFilter(FrameProcessor):
    """Passes on the frames of one direction for which a function says True.

    System frames, the frames that end a pipeline and the other direction always pass.
    """

    movable: ClassVar[bool] = False
    pinned_reason: ClassVar[str] = "it asks the bot's own function"

    def __init__(
        self,
        filter: Callable[[Frame], Awaitable[bool]],
        direction: FrameDirection = FrameDirection.DOWNSTREAM,
        **kwargs: Any,
    ) -> None:
        """Makes the filter.

        Args:
            filter: Asked for every frame of either direction, also for those that always pass:
                a bot may follow the conversation in it.
            direction: The direction that is filtered.
            **kwargs: Passed to the base.

        Raises:
            TypeError: If the filter cannot take a frame, or the direction is none.
        """
        super().__init__(**kwargs)
        check_callable("FunctionFilter(filter)", filter, "frame")
        check_instance("FunctionFilter(direction)", direction, FrameDirection)
        self._filter = filter
        self._direction = direction

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Asks the function, and passes the frame on or drops it."""
        await super().process_frame(frame, direction)
        answer: Any = self._filter(frame)
        if inspect.isawaitable(answer):
            answer = await answer
        if answer or direction is not self._direction or always_passes(frame):
            await self.push_frame(frame, direction)
