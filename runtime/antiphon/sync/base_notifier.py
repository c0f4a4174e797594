"""Telling another part of a bot that something has happened."""

from __future__ import annotations

from abc import ABC, abstractmethod


class BaseNotifier(ABC):
    """Lets one task wait for what another one announces."""

    @abstractmethod
    async def notify(self) -> None:
        """Announces it; who waits goes on, and so does the next one to wait."""

    @abstractmethod
    async def wait(self) -> None:
        """Waits for the next announcement and uses it up."""
