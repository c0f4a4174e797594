"""A bot whose caller is at a Unix socket, and who can go on in another process.

Lines of JSON: the caller sends ``{"number", "text"}``, what somebody says, or null to hang up; the bot
sends ``{"from"}`` when it connects, ``{"commit"}``, ``{"said"}`` word by word, and ``{"over"}`` at the end.
"""

import asyncio
import json
from typing import Any

from antiphon.frames.frames import (
    EndFrame,
    EndTaskFrame,
    Frame,
    LLMTextFrame,
    StartFrame,
    TranscriptionFrame,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.runner.types import RunnerArguments
from antiphon.services.llm_service import LLMService
from antiphon.services.openai.context_aggregator import create_openai_context_aggregator
from antiphon.transports.base_input import BaseInputTransport
from antiphon.transports.base_transport import TransportParams
from antiphon.transports.caller_line import CallerLine


class Line:
    """The caller's messages are kept at the other end of the socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._writer: asyncio.StreamWriter | None = None
        self.received = 0

    def commit(self, received: int) -> None:
        self.received = max(self.received, received)
        self.send({"commit": received})

    def send(self, message: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def connect(self) -> asyncio.StreamReader:
        reader, self._writer = await asyncio.open_unix_connection(self._path)
        self.send({"from": self.received})
        return reader

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class Ear(BaseInputTransport):
    def __init__(self, line: Line) -> None:
        super().__init__(TransportParams())
        self._line = line
        self._listening: asyncio.Task[Any] | None = None

    @property
    def caller_line(self) -> CallerLine:
        return self._line

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        reader = await self._line.connect()
        self._listening = self.create_task(self._listen(reader), "line")

    async def cleanup(self) -> None:
        if self._listening is not None:
            await self.cancel_task(self._listening)
        self._line.close()
        await super().cleanup()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            message = json.loads(line)
            self._line.received = message["number"]
            if message["text"] is None:
                await self.push_frame(EndTaskFrame(), FrameDirection.UPSTREAM)
                continue
            await self._user_started()
            await self.push_frame(TranscriptionFrame(message["text"], "caller", ""))
            await self._user_stopped()


class Echo(LLMService):
    """Repeats what the user has said last, at the speed of speech."""

    movable = True

    def create_context_aggregator(self, context: OpenAILLMContext, **options: Any) -> Any:
        return create_openai_context_aggregator(self, context, None, None)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self._answer_or_pass(frame, direction, self._respond)

    async def _respond(self, context: OpenAILLMContext) -> None:
        text = context.messages[-1]["content"]
        for word in f"You said: {text}.".split():
            await self.push_frame(LLMTextFrame(f" {word}"))
            await asyncio.sleep(0.02)


class Mouth(FrameProcessor):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMTextFrame):
            self._line.send({"said": frame.text.strip()})
        await self.push_frame(frame, direction)


async def bot(runner_args: RunnerArguments) -> None:
    line = Line(runner_args.body["line"])
    llm = Echo()
    context = OpenAILLMContext()
    pair = llm.create_context_aggregator(context)
    task = PipelineTask(Pipeline([Ear(line), pair.user(), llm, Mouth(line), pair.assistant()]))
    task.set_reached_downstream_filter((EndFrame,))

    @task.event_handler("on_frame_reached_downstream")
    async def over(task: PipelineTask, frame: Frame) -> None:
        line.send({"over": context.messages})

    await PipelineRunner(handle_sigint=runner_args.handle_sigint).run(task)
