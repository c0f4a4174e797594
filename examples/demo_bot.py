"""The bot of `antiphon demo`: a recorded caller, speech to text, ELIZA, text to speech.

`runner_args.body` may hold `caller` (a WAV file, by default the one beside this file) and
`output_dir` (where conversation.wav and timeline.json go; by default the current directory).
"""

from pathlib import Path
from typing import Any

from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.observers.conversation_observer import ConversationEvent, ConversationObserver
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.runner.types import RunnerArguments
from antiphon.services.eliza.llm import ElizaLLMService
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.services.pocketsphinx.stt import PocketSphinxSTTService
from antiphon.transports.file import FileTransport, FileTransportParams

SPEAKERS = {
    "user_said": "caller:",
    "bot_says": "bot:   ",
    "interruption": "        -- the caller cuts in, the bot falls silent --",
}


def show(event: ConversationEvent) -> None:
    """Prints a line of the transcript as it comes about."""
    if event.kind in SPEAKERS:
        print(f"{event.secs:7.2f} s  {SPEAKERS[event.kind]} {event.text}", flush=True)


def make_output_dir(body: dict[str, Any]) -> Path:
    """Returns where the results go."""
    output_dir = Path(body.get("output_dir") or ".")
    output_dir.mkdir(parents=True, exist_ok=True)
    return output_dir


async def bot(runner_args: RunnerArguments) -> None:
    """Has one conversation with the recorded caller."""
    caller = runner_args.body.get("caller") or Path(__file__).with_name("caller.wav")
    output_dir = make_output_dir(runner_args.body)

    transport = FileTransport(
        caller,
        output_dir / "conversation.wav",
        FileTransportParams(vad_analyzer=SileroVADAnalyzer(), tail_secs=6, layout="stereo"),
    )
    stt = PocketSphinxSTTService()
    llm = ElizaLLMService(max_sentences=3)
    tts = EspeakTTSService()
    context = OpenAILLMContext()
    aggregator = llm.create_context_aggregator(context)

    conversation = ConversationObserver(on_event=show)
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
        params=PipelineParams(allow_interruptions=True, enable_metrics=True),
        observers=[conversation],
    )

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client):
        await task.stop_when_done()

    @task.event_handler("on_pipeline_ended")
    async def on_pipeline_ended(task, frame):
        print("           -- the caller has hung up, the pipeline has ended --", flush=True)

    try:
        await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
    finally:
        conversation.save(output_dir / "timeline.json")
