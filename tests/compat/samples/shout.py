# mypy: ignore-errors
"""A program for Pipecat: a processor of its own, in a pipeline."""

import asyncio
import sys

from pipecat.frames.frames import EndFrame, Frame, TextFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineTask
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor


class Shout(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection):
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            print(frame.text.upper())  # noqa: T201
        await self.push_frame(frame, direction)


async def main():
    task = PipelineTask(Pipeline([Shout()]))
    await task.queue_frames([TextFrame(word) for word in sys.argv[1:]])
    await task.queue_frame(EndFrame())
    await PipelineRunner().run(task)


if __name__ == "__main__":
    asyncio.run(main())
