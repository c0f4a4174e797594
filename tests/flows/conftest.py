"""Whole conversations with fakes, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from antiphon.flows import FlowManager
from antiphon.frames.frames import ErrorFrame
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.testing import FakeLLMService, FakeSTTService, FakeTransport, FakeTTSService
from antiphon.testing.fake_llm import FakeResponse

TURN_SECS = 10.0
"""Virtual time in which each party has said what it has to say."""

DEADLINE_SECS = 600.0


class Errors(BaseObserver):
    """Keeps the messages of ErrorFrames."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, str] = {}

    async def on_push_frame(self, data: FramePushed) -> None:
        if isinstance(data.frame, ErrorFrame):
            self.seen[data.frame.id] = data.frame.error


class Talk:
    """A bot of fakes, and who talks to it."""

    def __init__(self, responses: Sequence[FakeResponse], **llm: Any) -> None:
        self.transport = FakeTransport()
        self.stt = FakeSTTService()
        self.llm = FakeLLMService(responses, **llm)
        self.tts = FakeTTSService()
        self.context = OpenAILLMContext()
        self.pair = self.llm.create_context_aggregator(self.context)
        self.errors = Errors()
        self.task = PipelineTask(
            Pipeline(
                [
                    self.transport.input(),
                    self.stt,
                    self.pair.user(),
                    self.llm,
                    self.tts,
                    self.transport.output(),
                    self.pair.assistant(),
                ]
            ),
            observers=[self.errors],
        )
        self.log: list[str] = []

    def flow(self, **kwargs: Any) -> FlowManager:
        return FlowManager(task=self.task, llm=self.llm, context_aggregator=self.pair, **kwargs)

    @property
    def spoken(self) -> list[str]:
        return [text.strip() for text in self.tts.texts]

    @property
    def requests(self) -> list[list[Any]]:
        """What the model was asked, without roles."""
        return [
            [message.get("content", message.get("tool_calls")) for message in request]
            for request in self.llm.requests
        ]

    def noting(self, text: str) -> Callable[..., Awaitable[None]]:
        """An action's handler that notes when it ran: after which words."""

        async def note(action: dict[str, Any], flow_manager: FlowManager) -> None:
            self.log.append(f"{text} after {len(self.transport.audio) // 2}")

        return note

    async def say(self, text: str) -> None:
        await self.stt.hear(text)
        await asyncio.sleep(TURN_SECS)

    async def run(self, script: Callable[[], Awaitable[Any]], *, end: bool = True) -> None:
        """Lets the script run when the pipeline has started; then ends it."""

        async def play(_transport: object, _client: object) -> None:
            try:
                await script()
            except BaseException as error:
                failures.append(error)
                await self.task.stop_when_done()
                raise
            if end:
                await asyncio.sleep(TURN_SECS)
                await self.task.stop_when_done()

        failures: list[BaseException] = []
        self.transport.add_event_handler("on_client_connected", play)
        async with asyncio.timeout(DEADLINE_SECS):
            await PipelineRunner(handle_sigint=False).run(self.task)
        if failures:
            raise failures[0]


@pytest.fixture
def talk() -> Callable[..., Talk]:
    return Talk


def task_message(text: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": text}]
