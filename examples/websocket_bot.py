"""A bot for callers over WebSockets, with nothing but what Antiphon brings along.

antiphon serve examples/websocket_bot.py
"""

from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.frames.frames import TTSSpeakFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frameworks.rtvi import RTVIObserver, RTVIProcessor
from antiphon.services.eliza.llm import ElizaLLMService
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.services.pocketsphinx.stt import PocketSphinxSTTService
from antiphon.transports.network.fastapi_websocket import (
    FastAPIWebsocketParams,
    FastAPIWebsocketTransport,
)


async def bot(runner_args):
    transport = FastAPIWebsocketTransport(
        runner_args.websocket,
        FastAPIWebsocketParams(
            audio_in_enabled=True, audio_out_enabled=True, vad_analyzer=SileroVADAnalyzer()
        ),
    )
    rtvi = RTVIProcessor()
    stt, llm, tts = PocketSphinxSTTService(), ElizaLLMService(), EspeakTTSService()
    context = llm.create_context_aggregator(OpenAILLMContext())
    ears = [transport.input(), rtvi, stt, context.user()]
    mouth = [llm, tts, transport.output(), context.assistant()]
    task = PipelineTask(Pipeline([*ears, *mouth]), observers=[RTVIObserver(rtvi)])

    @rtvi.event_handler("on_client_ready")
    async def ready(rtvi):
        await rtvi.set_bot_ready()

    @transport.event_handler("on_client_connected")
    async def connected(transport, client):
        await task.queue_frame(TTSSpeakFrame("Hello. How are you today?"))

    @transport.event_handler("on_client_disconnected")
    async def hung_up(transport, client):
        await task.cancel()

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
