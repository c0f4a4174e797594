"""Frames that a processor collects until it has answered them."""

from __future__ import annotations

from collections import deque

from antiphon.utils.asyncio.receipts import Hold


class HeldFrames:
    """Holds of frames in the order in which they came, each with the amount of what is in it."""

    def __init__(self) -> None:
        """Begins with none."""
        self._holds: deque[tuple[Hold, float]] = deque()
        self._amount = 0.0

    def __bool__(self) -> bool:
        return bool(self._holds)

    @property
    def first(self) -> Hold:
        """The oldest.

        Raises:
            IndexError: There is none.
        """
        return self._holds[0][0]

    @property
    def last(self) -> Hold:
        """The newest.

        Raises:
            IndexError: There is none.
        """
        return self._holds[-1][0]

    def add(self, amount: float = 0) -> None:
        """Holds the frame in progress."""
        self._holds.append((Hold(), amount))
        self._amount += amount

    def trim(self, amount: float) -> None:
        """Releases the oldest ones that are not needed for so much."""
        while self._holds and self._amount - self._holds[0][1] >= amount:
            self._release_oldest()

    def release(self, *, but_newest: int = 0) -> None:
        """Releases all, or all but so many."""
        while len(self._holds) > but_newest:
            self._release_oldest()

    def _release_oldest(self) -> None:
        hold, amount = self._holds.popleft()
        hold.release()
        self._amount = self._amount - amount if self._holds else 0.0
