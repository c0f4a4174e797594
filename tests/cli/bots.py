"""Bot files for the tests, as texts."""

HEAD = """
import asyncio
import sys

from antiphon.frames.frames import EndFrame, TextFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameProcessor


async def serve(runner_args, processors, frames):
    task = PipelineTask(Pipeline(processors))

    @task.event_handler("on_pipeline_started")
    async def started(task, frame):
        print("started", flush=True)

    await task.queue_frames(frames)
    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)


class Shout(FrameProcessor):
    movable = True

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            frame.text = frame.text.upper()
        await self.push_frame(frame, direction)


class Show(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            print("heard", frame.text, flush=True)
        await self.push_frame(frame, direction)


class Chokes(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            raise ValueError("cannot chew that")  # CHOKES HERE
        await self.push_frame(frame, direction)


class ChokesElsewhere(Chokes):
    movable = True


class RefusesElsewhere(FrameProcessor):
    movable = True

    def __init__(self):
        super().__init__()
        if "antiphon_bot" not in "".join(sys.modules):
            raise RuntimeError("no licence for this machine")  # REFUSES HERE
"""

TALKS = (
    HEAD
    + """
async def bot(runner_args):
    print("body", runner_args.body, flush=True)
    print("to stderr", file=sys.stderr, flush=True)
    await serve(runner_args, [Shout(), Shout(), Show()], [TextFrame("hello"), EndFrame()])
    sys.exit(3)
"""
)
WAITS = (
    HEAD
    + """
async def bot(runner_args):
    try:
        await serve(runner_args, [Shout(), Show()], [TextFrame("hello")])
    finally:
        print("tidied up", flush=True)
"""
)
HANGS = (
    HEAD
    + """
async def bot(runner_args):
    print("started", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("no, thanks", flush=True)
"""
)
CHOKES = (
    HEAD
    + """
async def bot(runner_args):
    await serve(runner_args, [Chokes()], [TextFrame("toffee"), EndFrame()])
"""
)
CHOKES_ELSEWHERE = CHOKES.replace("[Chokes()]", "[ChokesElsewhere()]")
REFUSES_ELSEWHERE = CHOKES.replace("[Chokes()]", "[RefusesElsewhere()]")
PRINTS_A_LOT = """
async def bot(runner_args):
    for number in range(30_000):
        print("line", number)
"""


def line_of(text: str, marker: str) -> int:
    """The number of the line that holds a marker."""
    return text[: text.index(marker)].count("\n") + 1
