"""A gate that holds frames back."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from loguru import logger

from antiphon.frames.frames import EndFrame, Frame, StopFrame, SystemFrame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor

_HIGH_WATER = 10_000
"""Frames held back above which a warning is logged: the gate may never open."""


class GatedAggregator(FrameProcessor):
    """Holds the frames of one direction while its gate is closed.

    System frames, EndFrame, StopFrame and the other direction always pass. The frame that opens the gate goes first,
    then those that were held, in order. The frame that closes it is held already.
    """

    movable = False

    def __init__(
        self,
        gate_open_fn: Callable[[Frame], Any],
        gate_close_fn: Callable[[Frame], Any],
        start_open: bool,
        direction: FrameDirection = FrameDirection.DOWNSTREAM,
    ) -> None:
        """Makes a gate.

        Args:
            gate_open_fn: Asked for each frame while the gate is closed: does it open it?
            gate_close_fn: Asked for each frame while the gate is open: does it close it?
            start_open: Whether the gate is open at first.
            direction: The direction the gate is in.
        """
        super().__init__()
        self._gate_open_fn = gate_open_fn
        self._gate_close_fn = gate_close_fn
        self._gate_open = start_open
        self._direction = direction
        # Not bounded: dropping would lose the bot's frames. A warning tells of a stuck gate.
        self._held: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Holds the frame or passes it on."""
        await super().process_frame(frame, direction)

        # A closed gate must not keep the pipeline from ending.
        passes = isinstance(frame, (SystemFrame, EndFrame, StopFrame))
        if passes or direction is not self._direction:
            await self.push_frame(frame, direction)
            return
        if self._gate_open:
            self._gate_open = not await _ask(self._gate_close_fn, frame)
        else:
            self._gate_open = await _ask(self._gate_open_fn, frame)
        if not self._gate_open:
            self._held.append(frame)
            if len(self._held) == _HIGH_WATER:
                logger.warning("gate holds many frames", processor=self.name, frames=_HIGH_WATER)
            return
        held, self._held = self._held, []
        for passing in (frame, *held):
            await self.push_frame(passing, direction)


async def _ask(question: Callable[[Frame], Any], frame: Frame) -> bool:
    answer = question(frame)
    return bool(await answer if inspect.isawaitable(answer) else answer)
