"""What every serializer has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum

from antiphon.frames.frames import Frame, StartFrame


class FrameSerializerType(Enum):
    """Which kind of WebSocket message a serializer makes and reads."""

    BINARY = "binary"
    TEXT = "text"


class FrameSerializer(ABC):
    """Translates between frames and the messages of a protocol.

    A transport calls ``setup()`` once the pipeline has started, then ``serialize()`` with every frame
    it sends and ``deserialize()`` with every message it receives. It also offers interruptions and
    the frames that end the pipeline, because some protocols have a message for them.
    """

    @property
    @abstractmethod
    def type(self) -> FrameSerializerType:
        """Whether messages are binary or text."""

    async def setup(self, frame: StartFrame) -> None:  # noqa: B027 - most have nothing to prepare
        """Prepares for a pipeline; nothing here.

        The input and the output of a transport both call it, so it may be called twice.

        Args:
            frame: The pipeline's sample rates, among others.
        """

    @abstractmethod
    async def serialize(self, frame: Frame) -> str | bytes | None:
        """The message for a frame; None if the protocol has none for it."""

    @abstractmethod
    async def deserialize(self, data: str | bytes) -> Frame | None:
        """The frame for a message; None if it stands for none."""
