"""What every composition of processors has."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterator, Sequence

from loguru import logger

from antiphon.processors.frame_processor import FrameProcessor
from antiphon.utils.asyncio.by_force import cancel_until_done, close_by_force

CLEAN_UP_PATIENCE_SECS = 0.1
"""How long the clean-up of a processor may take before that of the next one begins."""


class BasePipeline(FrameProcessor):
    """A processor made of processors."""

    @property
    @abstractmethod
    def processors(self) -> Sequence[FrameProcessor]:
        """The processors this one is made of, inner sources and sinks included."""

    @abstractmethod
    def processors_with_metrics(self) -> list[FrameProcessor]:
        """The processors in here, at any depth, that report metrics."""


def walk(processor: FrameProcessor) -> Iterator[FrameProcessor]:
    """A processor and everything in it, in pipeline order."""
    yield processor
    if isinstance(processor, BasePipeline):
        for inner in processor.processors:
            yield from walk(inner)


async def clean_up_all(processors: Sequence[FrameProcessor]) -> None:
    """Cleans up one processor after the other; one that fails is logged and stops no other.

    One that takes long holds up no other either: the next one begins beside it.
    """
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []
    try:
        for processor in processors:
            name = f"{processor}::cleanup"
            tasks.append(loop.create_task(_clean_up(processor), name=name))
            await asyncio.wait(tasks[-1:], timeout=CLEAN_UP_PATIENCE_SECS)
        if tasks:
            await asyncio.wait(tasks)
    except asyncio.CancelledError:
        await cancel_until_done(tasks)
        raise
    finally:
        # Reached with some that go on only where this itself is closed.
        close_by_force(tasks)


async def _clean_up(processor: FrameProcessor) -> None:
    try:
        await processor.cleanup()
    except Exception as error:  # noqa: BLE001 - code of bots
        logger.opt(exception=error).error(
            "processor could not be cleaned up", processor=processor.name
        )


def with_metrics(processors: Sequence[FrameProcessor]) -> list[FrameProcessor]:
    """Those of the processors, and of the pipelines among them, that report metrics."""
    found: list[FrameProcessor] = []
    for processor in processors:
        if isinstance(processor, BasePipeline):
            found.extend(processor.processors_with_metrics())
        elif processor.can_generate_metrics():
            found.append(processor)
    return found
