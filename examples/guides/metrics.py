"""Times to first byte, processing times and usage, as they are measured.

antiphon run examples/guides/metrics.py
"""

from pathlib import Path

from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.frames.frames import MetricsFrame
from antiphon.metrics.metrics import (
    LLMUsageMetricsData,
    ProcessingMetricsData,
    TTFBMetricsData,
    TTSUsageMetricsData,
)
from antiphon.observers.base_observer import BaseObserver
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.services.eliza.llm import ElizaLLMService
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.services.pocketsphinx.stt import PocketSphinxSTTService
from antiphon.transports.file import FileTransport, FileTransportParams

CALLER = Path(__file__).parents[1] / "caller.wav"


class MetricsPrinter(BaseObserver):
    """Prints every measurement once, wherever in the pipeline it comes about."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._seen = set()

    async def on_push_frame(self, data):
        if not isinstance(data.frame, MetricsFrame) or data.frame.id in self._seen:
            return
        self._seen.add(data.frame.id)
        for metric in data.frame.data:
            match metric:
                case TTFBMetricsData():
                    print(f"{metric.processor} TTFB: {metric.value:.3f} s")
                case ProcessingMetricsData():
                    print(f"{metric.processor} processing time: {metric.value:.3f} s")
                case TTSUsageMetricsData():
                    print(f"{metric.processor} characters: {metric.value}")
                case LLMUsageMetricsData():
                    print(f"{metric.processor} tokens: {metric.value.total_tokens}")


async def bot(runner_args):
    body = runner_args.body
    transport = FileTransport(
        body.get("caller") or CALLER,
        Path(body.get("output_dir") or ".") / "conversation.wav",
        FileTransportParams(
            vad_analyzer=SileroVADAnalyzer(), tail_secs=body.get("tail_secs", 6), layout="stereo"
        ),
    )
    stt, llm, tts = PocketSphinxSTTService(), ElizaLLMService(), EspeakTTSService()
    aggregator = llm.create_context_aggregator(OpenAILLMContext())
    task = PipelineTask(
        Pipeline(
            [
                transport.input(),
                stt,
                aggregator.user(),
                llm,
                tts,
                transport.output(),
                aggregator.assistant(),
            ]
        ),
        params=PipelineParams(
            enable_metrics=True, enable_usage_metrics=True, report_only_initial_ttfb=True
        ),
        observers=[MetricsPrinter()],
    )

    @transport.event_handler("on_client_connected")
    async def on_client_connected(transport, client):
        await task.queue_frames([aggregator.user().get_context_frame()])

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client):
        await task.stop_when_done()

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
