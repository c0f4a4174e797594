"""Who pauses is not always done: an analyzer judges every pause, and silence overrules it.

A model would hear whether a sentence is finished (`LocalSmartTurnAnalyzerV2`,
`FalSmartTurnAnalyzer`). This one needs none: it expects people to say more than a few words.

antiphon run examples/guides/end_of_turn.py
"""

from pathlib import Path

from antiphon.audio.turn.smart_turn.base_smart_turn import BaseSmartTurn, SmartTurnParams
from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.audio.vad.vad_analyzer import VADParams
from antiphon.frames.frames import MetricsFrame, UserStartedSpeakingFrame, UserStoppedSpeakingFrame
from antiphon.metrics.metrics import SmartTurnMetricsData
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameProcessor
from antiphon.transports.file import FileTransport, FileTransportParams

CALLER = Path(__file__).parents[1] / "caller.wav"


class LongEnough(BaseSmartTurn):
    """Takes a turn for complete when it has lasted long enough."""

    def __init__(self, complete_secs, **kwargs):
        super().__init__(**kwargs)
        self._complete_secs = complete_secs

    async def _predict_endpoint(self, audio_array):
        secs = len(audio_array) / self.sample_rate
        probability = min(1.0, 0.5 * secs / self._complete_secs)
        return {"prediction": int(probability >= 0.5), "probability": probability}


class Turns(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, UserStartedSpeakingFrame):
            print("the turn begins")
        elif isinstance(frame, UserStoppedSpeakingFrame):
            print("the turn is over")
        elif isinstance(frame, MetricsFrame):
            for data in frame.data:
                if isinstance(data, SmartTurnMetricsData):
                    print("a pause:", "complete" if data.is_complete else "more to come")
        await self.push_frame(frame, direction)


async def bot(runner_args):
    body = runner_args.body
    turn_analyzer = LongEnough(
        body.get("complete_secs", 1.5), params=SmartTurnParams(stop_secs=1.0, pre_speech_ms=200)
    )
    transport = FileTransport(
        body.get("caller") or CALLER,
        Path(body.get("output_dir") or ".") / "conversation.wav",
        FileTransportParams(
            # Short pauses are enough: the analyzer decides about them.
            vad_analyzer=SileroVADAnalyzer(params=VADParams(stop_secs=0.2)),
            turn_analyzer=turn_analyzer,
            tail_secs=body.get("tail_secs", 6),
        ),
    )
    task = PipelineTask(Pipeline([transport.input(), Turns(), transport.output()]))

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client):
        await task.stop_when_done()

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
