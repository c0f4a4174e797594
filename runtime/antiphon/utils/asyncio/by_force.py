"""Ends tasks that resist: the last resort when a session has to be over."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable
from typing import Any

from loguru import logger

_closed: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()


def close_by_force(tasks: Iterable[asyncio.Task[Any]]) -> list[str]:
    """Closes the coroutines of tasks that absorb their cancellation.

    None of their code runs after that, other than ``finally`` blocks, which cannot wait for anything. They
    count as done some turns of the event loop later.

    Args:
        tasks: The tasks; those that are done, and the running one, are left alone.

    Returns:
        The names of those that were closed.
    """
    names = []
    current = asyncio.current_task()
    for task in tasks:
        if task.done() or task is current:
            continue
        names.append(task.get_name())
        _closed.add(task)
        coroutine: Any = task.get_coro()
        try:
            coroutine.close()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the bot's code
            # A RuntimeError if it waits once more.
            logger.debug("coroutine not closed", task=task.get_name(), error=repr(error))
        task.add_done_callback(forget_failure)
        # A task notices that its coroutine is closed when what it waits for ends.
        task.cancel()
    return names


def was_closed(task: asyncio.Task[Any]) -> bool:
    """Whether a task was ended by `close_by_force`: what it then fails with says nothing."""
    return task in _closed


async def cancel_until_done(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks and waits for their end; if the caller is cancelled meanwhile, cancels them again."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        try:
            await asyncio.wait(left)
        except asyncio.CancelledError:
            continue


def forget_failure(task: asyncio.Task[Any]) -> None:
    """Takes what a task has failed with at its end: that is nobody's any more."""
    if not task.cancelled():
        task.exception()
