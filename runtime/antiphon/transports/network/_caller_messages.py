"""How many of a caller's messages a pipeline has worked off."""

from __future__ import annotations

from collections import deque
from typing import Protocol, runtime_checkable


@runtime_checkable
class ResumableWebSocket(Protocol):
    """A connection that can outlive the process that serves it, such as the gateway's.

    It numbers the caller's messages from 1, over all processes.
    """

    @property
    def resumed(self) -> bool:
        """Whether the bot goes on with what another process has begun."""

    @property
    def received(self) -> int:
        """Number of the last message that was taken or committed."""

    def commit(self, received: int) -> None:
        """Says that messages up to this number are safe: they are not delivered again."""

    def end_prologue(self) -> None:
        """Says that what was received so far is what a bot has to know before it starts.

        A process that resumes the session receives these messages first.
        """


class CallerMessages:
    """The messages of a resumable WebSocket, as a `CallerLine` counts them.

    Their audio waits in a queue of the transport, so the last one that was taken from the WebSocket
    is not the last one that was worked off.
    """

    def __init__(self, websocket: ResumableWebSocket) -> None:
        """Begins with what was received before the transport starts."""
        self._websocket = websocket
        self._done = 0
        # Those whose audio waits or is being worked on; bounded by the transport's queue.
        self._queued: deque[int] = deque()

    @property
    def received(self) -> int:
        """How many messages have been worked off, or committed."""
        if self._queued:
            return self._queued[0] - 1
        return self._done or self._websocket.received

    def commit(self, received: int) -> None:
        """Says that what the first messages said is safe."""
        self._websocket.commit(received)

    def queue(self) -> None:
        """The message that was taken last holds audio, which is put into the queue."""
        self._queued.append(self._websocket.received)

    def done(self) -> None:
        """The message that was taken last is worked off, unless it was put into the queue."""
        self._done = self._websocket.received

    def audio_done(self) -> None:
        """The oldest audio in the queue is worked off."""
        if self._queued:
            self._queued.popleft()

    def audio_dropped(self) -> None:
        """The queue has been emptied."""
        self._queued.clear()
