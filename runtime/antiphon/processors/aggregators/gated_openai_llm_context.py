"""A gate for conversations."""

from __future__ import annotations

import asyncio
from typing import Any

from antiphon.frames.frames import CancelFrame, EndFrame, Frame, StartFrame
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContextFrame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.sync.base_notifier import BaseNotifier


class GatedOpenAILLMContextAggregator(FrameProcessor):
    """Holds the latest context frame until it is told to let it go; other frames pass."""

    movable = False

    def __init__(self, *, notifier: BaseNotifier, start_open: bool = False, **kwargs: Any) -> None:
        """Makes the gate.

        Args:
            notifier: Lets the held frame go.
            start_open: Whether the very first context frame passes at once.
            **kwargs: Passed on to ``FrameProcessor``.
        """
        super().__init__(**kwargs)
        self._notifier = notifier
        self._start_open = start_open
        # Only the latest is of use: every context frame carries the whole conversation.
        self._held: OpenAILLMContextFrame | None = None
        self._gate_task: asyncio.Task[Any] | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Holds context frames; other frames pass."""
        await super().process_frame(frame, direction)

        if isinstance(frame, StartFrame):
            await self.push_frame(frame, direction)
            if self._gate_task is None:
                self._gate_task = self.create_task(self._release(), "gate")
        elif isinstance(frame, (EndFrame, CancelFrame)):
            await self._stop_gate()
            await self.push_frame(frame, direction)
        elif isinstance(frame, OpenAILLMContextFrame) and not self._start_open:
            self._held = frame
        else:
            if isinstance(frame, OpenAILLMContextFrame):
                self._start_open = False
            await self.push_frame(frame, direction)

    async def cleanup(self) -> None:
        """Ends the gate."""
        await self._stop_gate()
        await super().cleanup()

    async def _release(self) -> None:
        while True:
            await self._notifier.wait()
            frame, self._held = self._held, None
            if frame is not None:
                await self.push_frame(frame)

    async def _stop_gate(self) -> None:
        if self._gate_task is not None:
            task, self._gate_task = self._gate_task, None
            await self.cancel_task(task)
