"""What an audio mixer offers to an output transport."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from antiphon.frames.frames import MixerControlFrame


class BaseAudioMixer(ABC):
    """Adds other sound to the audio an output transport sends.

    With a mixer the output is a stream without gaps: :meth:`mix` is called for every piece, and with
    silence when there is nothing to send.
    """

    @abstractmethod
    async def start(self, sample_rate: int) -> None:
        """Prepares the mixer.

        Args:
            sample_rate: Sample rate of the output in Hz.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Releases what the mixer holds."""

    @abstractmethod
    async def process_frame(self, frame: "MixerControlFrame") -> None:
        """Follows a control frame: new settings, or on and off.

        Args:
            frame: The control frame.
        """

    @abstractmethod
    async def mix(self, audio: bytes) -> bytes:
        """Mixes the next piece.

        Args:
            audio: int16 little-endian PCM, silence included.

        Returns:
            Mixed audio of the same length.
        """
