"""What an end-of-turn analyzer offers to an input transport."""

from abc import ABC, abstractmethod
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.metrics.metrics import MetricsData


class EndOfTurnState(Enum):
    """Whether the user has finished.

    Attributes:
        COMPLETE: The turn is over; the bot should answer.
        INCOMPLETE: The user is speaking, or pausing, or has not begun.
    """

    COMPLETE = 1
    INCOMPLETE = 2


class BaseTurnAnalyzer(ABC):
    """Decides, after voice activity has found a pause, whether the user's turn is over.

    The transport hands over all input audio with the verdict of voice activity, and asks
    :meth:`analyze_end_of_turn` at every pause.
    """

    def __init__(self, *, sample_rate: int | None = None) -> None:
        """Keeps the sample rate.

        Args:
            sample_rate: Rate in Hz to insist on, or None to take the one of the transport.
        """
        self._init_sample_rate = sample_rate
        self._sample_rate = 0

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz, 0 until :meth:`set_sample_rate` was called."""
        return self._sample_rate

    def set_sample_rate(self, sample_rate: int) -> None:
        """Sets the sample rate.

        Args:
            sample_rate: Rate of the input in Hz; a rate given to the constructor goes before it.
        """
        self._sample_rate = self._init_sample_rate or sample_rate

    async def connect_model(self) -> None:  # noqa: B027 - most have nothing to connect to
        """Begins to use a model that sessions share. A transport calls it at its start."""

    async def disconnect_model(self) -> None:  # noqa: B027 - as above
        """Takes back :meth:`connect_model`. A transport calls it at its end. Idempotent."""

    @property
    @abstractmethod
    def speech_triggered(self) -> bool:
        """Whether a turn is under way: speech was heard and its end was not."""

    @property
    @abstractmethod
    def params(self) -> Any:
        """The parameters of this analyzer."""

    @abstractmethod
    def append_audio(self, buffer: bytes, is_speech: bool) -> EndOfTurnState:
        """Takes in the next piece of input.

        Args:
            buffer: int16 little-endian mono PCM at :attr:`sample_rate` Hz.
            is_speech: Whether voice activity holds this piece for speech.

        Returns:
            COMPLETE if this piece ends the turn by the length of the silence alone.
        """

    @abstractmethod
    async def analyze_end_of_turn(self) -> "tuple[EndOfTurnState, MetricsData | None]":
        """Judges the audio taken in, at a pause.

        Returns:
            The verdict, and what it cost if that was measured.
        """

    @abstractmethod
    def clear(self) -> None:
        """Forgets the audio and the turn under way."""
