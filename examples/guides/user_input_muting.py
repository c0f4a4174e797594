"""While the bot introduces itself, nobody can cut in.

antiphon run examples/guides/user_input_muting.py
"""

from pathlib import Path

from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.frames.frames import TranscriptionFrame, TTSSpeakFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.filters.stt_mute_filter import (
    STTMuteConfig,
    STTMuteFilter,
    STTMuteStrategy,
)
from antiphon.processors.frame_processor import FrameProcessor
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.services.pocketsphinx.stt import PocketSphinxSTTService
from antiphon.transports.file import FileTransport, FileTransportParams

CALLER = Path(__file__).parents[1] / "caller.wav"
INTRODUCTION = "Welcome. Let me first say who I am and what I can do for you today."


class Understood(FrameProcessor):
    """Prints what gets past the filter."""

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            print(f"understood: {frame.text}")
        await self.push_frame(frame, direction)


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
    strategy = STTMuteStrategy[body.get("strategy", "MUTE_UNTIL_FIRST_BOT_COMPLETE")]
    mute = STTMuteFilter(config=STTMuteConfig(strategies={strategy, STTMuteStrategy.FUNCTION_CALL}))
    task = PipelineTask(
        Pipeline([transport.input(), stt, mute, Understood(), tts, transport.output()])
    )

    @transport.event_handler("on_client_connected")
    async def on_client_connected(transport, client):
        await task.queue_frame(TTSSpeakFrame(INTRODUCTION))

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client):
        await task.stop_when_done()

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
