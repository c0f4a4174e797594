"""Seeing in the log which frames come by."""

from __future__ import annotations

from typing import Any, ClassVar

from loguru import logger

from antiphon.frames.frames import (
    BotSpeakingFrame,
    Frame,
    InputAudioRawFrame,
    OutputAudioRawFrame,
    TransportMessageFrame,
)
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor


class FrameLogger(FrameProcessor):
    """Logs each frame at the level DEBUG and passes it on."""

    movable: ClassVar[bool] = True

    def __init__(
        self,
        prefix: str = "Frame",
        color: str | None = None,
        ignored_frame_types: tuple[type[Frame], ...] = (
            BotSpeakingFrame,
            InputAudioRawFrame,
            OutputAudioRawFrame,
            TransportMessageFrame,
        ),
        *,
        include_content: bool = False,
        **kwargs: Any,
    ) -> None:
        """Makes the logger.

        Args:
            prefix: What the lines begin with.
            color: A color of loguru's for the lines, such as "red".
            ignored_frame_types: The classes of frames that are not logged.
            include_content: Whether what the frames hold is logged too. That may be what people
                said.
            **kwargs: Passed to the base.
        """
        super().__init__(**kwargs)
        begin, end = (f"<{color}>", f"</{color}>") if color else ("", "")
        self._message = f"{begin}{_escaped(prefix)}: {{direction}} {{what}}{end}"
        self._ignored = tuple(ignored_frame_types)
        self._include_content = include_content

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Logs the frame and passes it on."""
        await super().process_frame(frame, direction)
        if not isinstance(frame, self._ignored):
            logger.opt(colors=True).debug(
                self._message,
                processor=self.name,
                direction=">" if direction is FrameDirection.DOWNSTREAM else "<",
                what=str(frame) if self._include_content else frame.name,
            )
        await self.push_frame(frame, direction)


def _escaped(text: str) -> str:
    """Text that loguru takes neither for color markup nor for fields."""
    return text.replace("<", r"\<").replace("{", "{{").replace("}", "}}")
