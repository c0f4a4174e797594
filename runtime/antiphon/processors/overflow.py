"""Queues that nobody may be reading."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from loguru import logger

Item = TypeVar("Item")

QUEUE_LIMIT = 10_000
"""Items in a queue to another part of the bot: minutes of audio."""


def offer(queue: asyncio.Queue[Item], item: Item, *, processor: str) -> None:
    """Puts an item in a bounded queue; if it is full, the oldest item is lost.

    Waiting for room would stop the conversation for a reader that may never come.

    Args:
        queue: The queue.
        item: The item.
        processor: Whose queue it is, for the warning.
    """
    if queue.full():
        queue.get_nowait()
        logger.warning("queue is full: the oldest item is lost", processor=processor)
    queue.put_nowait(item)
