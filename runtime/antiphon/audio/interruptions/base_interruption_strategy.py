"""What decides whether the user may interrupt the bot."""

from abc import ABC, abstractmethod


class BaseInterruptionStrategy(ABC):
    """Decides, while the bot speaks, whether what the user said interrupts it.

    Audio and text of the user are handed over as they arrive; :meth:`should_interrupt` is asked when
    the user stops, :meth:`reset` ends the matter. A strategy hears what it overrides and ignores the
    rest.
    """

    async def append_audio(self, audio: bytes, sample_rate: int) -> None:  # noqa: B027
        """Takes in audio of the user; ignored unless overridden.

        Args:
            audio: int16 little-endian mono PCM.
            sample_rate: Its sample rate in Hz.
        """

    async def append_text(self, text: str) -> None:  # noqa: B027
        """Takes in transcribed words of the user; ignored unless overridden.

        Args:
            text: The transcription.
        """

    @abstractmethod
    async def should_interrupt(self) -> bool:
        """Whether what was taken in since the last reset interrupts the bot."""

    @abstractmethod
    async def reset(self) -> None:
        """Forgets what was taken in."""
