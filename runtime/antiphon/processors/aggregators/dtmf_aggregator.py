"""Words out of key presses."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from loguru import logger

from antiphon.frames.frames import (
    BotInterruptionFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InputDTMFFrame,
    KeypadEntry,
    StartFrame,
    StartInterruptionFrame,
    TranscriptionFrame,
)
from antiphon.processors.aggregators._quiet_timer import QuietTimer
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.utils.checks import check_instance, check_number
from antiphon.utils.time import time_now_iso8601

_LONGEST = 1_000
"""Keys after which a sequence is taken for complete: nobody presses as many on purpose."""


class DTMFAggregator(FrameProcessor):
    """Makes one transcription of the keys that a caller presses in a row.

    A sequence is complete with the termination digit, after a while without another key, when the
    user interrupts, and when the pipeline ends. Its first key interrupts the bot. Every frame is
    passed on.
    """

    movable: ClassVar[bool] = True

    def __init__(
        self,
        timeout: float = 2.0,
        termination_digit: KeypadEntry = KeypadEntry.POUND,
        prefix: str = "DTMF: ",
        **kwargs: Any,
    ) -> None:
        """Makes the aggregator.

        Args:
            timeout: Seconds after the last key at which a sequence is complete.
            termination_digit: The key that completes a sequence; it is part of it.
            prefix: What the transcription begins with.
            **kwargs: Passed to the base.

        Raises:
            TypeError: If one of them is of another type.
            ValueError: If the timeout is negative.
        """
        super().__init__(**kwargs)
        check_number("DTMFAggregator(timeout)", timeout, at_least=0)
        check_instance("DTMFAggregator(termination_digit)", termination_digit, KeypadEntry)
        check_instance("DTMFAggregator(prefix)", prefix, str)
        self._timeout_secs = timeout
        self._termination_digit = termination_digit
        self._prefix = prefix
        self._keys = ""
        # Whether the interruption that the first key asked for is still to come back.
        self._own_interruption = False
        self._timer = QuietTimer(self._flush)
        self._task: asyncio.Task[None] | None = None

    async def cleanup(self) -> None:
        """Ends the timer."""
        await self._end_task()
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Collects keys; every frame is passed on."""
        await super().process_frame(frame, direction)

        if isinstance(frame, (EndFrame, CancelFrame)):
            await self._flush()
            await self._end_task()
        await self.push_frame(frame, direction)
        if isinstance(frame, InputDTMFFrame):
            await self._take(frame)
        elif isinstance(frame, StartInterruptionFrame):
            # After it was passed on: it makes others drop what waits.
            if self._own_interruption:
                self._own_interruption = False
            else:
                await self._flush()
        elif isinstance(frame, StartFrame) and self._task is None:
            self._task = self.create_task(self._timer.run(), "timer")

    async def _take(self, frame: InputDTMFFrame) -> None:
        try:
            key = KeypadEntry(frame.button)
        except ValueError:
            logger.warning("unknown key ignored", processor=self.name)
            return
        first = not self._keys
        self._keys += key.value
        if first:
            self._own_interruption = self.interruptions_allowed
            await self.push_frame(BotInterruptionFrame(), FrameDirection.UPSTREAM)
        if key is self._termination_digit or len(self._keys) >= _LONGEST:
            await self._flush()
        else:
            self._timer.restart(self._timeout_secs)

    async def _flush(self) -> None:
        self._timer.stop()
        keys, self._keys = self._keys, ""
        self._own_interruption = False
        if keys:
            text = f"{self._prefix}{keys}"
            await self.push_frame(TranscriptionFrame(text, "", time_now_iso8601()))

    async def _end_task(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            await self.cancel_task(task)
