"""Noticing that the user has gone quiet."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, cast

from loguru import logger

from antiphon.frames.frames import (
    BotSpeakingFrame,
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    StartFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from antiphon.processors.aggregators._quiet_timer import QuietTimer
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.running_calls import RunningCalls
from antiphon.utils.checks import check_number

BasicCallback = Callable[["UserIdleProcessor"], Awaitable[None]]
RetryCallback = Callable[["UserIdleProcessor", int], Awaitable[bool]]


class UserIdleProcessor(FrameProcessor):
    """Calls a function of the bot each time that nobody has spoken for a while.

    The watch begins when somebody first speaks. It rests while the user speaks and while a function
    call runs, and begins anew whenever the bot speaks. Every frame is passed on.
    """

    movable: ClassVar[bool] = False
    pinned_reason: ClassVar[str] = "it calls the bot's own function"

    def __init__(
        self, *, callback: BasicCallback | RetryCallback, timeout: float, **kwargs: Any
    ) -> None:
        """Makes the processor.

        Args:
            callback: Either ``async (processor) -> None``, or ``async (processor, retry_count) ->
                bool``, where retry_count is 1 the first time after the user spoke, and False ends
                the watch. It may push frames through the processor.
            timeout: Seconds of quiet.
            **kwargs: Passed to the base.

        Raises:
            TypeError: If the callback can take neither, or the timeout is no number.
            ValueError: If the timeout is not above 0.
        """
        super().__init__(**kwargs)
        self._callback = _with_retries(callback)
        check_number("UserIdleProcessor(timeout)", timeout, above=0)
        self._timeout_secs = timeout
        self._retry_count = 0
        self._conversing = False
        self._user_speaking = False
        self._given_up = False
        self._calls = RunningCalls()
        self._timer = QuietTimer(self._call_back)
        self._task: asyncio.Task[None] | None = None

    @property
    def retry_count(self) -> int:
        """How often the function was called since the user last spoke."""
        return self._retry_count

    async def cleanup(self) -> None:
        """Ends the watch; a callback in progress is cancelled."""
        await self._end_task()
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Passes the frame on and follows who speaks."""
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)

        if isinstance(frame, StartFrame):
            self._retry_count = 0
            self._conversing = self._user_speaking = self._given_up = False
            self._calls.clear()
            if self._task is None:
                self._task = self.create_task(self._timer.run(), "idle")
            return
        if isinstance(frame, (EndFrame, CancelFrame)):
            await self._end_task()
            return
        calling = bool(self._calls)
        self._calls.follow(frame)
        spoken = True
        if isinstance(frame, UserStartedSpeakingFrame):
            self._retry_count = 0
            self._user_speaking = True
        elif isinstance(frame, UserStoppedSpeakingFrame):
            self._user_speaking = False
        elif not isinstance(frame, BotSpeakingFrame):
            spoken = False
        self._conversing = self._conversing or spoken
        if spoken or calling != bool(self._calls):
            self._watch()

    def _watch(self) -> None:
        """Begins to wait anew, if there is anything to wait for."""
        if self._conversing and not (self._user_speaking or self._calls or self._given_up):
            self._timer.restart(self._timeout_secs)
        else:
            self._timer.stop()

    async def _call_back(self) -> None:
        self._retry_count += 1
        try:
            go_on = await self._callback(self, self._retry_count)
        except Exception as error:  # noqa: BLE001 - the bot's own code
            logger.opt(exception=error).error("idle callback failed", processor=self.name)
            await self.push_error(ErrorFrame(error=f"idle callback failed: {error}"))
            go_on = True
        self._given_up = not go_on
        if self._given_up or not self._timer.armed:
            self._watch()

    async def _end_task(self) -> None:
        self._timer.stop()
        if self._task is not None and self._task is not asyncio.current_task():
            task, self._task = self._task, None
            await self.cancel_task(task)


def _with_retries(callback: BasicCallback | RetryCallback) -> RetryCallback:
    """Either kind of callback as one that takes the retry count and says whether to go on."""
    try:
        signature = inspect.signature(callback)
        basic = len(signature.parameters) == 1
        signature.bind(*((None,) if basic else (None, 0)))
    except (TypeError, ValueError) as error:
        raise TypeError(
            "the callback has to take the processor, or the processor and the retry count"
        ) from error

    async def with_retries(processor: UserIdleProcessor, retry_count: int) -> bool:
        if basic:
            result: Any = cast(BasicCallback, callback)(processor)
        else:
            result = cast(RetryCallback, callback)(processor, retry_count)
        if inspect.isawaitable(result):
            result = await result
        return True if basic else bool(result)

    return with_retries
