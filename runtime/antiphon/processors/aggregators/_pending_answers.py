"""Whether a conversation waits for an answer of the model."""

from __future__ import annotations


class PendingAnswers:
    """Counts the answers that the model still owes a conversation.

    Questions can get lost on their way to the model (a filter, a gate), so what counts is what has
    been asked since the user's last message.
    """

    def __init__(self) -> None:
        """Begins with none."""
        self._owed = 0
        # An answer failed, or was lost with the process it was made in.
        self._is_open = False

    def __bool__(self) -> bool:
        return self._owed > 0 or self._is_open

    @property
    def is_to_be_asked(self) -> bool:
        """Whether there is a question to which no answer is under way."""
        return self._is_open and not self._owed

    def user_has_spoken(self) -> None:
        """The user has said something new; the question that follows is the one that counts."""
        self._owed, self._is_open = 0, False

    def asked(self) -> None:
        """The model is asked."""
        self._owed += 1

    def seen(self) -> None:
        """A question passes by on its way to the model; it may have been counted."""
        self._owed = max(self._owed, 1)

    def answered(self, *, empty: bool) -> None:
        """An answer is complete.

        Args:
            empty: Nothing has come of it: it failed, and the question stays.
        """
        self._owed = max(0, self._owed - 1)
        self._is_open = empty

    def reopen(self) -> None:
        """An answer was lost."""
        self._is_open = True

    def cancelled(self) -> None:
        """Nobody waits for an answer any more."""
        self._owed, self._is_open = 0, False
