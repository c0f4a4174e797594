"""The conversation is recorded: caller left, bot right, and each turn by itself.

antiphon run examples/guides/recording_audio.py
"""

import wave
from pathlib import Path

from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.frames.frames import TTSSpeakFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.audio.audio_buffer_processor import AudioBufferProcessor
from antiphon.services.espeak.tts import EspeakTTSService
from antiphon.transports.file import FileTransport, FileTransportParams

CALLER = Path(__file__).parents[1] / "caller.wav"


def save(path, audio, sample_rate, num_channels):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(num_channels)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(audio)
    print(f"saved {path.name}")


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
    tts = EspeakTTSService()
    recorder = AudioBufferProcessor(num_channels=2, enable_turn_audio=True)
    task = PipelineTask(Pipeline([transport.input(), tts, transport.output(), recorder]))
    turns = {"user": 0, "bot": 0}

    @recorder.event_handler("on_audio_data")
    async def on_audio_data(buffer, audio, sample_rate, num_channels):
        save(output_dir / "recording.wav", audio, sample_rate, num_channels)

    @recorder.event_handler("on_user_turn_audio_data")
    async def on_user_turn(buffer, audio, sample_rate, num_channels):
        turns["user"] += 1
        save(output_dir / f"user-{turns['user']}.wav", audio, sample_rate, num_channels)

    @recorder.event_handler("on_bot_turn_audio_data")
    async def on_bot_turn(buffer, audio, sample_rate, num_channels):
        turns["bot"] += 1
        save(output_dir / f"bot-{turns['bot']}.wav", audio, sample_rate, num_channels)

    @transport.event_handler("on_client_connected")
    async def on_client_connected(transport, client):
        await recorder.start_recording()
        await task.queue_frame(TTSSpeakFrame("This call is recorded."))

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client):
        await task.stop_when_done()

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
