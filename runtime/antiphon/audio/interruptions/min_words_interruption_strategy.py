"""Interruption after a number of words."""

from loguru import logger

from antiphon.audio.interruptions.base_interruption_strategy import BaseInterruptionStrategy
from antiphon.utils.checks import check_number


class MinWordsInterruptionStrategy(BaseInterruptionStrategy):
    """Lets the user interrupt once a number of words was said, so that "yes" and "okay" do not."""

    def __init__(self, *, min_words: int) -> None:
        """Sets the threshold.

        Args:
            min_words: Number of words, as split at white space, that interrupt; at least 1.

        Raises:
            TypeError: ``min_words`` is no number.
            ValueError: ``min_words`` is below 1.
        """
        check_number("MinWordsInterruptionStrategy(min_words)", min_words, at_least=1)
        self._min_words = min_words
        self._words = 0

    async def append_text(self, text: str) -> None:
        """Counts the words of a transcription. Two transcriptions never share a word.

        Args:
            text: The transcription.
        """
        self._words += len(text.split())

    async def should_interrupt(self) -> bool:
        """Whether enough words were said since the last reset."""
        interrupt = self._words >= self._min_words
        logger.debug(
            "interruption by words", interrupt=interrupt, words=self._words, needed=self._min_words
        )
        return interrupt

    async def reset(self) -> None:
        """Forgets the words counted."""
        self._words = 0
