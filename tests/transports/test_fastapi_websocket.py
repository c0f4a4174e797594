"""The transport over an accepted WebSocket: pace, interruptions, events, clients that misbehave."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import Callable
from typing import Any

import pytest
from tests.transports.asgi_websocket import AsgiWebSocket, ResumedWebSocket
from tests.transports.conftest import Bench, MakeBench

from antiphon.audio.filters.base_audio_filter import BaseAudioFilter
from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    FilterControlFrame,
    Frame,
    InputAudioRawFrame,
    OutputAudioRawFrame,
    StartFrame,
    StartInterruptionFrame,
    TextFrame,
    TransportMessageFrame,
    TransportMessageUrgentFrame,
    TTSAudioRawFrame,
)
from antiphon.frames.protobufs import frames_pb2
from antiphon.serializers.base_serializer import FrameSerializer, FrameSerializerType
from antiphon.serializers.protobuf import ProtobufFrameSerializer
from antiphon.transports.network import _websocket_client
from antiphon.transports.network.fastapi_websocket import (
    FastAPIWebsocketParams,
    FastAPIWebsocketTransport,
)

pytestmark = pytest.mark.virtual_time

RATE = 24000
PIECE_SECS = 0.04
PIECE_BYTES = 1920


class Words(FrameSerializer):
    """A text protocol that says which frames it was offered."""

    def __init__(self) -> None:
        self.starts: list[StartFrame] = []

    @property
    def type(self) -> FrameSerializerType:
        return FrameSerializerType.TEXT

    async def setup(self, frame: StartFrame) -> None:
        self.starts.append(frame)

    async def serialize(self, frame: Frame) -> str | None:
        return type(frame).__name__

    async def deserialize(self, data: str | bytes) -> Frame | None:
        assert isinstance(data, str)
        if data == "choke":
            raise LookupError("choked")
        return TextFrame(data) if data else None


class SlowFilter(BaseAudioFilter):
    """Takes a second for each piece of audio."""

    async def start(self, sample_rate: int) -> None: ...

    async def stop(self) -> None: ...

    async def process_frame(self, frame: FilterControlFrame) -> None: ...

    async def filter(self, audio: bytes) -> bytes:
        await asyncio.sleep(1.0)
        return audio


class Call:
    """A transport on a socket, and what its events said."""

    def __init__(self, socket: AsgiWebSocket, **params: Any) -> None:
        self.socket = socket
        given = {"audio_in_enabled": True, "audio_out_enabled": True, **params}
        self.transport = FastAPIWebsocketTransport(socket, FastAPIWebsocketParams(**given))
        self.events: list[str] = []
        for name in (
            "client_connected",
            "client_disconnected",
            "session_timeout",
            "client_resumed",
        ):
            self.transport.add_event_handler(f"on_{name}", self._note(name))

    def _note(self, name: str) -> Callable[[object, object], None]:
        def note(transport: object, websocket: object) -> None:
            assert websocket is self.socket
            self.events.append(name)

        return note

    def bench(self, make: MakeBench) -> Bench:
        return make(self.transport.input(), self.transport.output(), audio_out_sample_rate=RATE)

    def audio_sent(self) -> list[tuple[float, int]]:
        """When how many bytes of audio were sent."""
        found = []
        for at, data in self.socket.sent:
            assert isinstance(data, bytes)
            proto = frames_pb2.Frame.FromString(data)
            if proto.WhichOneof("frame") == "audio":
                found.append((at, len(proto.audio.audio)))
        return found

    def most_ahead_secs(self) -> float:
        """By how much the client had at most more audio than it had played."""
        played_at, most = 0.0, 0.0
        for at, size in self.audio_sent():
            played_at = max(played_at, at) + size / (2 * RATE)
            most = max(most, played_at - at)
        return most


def speech(secs: float) -> TTSAudioRawFrame:
    return TTSAudioRawFrame(bytes(round(secs * RATE) * 2), RATE, 1)


def from_client(audio: bytes, rate: int = 16000, channels: int = 1) -> bytes:
    message = frames_pb2.AudioRawFrame(audio=audio, sample_rate=rate, num_channels=channels)
    return frames_pb2.Frame(audio=message).SerializeToString()


# -- sending ---------------------------------------------------------------------------------


async def test_audio_goes_out_in_real_time_and_little_ahead(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket())

    async def script(made: Bench) -> None:
        await made.down(speech(2.0))
        await asyncio.sleep(2.5)

    await call.bench(bench).run(script)
    sent = call.audio_sent()
    assert [size for _, size in sent] == [PIECE_BYTES] * 50
    assert sent[-1][0] - sent[0][0] == pytest.approx(2.0 - PIECE_SECS - 0.05, abs=0.06)
    assert PIECE_SECS < call.most_ahead_secs() <= 0.09 + 1e-6


async def test_long_pieces_leave_no_gap(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket(), audio_out_10ms_chunks=20)

    async def script(made: Bench) -> None:
        await made.down(speech(2.0))
        await asyncio.sleep(2.5)

    await call.bench(bench).run(script)
    played_at = None
    for at, size in call.audio_sent():
        assert played_at is None or at < played_at
        played_at = (played_at or at) + size / (2 * RATE)


async def test_an_interruption_stops_at_once_and_the_pace_begins_anew(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket())

    async def script(made: Bench) -> None:
        loop = asyncio.get_running_loop()
        await made.down(speech(10.0))
        await asyncio.sleep(1.0)
        interrupted_at = loop.time()
        await made.down(StartInterruptionFrame())
        await asyncio.sleep(0.5)
        assert all(at <= interrupted_at for at, _ in call.audio_sent())
        before = len(call.audio_sent())
        again_at = loop.time()
        await made.down(speech(1.0))
        await asyncio.sleep(0.001)
        # What the client has not played is not waited for: it is taken to be void.
        assert [at for at, _ in call.audio_sent()[before:]] == pytest.approx(
            [again_at, again_at], abs=0.01
        )

    await call.bench(bench).run(script)


async def test_the_serializer_hears_of_an_interruption_before_new_audio(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket(), serializer=Words())

    async def script(made: Bench) -> None:
        await made.down(speech(1.0))
        await asyncio.sleep(0.2)
        await made.down(StartInterruptionFrame())
        await made.down(speech(0.04))

    await call.bench(bench).run(script)
    sent = [data for _, data in call.socket.sent]
    assert sent[-3:] == ["StartInterruptionFrame", "TTSAudioRawFrame", "EndFrame"]


async def test_messages_are_sent_in_their_turn_or_at_once(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket(), serializer=Words())

    async def script(made: Bench) -> None:
        await made.down(
            speech(0.4), TransportMessageFrame("late"), TransportMessageUrgentFrame("a")
        )
        await asyncio.sleep(1.0)

    await call.bench(bench).run(script)
    sent = [data for _, data in call.socket.sent]
    assert sent.index("TransportMessageUrgentFrame") < 5
    assert sent.index("TransportMessageFrame") == 11


async def test_each_piece_can_be_a_wav_file(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket(), add_wav_header=True)

    async def script(made: Bench) -> None:
        await made.down(speech(0.08))

    await call.bench(bench).run(script)
    (_, data), *_ = call.socket.sent
    assert isinstance(data, bytes)
    with wave.open(io.BytesIO(frames_pb2.Frame.FromString(data).audio.audio)) as file:
        assert (file.getframerate(), file.getnframes()) == (RATE, 960)


# -- the end ---------------------------------------------------------------------------------


async def test_the_end_waits_for_the_last_word_and_closes(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket(), serializer=Words())
    ended_at = 0.0

    async def script(made: Bench) -> None:
        await made.down(speech(1.0))

    await call.bench(bench).run(script)
    ended_at = asyncio.get_running_loop().time()
    assert ended_at >= 1.0
    assert call.socket.sent[-1][1] == "EndFrame"
    assert call.socket.closed == (1000, "")
    assert call.events == ["client_connected"]


async def test_a_cancellation_closes_at_once(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket(), serializer=Words())

    async def script(made: Bench) -> None:
        await made.down(speech(60.0))
        await made.task.cancel()

    await call.bench(bench).run(script, end=False)
    assert asyncio.get_running_loop().time() < 1.0
    assert call.socket.sent[-1][1] == CancelFrame.__name__
    assert call.socket.closed == (1000, "")


@pytest.mark.parametrize("half", ["input", "output"])
async def test_one_half_alone_closes_too(bench: MakeBench, half: str) -> None:
    call = Call(AsgiWebSocket())

    async def script(made: Bench) -> None:
        await asyncio.sleep(0.1)

    await bench(getattr(call.transport, half)()).run(script)
    assert call.socket.closed == (1000, "")


async def test_a_connection_that_was_not_accepted_is_an_error(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket(accepted=False))

    async def script(made: Bench) -> None:
        await asyncio.sleep(0.1)

    made = call.bench(bench)
    await made.run(script, end=False)
    assert "accept" in made.task.errors[0].error


# -- receiving -------------------------------------------------------------------------------


async def test_what_a_client_sends_is_pushed(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket())
    made = bench(call.transport.input())

    async def script(made: Bench) -> None:
        call.socket.say(from_client(bytes(512)))
        message = frames_pb2.MessageFrame(data='{"label": "rtvi-ai"}')
        call.socket.say(frames_pb2.Frame(message=message).SerializeToString())
        call.socket.say("not binary")
        call.socket.say(b"\xff")
        call.socket.say(from_client(b"\x01\x00" * 256))
        await asyncio.sleep(0.1)

    await made.run(script)
    audio = [frame for _, frame in made.below.of(InputAudioRawFrame)]
    assert [getattr(frame, "audio", None) for frame in audio] == [bytes(512), b"\x01\x00" * 256]
    ((_, urgent),) = made.below.of(TransportMessageUrgentFrame)
    assert getattr(urgent, "message", None) == {"label": "rtvi-ai"}


async def test_audio_in_another_format_is_converted(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket())
    made = call.bench(bench)

    async def script(made: Bench) -> None:
        for _ in range(10):
            call.socket.say(from_client(b"\x10\x00\x20\x00" * 960, 48000, 2))
        await asyncio.sleep(0.1)

    await made.run(script)
    audio = [frame for _, frame in made.below.of(InputAudioRawFrame)]
    assert {
        (f.sample_rate, f.num_channels) for f in audio if isinstance(f, InputAudioRawFrame)
    } == {(16000, 1)}
    total = b"".join(frame.audio for frame in audio if isinstance(frame, InputAudioRawFrame))
    assert len(total) / 32000 == pytest.approx(0.2, abs=0.02)
    assert int.from_bytes(total[-400:-398], "little") == pytest.approx(0x18, abs=2)


async def test_a_serializer_that_fails_does_not_end_the_call(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket(), serializer=Words())
    made = call.bench(bench)

    async def script(made: Bench) -> None:
        for text in ("one", "choke", "choke", "", "two"):
            call.socket.say(text)
        await asyncio.sleep(0.1)

    await made.run(script)
    assert [
        frame.text for _, frame in made.below.of(TextFrame) if isinstance(frame, TextFrame)
    ] == [
        "one",
        "two",
    ]
    assert len(made.above.of(ErrorFrame)) == 1


# -- clients that leave or stop taking -------------------------------------------------------------


async def test_a_client_that_leaves_is_reported_once(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket())

    async def script(made: Bench) -> None:
        await made.down(speech(60.0))
        await asyncio.sleep(0.5)
        call.socket.hang_up()
        await asyncio.sleep(0.5)
        assert call.events == ["client_connected", "client_disconnected"]
        await made.task.cancel()

    await call.bench(bench).run(script, end=False)
    assert call.events == ["client_connected", "client_disconnected"]
    assert call.socket.closed is None


async def test_a_client_that_vanishes_is_noticed_by_the_next_word(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket())

    async def script(made: Bench) -> None:
        call.socket.gone = True
        await made.down(speech(1.0))
        await asyncio.sleep(0.1)
        assert call.events == ["client_connected", "client_disconnected"]

    await call.bench(bench).run(script)


async def test_a_client_that_takes_nothing_counts_as_gone(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket())

    async def script(made: Bench) -> None:
        call.socket.slow.clear()
        await made.down(speech(1.0), TextFrame("behind it"))
        await asyncio.sleep(_websocket_client.SEND_DEADLINE_SECS + 5.0)
        assert call.events == ["client_connected", "client_disconnected"]
        assert made.below.of(TextFrame)  # the pipeline goes on

    await call.bench(bench).run(script)


async def test_a_slow_client_slows_the_bot(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket())

    async def script(made: Bench) -> None:
        call.socket.slow.clear()
        await made.down(speech(1.0))
        await asyncio.sleep(5.0)
        assert call.audio_sent() == []
        call.socket.slow.set()
        await asyncio.sleep(2.0)

    await call.bench(bench).run(script)
    assert len(call.audio_sent()) == 25
    assert call.most_ahead_secs() <= 0.09 + 1e-6
    assert call.events == ["client_connected"]


async def test_the_session_timeout_is_told_once(bench: MakeBench) -> None:
    call = Call(AsgiWebSocket(), session_timeout=30)

    async def script(made: Bench) -> None:
        await asyncio.sleep(29.0)
        assert call.events == ["client_connected"]
        await asyncio.sleep(60.0)

    await call.bench(bench).run(script)
    assert call.events == ["client_connected", "session_timeout"]


# -- sockets that outlive a process ---------------------------------------------------------------


async def test_a_resumed_client_is_not_greeted_again(bench: MakeBench) -> None:
    socket = ResumedWebSocket()
    call = Call(socket)

    async def script(made: Bench) -> None:
        await asyncio.sleep(0.1)

    await call.bench(bench).run(script)
    assert call.events == ["client_resumed"]
    assert socket.prologues == 1


async def test_what_was_worked_off_is_counted_and_can_be_committed(bench: MakeBench) -> None:
    socket = ResumedWebSocket()
    call = Call(socket, audio_in_filter=SlowFilter())
    line = call.transport.input().caller_line
    assert line is not None
    assert line.received == 7  # what an earlier process has left

    async def script(made: Bench) -> None:
        await asyncio.sleep(0.1)
        message = frames_pb2.Frame(message=frames_pb2.MessageFrame(data="{}")).SerializeToString()
        socket.say(message)
        await asyncio.sleep(0.1)
        assert line.received == 8
        for _ in range(3):
            socket.say(from_client(bytes(512)))
        socket.say(message)
        await asyncio.sleep(0.5)
        # Taken, but the first audio is still being worked on.
        assert (socket.received, line.received) == (12, 8)
        await asyncio.sleep(1.0)
        assert line.received == 9
        await asyncio.sleep(2.0)
        assert line.received == 12
        line.commit(9)
        assert socket.committed == [9]

    await call.bench(bench).run(script)


async def test_a_connection_of_ones_own_server_keeps_nothing() -> None:
    assert Call(AsgiWebSocket()).transport.input().caller_line is None


# -- parameters ------------------------------------------------------------------------------


async def test_the_serializer_is_protobuf_unless_another_is_given(bench: MakeBench) -> None:
    assert FastAPIWebsocketParams().serializer is None
    call, words = Call(AsgiWebSocket()), Words()
    other = Call(AsgiWebSocket(), serializer=words)

    async def script(made: Bench) -> None:
        await made.down(OutputAudioRawFrame(bytes(PIECE_BYTES), RATE, 1))

    await call.bench(bench).run(script)
    assert call.audio_sent() != []
    assert isinstance(call.transport._params.serializer, ProtobufFrameSerializer)
    await other.bench(bench).run(script)
    assert [data for _, data in other.socket.sent] == ["OutputAudioRawFrame", EndFrame.__name__]
    assert {frame.audio_out_sample_rate for frame in words.starts} == {RATE}


async def test_both_halves_are_always_the_same() -> None:
    socket = AsgiWebSocket()
    transport = FastAPIWebsocketTransport(
        socket, FastAPIWebsocketParams(), input_name="ears", output_name="mouth"
    )
    assert transport.input() is transport.input()
    assert transport.output() is transport.output()
    assert (transport.input().name, transport.output().name) == ("ears", "mouth")
