"""The binary protocol of the client SDKs: protobuf messages, one frame each."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from loguru import logger

from antiphon.frames.frames import (
    Frame,
    InputAudioRawFrame,
    OutputAudioRawFrame,
    TextFrame,
    TranscriptionFrame,
    TransportMessageFrame,
    TransportMessageUrgentFrame,
)
from antiphon.frames.protobufs import frames_pb2
from antiphon.serializers.base_serializer import FrameSerializer, FrameSerializerType

FrameT = TypeVar("FrameT", bound=Frame)

_SAMPLE_BYTES = 2


class ProtobufFrameSerializer(FrameSerializer):
    """Translates audio, texts, transcriptions and messages; see `antiphon/frames/protobufs`.

    Audio that is sent is read back as input audio, and any message as an urgent one. Id and name
    survive, unless the id is 0: zero is not written, so such a frame gets a new id.
    """

    @property
    def type(self) -> FrameSerializerType:
        """Binary."""
        return FrameSerializerType.BINARY

    async def serialize(self, frame: Frame) -> bytes | None:
        """The message for a frame; None for frames of other kinds.

        Raises:
            TypeError: A message for the client holds what JSON cannot express.
        """
        proto = frames_pb2.Frame()
        if isinstance(frame, OutputAudioRawFrame):
            audio = proto.audio
            audio.id, audio.name, audio.audio = frame.id, frame.name, frame.audio
            audio.sample_rate, audio.num_channels = frame.sample_rate, frame.num_channels
            if frame.pts is not None:
                audio.pts = frame.pts
        elif isinstance(frame, (TransportMessageFrame, TransportMessageUrgentFrame)):
            proto.message.data = json.dumps(frame.message)
        elif type(frame) is TranscriptionFrame:
            said = proto.transcription
            said.id, said.name, said.text = frame.id, frame.name, frame.text
            said.user_id, said.timestamp = frame.user_id, frame.timestamp
        elif type(frame) is TextFrame:
            proto.text.id, proto.text.name, proto.text.text = frame.id, frame.name, frame.text
        else:
            return None
        return proto.SerializeToString()

    async def deserialize(self, data: str | bytes) -> Frame | None:
        """The frame for a message; None, and a warning, for one that is malformed."""
        try:
            if isinstance(data, str):
                raise ValueError("a text message")
            return _frame_of(frames_pb2.Frame.FromString(data))
        except (DecodeError, ValueError, RecursionError) as error:
            logger.warning(
                "malformed message of the client dropped",
                size=len(data),
                error=type(error).__name__,
            )
            return None


def _frame_of(proto: frames_pb2.Frame) -> Frame | None:
    kind = proto.WhichOneof("frame")
    if kind == "audio":
        return _audio_of(proto.audio)
    if kind == "message":
        return TransportMessageUrgentFrame(message=json.loads(proto.message.data))
    if kind == "text":
        return _identified(TextFrame(proto.text.text), proto.text)
    if kind == "transcription":
        said = proto.transcription
        return _identified(TranscriptionFrame(said.text, said.user_id, said.timestamp), said)
    # A kind that newer clients know, or an empty message.
    return None


def _audio_of(audio: frames_pb2.AudioRawFrame) -> InputAudioRawFrame:
    if (
        audio.sample_rate == 0
        or audio.num_channels == 0
        or len(audio.audio) % (_SAMPLE_BYTES * audio.num_channels)
    ):
        raise ValueError("audio without a format, or with half a sample")
    frame = InputAudioRawFrame(audio.audio, audio.sample_rate, audio.num_channels)
    if audio.HasField("pts"):
        frame.pts = audio.pts
    return _identified(frame, audio)


def _identified(frame: FrameT, proto: Any) -> FrameT:
    """Gives a frame its id and name of the message; clients that send none get ours."""
    if proto.id:
        frame.id = proto.id
    if proto.name:
        frame.name = proto.name
    return frame
