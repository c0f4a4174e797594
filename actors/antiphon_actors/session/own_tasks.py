"""The tasks a session's program has begun, so that they end with it.

A program that has a process of its own leaves nothing behind: `asyncio.run` cancels what is left at
its end. In a process that several sessions share, each session's tasks are told apart by the
context they were created in.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from loguru import logger

from antiphon.utils.asyncio.by_force import close_by_force, forget_failure

_PEACE_SHARE = 0.9
_FORCE_SHARE = 0.95
_REPEAT_SECS = 0.03

Tasks = weakref.WeakSet[asyncio.Task[Any]]

_tasks: ContextVar[Tasks | None] = ContextVar("antiphon_session_tasks", default=None)


def tell_tasks_apart(loop: asyncio.AbstractEventLoop) -> None:
    """Makes a loop note the tasks of sessions; others cost a look at a variable more."""
    loop.set_task_factory(_new_task)


def _new_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, /, **options: Any
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    tasks = _tasks.get()
    if tasks is not None:
        tasks.add(task)
    return task


@contextmanager
def own_tasks() -> Iterator[Tasks]:
    """Notes the tasks that are created in the block, by themselves and by one another."""
    tasks: Tasks = weakref.WeakSet()
    token = _tasks.set(tasks)
    try:
        yield tasks
    finally:
        _tasks.reset(token)


async def end_session(task: asyncio.Task[Any], tasks: Tasks, deadline_secs: float) -> bool:
    """Cancels what runs a session; what resists is cancelled again and again, and closed by force at last.

    Args:
        task: What runs it.
        tasks: All of its tasks.
        deadline_secs: How long that may take in all. The most of it is for what the session does at its end.

    Returns:
        Whether it has ended.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    task.cancel()
    await asyncio.wait({task}, timeout=_PEACE_SHARE * deadline_secs)
    if task.done():
        return True
    logger.warning("session does not end: all of its tasks are cancelled")
    me = asyncio.current_task()
    while loop.time() < began + _FORCE_SHARE * deadline_secs:
        for each in {*tasks, task}:
            if each is not me and not each.done():
                each.cancel()
                each.add_done_callback(forget_failure)
        await asyncio.wait({task}, timeout=_REPEAT_SECS)
        if task.done():
            return True
    names = close_by_force([*(each for each in tasks if each is not task), task])
    logger.error("tasks of a session were ended by force", tasks=names)
    await asyncio.wait({task}, timeout=_REPEAT_SECS)
    return task.done()


async def end_tasks(tasks: Tasks, deadline_secs: float) -> int:
    """Cancels a session's tasks, but not the caller's own, and waits for their end.

    Returns:
        How many have not ended within the deadline.
    """
    loop = asyncio.get_running_loop()
    limit = loop.time() + deadline_secs
    me = asyncio.current_task()
    # Again, because one that is cancelled may begin others.
    while left := {task for task in tasks if task is not me and not task.done()}:
        if loop.time() >= limit:
            return len(left)
        for task in left:
            task.cancel()
        done, _ = await asyncio.wait(left, timeout=limit - loop.time())
        for task in done:
            forget_failure(task)
    return 0
