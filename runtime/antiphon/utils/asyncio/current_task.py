"""Running a step of a coroutine by hand on behalf of a task.

What the event loop does for eager tasks: while the step runs, ``asyncio.current_task()`` is the task
the coroutine belongs to. asyncio has no public call for it; this module, and its compiled twin, are
the only places that know how.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if sys.version_info >= (3, 12):
    from asyncio.tasks import _swap_current_task as _swap
else:
    from asyncio.tasks import _current_tasks  # type: ignore[attr-defined]

    _tasks: dict[asyncio.AbstractEventLoop, asyncio.Task[Any]] = _current_tasks

    def _swap(
        loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None
    ) -> asyncio.Task[Any] | None:
        outer = _tasks.get(loop)
        if task is None:
            del _tasks[loop]
        else:
            _tasks[loop] = task
        return outer


class PureStepper:
    """Runs steps of coroutines as a task would, in the task's context."""

    __slots__ = ("_loop", "_run", "_task")

    def __init__(
        self,
        context: contextvars.Context,
        loop: asyncio.AbstractEventLoop,
        task: asyncio.Task[Any],
    ) -> None:
        """Takes the task whose steps they are to be, its loop and its context."""
        self._run = context.run
        self._loop = loop
        self._task = task

    def step(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine up to where it suspends.

        Returns:
            What it waits for; `DONE` at its end.
        """
        outer = _swap(self._loop, self._task)
        try:
            return self._run(coroutine.send, None)
        except StopIteration:
            return DONE
        finally:
            _swap(self._loop, outer)


if TYPE_CHECKING:
    Stepper = PureStepper
    DONE: Any = object()
else:
    try:
        from antiphon.utils.asyncio._stepper import DONE, Stepper
    except ImportError:  # nothing was compiled
        Stepper = PureStepper
        DONE = object()

__all__ = ["DONE", "PureStepper", "Stepper"]
