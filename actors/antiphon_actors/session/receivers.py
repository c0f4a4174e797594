"""What takes the streams of other processes into this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from loguru import logger

from antiphon.frames import codec
from antiphon.frames.frames import ErrorFrame, Frame, StartFrame
from antiphon.observers.base_observer import FramePushed
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon_actors.channels.in_stream import Delivery
from antiphon_actors.session.progress import Progress

if TYPE_CHECKING:
    from antiphon_actors.session.node import SessionNode

NoteSetting = Callable[[Delivery, Frame], None]


class FrameReceiver:
    """Puts arriving frames into a processor's inbox."""

    def __init__(
        self,
        node: SessionNode,
        processor: FrameProcessor,
        direction: FrameDirection,
        progress: Progress,
        note_setting: NoteSetting | None = None,
    ) -> None:
        """Takes what comes for a processor from one side.

        Args:
            node: The session in this process.
            processor: Takes the frames.
            direction: The way they go.
            progress: Takes note of what has come.
            note_setting: Takes note of frames that are settings.
        """
        self._node = node
        self._decoder = node.decoder
        self._observer = node.observer
        self._inbox = processor._local_inbox
        self._processor = processor
        self._direction = direction
        self._progress = progress
        self._note_setting = note_setting
        self._over = False
        # Frames that wait until the processor has taken over from its predecessor; bounded by the
        # windows of the stream.
        self._waiting: list[tuple[Frame, Delivery]] | None = None
        self._started = False
        # Numbers up to which the processor's predecessor had answered, whatever its sender knows.
        self._answered_ordered = 0
        self._answered_urgent = 0

    def deliver(self, delivery: Delivery) -> None:
        """Takes a record of the stream."""
        node = self._node
        if node._closed or self._over:  # the sender has not heard yet; it is not processed
            return
        progress = self._progress
        payload = delivery.payload
        answered = self._answered_urgent if delivery.urgent else self._answered_ordered
        if not payload or delivery.seq <= answered:  # an interruption has taken it back
            progress.skip(delivery.urgent)
            delivery.done()
            return
        frame = self._decoder.frame(payload)
        progress.note(delivery.urgent, delivery.cause, frame)
        if self._started and isinstance(frame, StartFrame):
            delivery.done()
            return
        processor = self._processor
        observer = self._observer
        # A processor that was set up without an observer is part of one that is watched.
        if observer is not None and observer.watching and processor._observer is not None:
            self._let_see(frame, delivery.sent_ns)
        if self._waiting is not None:
            self._waiting.append((frame, delivery))
        elif processor._cancelling:
            delivery.done()
        else:
            if self._note_setting is not None and frame.is_setting:
                self._note_setting(delivery, frame)
            self._inbox.put_nowait(frame, self._direction, None, delivery, delivery.sent_ns)

    def skip(self, ordered: int, urgent: int) -> None:
        """Leaves out the frames up to these numbers."""
        self._answered_ordered, self._answered_urgent = ordered, urgent

    def wait(self) -> None:
        """Keeps what comes until `stop_waiting`."""
        self._waiting = []

    def stop_waiting(self, *, started: bool) -> list[tuple[Frame, Delivery]]:
        """Keeps nothing more, and returns what was kept, to be given to `take` before more comes.

        Args:
            started: Whether the processor has been started another way; the StartFrame is dropped,
                also one that comes later.
        """
        self._started = started
        waiting, self._waiting = self._waiting, None
        return waiting or []

    def take(self, frame: Frame, delivery: Delivery) -> None:
        """Gives the processor a frame that was kept."""
        if self._started and isinstance(frame, StartFrame):
            delivery.done()
            return
        if self._note_setting is not None and frame.is_setting:
            self._note_setting(delivery, frame)
        self._inbox.put_nowait(frame, self._direction, None, delivery, delivery.sent_ns)

    def end(self) -> None:
        """Another sender has the place of this one's: nothing more is taken from it."""
        self._over = True

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
