"""Runs the state machine of a chain: gives it the time, wakes it, and has done what it wants."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from loguru import logger

from antiphon.processors.frame_processor import FrameProcessor
from antiphon.services.fallback.failover import Action, Failover, Probe, Try


class Driver:
    """A state machine and its clock.

    What happened is told at once, from wherever it is noticed. What is to be done about it is done by a
    task of its own, one after the other: it may be noticed in the task of the very member that is to
    be stopped.

    Attributes:
        machine: Decides.
    """

    def __init__(
        self,
        machine: Failover,
        owner: FrameProcessor,
        notice: Callable[[Action], None],
        perform: Callable[[Action], Awaitable[None]],
    ) -> None:
        """Makes a driver that does not run.

        Args:
            machine: Decides.
            owner: Owns the task.
            notice: Called at once with each action.
            perform: Does it, later; what it raises is logged, and a member that cannot be asked has
                failed.
        """
        self.machine = machine
        self._owner = owner
        self._notice = notice
        self._perform = perform
        self._actions: deque[Action] = deque()  # a few at a time
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins to work, unless it does already."""
        if self._task is None:
            self._task = self._owner.create_task(self._run(), "failover")

    async def stop(self) -> None:
        """Ends; what was still to be done is not."""
        task, self._task = self._task, None
        self._set_timer()
        if task is not None:
            await self._owner.cancel_task(task)
        self._actions.clear()

    @property
    def now(self) -> float:
        """The time, on the clock of the event loop."""
        return self._owner.get_event_loop().time()

    # -- what happened; see the state machine --------------------------------------------------

    def begin(self) -> None:
        """A request has come."""
        self._apply(self.machine.begin(self.now))

    def expect(self, *, certain: bool = True) -> None:
        """Something of an answer is due."""
        self.machine.expect(self.now, certain=certain)
        self._set_timer()

    def expect_probe(self) -> None:
        """Something is due from the member that is being probed."""
        self.machine.expect_probe(self.now)
        self._set_timer()

    def expect_more(self) -> None:
        """The member is at work, and something more is due."""
        self.machine.expect_more(self.now)
        self._set_timer()

    def note_life(self) -> None:
        """The member is at work on what is due, if anything is."""
        attempt = self.machine.attempt
        if attempt is not None and attempt.due_at is not None:
            self.expect_more()

    def content(self, *, final: bool = False) -> None:
        """A piece of the answer goes on; no more is due until that is said."""
        self._apply(self.machine.content(self.now, final=final))

    def settle(self) -> None:
        """Nothing more is due from the member for now."""
        self.machine.settle()
        self._set_timer()

    def finish(self) -> None:
        """The answer is complete."""
        self._apply(self.machine.finish())

    def drop(self) -> None:
        """Nobody wants the answer any more, and all members have been stopped."""
        self._apply(self.machine.drop())

    def fail(self, member: int, reason: str, *, certain: bool = True) -> None:
        """A member has failed, whatever it was doing."""
        self._apply(self.machine.fail(member, reason, self.now, certain=certain))

    def probe_passed(self) -> None:
        """The member that is being probed works."""
        self._apply(self.machine.probe_passed())

    # -- inside --------------------------------------------------------------------------------

    def _apply(self, actions: Sequence[Action]) -> None:
        for action in actions:
            self._notice(action)
        self._actions.extend(actions)
        if actions:
            self._wake.set()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_at = self.machine.wake_at
        if wake_at is not None and self._task is not None:
            self._timer = self._owner.get_event_loop().call_at(wake_at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._apply(self.machine.tick(self.now))

    async def _run(self) -> None:
        while True:
            while self._actions:
                action = self._actions.popleft()
                try:
                    await self._perform(action)
                except Exception as error:  # noqa: BLE001 - code of members runs in here
                    logger.opt(exception=error).error(
                        "failover not carried out", processor=self._owner.name, action=repr(action)
                    )
                    self._fail_unasked(action, f"not asked: {type(error).__name__}: {error}")
            self._wake.clear()
            # Until the next request, failure or deadline.
            self._owner.task_manager.task_suspend_watchdog()
            await self._wake.wait()
            self._owner.reset_watchdog()

    def _fail_unasked(self, action: Action, reason: str) -> None:
        if isinstance(action, Try) and action.attempt is self.machine.attempt:
            self.fail(action.attempt.member, reason)
        elif isinstance(action, Probe) and action.member == self.machine.probing:
            self.fail(action.member, reason)
