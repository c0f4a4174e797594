"""A bot with RTVI, and its client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import pytest
from loguru import logger

from antiphon.frames.frames import Frame, TransportMessageUrgentFrame
from antiphon.observers.base_observer import BaseObserver
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.processors.frameworks.rtvi import RTVIObserver, RTVIObserverParams, RTVIProcessor
from antiphon.testing import FakeTransport
from antiphon.testing.virtual_time import VirtualClock
from antiphon.transports.base_transport import TransportParams


class Capture(FrameProcessor):
    """Notes the frames of one direction."""

    def __init__(self, direction: FrameDirection) -> None:
        super().__init__()
        self._direction = direction
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is self._direction:
            self.frames.append(frame)
        await self.push_frame(frame, direction)

    def of(self, kind: type[Frame]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kind)]


class Bot:
    """A running bot around a transport that the test is the client of."""

    def __init__(
        self,
        *middle: FrameProcessor,
        ready: bool = True,
        knows_transport: bool = False,
        observer: type[RTVIObserver] | None = RTVIObserver,
        observer_params: RTVIObserverParams | None = None,
        tail: Sequence[FrameProcessor] = (),
        allow_interruptions: bool = True,
        **options: Any,
    ) -> None:
        self.transport = FakeTransport(
            TransportParams(audio_in_enabled=True, audio_out_enabled=True)
        )
        transport = self.transport if knows_transport else None
        self.rtvi = RTVIProcessor(transport=transport, **options)
        if ready:
            self.rtvi.add_event_handler("on_client_ready", RTVIProcessor.set_bot_ready)
        self.up = Capture(FrameDirection.UPSTREAM)
        self.down = Capture(FrameDirection.DOWNSTREAM)
        self._observers: list[BaseObserver] = []
        if observer is not None:
            self._observers.append(observer(self.rtvi, params=observer_params))
        self.pipeline = Pipeline(
            [
                self.transport.input(),
                self.up,
                self.rtvi,
                self.down,
                *middle,
                self.transport.output(),
                *tail,
            ]
        )
        self._params = PipelineParams(allow_interruptions=allow_interruptions)
        self.new_task()

    def new_task(self) -> PipelineTask:
        self.task = PipelineTask(
            self.pipeline,
            params=self._params,
            observers=self._observers,
            clock=VirtualClock(),
            cancel_on_idle_timeout=False,
        )
        return self.task

    async def __aenter__(self) -> Bot:
        self._run = asyncio.ensure_future(PipelineRunner(handle_sigint=False).run(self.task))
        await self.settle()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        async with asyncio.timeout(30):
            await (self.task.stop_when_done() if kind is None else self.task.cancel())
            await self._run

    @property
    def sent(self) -> list[Any]:
        """What the client has received."""
        return self.transport.messages

    def of(self, kind: str) -> list[Any]:
        return [message for message in self.sent if message["type"] == kind]

    @property
    def last(self) -> Any:
        return self.sent[-1]

    async def settle(self, secs: float = 0.02) -> None:
        await asyncio.sleep(secs)

    async def send_raw(self, message: Any) -> None:
        """Lets the client send anything."""
        await self.transport.inject(TransportMessageUrgentFrame(message=message))
        await self.settle()

    async def send(self, kind: str, data: Any = None, id: str | None = "1") -> None:
        """Lets the client send a message."""
        message = {"label": "rtvi-ai", "type": kind, "id": id}
        if data is not None:
            message["data"] = data
        await self.send_raw(message)

    async def push(self, *frames: Frame) -> None:
        """Lets frames come down from the transport."""
        for frame in frames:
            await self.transport.inject(frame)
            await self.settle()


@pytest.fixture
def make_bot() -> type[Bot]:
    return Bot


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Everything that is logged, fields included."""
    lines: list[str] = []
    handler = logger.add(
        lambda line: lines.append(str(line)), level="TRACE", format="{level} {message} {extra}"
    )
    yield lines
    logger.remove(handler)
