"""What a pipeline task offers."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass

from antiphon.frames.frames import Frame
from antiphon.utils.base_object import BaseObject


@dataclass
class PipelineTaskParams:
    """What a task gets from its runner.

    Attributes:
        loop: The event loop to run on.
    """

    loop: asyncio.AbstractEventLoop


class BasePipelineTask(BaseObject):
    """Runs one pipeline from its StartFrame to its end."""

    @abstractmethod
    def has_finished(self) -> bool:
        """Whether run() is over."""

    @abstractmethod
    async def stop_when_done(self) -> None:
        """Ends the pipeline after everything queued so far."""

    @abstractmethod
    async def cancel(self) -> None:
        """Ends the pipeline now."""

    @abstractmethod
    async def run(self, params: PipelineTaskParams) -> None:
        """Runs the pipeline until it ends."""

    @abstractmethod
    async def queue_frame(self, frame: Frame) -> None:
        """Queues a frame at the beginning of the pipeline."""

    @abstractmethod
    async def queue_frames(self, frames: Iterable[Frame] | AsyncIterable[Frame]) -> None:
        """Queues frames at the beginning of the pipeline."""
