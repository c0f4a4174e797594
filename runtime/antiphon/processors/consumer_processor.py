"""Taking frames from another part of a pipeline."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, ClassVar

from loguru import logger

from antiphon.frames.frames import CancelFrame, EndFrame, ErrorFrame, Frame, StartFrame, SystemFrame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.producer_processor import (
    ProducerProcessor,
    Transformer,
    identity_transformer,
    transformed,
)
from antiphon.utils.checks import check_callable, check_instance


class ConsumerProcessor(FrameProcessor):
    """Pushes the frames that a producer gives it, beside those that come by.

    What was given before a data or control frame came by goes out before it.
    """

    movable: ClassVar[bool] = False
    pinned_reason: ClassVar[str] = "it shares a queue with its producer"

    def __init__(
        self,
        *,
        producer: ProducerProcessor,
        transformer: Transformer = identity_transformer,
        direction: FrameDirection = FrameDirection.DOWNSTREAM,
        **kwargs: Any,
    ) -> None:
        """Makes a consumer.

        Args:
            producer: Where the frames come from.
            transformer: Makes what is pushed of a frame.
            direction: Where the frames are pushed.
            **kwargs: Passed to the base.

        Raises:
            TypeError: If one of them is of another type.
        """
        super().__init__(**kwargs)
        check_instance("ConsumerProcessor(producer)", producer, ProducerProcessor)
        check_callable("ConsumerProcessor(transformer)", transformer, "frame")
        check_instance("ConsumerProcessor(direction)", direction, FrameDirection)
        self._transformer = transformer
        self._direction = direction
        self._queue = producer.add_consumer()
        # Older than what is in the queue; at most one frame.
        self._taken: deque[Frame] = deque()
        # Held while frames are pushed, so that they leave in order.
        self._pushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def cleanup(self) -> None:
        """Ends taking frames."""
        await self._end_task()
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Passes the frame on; an EndFrame waits for the frames given before it."""
        await super().process_frame(frame, direction)
        if isinstance(frame, EndFrame):
            await self._push_waiting()
            await self._end_task()
        elif not isinstance(frame, SystemFrame) and direction is self._direction:
            await self._push_waiting()
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame) and self._task is None:
            self._task = self.create_task(self._consume(), "consume")
        elif isinstance(frame, CancelFrame):
            await self._end_task()

    async def _consume(self) -> None:
        while True:
            # The wait ends with the processor.
            self._taken.append(await self._queue.get())
            await self._push_waiting()

    async def _push_waiting(self) -> None:
        async with self._pushing:
            while self._taken or not self._queue.empty():
                frame = self._taken.popleft() if self._taken else self._queue.get_nowait()
                await self._push_given(frame)

    async def _push_given(self, frame: Frame) -> None:
        try:
            given = await transformed(self._transformer, frame)
        except Exception as error:  # noqa: BLE001 - the bot's own code
            logger.opt(exception=error).error("transformer failed", processor=self.name)
            await self.push_error(ErrorFrame(error=f"transformer failed: {error}"))
            return
        await self.push_frame(given, self._direction)

    async def _end_task(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            await self.cancel_task(task)
