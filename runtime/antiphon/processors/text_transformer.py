"""Changing text as it comes by."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from antiphon.frames.frames import Frame, TextFrame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor


class StatelessTextTransformer(FrameProcessor):
    """Replaces each text frame by a TextFrame with what a function makes of its text."""

    movable: ClassVar[bool] = False
    pinned_reason: ClassVar[str] = "it calls the bot's own function"

    def __init__(
        self,
        transform_fn: Callable[[str], str] | Callable[[str], Coroutine[None, None, str]],
        **kwargs: Any,
    ) -> None:
        """Makes the transformer.

        Args:
            transform_fn: Plain or async; gets the text and returns the text to push.
            **kwargs: Passed to the base.
        """
        super().__init__(**kwargs)
        self._transform_fn = transform_fn

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Transforms text; other frames pass."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            result: Any = self._transform_fn(frame.text)
            if inspect.isawaitable(result):
                result = await result
            frame = TextFrame(text=result)
        await self.push_frame(frame, direction)
