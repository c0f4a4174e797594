"""A bot that listens, thinks and speaks, with nothing but what Antiphon brings along.

antiphon run examples/bot.py
"""

from pathlib import Path

from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.observers.conversation_observer import ConversationObserver
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.services.eliza.llm import ElizaLLMService
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.services.pocketsphinx.stt import PocketSphinxSTTService
from antiphon.transports.file import FileTransport, FileTransportParams

CALLER = Path(__file__).with_name("caller.wav")


def show(event):
    if event.text:
        print(f"{event.secs:6.2f} s  {event.kind}: {event.text}", flush=True)


async def bot(runner_args):
    params = FileTransportParams(vad_analyzer=SileroVADAnalyzer(), tail_secs=6, layout="stereo")
    transport = FileTransport(CALLER, "conversation.wav", params)
    stt, llm, tts = PocketSphinxSTTService(), ElizaLLMService(), EspeakTTSService()
    context = llm.create_context_aggregator(OpenAILLMContext())
    ears = [transport.input(), stt, context.user()]
    mouth = [llm, tts, transport.output(), context.assistant()]
    conversation = ConversationObserver(on_event=show)
    task = PipelineTask(Pipeline([*ears, *mouth]), observers=[conversation])

    @transport.event_handler("on_client_disconnected")
    async def hung_up(transport, client):
        await task.stop_when_done()

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
