"""What an audio filter offers to an input transport."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from antiphon.frames.frames import FilterControlFrame


class BaseAudioFilter(ABC):
    """Changes the audio an input transport receives before anything else hears it.

    The transport calls :meth:`start` once, then :meth:`filter` for every piece in order, and
    :meth:`process_frame` for control frames between pieces; :meth:`stop` ends it.
    """

    @abstractmethod
    async def start(self, sample_rate: int) -> None:
        """Prepares the filter.

        Args:
            sample_rate: Sample rate of the input in Hz.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Releases what the filter holds."""

    @abstractmethod
    async def process_frame(self, frame: "FilterControlFrame") -> None:
        """Follows a control frame: new settings, or on and off.

        Args:
            frame: The control frame.
        """

    @abstractmethod
    async def filter(self, audio: bytes) -> bytes:
        """Filters the next piece.

        Args:
            audio: int16 little-endian PCM.

        Returns:
            Filtered audio; it may be of another length if the filter holds audio back.
        """
