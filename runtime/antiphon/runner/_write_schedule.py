"""When a checkpoint is written: one at a time, the newest, and later after failures."""

from __future__ import annotations

FIRST_PAUSE_SECS = 0.25
LONGEST_PAUSE_SECS = 10.0


class WriteSchedule:
    """Decides when the next write begins; without a clock and without a store.

    What changes while a write is under way is in the next one. After a failure there is a pause,
    which doubles with each further one.
    """

    def __init__(self) -> None:
        """Begins with nothing to write."""
        self._is_dirty = False
        self._is_writing = False
        self._failures = 0
        self._not_before_secs = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether all that has changed has been written."""
        return not self._is_dirty and not self._is_writing

    def changed(self) -> None:
        """Something has changed."""
        self._is_dirty = True

    def due_secs(self) -> float | None:
        """When the next write may begin; None if there is none, or one is under way."""
        return self._not_before_secs if self._is_dirty and not self._is_writing else None

    def begun(self) -> None:
        """A write begins, with all that has changed so far."""
        self._is_writing, self._is_dirty = True, False

    def done(self) -> None:
        """The write under way has succeeded, or is not worth another attempt."""
        self._is_writing = False
        self._failures, self._not_before_secs = 0, 0.0

    def failed(self, now_secs: float) -> None:
        """The write under way has failed: what it held is still to be written."""
        self._is_writing, self._is_dirty = False, True
        pause_secs = min(FIRST_PAUSE_SECS * 2**self._failures, LONGEST_PAUSE_SECS)
        self._failures += 1
        self._not_before_secs = now_secs + pause_secs
