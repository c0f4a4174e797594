"""What every composition of processors has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from loguru import logger

from antiphon.processors.frame_processor import FrameProcessor


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
    """Cleans up one processor after the other; one that fails is logged and stops no other."""
    for processor in processors:
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
