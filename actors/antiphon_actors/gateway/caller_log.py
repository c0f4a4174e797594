"""What a caller has sent: not yet passed on, or passed on and not yet committed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from antiphon_actors.session.line import Kind, Message

PROLOGUE_BYTES = 64 << 10
"""What a bot is told at its start; of a longer one only the beginning is kept."""


@dataclass(frozen=True, slots=True)
class _Kept:
    number: int
    payload: bytes
    at: float


class CallerLog:
    """Keeps a caller's messages until no process can need them any more.

    Messages are numbered from 1. They are sent in order, once; after `rewind` once more, for a process
    that begins where another has died: the prologue first, then what was not committed.

    Args:
        max_bytes: Most bytes kept, the prologue not counted.
        max_secs: Nothing older is kept.

    Attributes:
        forgotten: Messages given up before they were committed, though they had been sent.
        dropped: Messages given up before they were sent.
    """

    def __init__(self, max_bytes: int, max_secs: float) -> None:
        self._max_bytes = max_bytes
        self._max_secs = max_secs
        # Both together are bounded by max_bytes and max_secs; the newer ones have not been sent.
        self._sent: deque[_Kept] = deque()
        self._unsent: deque[_Kept] = deque()
        self._bytes = 0
        self._last = 0
        # Number of the last that any process was sent.
        self._ever_sent = 0
        self._prologue: list[_Kept] | None = None
        self._prologue_unsent: deque[_Kept] = deque()
        self.forgotten = 0
        self.dropped = 0

    @property
    def last(self) -> int:
        """Number of the newest message; 0 before the first."""
        return self._last

    @property
    def kept_bytes(self) -> int:
        """Bytes that are kept, the prologue not counted."""
        return self._bytes

    def add(self, kind: Kind, data: bytes, now: float, *, lossy: bool) -> bool:
        """Takes a message.

        Args:
            kind: What it is.
            data: Its bytes.
            now: The time, in seconds.
            lossy: What there is no room for is given up, the oldest first, whether or not any process
                was sent it. Otherwise only what one was sent is.

        Returns:
            Whether it was taken: there is room for all that no process was sent.
        """
        payload = Message(kind, self._last + 1, data).pack()
        while (oldest := self._sent or self._unsent) and (
            self._bytes + len(payload) > self._max_bytes or oldest[0].at < now - self._max_secs
        ):
            if oldest[0].number <= self._ever_sent:
                self.forgotten += 1
            elif lossy:
                self.dropped += 1
            else:
                return False
            self._take(oldest)
        self._last += 1
        self._unsent.append(_Kept(self._last, payload, now))
        self._bytes += len(payload)
        return True

    def next(self) -> bytes | None:
        """The next message to send, packed; None if all have been sent."""
        if self._prologue_unsent:
            return self._prologue_unsent.popleft().payload
        if not self._unsent:
            return None
        kept = self._unsent.popleft()
        self._sent.append(kept)
        self._ever_sent = max(self._ever_sent, kept.number)
        return kept.payload

    def rewind(self) -> None:
        """Sends everything that is kept again, to another process."""
        self._prologue_unsent = deque(self._prologue or ())
        self._unsent = self._sent + self._unsent
        self._sent = deque()

    def commit(self, number: int) -> None:
        """No process needs the messages up to this number any more, the prologue apart.

        Without effect before the end of the prologue.
        """
        if self._prologue is not None:
            while self._sent and self._sent[0].number <= number:
                self._take(self._sent)

    def end_prologue(self, number: int) -> None:
        """Keeps the messages up to this number for as long as this exists; the first call counts."""
        if self._prologue is not None:
            return
        self._prologue = []
        size = 0
        while self._sent and self._sent[0].number <= number:
            kept = self._take(self._sent)
            size += len(kept.payload)
            if size <= PROLOGUE_BYTES:
                self._prologue.append(kept)

    def _take(self, queue: deque[_Kept]) -> _Kept:
        kept = queue.popleft()
        self._bytes -= len(kept.payload)
        return kept
