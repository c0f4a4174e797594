"""A conversation ends in good order when the caller says goodbye, at once when they hang up.

antiphon run examples/guides/end_pipeline.py
"""

from pathlib import Path

from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.frames.frames import EndTaskFrame, TranscriptionFrame, TTSSpeakFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.services.pocketsphinx.stt import PocketSphinxSTTService
from antiphon.transports.file import FileTransport, FileTransportParams

CALLER = Path(__file__).parents[1] / "caller.wav"


class Farewell(FrameProcessor):
    """Ends the session as soon as the caller has said one of the words."""

    def __init__(self, words, **kwargs):
        super().__init__(**kwargs)
        self._words = words

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame) and self._words & set(frame.text.lower().split()):
            await self.push_frame(TTSSpeakFrame("Have a nice day!"))
            # Becomes an EndFrame at the beginning of the pipeline, behind what is under way.
            await self.push_frame(EndTaskFrame(), FrameDirection.UPSTREAM)


async def bot(runner_args):
    body = runner_args.body
    transport = FileTransport(
        body.get("caller") or CALLER,
        Path(body.get("output_dir") or ".") / "conversation.wav",
        FileTransportParams(
            vad_analyzer=SileroVADAnalyzer(), tail_secs=body.get("tail_secs", 6), layout="stereo"
        ),
    )
    stt, tts = PocketSphinxSTTService(), EspeakTTSService()
    farewell = Farewell(set(body.get("words") or ["goodbye"]))
    task = PipelineTask(Pipeline([transport.input(), stt, farewell, tts, transport.output()]))

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client):
        print("the caller has hung up")
        await task.cancel()

    @task.event_handler("on_pipeline_ended")
    async def on_pipeline_ended(task, frame):
        print("ended in good order")

    @task.event_handler("on_pipeline_cancelled")
    async def on_pipeline_cancelled(task, frame):
        print("ended at once")

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
