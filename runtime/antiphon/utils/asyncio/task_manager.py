"""Who owns the asyncio tasks of a pipeline."""

from __future__ import annotations

import asyncio
import contextvars
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from loguru import logger

from antiphon.utils.asyncio.by_force import was_closed

_T = TypeVar("_T")

WATCHDOG_TIMEOUT = 5.0
"""Seconds a watched task may go without resetting its watchdog before a warning."""


@dataclass
class TaskManagerParams:
    """How a task manager works.

    Attributes:
        loop: The event loop its tasks run on.
        enable_watchdog_timers: Whether tasks are watched, where they do not say otherwise.
        enable_watchdog_logging: Whether the time between two resets is logged.
        watchdog_timeout: Seconds without a reset before a warning.
        on_watchdog: Called with the name of a task and the seconds, after the warning.
    """

    loop: asyncio.AbstractEventLoop
    enable_watchdog_timers: bool = False
    enable_watchdog_logging: bool = False
    watchdog_timeout: float = WATCHDOG_TIMEOUT
    on_watchdog: Callable[[str, float], None] | None = None


class BaseTaskManager(ABC):
    """Creates, cancels and lists tasks; an exception in a task is logged, never raised."""

    @abstractmethod
    def setup(self, params: TaskManagerParams) -> None:
        """Must be called before any task is created."""

    @abstractmethod
    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        """The loop the tasks run on."""

    @abstractmethod
    def create_task(
        self,
        coroutine: Coroutine[Any, Any, Any],
        name: str,
        *,
        enable_watchdog_logging: bool | None = None,
        enable_watchdog_timers: bool | None = None,
        watchdog_timeout: float | None = None,
    ) -> asyncio.Task[Any]:
        """Starts a task that this manager owns."""

    @abstractmethod
    async def wait_for_task(self, task: asyncio.Task[Any], timeout: float | None = None) -> None:
        """Waits for a task to end by itself; running out of time is only logged."""

    @abstractmethod
    async def cancel_task(self, task: asyncio.Task[Any], timeout: float | None = None) -> None:
        """Cancels a task and waits for its end; running out of time is only logged."""

    @abstractmethod
    def current_tasks(self) -> Sequence[asyncio.Task[Any]]:
        """The tasks that have not ended."""

    @abstractmethod
    def task_reset_watchdog(self) -> None:
        """Tells the watchdog of the running task that it is alive."""

    def task_suspend_watchdog(self) -> None:
        """Tells the watchdog of the running task that it waits for work until its next reset."""
        self.task_reset_watchdog()

    @property
    @abstractmethod
    def task_watchdog_enabled(self) -> bool:
        """Whether the running task is watched."""


@dataclass
class _Owned:
    """A task with its watchdog.

    A watchdog is a loop timer that is moved on by each reset: no second task, and a reset costs
    one assignment.
    """

    task: asyncio.Task[Any]
    watched: bool
    logging: bool
    timeout: float
    reset_at: float
    timer: asyncio.TimerHandle | None = None
    suspended: bool = False


class TaskManager(BaseTaskManager):
    """The task manager a pipeline uses unless it is given another."""

    def __init__(self) -> None:
        """Makes a manager; setup() makes it usable."""
        self._params: TaskManagerParams | None = None
        self._tasks: dict[asyncio.Task[Any], _Owned] = {}

    def setup(self, params: TaskManagerParams) -> None:
        """Takes the loop and the watchdog settings; a second call keeps the first ones."""
        if self._params is None:
            self._params = params

    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        """The loop the tasks run on.

        Raises:
            RuntimeError: Before setup().
        """
        return self._configured().loop

    def create_task(
        self,
        coroutine: Coroutine[Any, Any, Any],
        name: str,
        *,
        enable_watchdog_logging: bool | None = None,
        enable_watchdog_timers: bool | None = None,
        watchdog_timeout: float | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        """Starts a task that this manager owns until it ends.

        Args:
            coroutine: What the task runs.
            name: Name of the task, for logs.
            enable_watchdog_logging: Overrides the manager's setting.
            enable_watchdog_timers: Overrides the manager's setting.
            watchdog_timeout: Seconds; overrides the manager's setting.
            context: The task's context variables; a copy of the caller's when left out.

        Raises:
            RuntimeError: Before setup().
        """
        if self._params is None:
            coroutine.close()
        params = self._configured()
        task = params.loop.create_task(coroutine, name=name, context=context)
        owned = _Owned(
            task=task,
            watched=_first(enable_watchdog_timers, params.enable_watchdog_timers),
            logging=_first(enable_watchdog_logging, params.enable_watchdog_logging),
            timeout=_first(watchdog_timeout, params.watchdog_timeout),
            reset_at=params.loop.time(),
        )
        self._tasks[task] = owned
        task.add_done_callback(self._ended)
        if owned.watched:
            owned.timer = params.loop.call_later(owned.timeout, self._watchdog_due, owned)
        return task

    async def wait_for_task(self, task: asyncio.Task[Any], timeout: float | None = None) -> None:
        """Waits for a task to end by itself; running out of time is only logged."""
        await asyncio.wait({task}, timeout=timeout)
        if not task.done():
            logger.warning("task has not ended in time", task=task.get_name(), timeout=timeout)

    async def cancel_task(self, task: asyncio.Task[Any], timeout: float | None = None) -> None:
        """Cancels a task and waits for its end.

        If the caller is itself cancelled while waiting, the task stays cancelled and the caller's
        cancellation goes on.
        """
        if task.done() or task is asyncio.current_task():
            return
        task.cancel()
        await asyncio.wait({task}, timeout=timeout)
        if not task.done():
            logger.warning("cancelled task goes on", task=task.get_name(), timeout=timeout)

    def current_tasks(self) -> Sequence[asyncio.Task[Any]]:
        """The tasks that have not ended."""
        return list(self._tasks)

    def task_reset_watchdog(self) -> None:
        """Tells the watchdog of the running task that it is alive."""
        task = asyncio.current_task()
        if task is not None:
            self.reset_watchdog(task)

    def reset_watchdog(self, task: asyncio.Task[Any]) -> None:
        """Tells a task's watchdog that the task is alive."""
        owned = self._tasks.get(task)
        if owned is None or not (owned.watched or owned.logging):
            return
        now = self._configured().loop.time()
        if owned.logging and not owned.suspended:
            logger.debug("task step", task=task.get_name(), seconds=now - owned.reset_at)
        owned.reset_at = now
        owned.suspended = False

    def task_suspend_watchdog(self) -> None:
        """Tells the watchdog of the running task that it waits for work until its next reset."""
        task = asyncio.current_task()
        owned = self._tasks.get(task) if task is not None else None
        if owned is None or not (owned.watched or owned.logging):
            return
        self.reset_watchdog(owned.task)  # ends, and logs, the step before the wait
        owned.suspended = True

    @property
    def task_watchdog_enabled(self) -> bool:
        """Whether the running task is watched."""
        task = asyncio.current_task()
        owned = self._tasks.get(task) if task is not None else None
        return owned is not None and owned.watched

    def _configured(self) -> TaskManagerParams:
        if self._params is None:
            raise RuntimeError("the task manager is not set up: call setup() with a loop first")
        return self._params

    def _watchdog_due(self, owned: _Owned) -> None:
        loop = self._configured().loop
        silent = loop.time() - owned.reset_at
        if owned.suspended:
            silent = 0.0
        elif silent >= owned.timeout:
            logger.warning(
                "task has not reset its watchdog", task=owned.task.get_name(), seconds=silent
            )
            if (report := self._configured().on_watchdog) is not None:
                report(owned.task.get_name(), silent)
            owned.reset_at = loop.time()
            silent = 0.0
        owned.timer = loop.call_later(owned.timeout - silent, self._watchdog_due, owned)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        owned = self._tasks.pop(task, None)
        if owned is not None and owned.timer is not None:
            owned.timer.cancel()
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not was_closed(task):
            logger.opt(exception=error).error("task failed", task=task.get_name())


def _first(own: _T | None, default: _T) -> _T:
    return default if own is None else own
