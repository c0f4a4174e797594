"""Conversations of fakes, in one process and over actors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from tests.session.conftest import Actors, actors

from antiphon.frames.frames import EndFrame, Frame, StartInterruptionFrame
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.services.tts_service import TTSService
from antiphon.testing import FakeLLMService, FakeSTTService, FakeTransport, FakeVADAnalyzer
from antiphon.transports.base_transport import TransportParams
from antiphon_actors.channels import out_stream
from antiphon_actors.session import endpoint

Run = Callable[[PipelineTask], Coroutine[Any, Any, object]]
Step = tuple[str, float]

__all__ = ["Actors", "Bot", "Run", "actors", "locally", "run"]


class Tape(FrameProcessor):
    """Behind the output: notes what had been played when an interruption came."""

    def __init__(self, transport: FakeTransport) -> None:
        super().__init__()
        self._transport = transport
        self.cuts: list[int] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, StartInterruptionFrame):
            self.cuts.append(len(self._transport.audio))
        await self.push_frame(frame, direction)


class Bot:
    """A bot of fakes with a speech service under test."""

    def __init__(
        self,
        tts: TTSService,
        answers: Sequence[Any],
        *,
        questions: Sequence[str] = ("One?", "Two?", "Three?"),
        **task: Any,
    ) -> None:
        self.tts = tts
        self.transport = FakeTransport(
            TransportParams(
                audio_in_enabled=True, audio_out_enabled=True, vad_analyzer=FakeVADAnalyzer()
            )
        )
        self.llm = FakeLLMService(answers)
        self.stt = FakeSTTService(questions)
        self.context = OpenAILLMContext()
        aggregator = self.llm.create_context_aggregator(self.context)
        self.tape = Tape(self.transport)
        self.task = PipelineTask(
            Pipeline(
                [
                    self.transport.input(),
                    self.stt,
                    aggregator.user(),
                    self.llm,
                    tts,
                    self.transport.output(),
                    self.tape,
                    aggregator.assistant(),
                ]
            ),
            params=PipelineParams(enable_metrics=True, enable_usage_metrics=True),
            **task,
        )

    async def talk(self, run: Run, *steps: Step) -> None:
        """Runs the bot with a user who does these things, and then hangs up."""

        async def user() -> None:
            for what, secs in steps:
                if what == "speak":
                    await self.transport.make_noise(secs)
                else:
                    await self.transport.stay_silent(secs)
            await self.task.queue_frame(EndFrame())

        await asyncio.gather(run(self.task), user())

    def said(self) -> list[str]:
        """What the conversation says that the assistant said."""
        return [
            str(message["content"])
            for message in self.context.messages
            if message["role"] == "assistant"
        ]


async def locally(task: PipelineTask) -> None:
    await PipelineRunner(handle_sigint=False).run(task)


def _loop_ns() -> int:
    try:
        return 1 + int(asyncio.get_running_loop().time() * 1e9)
    except RuntimeError:
        return 1


@pytest.fixture(autouse=True)
def _virtual_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline's clock is the machine's, in every process: it follows the loop, too."""
    for module in (time, out_stream, endpoint):
        monkeypatch.setattr(module, "monotonic_ns", _loop_ns, raising=False)


@pytest.fixture(params=["one process", "actors"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a task in this process, and over actors."""
    if request.param == "actors":
        made: Actors = request.getfixturevalue("actors")
        # Its deadline is virtual, too.
        monkeypatch.setitem(Actors.run.__globals__, "RUN_SECS", 3600.0)
        return made.run
    return locally
