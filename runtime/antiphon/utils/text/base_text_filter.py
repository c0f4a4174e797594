"""What changes text before it is spoken."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class BaseTextFilter(ABC):
    """Changes text on its way to speech, for example by taking formatting out of it.

    A filter may keep state between the pieces of one answer.
    """

    @abstractmethod
    async def update_settings(self, settings: Mapping[str, Any]) -> None:
        """Changes settings while the pipeline runs; names a filter does not know are ignored."""

    @abstractmethod
    async def filter(self, text: str) -> str:
        """Returns the text as it is to be spoken; empty if nothing of it is."""

    @abstractmethod
    async def handle_interruption(self) -> None:
        """Forgets what belongs to the answer that was interrupted."""

    @abstractmethod
    async def reset_interruption(self) -> None:
        """Makes the filter ready for the next answer after an interruption."""
