"""A chain of processors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from antiphon.frames.frames import Frame
from antiphon.pipeline.base_pipeline import BasePipeline, clean_up_all, with_metrics
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from antiphon.utils.checks import check_sequence

PushFrame = Callable[[Frame, FrameDirection], Awaitable[None]]


class PipelineSource(FrameProcessor):
    """The inner beginning of a pipeline: hands upstream frames out."""

    def __init__(self, upstream_push_frame: PushFrame, *, name: str | None = None) -> None:
        """Makes a source.

        Args:
            upstream_push_frame: Takes the frames that leave the pipeline upstream.
            name: Name of the source.
        """
        super().__init__(name=name)
        self._leave = upstream_push_frame

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Passes downstream frames in and upstream frames out."""
        await super().process_frame(frame, direction)
        if direction is FrameDirection.UPSTREAM:
            await self._leave(frame, direction)
        else:
            await self.push_frame(frame, direction)


class PipelineSink(FrameProcessor):
    """The inner end of a pipeline: hands downstream frames out."""

    def __init__(self, downstream_push_frame: PushFrame, *, name: str | None = None) -> None:
        """Makes a sink.

        Args:
            downstream_push_frame: Takes the frames that leave the pipeline downstream.
            name: Name of the sink.
        """
        super().__init__(name=name)
        self._leave = downstream_push_frame

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Passes upstream frames in and downstream frames out."""
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            await self._leave(frame, direction)
        else:
            await self.push_frame(frame, direction)


class Pipeline(BasePipeline):
    """Processors one after the other. A pipeline is a processor, so pipelines nest."""

    def __init__(
        self,
        processors: Sequence[FrameProcessor],
        *,
        source: FrameProcessor | None = None,
        sink: FrameProcessor | None = None,
    ) -> None:
        """Links the processors.

        Args:
            processors: The processors, from the first to the last.
            source: Replaces the pipeline's own inner source.
            sink: Replaces the pipeline's own inner sink.

        Raises:
            TypeError: If they are no list, or one of them is not a FrameProcessor.
            ValueError: If one of them is there twice.
        """
        super().__init__()
        check_sequence("Pipeline(processors)", processors)
        for position, processor in enumerate(processors):
            if not isinstance(processor, FrameProcessor):
                raise TypeError(
                    f"Pipeline: item {position} is {processor!r}, not a FrameProcessor"
                    + (" (is it inside a list of its own?)" if isinstance(processor, list) else "")
                )
            if any(processor is earlier for earlier in processors[:position]):
                raise ValueError(
                    f"Pipeline: item {position} is {processor.name}, which is in the list already: "
                    "a processor has one place"
                )
        self._source = source or PipelineSource(self.push_frame, name=f"{self}::Source")
        self._sink = sink or PipelineSink(self.push_frame, name=f"{self}::Sink")
        self._processors: list[FrameProcessor] = [self._source, *processors, self._sink]
        previous: FrameProcessor | None = None
        for processor in self._processors:
            processor.set_parent(self)
            if previous is not None:
                previous.link(processor)
            previous = processor

    @property
    def processors(self) -> Sequence[FrameProcessor]:
        """The processors, inner source and sink included."""
        return self._processors

    def processors_with_metrics(self) -> list[FrameProcessor]:
        """The processors in here, at any depth, that report metrics."""
        return with_metrics(self._processors)

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Sets up the pipeline and everything in it."""
        await super().setup(setup)
        for processor in self._processors:
            await processor.setup(setup)

    async def cleanup(self) -> None:
        """Cleans up the pipeline and everything in it."""
        await super().cleanup()
        await clean_up_all(self._processors)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Lets a frame in at the end it comes from."""
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            await self._source.queue_frame(frame, direction)
        else:
            await self._sink.queue_frame(frame, direction)
