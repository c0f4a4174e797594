"""The streams that come to a session's processors in one process, and who may open them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgpack

from antiphon.frames.frames import Frame
from antiphon.processors.frame_processor import FrameDirection, FrameProcessor
from antiphon_actors.channels import Acceptance, ChannelRefused, Delivery, Link
from antiphon_actors.channels.in_stream import InStream
from antiphon_actors.session.kept import INSTEAD, NOT_GONE, slot_of
from antiphon_actors.session.progress import Progress
from antiphon_actors.session.receivers import FrameReceiver

if TYPE_CHECKING:
    from antiphon_actors.session.node import SessionNode


@dataclass
class Source:
    """What comes for one processor from one side.

    Attributes:
        slot: See `slot_of`.
        progress: What has come, from whoever sent it.
        link: The link of the present sender.
        receiver: Takes what that sends.
        stream: The stream it comes on.
        gone: Whether that stream is over.
    """

    slot: int
    progress: Progress = field(default_factory=Progress)
    link: Link | None = None
    receiver: FrameReceiver | None = None
    stream: InStream | None = None
    gone: bool = True


class _Receiver:
    """Takes note of a stream's end, beside what the receiver makes of it."""

    __slots__ = ("_receiver", "_source", "deliver")

    def __init__(self, source: Source, receiver: FrameReceiver) -> None:
        self._source = source
        self._receiver = receiver
        self.deliver: Callable[[Delivery], None] = receiver.deliver

    def closed(self, reason: Exception | None) -> None:
        """The stream is over."""
        if self._source.receiver is self._receiver:
            self._source.gone = True
        self._receiver.closed(reason)


class Incoming:
    """Accepts the streams of a session's frames in this process."""

    def __init__(self, node: SessionNode) -> None:
        self._node: SessionNode | None = node
        self._sources: dict[int, Source] = {}
        # In an actor: told of settings, by slot, and asked about what comes of frames.
        self.note_setting: Callable[[int, Delivery, Frame], None] | None = None
        self.mark: Callable[[], object | None] | None = None
        self.passed: Callable[[object], bool] | None = None
        # Where numbering begins for senders of which nobody was before: a successor's frames are
        # never taken for those of its predecessor.
        self.first_number = 0
        # In a successor: told of each stream that begins.
        self.began: Callable[[int, FrameDirection, Source], None] | None = None
        self.prompt: Callable[[int], bool] | None = None

    def accept(
        self, link: Link, processor: FrameProcessor, pid: int, direction: int, extra: int
    ) -> Acceptance:
        """Takes the stream of a processor's neighbour, or of that one's successor.

        Args:
            link: Where it comes from.
            processor: Whom its frames are for.
            pid: Its number.
            direction: The value of the `FrameDirection` of the frames.
            extra: `BESIDE`, `INSTEAD`, both or none.

        Raises:
            ChannelRefused: More may come from the sender before (`NOT_GONE`).
        """
        way = FrameDirection(direction)
        slot = slot_of(pid, direction, extra)
        source = self._sources.get(slot)
        if source is None:
            source = self._sources[slot] = Source(slot)
        if not source.gone:
            if source.link is not link and not extra & INSTEAD:
                raise ChannelRefused(NOT_GONE)
            self._cut(source)
        note = None
        if self.note_setting is not None:
            note_any = self.note_setting

            def note(delivery: Delivery, frame: Frame) -> None:
                note_any(slot, delivery, frame)

        progress = source.progress
        if self._node is None:
            raise ChannelRefused("the session is over")
        receiver = FrameReceiver(self._node, processor, way, progress, note)
        source.link, source.receiver, source.stream, source.gone = link, receiver, None, False

        def began(stream: InStream) -> None:
            source.stream = stream
            progress.begin(*stream.received)
            if self.began is not None:
                self.began(pid, way, source)

        greeting = b""
        if progress.ordered or progress.urgent:
            greeting = msgpack.packb(progress.to_plain())
        return Acceptance(
            _Receiver(source, receiver),
            ordered=progress.ordered or self.first_number,
            urgent=progress.urgent or self.first_number,
            greeting=greeting,
            slot=slot,
            mark=self.mark,
            passed=self.passed,
            began=began,
            prompt=self.prompt is not None and self.prompt(pid),
        )

    def _cut(self, source: Source) -> None:
        assert source.link is not None
        assert source.receiver is not None
        source.receiver.end()
        if source.stream is not None and source.stream.receiver is not None:
            source.link.stop_stream(source.stream.receiver, "another sender has its place")

    def freeze(self) -> None:
        """Takes nothing more, and reports nothing more as processed: it is left to others."""
        for source in self._sources.values():
            if source.receiver is not None:
                source.receiver.end()
            if source.stream is not None:
                source.stream.close()

    def stop(self) -> None:
        """Ends what still comes, though who sends it may not take notice: nobody is left to take it."""
        for source in self._sources.values():
            if not source.gone and source.link is not None:
                self._cut(source)

    def of(self, pids: Iterable[int]) -> list[Source]:
        """What comes for some processors."""
        wanted = set(pids)
        return [source for slot, source in self._sources.items() if slot >> 2 in wanted]

    def clear(self) -> None:
        """Lets go of all."""
        self._sources.clear()
        self._node = None
        self.note_setting = self.mark = self.passed = self.began = self.prompt = None
