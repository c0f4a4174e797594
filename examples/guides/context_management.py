"""The bot speaks first, and gets an instruction in the middle of the conversation.

antiphon run examples/guides/context_management.py
"""

from pathlib import Path

from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.frames.frames import LLMMessagesAppendFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.services.eliza.llm import ElizaLLMService
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.services.pocketsphinx.stt import PocketSphinxSTTService
from antiphon.transports.file import FileTransport, FileTransportParams

CALLER = Path(__file__).parents[1] / "caller.wav"


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
    context = OpenAILLMContext([{"role": "system", "content": "You are a good listener."}])
    aggregator = llm.create_context_aggregator(context)
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
        )
    )

    @transport.event_handler("on_client_connected")
    async def on_client_connected(transport, client):
        # Asks the model to answer the conversation as it is: the bot speaks first.
        await task.queue_frames([aggregator.user().get_context_frame()])

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client):
        note = {"role": "system", "content": "The caller has hung up."}
        await task.queue_frame(LLMMessagesAppendFrame(messages=[note]))
        await task.stop_when_done()

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)

    for message in context.messages:
        print(f"{message['role']}: {message['content']}")
