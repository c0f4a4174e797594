"""A notifier within one process."""

from __future__ import annotations

import asyncio

from antiphon.sync.base_notifier import BaseNotifier


class EventNotifier(BaseNotifier):
    """Announces by an asyncio event; several announcements before a wait count as one."""

    def __init__(self) -> None:
        """Makes a notifier with nothing announced."""
        self._event = asyncio.Event()

    async def notify(self) -> None:
        """Announces it."""
        self._event.set()

    async def wait(self) -> None:
        """Waits for an announcement and uses it up; if cancelled, it is not used up."""
        await self._event.wait()
        self._event.clear()
