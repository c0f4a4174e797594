"""A processor of one's own shows a picture while the bot speaks, and another while it waits.

antiphon run examples/guides/custom_frame_processor.py
"""

from pathlib import Path

from PIL import Image

from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    OutputImageRawFrame,
    TTSSpeakFrame,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameProcessor
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.transports.file import FileTransport, FileTransportParams

CALLER = Path(__file__).parents[1] / "caller.wav"
SIZE = (64, 64)


class ImageSync(FrameProcessor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._speaking = Image.new("RGB", SIZE, "green").tobytes()
        self._waiting = Image.new("RGB", SIZE, "gray").tobytes()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)

        if isinstance(frame, BotStartedSpeakingFrame):
            await self._show("speaking", self._speaking)
        elif isinstance(frame, BotStoppedSpeakingFrame):
            await self._show("waiting", self._waiting)

        # Whatever it was: everybody else needs it too.
        await self.push_frame(frame, direction)

    async def _show(self, what, image):
        print(f"the picture shows: {what}")
        await self.push_frame(OutputImageRawFrame(image=image, size=SIZE, format="RGB"))


async def bot(runner_args):
    body = runner_args.body
    transport = FileTransport(
        body.get("caller") or CALLER,
        Path(body.get("output_dir") or ".") / "conversation.wav",
        FileTransportParams(
            vad_analyzer=SileroVADAnalyzer(), tail_secs=body.get("tail_secs", 6), layout="stereo"
        ),
    )
    tts = EspeakTTSService()
    task = PipelineTask(Pipeline([transport.input(), tts, ImageSync(), transport.output()]))

    @transport.event_handler("on_client_connected")
    async def on_client_connected(transport, client):
        await task.queue_frame(TTSSpeakFrame("I have something to show you."))

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client):
        await task.stop_when_done()

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
