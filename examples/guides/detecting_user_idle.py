"""The bot asks a silent caller twice, and then says goodbye.

antiphon run examples/guides/detecting_user_idle.py
"""

from pathlib import Path

from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.frames.frames import EndFrame, TTSSpeakFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection
from antiphon.processors.user_idle_processor import UserIdleProcessor
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.transports.file import FileTransport, FileTransportParams

CALLER = Path(__file__).parents[1] / "caller.wav"
REMINDERS = ["Are you still there?", "Would you like to go on?"]


async def handle_user_idle(processor, retry_count):
    if retry_count <= len(REMINDERS):
        print(REMINDERS[retry_count - 1])
        await processor.push_frame(TTSSpeakFrame(REMINDERS[retry_count - 1]))
        return True  # go on watching
    print("Goodbye.")
    await processor.push_frame(TTSSpeakFrame("Goodbye."))
    await processor.push_frame(EndFrame(), FrameDirection.UPSTREAM)
    return False


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
    idle = UserIdleProcessor(callback=handle_user_idle, timeout=body.get("idle_secs", 3))
    task = PipelineTask(Pipeline([transport.input(), idle, tts, transport.output()]))

    @transport.event_handler("on_client_connected")
    async def on_client_connected(transport, client):
        await task.queue_frame(TTSSpeakFrame("Hello!"))

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client):
        await task.stop_when_done()

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
