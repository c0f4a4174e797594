"""What collects streamed text until there is enough of it to act on."""

from abc import ABC, abstractmethod


class BaseTextAggregator(ABC):
    """Collects pieces of text and hands them on in larger units, such as sentences.

    A TTS service gives every piece of text to its aggregator and speaks what comes out. An
    aggregator belongs to one service.
    """

    @property
    @abstractmethod
    def text(self) -> str:
        """The text that was taken and not yet handed on."""

    @abstractmethod
    async def aggregate(self, text: str) -> str | None:
        """Takes a piece of text.

        Args:
            text: What follows the pieces taken so far.

        Returns:
            A unit that is complete, without what follows it, or None.
        """

    @abstractmethod
    async def handle_interruption(self) -> None:
        """Forgets the text in progress, because the user interrupted."""

    @abstractmethod
    async def reset(self) -> None:
        """Forgets everything, as if nothing had been taken."""
