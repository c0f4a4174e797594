"""Ends a session: carries out what its `Ending` decides."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Protocol

from loguru import logger

from antiphon.pipeline.ending import (
    Abort,
    Action,
    CancelTasks,
    CleanUp,
    Ending,
    Finish,
    PushCancel,
    Rung,
)
from antiphon.utils.asyncio.by_force import close_by_force, forget_failure

Task = asyncio.Task[Any]

_REPEAT_SECS = 0.05
"""From one cancellation of a task that goes on to the next."""

_FIRST_SECS = 0.1
"""How long what a task does at its end is left in peace."""

_CLOSINGS = 5
"""How often tasks are closed that others have begun while they were closed."""


class Session(Protocol):
    """What is to be ended."""

    def push_cancel(self) -> None:
        """Lets a CancelFrame in; its arrival at the other end is told to the ender."""

    async def clean_up(self, *, crossed: bool) -> None:
        """Ends it in good order, in its own time; may be cancelled.

        Args:
            crossed: Whether what ends the pipeline has crossed it.
        """

    def tasks(self) -> Iterable[Task]:
        """All tasks that run for it, other than those of the ender."""

    def hurry(self, secs: float) -> None:
        """Tells what runs elsewhere that it has so long to end."""

    async def abort(self, secs: float) -> None:
        """Ends, within so long, what cleaning up has left; the other end may not answer."""


class Ender:
    """Ends one session, once.

    Attributes:
        stopped: Set when frames have stopped.
        over: Set when nothing runs any more.
        by_force: Whether something had to be given up.
    """

    def __init__(self, name: str, session: Session, ending: Ending) -> None:
        """Makes the ender of a session; needs no event loop yet.

        Args:
            name: The session's, for logs and tasks.
            session: What is to be ended.
            ending: Decides.
        """
        self._name = name
        self._session: Session | None = session
        self._ending = ending
        self.stopped = asyncio.Event()
        self.over = asyncio.Event()
        self.by_force = False
        self._timer: asyncio.TimerHandle | None = None
        self._repeat: asyncio.TimerHandle | None = None
        self._cleaning: Task | None = None
        self._aborting: Task | None = None
        self._cut: set[Task] = set()

    # -- what happens --------------------------------------------------------------------------

    def cancel(self, *, flows: bool, secs: float | None = None) -> None:
        """Ends the session within its time, or within `secs`; later calls change nothing.

        Args:
            flows: Whether frames flow.
            secs: How long it may take.
        """
        self._perform(self._ending.cancel(self._now(), flows=flows, secs=secs))

    def crossed(self) -> None:
        """The CancelFrame has crossed the pipeline."""
        self._perform(self._ending.crossed(self._now()))

    def ended(self) -> None:
        """The pipeline has ended by itself, or could not begin."""
        self._perform(self._ending.ended(self._now()))

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled the session."""
        return self._ending.cancelled

    @property
    def failure(self) -> BaseException | None:
        """What cleaning up has raised."""
        cleaning = self._cleaning
        if cleaning is None or self.by_force or not cleaning.done() or cleaning.cancelled():
            return None
        return cleaning.exception()

    # -- what is done about it -----------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if self._session is not None:
                self._carry_out(action, self._session)
        if self._timer is not None:
            self._timer.cancel()
        due = self._ending.wake_at()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(due, self._tick) if due is not None else None

    def _carry_out(self, action: Action, session: Session) -> None:
        match action:
            case PushCancel():
                session.push_cancel()
            case CleanUp(crossed=crossed):
                self.stopped.set()
                self._cleaning = self._begin(session.clean_up(crossed=crossed), "finish")
                self._cleaning.add_done_callback(lambda _: self._cleaned())
            case CancelTasks(until=until):
                if self._cleaning is not None and not self._cleaning.done():
                    logger.warning("does not end: its tasks are cancelled", name=self._name)
                    session.hurry(until - self._now())
                self._cancel_tasks(_FIRST_SECS)
            case Abort(until=until):
                logger.warning("does not end: what resists is given up", name=self._name)
                self._aborting = self._begin(self._give_up(session, until - self._now()), "abort")
                self._aborting.add_done_callback(lambda _: self._aborted())
                self._cancel_tasks(_REPEAT_SECS)
            case Finish(by_force=by_force):
                self._finish(by_force=by_force)

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> Task:
        return asyncio.get_running_loop().create_task(work, name=f"{self._name}::{name}")

    def _tick(self) -> None:
        # Timers may be early by the clock's resolution.
        due = self._ending.wake_at()
        self._perform(self._ending.tick(max(self._now(), due if due is not None else 0.0)))

    def _cleaned(self) -> None:
        self._perform(self._ending.cleaned(self._now(), left=bool(self._left())))

    def _left(self) -> list[Task]:
        """What still runs for the session."""
        if self._session is None:
            return []
        own = {asyncio.current_task(), self._cleaning, self._aborting}
        return [task for task in self._session.tasks() if not task.done() and task not in own]

    def _cancel_tasks(self, pause_secs: float) -> None:
        """Cancels the session's tasks, and again until there are none."""
        aborting = self._ending.rung is Rung.ABORTING
        tasks = self._left()
        if aborting and self._cleaning is not None and not self._cleaning.done():
            tasks.append(self._cleaning)
        for task in tasks:
            task.cancel()
            if task not in self._cut:
                self._cut.add(task)
                task.add_done_callback(self._one_ended)
        if self._repeat is not None:
            self._repeat.cancel()
        loop = asyncio.get_running_loop()
        self._repeat = loop.call_later(pause_secs, self._cancel_tasks, _REPEAT_SECS)

    def _one_ended(self, task: Task) -> None:
        self._cut.discard(task)
        forget_failure(task)
        if self._cleaning is not None and self._cleaning.done() and not self._cut:
            self._cleaned()

    async def _give_up(self, session: Session, secs: float) -> None:
        try:
            await session.abort(secs)
        except Exception as error:  # noqa: BLE001 - it is over all the same
            logger.opt(exception=error).error("not given up in good order", name=self._name)
        while self._cut:
            await asyncio.wait(list(self._cut))

    def _aborted(self) -> None:
        self._perform(self._ending.aborted(self._now()))

    def _finish(self, *, by_force: bool) -> None:
        if self._repeat is not None:
            self._repeat.cancel()
        self.by_force = by_force
        if by_force:
            self._close(_CLOSINGS)
        else:
            self._let_go()

    def _close(self, times: int) -> None:
        """Closes what goes on, and what that has begun at its end."""
        own = [task for task in (self._cleaning, self._aborting) if task is not None]
        names = close_by_force([*self._left(), *own])
        if names:
            logger.error("tasks of a session were ended by force", name=self._name, tasks=names)
        again = functools.partial(self._close, times - 1) if names and times > 1 else self._let_go
        loop = asyncio.get_running_loop()
        # What was closed takes a turn of the loop to end, and another to be taken off lists.
        loop.call_soon(loop.call_soon, again)

    def _let_go(self) -> None:
        # The one refers to the other.
        self._session = None
        self.over.set()
