"""What the pipeline asks a clock."""

from abc import ABC, abstractmethod


class BaseClock(ABC):
    """A clock in nanoseconds that begins at zero when started."""

    @abstractmethod
    def get_time(self) -> int:
        """Nanoseconds since start(); 0 before it."""

    @abstractmethod
    def start(self) -> None:
        """Begins counting."""
