"""When to transcribe what a user has said so far, and when to leave it."""

from __future__ import annotations

# So much more must have been said since the last time.
_STEP_SECS = 0.8
# An interim text that comes later than this is no longer what is being said.
_LATE_SECS = 1.2
# Late or refused texts in a row, after which there will be no more of them.
_MAX_LATE = 3


class InterimPace:
    """Decides about interim transcripts. One is under way at most.

    Attributes:
        is_off: Whether the model has proved too slow for them: for good.
    """

    def __init__(self) -> None:
        self.is_off = False
        self._asked_secs = 0.0
        self._under_way = False
        self._late = 0

    def begin(self) -> None:
        """Begins a turn of the user."""
        self._asked_secs = 0.0

    def is_due(self, spoken_secs: float) -> bool:
        """Whether what was said so far in this turn is to be transcribed now.

        Args:
            spoken_secs: How long that is.
        """
        if self.is_off or self._under_way or spoken_secs < self._asked_secs + _STEP_SECS:
            return False
        self._asked_secs = spoken_secs
        self._under_way = True
        return True

    def ended(self, took_secs: float | None) -> None:
        """Takes note that one has come, or was given up.

        Args:
            took_secs: How long it took; None if there was no answer in time.
        """
        self._under_way = False
        late = took_secs is None or took_secs > _LATE_SECS
        self._late = self._late + 1 if late else 0
        self.is_off = self._late >= _MAX_LATE

    def broken_off(self) -> None:
        """Takes note that nobody wants it any more, because the user has finished."""
        self._under_way = False
