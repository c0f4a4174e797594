"""Where what a caller sends is kept until it is safe."""

from __future__ import annotations

from typing import Protocol


class CallerLine(Protocol):
    """The side of a connection to a caller that outlives the bot's process.

    It counts the caller's messages from the beginning of the session, across the bot's processes,
    keeps them, and gives those that are not committed to the process that goes on.
    """

    @property
    def received(self) -> int:
        """How many messages the pipeline has worked off, those committed before included.

        Messages that still wait in a queue of the transport do not count.
        """

    def commit(self, received: int) -> None:
        """Says that what the first messages said is safe: they are not kept or delivered again.

        Before the transport starts it says from where on to deliver. It must not wait, and a number
        that is not above an earlier one changes nothing.

        Args:
            received: How many messages.
        """
