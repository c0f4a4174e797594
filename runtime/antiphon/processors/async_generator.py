"""The frames of a pipeline as an async generator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, ClassVar, Protocol

from antiphon.frames.frames import CancelFrame, EndFrame, Frame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.overflow import QUEUE_LIMIT, offer


class Serializer(Protocol):
    """What makes data of a frame, such as a FrameSerializer."""

    async def serialize(self, frame: Frame) -> str | bytes | None:
        """Data for the frame; None if it has none."""


class AsyncGeneratorProcessor(FrameProcessor):
    """Yields the frames that come by, serialized, and passes them on.

    For a program that has no transport, such as one that answers a web request by a stream.
    """

    movable: ClassVar[bool] = False
    pinned_reason: ClassVar[str] = "the bot reads its generator"

    def __init__(self, *, serializer: Serializer, **kwargs: Any) -> None:
        """Makes the processor.

        Args:
            serializer: Makes what is yielded of a frame; frames it makes nothing of are left out.
            **kwargs: Passed to the base.
        """
        super().__init__(**kwargs)
        self._serializer = serializer
        self._queue: asyncio.Queue[str | bytes | None] = asyncio.Queue(QUEUE_LIMIT)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Serializes the frame and passes it on; EndFrame and CancelFrame end the generator."""
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, (EndFrame, CancelFrame)):
            offer(self._queue, None, processor=self.name)
            return
        data = await self._serializer.serialize(frame)
        if data is not None:
            offer(self._queue, data, processor=self.name)

    async def generator(self) -> AsyncGenerator[str | bytes, None]:
        """Yields the serialized frames until the pipeline ends.

        When nobody reads for long, the oldest are lost.
        """
        # The wait ends with the pipeline.
        while (data := await self._queue.get()) is not None:
            yield data
