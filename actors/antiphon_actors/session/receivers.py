"""What takes the streams of other processes into this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loguru import logger

from antiphon.frames import codec
from antiphon.frames.frames import ErrorFrame, Frame
from antiphon.observers.base_observer import FramePushed
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon_actors.channels.in_stream import Delivery

if TYPE_CHECKING:
    from antiphon_actors.session.node import SessionNode


class FrameReceiver:
    """Puts arriving frames into a processor's inbox."""

    def __init__(
        self, node: SessionNode, processor: FrameProcessor, direction: FrameDirection
    ) -> None:
        self._node = node
        self._decoder = node.decoder
        self._observer = node.observer
        self._inbox = processor._local_inbox
        self._processor = processor
        self._direction = direction

    def deliver(self, delivery: Delivery) -> None:
        """Takes a record of the stream."""
        node = self._node
        if node._closed:  # the sender has not heard yet
            delivery.done()
            return
        frame = self._decoder.frame(delivery.payload)
        processor = self._processor
        observer = self._observer
        # A processor that was set up without an observer is part of one that is watched.
        if observer is not None and observer.watching and processor._observer is not None:
            self._let_see(frame, delivery.sent_ns)
        if processor._cancelling:
            delivery.done()
            return
        self._inbox.put_nowait(frame, self._direction, None, delivery, delivery.sent_ns)

    def _let_see(self, frame: Frame, sent_ns: int) -> None:
        processor, direction = self._processor, self._direction
        downstream = direction is FrameDirection.DOWNSTREAM
        source = processor._prev if downstream else processor._next
        if source is not None:
            time = self._node.pipeline_time(sent_ns)
            self._node.observed(FramePushed(source, processor, frame, direction, time))

    def closed(self, reason: Exception | None) -> None:
        """A lost sender is reported by its link; a frame that cannot be read ends the session."""
        if not isinstance(reason, codec.CodecError):
            return
        processor = self._processor
        logger.error(
            "frame from another process refused",
            session_id=self._node.session_id,
            processor=processor.name,
            reason=str(reason),
        )
        text = f"a frame for {processor.name} could not be read: {reason}"
        self._node.spawn(processor.push_error(ErrorFrame(error=text, fatal=True)))


class ObservedReceiver:
    """Takes the pushes that processors elsewhere report."""

    def __init__(self, node: SessionNode) -> None:
        self._node = node

    def deliver(self, delivery: Delivery) -> None:
        """Takes a record of the stream."""
        try:
            if not self._node.closed:
                self._node.observed(self._node.decode_observed(delivery.payload))
        finally:
            delivery.done()

    def closed(self, reason: Exception | None) -> None:
        """The sender is gone; its link reports that."""
