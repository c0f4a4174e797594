"""What both sides said is written to a file as it is said.

antiphon run examples/guides/saving_transcripts.py
"""

from pathlib import Path

from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.transcript_processor import TranscriptProcessor
from antiphon.services.eliza.llm import ElizaLLMService
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.services.pocketsphinx.stt import PocketSphinxSTTService
from antiphon.transports.file import FileTransport, FileTransportParams

CALLER = Path(__file__).parents[1] / "caller.wav"


async def bot(runner_args):
    body = runner_args.body
    output_dir = Path(body.get("output_dir") or ".")
    transport = FileTransport(
        body.get("caller") or CALLER,
        output_dir / "conversation.wav",
        FileTransportParams(
            vad_analyzer=SileroVADAnalyzer(), tail_secs=body.get("tail_secs", 6), layout="stereo"
        ),
    )
    stt, llm, tts = PocketSphinxSTTService(), ElizaLLMService(), EspeakTTSService()
    aggregator = llm.create_context_aggregator(OpenAILLMContext())
    transcript = TranscriptProcessor()
    task = PipelineTask(
        Pipeline(
            [
                transport.input(),
                stt,
                transcript.user(),
                aggregator.user(),
                llm,
                tts,
                transport.output(),
                transcript.assistant(),
                aggregator.assistant(),
            ]
        )
    )

    @transcript.event_handler("on_transcript_update")
    async def on_transcript_update(processor, frame):
        with (output_dir / "transcript.txt").open("a", encoding="utf-8") as file:
            for message in frame.messages:
                line = f"[{message.timestamp}] {message.role}: {message.content}"
                print(line, file=file)
                print(line)

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client):
        await task.stop_when_done()

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
