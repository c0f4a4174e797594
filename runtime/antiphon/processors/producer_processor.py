"""Giving frames to another part of a pipeline."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from antiphon.frames.frames import CancelFrame, EndFrame, Frame, StartFrame, StopFrame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.overflow import QUEUE_LIMIT, offer
from antiphon.utils.checks import check_callable

_LIFECYCLE = (StartFrame, EndFrame, StopFrame, CancelFrame)

Transformer = Callable[[Frame], Awaitable[Frame]]


async def identity_transformer(frame: Frame) -> Frame:
    """Returns the frame as it is."""
    return frame


async def transformed(transformer: Transformer, frame: Frame) -> Frame:
    """What a transformer, async or plain, makes of a frame."""
    result: Any = transformer(frame)
    if inspect.isawaitable(result):
        result = await result
    frame_out: Frame = result
    return frame_out


class ProducerProcessor(FrameProcessor):
    """Gives the frames that a function selects to its consumers, wherever they are."""

    movable: ClassVar[bool] = False
    pinned_reason: ClassVar[str] = "it asks the bot's own function and shares queues with others"

    def __init__(
        self,
        *,
        filter: Callable[[Frame], Awaitable[bool]],
        transformer: Transformer = identity_transformer,
        passthrough: bool = True,
        **kwargs: Any,
    ) -> None:
        """Makes a producer without consumers.

        Args:
            filter: Says whether a frame is given to the consumers.
            transformer: Makes what they get of the frame.
            passthrough: Whether such frames also go on from here. The frames that keep the pipeline
                itself going always do.
            **kwargs: Passed to the base.

        Raises:
            TypeError: If one of the functions cannot take a frame.
        """
        super().__init__(**kwargs)
        check_callable("ProducerProcessor(filter)", filter, "frame")
        check_callable("ProducerProcessor(transformer)", transformer, "frame")
        self._filter = filter
        self._transformer = transformer
        self._passthrough = passthrough
        self._consumers: list[asyncio.Queue[Frame]] = []

    def add_consumer(self) -> asyncio.Queue[Frame]:
        """Adds a consumer.

        Returns:
            The queue it gets its frames from. When nobody reads it, the oldest frames are lost.
        """
        queue: asyncio.Queue[Frame] = asyncio.Queue(QUEUE_LIMIT)
        self._consumers.append(queue)
        return queue

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Gives the frame to the consumers, if it is selected, and passes it on."""
        await super().process_frame(frame, direction)
        answer: Any = self._filter(frame)
        selected = await answer if inspect.isawaitable(answer) else answer
        if selected:
            given = await transformed(self._transformer, frame)
            for queue in self._consumers:
                offer(queue, given, processor=self.name)
        if not selected or self._passthrough or isinstance(frame, _LIFECYCLE):
            await self.push_frame(frame, direction)
