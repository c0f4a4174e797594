"""A bot whose every answer follows from what was said, so that a disturbed call can be held against one in peace.

Each process that works for it writes its id to a file, and the call its conversation and the marks that came
through, in the directory that the call's request names.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.adapters.schemas.tools_schema import ToolsSchema
from antiphon.audio.vad.silero import SileroVADAnalyzer
from antiphon.audio.vad.vad_analyzer import VADParams
from antiphon.frames.frames import (
    Frame,
    FunctionCallFromLLM,
    InputAudioRawFrame,
    LLMTextFrame,
    StartFrame,
    StartInterruptionFrame,
    TranscriptionFrame,
    TransportMessageFrame,
    TTSSpeakFrame,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.frameworks.rtvi import RTVIObserver, RTVIProcessor
from antiphon.services.llm_service import FunctionCallParams, LLMService
from antiphon.services.openai.context_aggregator import create_openai_context_aggregator
from antiphon.services.stt_service import SegmentedSTTService
from antiphon.testing import FakeTTSService
from antiphon.transports.network.fastapi_websocket import (
    FastAPIWebsocketParams,
    FastAPIWebsocketTransport,
)
from antiphon.utils.time import time_now_iso8601

GREETING = "Hello. I am listening to you now."
SAID = ("hello there", "what is the weather", "and tomorrow", "thank you")
ANSWERS = {
    "hello there": "Good day to you. How may I help you today?",
    "and tomorrow": "Tomorrow there will be rain. Take a coat with you!",
    "thank you": "You are very welcome. Have a pleasant evening.",
}
WEATHER = "It is sunny outside. It will stay like that."
MS_PER_CHARACTER = 25
TONES_HZ = (4000, 4600, 5200, 5800)
"""What tells an utterance from the others, whatever part of it is heard."""

MARK_EVERY = 4


class Noted:
    """Says in which process it is."""

    def __init__(self, directory: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._directory = directory

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, StartFrame):
            note_process(self._directory, type(self).__name__)
        await super().process_frame(frame, direction)  # type: ignore[misc]


def note_process(directory: str, role: str) -> None:
    write(Path(directory, f"{role}.pid"), str(os.getpid()))


def note_call(directory: str) -> None:
    with Path(directory, "calls").open("a") as file:
        file.write("weather\n")


def write(path: Path, text: str) -> None:
    """Writes a file that is there whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


class Marker(Noted, FrameProcessor):
    """Adds a numbered mark behind every few pieces of audio."""

    movable = True

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self._pieces = 0

    def snapshot(self) -> Mapping[str, Any]:
        return {"version": 1, "pieces": self._pieces}

    async def restore(self, state: Mapping[str, Any]) -> None:
        self._pieces = state["pieces"]

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self._pieces += 1
            if self._pieces % MARK_EVERY == 0:
                mark = {"mark": self._pieces // MARK_EVERY, "at": time.monotonic()}
                await self.push_frame(TransportMessageFrame(mark))


class ToneSTT(Noted, SegmentedSTTService):
    """Recognises an utterance by the tone beneath it."""

    movable = True

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        samples = np.frombuffer(audio[44:], np.int16).astype(np.float64)
        power = np.abs(np.fft.rfft(samples)) ** 2
        hz = np.fft.rfftfreq(len(samples), 1 / self.sample_rate)
        found = [power[np.abs(hz - tone) < 8.0].sum() for tone in TONES_HZ]
        await asyncio.sleep(0.05)
        yield TranscriptionFrame(SAID[int(np.argmax(found))], "", time_now_iso8601())


class ScriptLLM(Noted, LLMService):
    """Answers what was said last."""

    movable = True

    def create_context_aggregator(self, context: OpenAILLMContext, **_options: Any) -> Any:
        return create_openai_context_aggregator(self, context, None, None)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self._answer_or_pass(frame, direction, self._respond)

    async def _respond(self, context: OpenAILLMContext) -> None:
        last: Any = context.messages[-1]
        await asyncio.sleep(0.05)
        if last["role"] == "tool":
            text = WEATHER
        elif "weather" in last["content"]:
            number = len(context.messages)
            call = FunctionCallFromLLM(
                function_name="weather",
                tool_call_id=f"call_{number}",
                arguments={"day": "today"},
                context=context,
            )
            await self.run_function_calls([call])
            return
        else:
            text = ANSWERS[last["content"]]
        for word in text.split(" "):
            await asyncio.sleep(0.02)
            await self.push_frame(LLMTextFrame(f"{word} "))


class ToneTTS(Noted, FakeTTSService):
    """Speaks in an actor."""

    movable = True


class Sink(FrameProcessor):
    """Takes the marks out, where nothing is lost but with the bot's own process."""

    def __init__(self) -> None:
        super().__init__()
        # (number, seconds it took, when), or None for an interruption.
        self.came: list[tuple[int, float, float] | None] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TransportMessageFrame) and "mark" in frame.message:
            now = time.monotonic()
            self.came.append((frame.message["mark"], now - frame.message["at"], now))
            return
        if isinstance(frame, StartInterruptionFrame):
            self.came.append(None)
        await self.push_frame(frame, direction)


async def bot(runner_args: Any) -> None:
    directory = runner_args.body["directory"]
    silent = runner_args.body.get("silent", False)
    note_process(directory, "supervisor")
    transport = FastAPIWebsocketTransport(
        runner_args.websocket,
        FastAPIWebsocketParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            vad_analyzer=None if silent else SileroVADAnalyzer(params=VADParams(stop_secs=0.3)),
        ),
    )
    rtvi = RTVIProcessor()
    llm, sink = ScriptLLM(directory), Sink()
    context = OpenAILLMContext(
        [{"role": "system", "content": "Be brief."}],
        tools=ToolsSchema([FunctionSchema("weather", "Tells the weather.", {}, [])]),
    )
    pair = llm.create_context_aggregator(context)
    tts = ToneTTS(directory, ms_per_character=MS_PER_CHARACTER)
    task = PipelineTask(
        Pipeline(
            [
                transport.input(),
                rtvi,
                Marker(directory),
                ToneSTT(directory),
                pair.user(),
                llm,
                tts,
                sink,
                transport.output(),
                pair.assistant(),
            ]
        ),
        observers=[RTVIObserver(rtvi)],
    )

    async def weather(params: FunctionCallParams) -> None:
        note_call(directory)
        await asyncio.sleep(0.2)
        await params.result_callback({"weather": "sunny"})

    llm.register_function("weather", weather)

    @rtvi.event_handler("on_client_ready")
    async def ready(rtvi: RTVIProcessor) -> None:
        await rtvi.set_bot_ready()

    @transport.event_handler("on_client_connected")
    async def connected(transport: Any, client: Any) -> None:
        if not silent:
            await task.queue_frame(TTSSpeakFrame(GREETING))

    @transport.event_handler("on_client_disconnected")
    async def hung_up(transport: Any, client: Any) -> None:
        told = {"messages": context.messages, "marks": sink.came}
        write(Path(directory, "told.json"), json.dumps(told))
        await task.cancel()

    await PipelineRunner(handle_sigint=False).run(task)
