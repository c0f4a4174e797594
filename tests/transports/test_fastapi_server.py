"""The documented way to write one's own server: FastAPI, uvicorn, a client over the network."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import FastAPI, WebSocket
from tests.transports.web_server import serving
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from antiphon.frames.frames import (
    EndTaskFrame,
    Frame,
    InputAudioRawFrame,
    StartInterruptionFrame,
    TransportMessageUrgentFrame,
    TTSAudioRawFrame,
)
from antiphon.frames.protobufs import frames_pb2
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon.serializers.protobuf import ProtobufFrameSerializer
from antiphon.transports.network.fastapi_websocket import (
    FastAPIWebsocketParams,
    FastAPIWebsocketTransport,
)

WAIT_SECS = 10.0
RATE = 24000


class Parrot(FrameProcessor):
    """Answers each message with a message and half a second of sound."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TransportMessageUrgentFrame):
            await self.push_frame(TransportMessageUrgentFrame({"heard": frame.message}))
            await self.push_frame(TTSAudioRawFrame(bytes(RATE), RATE, 1))
            if frame.message == "stop":
                await self.push_frame(StartInterruptionFrame())
            elif frame.message == "bye":
                await self.push_frame(EndTaskFrame(), FrameDirection.UPSTREAM)
        elif not isinstance(frame, InputAudioRawFrame):
            await self.push_frame(frame, direction)


class Bot:
    """A bot of the documentation, on a server of its own."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.events: list[str] = []
        self.ended = asyncio.Event()
        self.app.websocket("/ws")(self._endpoint)

    async def _endpoint(self, websocket: WebSocket) -> None:
        await websocket.accept()
        start_data = websocket.iter_text()
        await anext(start_data)
        call_data = json.loads(await anext(start_data))
        try:
            await self._run(websocket, call_data["start"]["streamSid"])
        finally:
            self.ended.set()

    async def _run(self, websocket: WebSocket, stream_sid: str) -> None:
        transport = FastAPIWebsocketTransport(
            websocket=websocket,
            params=FastAPIWebsocketParams(
                audio_in_enabled=True,
                audio_out_enabled=True,
                serializer=ProtobufFrameSerializer(),
                session_timeout=30,
            ),
        )
        task = PipelineTask(Pipeline([transport.input(), Parrot(), transport.output()]))

        @transport.event_handler("on_client_connected")
        async def on_client_connected(transport: Any, websocket: WebSocket) -> None:
            self.events.append(f"connected {stream_sid} {websocket.url.path}")

        @transport.event_handler("on_client_disconnected")
        async def on_client_disconnected(transport: Any, websocket: WebSocket) -> None:
            self.events.append("disconnected")
            await task.cancel()

        runner = PipelineRunner(handle_sigint=False, force_gc=True)
        await runner.run(task)


async def dial(address: str) -> ClientConnection:
    client = await connect(f"ws://{address}/ws")
    await client.send(json.dumps({"event": "connected"}))
    await client.send(json.dumps({"event": "start", "start": {"streamSid": "abc"}}))
    return client


def message(content: Any) -> bytes:
    data = frames_pb2.MessageFrame(data=json.dumps(content))
    return frames_pb2.Frame(message=data).SerializeToString()


async def received(client: ClientConnection) -> frames_pb2.Frame:
    async with asyncio.timeout(WAIT_SECS):
        data = await client.recv()
    assert isinstance(data, bytes)
    return frames_pb2.Frame.FromString(data)


async def hear_to_the_end(client: ClientConnection) -> None:
    try:
        while True:
            await received(client)
    except ConnectionClosed:
        return


async def test_a_client_is_heard_and_answered() -> None:
    bot = Bot()
    async with serving(bot.app) as address:
        client = await dial(address)
        await client.send(message("hello"))
        kinds, sound = [], b""
        while len(sound) < RATE // 1920 * 1920:
            proto = await received(client)
            kinds.append(proto.WhichOneof("frame"))
            sound += proto.audio.audio
        assert kinds[0] == "message"
        assert set(kinds[1:]) == {"audio"}
        await client.close()
        async with asyncio.timeout(WAIT_SECS):
            await bot.ended.wait()
    assert bot.events == ["connected abc /ws", "disconnected"]


async def test_the_bot_hangs_up_with_a_clean_code() -> None:
    bot = Bot()
    async with serving(bot.app) as address:
        client = await dial(address)
        await client.send(message("bye"))
        await hear_to_the_end(client)
        assert (client.close_code, client.close_reason) == (1000, "")
        async with asyncio.timeout(WAIT_SECS):
            await bot.ended.wait()
    assert bot.events == ["connected abc /ws"]


async def test_an_interruption_is_heard_at_once() -> None:
    bot = Bot()
    async with serving(bot.app) as address:
        client = await dial(address)
        await client.send(message("stop"))
        assert (await received(client)).WhichOneof("frame") == "message"
        await client.send(message("again"))
        pieces = 0
        while (await received(client)).WhichOneof("frame") == "audio":
            pieces += 1
        # At most what the client may be ahead of its player.
        assert pieces <= 3
        await client.close()
        async with asyncio.timeout(WAIT_SECS):
            await bot.ended.wait()


async def test_a_client_that_vanishes_ends_the_call() -> None:
    bot = Bot()
    async with serving(bot.app) as address:
        client = await dial(address)
        await client.send(message("hello"))
        await received(client)
        client.transport.abort()
        async with asyncio.timeout(WAIT_SECS):
            await bot.ended.wait()
    assert bot.events == ["connected abc /ws", "disconnected"]
