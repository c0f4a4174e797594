"""Vendors on a free local port, and a pipeline around a service."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from loguru import logger
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from antiphon.clocks.base_clock import BaseClock
from antiphon.frames.frames import (
    BotStoppedSpeakingFrame,
    ErrorFrame,
    Frame,
    MetricsFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineParams, PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor

MS_PER_CHARACTER = 20


def pcm(text: str, rate_hz: int) -> bytes:
    """Audio of a text: 20 ms a character, all samples 1."""
    return b"\1\0" * (len(text) * rate_hz * MS_PER_CHARACTER // 1000)


class ElevenLabsVendor:
    """Speaks the websocket protocol for several contexts.

    Attributes:
        requests: Each connection's path, query and headers.
        messages: What was received, of all connections; without keepalives.
        keepalives: Those.
        silent: Whether nothing is answered by itself: the test uses ``say`` and ``end``.
        refuse: A status to refuse connections with.
        on_text: Called with (connection, context id, text) before it is spoken; True if handled.
    """

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.messages: list[dict[str, Any]] = []
        self.keepalives: list[dict[str, Any]] = []
        self.connections: list[ServerConnection] = []
        self.silent = False
        self.refuse: int | None = None
        self.on_text: Callable[[ServerConnection, str, str], Awaitable[bool]] | None = None
        self.rate_hz = 16000
        self.url = ""
        self._news = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ElevenLabsVendor]:
        async with serve(
            self._serve, "127.0.0.1", 0, process_request=self._accept, close_timeout=1
        ) as server:
            assert isinstance(server, Server)
            port = next(iter(server.sockets)).getsockname()[1]
            self.url = f"ws://127.0.0.1:{port}"
            yield self

    async def say(self, context_id: str, text: str, *, chunks: int = 1) -> None:
        """Sends the audio of a text, in so many messages, with the characters' times."""
        size = -(-len(text) // chunks)
        for start in range(0, len(text), size):
            part = text[start : start + size]
            times = [at * MS_PER_CHARACTER for at in range(len(part))]
            await self._answer(
                {
                    "audio": base64.b64encode(pcm(part, self.rate_hz)).decode(),
                    "alignment": {
                        "chars": list(part),
                        "charStartTimesMs": times,
                        "charDurationsMs": [MS_PER_CHARACTER] * len(part),
                    },
                    "contextId": context_id,
                }
            )

    async def end(self, context_id: str) -> None:
        await self._answer({"isFinal": True, "contextId": context_id})

    async def until(self, condition: Callable[[], Any]) -> None:
        """Waits until something that was received makes a condition true."""
        async with asyncio.timeout(10):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def texts(self) -> list[str]:
        return [m["text"] for m in self.messages if m.get("text", "").strip()]

    async def until_closed(self, count: int = 1) -> str:
        """Waits for so many closed contexts; returns the last one's id."""
        await self.until(lambda: len(self._closed()) >= count)
        return self._closed()[-1]

    def _closed(self) -> list[str]:
        return [m["context_id"] for m in self.messages if m.get("close_context")]

    def contexts(self) -> list[str]:
        return list(dict.fromkeys(m["context_id"] for m in self.messages))

    async def _answer(self, message: dict[str, Any]) -> None:
        await self.connections[-1].send(json.dumps(message))

    def _accept(self, connection: ServerConnection, request: Request) -> Response | None:
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.requests.append((parts.path, query, dict(request.headers)))
        self._news.set()
        if self.refuse is not None:
            return connection.respond(HTTPStatus(self.refuse), "no\n")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        try:
            async for raw in connection:
                message = json.loads(raw)
                if message.get("text") == "" and "flush" not in message:
                    self.keepalives.append(message)
                else:
                    self.messages.append(message)
                    await self._react(connection, message)
                self._news.set()
        except ConnectionClosed:
            return

    async def _react(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        text = message.get("text", "")
        context_id = message["context_id"]
        if text.strip() and self.on_text is not None:
            if await self.on_text(connection, context_id, text):
                return
        if self.silent:
            return
        if text.strip():
            await self.say(context_id, text, chunks=3)
        elif message.get("close_context"):
            await self.end(context_id)


@pytest.fixture
async def elevenlabs() -> AsyncIterator[ElevenLabsVendor]:
    async with ElevenLabsVendor().running() as vendor:
        yield vendor


class HttpVendor:
    """Answers each request with the next of its answers.

    An answer is a response, or a list of bytes to send and of events to wait for.

    Attributes:
        requests: Path, query, headers and body (JSON, or the fields of a form) of each request.
        gone: Set when a client left before its answer was complete.
    """

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.requests: list[Any] = []
        self.gone = asyncio.Event()
        self.url = ""
        self._news = asyncio.Event()

    async def until_requested(self, count: int = 1) -> None:
        """Waits for so many requests."""
        async with asyncio.timeout(10):
            while len(self.requests) < count:
                self._news.clear()
                await self._news.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[HttpVendor]:
        application = web.Application()
        application.router.add_post("/{path:.*}", self._answer)
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.content_type == "application/json":
            body: Any = await request.json()
        else:
            form = await request.post()
            body = {}
            for name, value in form.items():
                body[name] = value
                if isinstance(value, web.FileField):
                    with value.file as file:
                        body[name] = file.read()
        self.requests.append((request.path, dict(request.query), request.headers, body))
        self._news.set()
        answer = self.answers.pop(0)
        if callable(answer):
            answer = answer(body)
        if isinstance(answer, web.Response):
            return answer
        response = web.StreamResponse()
        try:
            await response.prepare(request)
            for item in answer:
                if isinstance(item, asyncio.Event):
                    await item.wait()
                elif item is None:
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                else:
                    await response.write(item)
        except (ConnectionError, asyncio.CancelledError):
            self.gone.set()
            raise
        return response


@pytest.fixture
async def http() -> AsyncIterator[HttpVendor]:
    async with HttpVendor().running() as vendor:
        yield vendor


class Watch(FrameProcessor):
    """Keeps the frames of one direction, and lets a test wait for them."""

    def __init__(self, direction: FrameDirection, *, plays: bool = False) -> None:
        super().__init__()
        self.direction = direction
        self.frames: list[Frame] = []
        self._plays = plays
        self._news = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is self.direction:
            self.frames.append(frame)
            self._news.set()
        await self.push_frame(frame, direction)
        if self._plays and isinstance(frame, TTSStoppedFrame):
            await self.push_frame(BotStoppedSpeakingFrame(), FrameDirection.UPSTREAM)

    async def seen(self, kind: type[Frame], count: int = 1) -> None:
        await self.until(lambda: self.count(kind) >= count)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def count(self, kind: type[Frame]) -> int:
        return len(self.of(kind))

    def of(self, kind: type[Frame]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    @property
    def words(self) -> list[str]:
        return [frame.text for frame in self.of(TTSTextFrame)]

    @property
    def sounds(self) -> list[bytes]:
        """The audio that is not silence."""
        return [f.audio for f in self.of(TTSAudioRawFrame) if any(f.audio)]

    @property
    def errors(self) -> list[str]:
        return [frame.error for frame in self.of(ErrorFrame)]

    def metrics(self, kind: type) -> list[Any]:
        return [
            data for frame in self.of(MetricsFrame) for data in frame.data if isinstance(data, kind)
        ]


class StoppedClock(BaseClock):
    """Stands still: what depends on it does not depend on the machine's load."""

    def get_time(self) -> int:
        return 1_000_000_000

    def start(self) -> None:
        pass


class Rig:
    """A service in a running pipeline. Speech is heard as soon as it ends."""

    def __init__(self, service: FrameProcessor, rate_hz: int) -> None:
        self.service = service
        self.up = Watch(FrameDirection.UPSTREAM)
        self.down = Watch(FrameDirection.DOWNSTREAM, plays=True)
        self.task = PipelineTask(
            Pipeline([self.up, service, self.down]),
            params=PipelineParams(
                enable_metrics=True,
                enable_usage_metrics=True,
                send_initial_empty_metrics=False,
                audio_in_sample_rate=16000,
                audio_out_sample_rate=rate_hz,
            ),
            cancel_on_idle_timeout=False,
            clock=StoppedClock(),
        )

    async def send(self, *frames: Frame) -> None:
        for frame in frames:
            await self.task.queue_frame(frame)


Story = Callable[[Rig], Awaitable[None]]
RunStory = Callable[..., Awaitable[Rig]]


@pytest.fixture
def story() -> RunStory:
    """Runs a story with a service, and ends the pipeline in good order."""

    async def run(service: FrameProcessor, act: Story, *, rate_hz: int = 16000) -> Rig:
        rig = Rig(service, rate_hz)

        async def play() -> None:
            try:
                async with asyncio.timeout(15):
                    await act(rig)
            except BaseException:
                await rig.task.cancel()
                raise
            await rig.task.stop_when_done()

        async with asyncio.timeout(30):
            await asyncio.gather(PipelineRunner(handle_sigint=False).run(rig.task), play())
        return rig

    return run


@pytest.fixture
def logs() -> Iterator[list[str]]:
    """What is logged, with all fields."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level=0, format="{message} {extra}")
    yield lines
    logger.remove(sink)
