"""A bot that goes on when its vendors do not: each of its services has another one behind it.

antiphon run examples/failover.py

With keys in OPENAI_API_KEY and in ELEVENLABS_API_KEY and ELEVENLABS_VOICE_ID the vendors listen,
think and speak; without keys or without a network, what comes along with Antiphon does.
"""

import os
from pathlib import Path

from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.observers.conversation_observer import ConversationObserver
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.services.elevenlabs.tts import ElevenLabsTTSService
from antiphon.services.eliza.llm import ElizaLLMService
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.services.fallback import FallbackLLMService, FallbackSTTService, FallbackTTSService
from antiphon.services.openai.llm import OpenAILLMService
from antiphon.services.openai.stt import OpenAISTTService
from antiphon.services.pocketsphinx.stt import PocketSphinxSTTService
from antiphon.transports.file import FileTransport, FileTransportParams

CALLER = Path(__file__).with_name("caller.wav")


def show(event):
    if event.text:
        print(f"{event.secs:6.2f} s  {event.kind}: {event.text}", flush=True)


def chains():
    openai = {"api_key": os.environ.get("OPENAI_API_KEY", "none")}
    voice = {
        "api_key": os.environ.get("ELEVENLABS_API_KEY", "none"),
        "voice_id": os.environ.get("ELEVENLABS_VOICE_ID", "none"),
    }
    yield FallbackSTTService(
        [OpenAISTTService(**openai), PocketSphinxSTTService()], attempt_timeout_secs=2
    )
    yield FallbackLLMService(
        [OpenAILLMService(model="gpt-4.1-mini", **openai), ElizaLLMService()],
        attempt_timeout_secs=2,
    )
    yield FallbackTTSService([ElevenLabsTTSService(**voice), EspeakTTSService()])


async def bot(runner_args):
    body = runner_args.body
    params = FileTransportParams(
        vad_analyzer=SileroVADAnalyzer(), tail_secs=body.get("tail_secs", 8), layout="stereo"
    )
    output = Path(body.get("output_dir") or ".") / "conversation.wav"
    transport = FileTransport(body.get("caller") or CALLER, output, params)
    stt, llm, tts = chains()
    context = llm.create_context_aggregator(OpenAILLMContext())
    ears = [transport.input(), stt, context.user()]
    mouth = [llm, tts, transport.output(), context.assistant()]
    conversation = ConversationObserver(on_event=show)
    task = PipelineTask(Pipeline([*ears, *mouth]), observers=[conversation])

    for chain in (stt, llm, tts):

        @chain.event_handler("on_service_switched")
        async def on_service_switched(chain, before, now, reason):
            print(f"{now} instead of {before}: {reason}", flush=True)

    @transport.event_handler("on_client_disconnected")
    async def hung_up(transport, client):
        await task.stop_when_done()

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
