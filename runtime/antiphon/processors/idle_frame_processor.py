"""Noticing that no frames come."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ClassVar

from loguru import logger

from antiphon.frames.frames import CancelFrame, EndFrame, ErrorFrame, Frame, StartFrame
from antiphon.processors.aggregators._quiet_timer import QuietTimer
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor


class IdleFrameProcessor(FrameProcessor):
    """Calls a function of the bot each time that no frame came by for a while."""

    movable: ClassVar[bool] = False
    pinned_reason: ClassVar[str] = "it calls the bot's own function"

    def __init__(
        self,
        *,
        callback: Callable[[IdleFrameProcessor], Awaitable[None]],
        timeout: float,
        types: Iterable[type[Frame]] | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes the processor.

        Args:
            callback: Called with the processor, again and again as long as nothing comes.
            timeout: Seconds.
            types: The classes of frames that count; None or none at all: all frames.
            **kwargs: Passed to the base.
        """
        super().__init__(**kwargs)
        self._callback = callback
        self._timeout_secs = timeout
        self._types: tuple[type[Frame], ...] = tuple(types or ()) or (Frame,)
        self._timer = QuietTimer(self._call_back)
        self._task: asyncio.Task[None] | None = None

    async def cleanup(self) -> None:
        """Ends the watch; a callback in progress is cancelled."""
        await self._end_task()
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Passes the frame on and begins to wait anew."""
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, (EndFrame, CancelFrame)):
            await self._end_task()
            return
        if isinstance(frame, StartFrame) and self._task is None:
            self._task = self.create_task(self._timer.run(), "idle")
        if isinstance(frame, (StartFrame, *self._types)):
            self._timer.restart(self._timeout_secs)

    async def _call_back(self) -> None:
        try:
            result: Any = self._callback(self)
            if inspect.isawaitable(result):
                await result
        except Exception as error:  # noqa: BLE001 - the bot's own code
            logger.opt(exception=error).error("idle callback failed", processor=self.name)
            await self.push_error(ErrorFrame(error=f"idle callback failed: {error}"))
        if not self._timer.armed:
            self._timer.restart(self._timeout_secs)

    async def _end_task(self) -> None:
        self._timer.stop()
        if self._task is not None and self._task is not asyncio.current_task():
            task, self._task = self._task, None
            await self.cancel_task(task)
