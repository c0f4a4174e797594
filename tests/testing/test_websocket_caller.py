"""The caller over a real WebSocket, against a server that plays the bot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from antiphon.frames.protobufs import frames_pb2
from antiphon.testing import WebSocketCaller, dial
from antiphon.testing.websocket_caller import INPUT_RATE, OUTPUT_RATE, Heard

SPEECH = Path(__file__).parents[1] / "data" / "espeak_16k.wav"
Bot = Callable[[ServerConnection], Awaitable[None]]


def sound(secs: float, level: int = 1000) -> bytes:
    samples = np.full(round(secs * OUTPUT_RATE), level, "<i2")
    audio = frames_pb2.AudioRawFrame(
        audio=samples.tobytes(), sample_rate=OUTPUT_RATE, num_channels=1
    )
    return frames_pb2.Frame(audio=audio).SerializeToString()


def message(content: object) -> bytes:
    proto = frames_pb2.MessageFrame(data=json.dumps(content))
    return frames_pb2.Frame(message=proto).SerializeToString()


async def listen(connection: ServerConnection) -> None:
    """A bot that says nothing more."""
    async for _ in connection:
        pass


@asynccontextmanager
async def calling(bot: Bot) -> AsyncIterator[WebSocketCaller]:
    async with serve(bot, "127.0.0.1", 0, close_timeout=1) as server:
        host, port = next(iter(server.sockets)).getsockname()
        async with dial(f"ws://{host}:{port}/") as caller:
            yield caller


async def test_what_is_said_arrives_at_the_speed_of_speech_on_an_open_line() -> None:
    got: list[frames_pb2.AudioRawFrame] = []

    async def bot(connection: ServerConnection) -> None:
        async for data in connection:
            assert isinstance(data, bytes)
            got.append(frames_pb2.Frame.FromString(data).audio)

    samples = np.arange(1, 4001, dtype=np.int16)
    async with calling(bot) as caller:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        await caller.speak(samples)
        # Not faster than speech; how much slower is this machine's affair.
        assert loop.time() - began_at >= 0.24
        assert began_at < caller.spoke_until <= loop.time()
        await caller.wait(0.05)
    sent = np.concatenate([np.frombuffer(audio.audio, "<i2") for audio in got])
    start = int(np.flatnonzero(sent)[0])
    assert sent[start : start + 4000].tolist() == samples.tolist()
    assert not sent[start + 4000 :].any()
    assert {(audio.sample_rate, audio.num_channels) for audio in got} == {(INPUT_RATE, 1)}
    assert len(got[0].audio) == 512


async def test_a_file_can_be_said() -> None:
    heard = 0

    async def bot(connection: ServerConnection) -> None:
        nonlocal heard
        async for data in connection:
            assert isinstance(data, bytes)
            heard += any(frames_pb2.Frame.FromString(data).audio.audio)

    async with calling(bot) as caller:
        await caller.speak(SPEECH)
    assert heard > 10


async def test_an_answer_is_heard_to_its_end_and_timed() -> None:
    async def bot(connection: ServerConnection) -> None:
        for _ in range(3):
            await connection.send(sound(0.1))
        await listen(connection)

    async with calling(bot) as caller:
        answer = await caller.hear(quiet_secs=0.2)
    assert answer.ended_at - answer.began_at == pytest.approx(0.3, abs=0.15)
    assert len(caller.recording()) == pytest.approx(0.3 * OUTPUT_RATE, abs=0.15 * OUTPUT_RATE)


async def test_gaps_are_what_the_player_would_lack() -> None:
    caller = WebSocketCaller.__new__(WebSocketCaller)
    tone = np.ones(OUTPUT_RATE // 10, np.int16)
    # Two early ones, one just in time, one 0.4 s late, one after a pause of 2 s.
    caller.heard = [
        Heard(10.0, 10.0, tone),
        Heard(10.0, 10.1, tone),
        Heard(10.2, 10.2, tone),
        Heard(10.7, 10.7, tone),
        Heard(12.8, 12.8, tone),
    ]
    assert [(round(at, 3), round(secs, 3)) for at, secs in caller.gaps(0.01)] == [
        (10.3, 0.4),
        (10.8, 2.0),
    ]
    assert caller.longest_gap(until=10.5) == pytest.approx(0.4)
    assert caller.longest_gap(since=10.5) == pytest.approx(2.0)
    assert caller.longest_gap(since=20.0) == 0.0
    assert len(caller.recording()) == pytest.approx(2.9 * OUTPUT_RATE, abs=2)


async def test_messages_and_what_they_tell_of_the_conversation() -> None:
    async def bot(connection: ServerConnection) -> None:
        async for data in connection:
            assert isinstance(data, bytes)
            proto = frames_pb2.Frame.FromString(data)
            if proto.WhichOneof("frame") == "message":
                assert json.loads(proto.message.data)["type"] == "client-ready"
                break
        for final in (False, True):
            said = {"text": "hello there", "final": final}
            await connection.send(message({"type": "user-transcription", "data": said}))
        await connection.send(message({"type": "bot-tts-text", "data": {"text": " Hi."}}))
        await connection.send(message({"type": "bot-ready"}))
        await listen(connection)

    async with calling(bot) as caller:
        await caller.get_ready()
        assert caller.transcript == [("user", "hello there"), ("assistant", "Hi.")]


async def test_a_bot_that_says_nothing_fails_the_test() -> None:
    async with calling(listen) as caller:
        with pytest.raises(AssertionError, match="does not answer within"):
            await caller.hear(within_secs=0.05)
        with pytest.raises(AssertionError, match="there is no bot-ready within"):
            await caller.get_ready(within_secs=0.05)


async def test_a_bot_that_hangs_up_is_noticed() -> None:
    async def bot(connection: ServerConnection) -> None:
        await connection.close(4001, "enough")

    async with calling(bot) as caller:
        assert await caller.wait_closed() == (4001, "enough")
        assert caller.closed
        with pytest.raises(AssertionError, match="the line is closed \\(4001 enough\\)"):
            await caller.hear()
