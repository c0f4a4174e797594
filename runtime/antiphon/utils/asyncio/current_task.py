"""Running a step of a coroutine by hand on behalf of a task.

What the event loop does for eager tasks: while the step runs, ``asyncio.current_task()`` is the task
the coroutine belongs to. asyncio has no public call for it; this is the only place that knows how.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine
from typing import Any

Run = Callable[[Coroutine[Any, Any, None], asyncio.AbstractEventLoop, asyncio.Task[Any]], Any]
"""Runs a step; returns what the coroutine waits for, or raises StopIteration at its end."""

if sys.version_info >= (3, 12):
    from asyncio.tasks import _swap_current_task

    def stepper(context: contextvars.Context) -> Run:
        """Makes the function that runs steps in a task's context."""
        run = context.run

        def step(
            coroutine: Coroutine[Any, Any, None],
            loop: asyncio.AbstractEventLoop,
            task: asyncio.Task[Any],
        ) -> Any:
            outer = _swap_current_task(loop, task)
            try:
                return run(coroutine.send, None)
            finally:
                _swap_current_task(loop, outer)

        return step

else:
    from asyncio.tasks import _current_tasks  # type: ignore[attr-defined]

    def stepper(context: contextvars.Context) -> Run:
        """Makes the function that runs steps in a task's context."""
        run = context.run
        tasks: dict[asyncio.AbstractEventLoop, asyncio.Task[Any]] = _current_tasks

        def step(
            coroutine: Coroutine[Any, Any, None],
            loop: asyncio.AbstractEventLoop,
            task: asyncio.Task[Any],
        ) -> Any:
            outer = tasks.get(loop)
            tasks[loop] = task
            try:
                return run(coroutine.send, None)
            finally:
                if outer is None:
                    del tasks[loop]
                else:
                    tasks[loop] = outer

        return step


__all__ = ["Run", "stepper"]
