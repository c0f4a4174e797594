"""What a resampler offers."""

from abc import ABC, abstractmethod


class BaseAudioResampler(ABC):
    """Converts mono PCM from one sample rate to another."""

    @abstractmethod
    async def resample(self, audio: bytes, in_rate: int, out_rate: int) -> bytes:
        """Converts the next block.

        Args:
            audio: int16 little-endian mono PCM.
            in_rate: Its sample rate in Hz.
            out_rate: Sample rate wanted, in Hz.

        Returns:
            The converted block; the same block if the rates are equal.
        """
