"""The bytes that clients of a WebSocket see."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.frames import codec
from antiphon.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    LLMTextFrame,
    OutputAudioRawFrame,
    StartFrame,
    TextFrame,
    TranscriptionFrame,
    TransportMessageFrame,
    TransportMessageUrgentFrame,
    TTSAudioRawFrame,
)
from antiphon.frames.protobufs import frames_pb2
from antiphon.serializers.base_serializer import FrameSerializer, FrameSerializerType
from antiphon.serializers.protobuf import ProtobufFrameSerializer


async def there(frame: Frame) -> bytes:
    data = await ProtobufFrameSerializer().serialize(frame)
    assert data is not None
    return data


async def back(data: str | bytes) -> Frame | None:
    return await ProtobufFrameSerializer().deserialize(data)


async def test_it_is_binary_and_needs_no_preparation() -> None:
    serializer = ProtobufFrameSerializer()
    assert isinstance(serializer, FrameSerializer)
    assert serializer.type is FrameSerializerType.BINARY
    await serializer.setup(StartFrame())


async def test_audio_has_the_field_numbers_that_clients_know() -> None:
    frame = OutputAudioRawFrame(b"\x01\x02", 24000, 1)
    frame.id, frame.name = 7, "a"
    # field 2 of Frame, 13 bytes: id = 7, name = "a", audio, sample_rate = 24000, num_channels = 1
    assert await there(frame) == bytes.fromhex("120f 0807 120161 1a020102 20c0bb01 2801")


async def test_a_message_is_json_in_field_four() -> None:
    assert await there(TransportMessageFrame({"a": 1})) == b'"\x0a\x0a\x08{"a": 1}'
    urgent = await there(TransportMessageUrgentFrame({"a": 1}))
    assert urgent == await there(TransportMessageFrame({"a": 1}))


async def test_audio_of_a_client_without_id_gets_ours() -> None:
    sent = frames_pb2.Frame(
        audio=frames_pb2.AudioRawFrame(audio=bytes(512), sample_rate=16000, num_channels=1)
    )
    first, second = await back(sent.SerializeToString()), await back(sent.SerializeToString())
    assert isinstance(first, InputAudioRawFrame)
    assert isinstance(second, InputAudioRawFrame)
    assert (first.audio, first.sample_rate, first.num_channels) == (bytes(512), 16000, 1)
    assert first.num_frames == 256
    assert first.id != second.id
    assert first.name.startswith("InputAudioRawFrame#")
    assert first.pts is None


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (TextFrame("hello"), TextFrame),
        (TranscriptionFrame("hello", "user", "now"), TranscriptionFrame),
        (OutputAudioRawFrame(bytes(8), 8000, 2), InputAudioRawFrame),
        (TTSAudioRawFrame(bytes(8), 8000, 2), InputAudioRawFrame),
    ],
)
async def test_frames_keep_their_identity(frame: Frame, kind: type[Frame]) -> None:
    frame.id, frame.name = 4711, "mine"
    found = await back(await there(frame))
    assert type(found) is kind
    assert (found.id, found.name) == (4711, "mine")
    for field in ("text", "user_id", "timestamp", "audio", "sample_rate", "num_channels"):
        assert getattr(found, field, None) == getattr(frame, field, None)


async def test_id_zero_is_not_written_and_becomes_another() -> None:
    frame = TextFrame("hello")
    frame.id = 0
    found = await back(await there(frame))
    assert found is not None
    assert found.id != 0


@pytest.mark.parametrize("pts", [0, 5, None])
async def test_a_presentation_time_of_zero_is_one(pts: int | None) -> None:
    frame = OutputAudioRawFrame(bytes(2), 8000, 1)
    frame.pts = pts
    found = await back(await there(frame))
    assert found is not None
    assert found.pts == pts


async def test_any_id_of_a_client_can_travel_on() -> None:
    data = frames_pb2.Frame(text=frames_pb2.TextFrame(id=2**64 - 1, text="x")).SerializeToString()
    found = await back(data)
    assert found is not None
    assert codec.decode(codec.encode(found)).id == 2**64 - 1


@pytest.mark.parametrize(
    "frame",
    [EndFrame(), LLMTextFrame("a"), InterimTranscriptionFrame("a", "b", "c"), StartFrame()],
    ids=lambda frame: type(frame).__name__,
)
async def test_other_frames_are_not_for_clients(frame: Frame) -> None:
    assert await ProtobufFrameSerializer().serialize(frame) is None


async def test_a_message_that_is_not_json_is_an_error() -> None:
    with pytest.raises(TypeError):
        await there(TransportMessageFrame({"socket": object()}))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff",
        b"\x12\x7f",
        "text",
        frames_pb2.Frame(message=frames_pb2.MessageFrame(data="{")).SerializeToString(),
        frames_pb2.Frame(message=frames_pb2.MessageFrame(data="[" * 99999)).SerializeToString(),
        frames_pb2.Frame(audio=frames_pb2.AudioRawFrame(audio=bytes(2))).SerializeToString(),
        frames_pb2.Frame(
            audio=frames_pb2.AudioRawFrame(audio=bytes(3), sample_rate=8000, num_channels=1)
        ).SerializeToString(),
        b"",
        b"\x2a\x00",  # a kind of the future
    ],
)
async def test_what_cannot_be_read_is_dropped(data: str | bytes) -> None:
    assert await back(data) is None


@given(st.binary(max_size=200))
async def test_no_bytes_harm(data: bytes) -> None:
    await back(data)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=9))
async def test_any_json_travels(message: object) -> None:
    found = await back(await there(TransportMessageFrame(message)))
    assert isinstance(found, TransportMessageUrgentFrame)
    assert found.message == json.loads(json.dumps(message))
