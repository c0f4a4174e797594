import asyncio
from collections.abc import Awaitable, Callable

import pytest

from antiphon.frames.frames import EndFrame, Frame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.tests.utils import SleepFrame

Run = Callable[..., Awaitable[tuple[list[Frame], list[Frame]]]]


class Capture(FrameProcessor):
    """Keeps the frames that pass in one direction."""

    def __init__(self, direction: FrameDirection) -> None:
        super().__init__()
        self.direction = direction
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is self.direction:
            self.frames.append(frame)
        await self.push_frame(frame, direction)


@pytest.fixture
def run() -> Run:
    """Runs a processor on some frames; returns what came out downstream and upstream."""

    async def run_processor(
        processor: FrameProcessor, *frames: Frame, metrics: bool = False
    ) -> tuple[list[Frame], list[Frame]]:
        up = Capture(FrameDirection.UPSTREAM)
        down = Capture(FrameDirection.DOWNSTREAM)
        task = PipelineTask(
            Pipeline([up, processor, down]),
            params=PipelineParams(
                enable_metrics=metrics,
                enable_usage_metrics=metrics,
                send_initial_empty_metrics=False,
                audio_out_sample_rate=16000,
            ),
            cancel_on_idle_timeout=False,
        )

        async def send() -> None:
            await asyncio.sleep(0.01)
            for frame in frames:
                if isinstance(frame, SleepFrame):
                    await asyncio.sleep(frame.sleep)
                else:
                    await task.queue_frame(frame)
            await task.queue_frame(EndFrame())

        await asyncio.gather(PipelineRunner(handle_sigint=False).run(task), send())
        return down.frames[1:], up.frames

    return run_processor
