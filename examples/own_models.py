"""A bot whose ears and voice are models on your own machines: Whisper listens, Piper speaks.

pip install 'antiphon[whisper,piper]'
antiphon models pull base en_US-amy-low
antiphon run examples/own_models.py

Nothing is sent anywhere. Without the second line the models are downloaded when the bot starts.
`runner_args.body` may name others: `whisper`, `voice`, `caller` (a WAV file) and `output_dir`.
"""

from pathlib import Path

from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.observers.conversation_observer import ConversationEvent, ConversationObserver
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.runner.types import RunnerArguments
from antiphon.services.eliza.llm import ElizaLLMService
from antiphon.services.piper.tts import LocalPiperTTSService
from antiphon.services.whisper.stt import Model, WhisperSTTService
from antiphon.transports.file import FileTransport, FileTransportParams

CALLER = Path(__file__).with_name("caller.wav")


def show(event: ConversationEvent) -> None:
    if event.text:
        print(f"{event.secs:6.2f} s  {event.kind}: {event.text}", flush=True)


async def bot(runner_args: RunnerArguments) -> None:
    body = runner_args.body
    params = FileTransportParams(
        vad_analyzer=SileroVADAnalyzer(), tail_secs=body.get("tail_secs", 6), layout="stereo"
    )
    recording = Path(body.get("output_dir", ".")) / "conversation.wav"
    transport = FileTransport(body.get("caller", CALLER), recording, params)
    stt = WhisperSTTService(model=body.get("whisper", Model.BASE), compute_type="int8")
    llm = ElizaLLMService()
    tts = LocalPiperTTSService(voice=body.get("voice", "en_US-amy-low"))
    context = llm.create_context_aggregator(OpenAILLMContext())
    ears = [transport.input(), stt, context.user()]
    mouth = [llm, tts, transport.output(), context.assistant()]
    task = PipelineTask(Pipeline([*ears, *mouth]), observers=[ConversationObserver(on_event=show)])

    @transport.event_handler("on_client_disconnected")
    async def hung_up(transport: FileTransport, client: object) -> None:
        await task.stop_when_done()

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
