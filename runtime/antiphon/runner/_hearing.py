"""How much of what a caller has sent is in the conversation."""

from __future__ import annotations


class Hearing:
    """Finds the caller's messages that need not be heard again; without a clock and without a line.

    Messages are numbered from 1. What a user says counts as understood when it is a message of the
    conversation: then everything up to the end of that speech is, and nothing of what may already
    have begun after it. While the user is silent, what was received one period ago is.
    """

    def __init__(self, understood: int) -> None:
        """Begins.

        Args:
            understood: How many messages an earlier process has understood.
        """
        self._understood = understood
        self._is_listening = False
        self._is_speaking = False
        # What had been received when the user stopped speaking, and one period ago.
        self._speech_end: int | None = None
        self._silent_at: int | None = None

    @property
    def understood(self) -> int:
        """How many messages are understood."""
        return self._understood

    def note(self, *, is_listening: bool, is_speaking: bool, received: int) -> None:
        """Takes note of who speaks.

        Args:
            is_listening: Whether the user has said something that is in no message yet.
            is_speaking: Whether the user speaks.
            received: How many messages have been worked off.
        """
        if is_speaking:
            self._speech_end = None
        elif self._is_speaking:
            self._speech_end = received
        if self._is_listening and not is_listening:
            self._advance(received if self._speech_end is None else self._speech_end)
            self._speech_end = None
        if is_listening:
            self._silent_at = None
        self._is_listening, self._is_speaking = is_listening, is_speaking

    def period(self, received: int) -> None:
        """A period has passed since the last call, or since somebody spoke."""
        if self._is_listening:
            return
        if self._silent_at is not None:
            self._advance(self._silent_at)
        self._silent_at = received

    def _advance(self, received: int) -> None:
        self._understood = max(self._understood, received)
