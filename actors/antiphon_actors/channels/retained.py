"""What has left and is not safe at the peer yet: kept, to be given again to the peer's successor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

MAX_FRAMES: Final = 16_384
MAX_BYTES: Final = 16 << 20
"""What one stream keeps beyond what is unprocessed; the oldest is forgotten then."""

# From so many frames on it pays to look for safe ones behind one that is not.
_COMPACT_FROM: Final = 512


class Sent:
    """One frame in the keeping of a stream.

    Attributes:
        payload: The encoded frame; empty once it has been taken back.
        tag: What the sender gave to recognise it by; the payload itself without a tag.
        size: Length of the payload in bytes.
        sent_ns: When `send` took it, CLOCK_MONOTONIC.
        cause: What made the sender send it, and
        ordinal: which of the frames that this made it send it is; see `Delivery`.
        urgent: Its lane.
        seq: Its number on the lane; 0 as long as it has never left.
    """

    __slots__ = ("cause", "ordinal", "payload", "sent_ns", "seq", "size", "tag", "urgent")

    def __init__(
        self, payload: bytes, urgent: bool, tag: Any, sent_ns: int, cause: int, ordinal: int
    ) -> None:
        self.payload = payload
        self.tag = payload if tag is None else tag
        self.size = len(payload)
        self.sent_ns = sent_ns
        self.cause = cause
        self.ordinal = ordinal
        self.urgent = urgent
        self.seq = 0


class Retained:
    """The frames of one stream that have left and are not safe, in the order they left.

    Attributes:
        ordered: How many ordered frames are safe, counted from the stream's first.
        urgent: The same for urgent ones.
        forgotten: Frames that were not safe, and are not kept because there were too many.
    """

    __slots__ = ("_bytes", "_compact_at", "_frames", "forgotten", "ordered", "urgent")

    def __init__(self) -> None:
        self._frames: deque[Sent] = deque()  # bounded by MAX_FRAMES and MAX_BYTES
        self._bytes = 0
        self._compact_at = _COMPACT_FROM
        self.ordered = 0
        self.urgent = 0
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, sent: Sent) -> None:
        """Keeps a frame that leaves."""
        self._frames.append(sent)
        self._bytes += sent.size
        if self._bytes > MAX_BYTES or len(self._frames) > MAX_FRAMES:
            self._forget()

    def safe(self, ordered: int, urgent: int) -> None:
        """Lets go of what the peer reports as safe, by cumulative counts."""
        self.ordered, self.urgent = ordered, urgent
        frames = self._frames
        while frames:
            first = frames[0]
            if first.seq > (urgent if first.urgent else ordered):
                break
            frames.popleft()
            self._bytes -= first.size
        if len(frames) >= self._compact_at:
            self._compact()

    def _compact(self) -> None:
        """Lets go of safe frames behind one that is not: of the other lane."""
        kept = [f for f in self._frames if f.seq > (self.urgent if f.urgent else self.ordered)]
        self._frames = deque(kept)
        self._bytes = sum(frame.size for frame in kept)
        self._compact_at = max(_COMPACT_FROM, 2 * len(kept))

    def _forget(self) -> None:
        self._compact()
        while self._bytes > MAX_BYTES or len(self._frames) > MAX_FRAMES:
            oldest = self._frames.popleft()
            self._bytes -= oldest.size
            self.forgotten += 1
            # Numbering has no gaps: what was before it on its lane is forgotten as well.
            if oldest.urgent:
                self.urgent = oldest.seq
            else:
                self.ordered = oldest.seq

    def take_back(self, keep: Callable[[Any], bool]) -> None:
        """Empties the ordered frames that an interruption drops: they keep only their numbers."""
        for sent in self._frames:
            if not sent.urgent and not keep(sent.tag):
                # Its size still counts: the peer gives credit back for it.
                sent.payload = b""

    def take_all(self) -> list[Sent]:
        """Returns all of them and keeps none: they are about to leave again."""
        self._compact()
        frames = list(self._frames)
        self._frames.clear()
        self._bytes = 0
        for sent in frames:
            sent.size = len(sent.payload)
        return frames
