"""A session's part in a process that hosts processors, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon.pipeline.base_pipeline import clean_up_all
from antiphon.pipeline.ender import Ender
from antiphon.pipeline.ending import Ending
from antiphon.pipeline.task_observer import TaskObserver
from antiphon.processors.frame_processor import FrameProcessor
from antiphon.processors.inbox import CLOSED_INBOX
from antiphon.utils.asyncio.task_manager import TaskManager
from antiphon_actors.channels import ChannelError
from antiphon_actors.session.node import SessionNode
from antiphon_actors.session.succession import Succession

if TYPE_CHECKING:
    from antiphon_actors.processor_host import ForwardingObserver

CLEANUP_DEADLINE_SECS = 5.0
"""How long the processors of a session may take to clean up, and their tasks to end."""

CANCEL_SECS = 2.0
"""From the shares of this comes how long what is left after that may resist."""

_LEAVE_SHARE = 0.5


@dataclass
class Hosted:
    """A session's part in this process.

    Attributes:
        node: Its ways to the rest of the session.
        forget: Takes it off the host's list.
        processors: The processors, by their numbers in the session.
        observer: Sees their pushes, if somebody at home watches.
        forward: Reports those home.
        tasks: Owner of their tasks.
        succession: Processors that take the place of others, if there are any.
        statistics: Of each processor, by its number, since the end has begun; of others what was dropped on
            the way to them.
        ender: Ends all this.
    """

    node: SessionNode
    forget: Callable[[], None]
    processors: dict[int, FrameProcessor] = field(default_factory=dict)
    observer: TaskObserver | None = None
    forward: ForwardingObserver | None = None
    tasks: TaskManager = field(default_factory=TaskManager)
    succession: Succession | None = None
    statistics: Mapping[int, Mapping[str, object]] = field(default_factory=dict)
    ender: Ender = field(init=False)

    def __post_init__(self) -> None:
        ending = Ending(cancel_secs=CANCEL_SECS, clean_up_secs=CLEANUP_DEADLINE_SECS)
        self.ender = Ender(f"end {self.node.session_id}", HostedEnd(self), ending)

    @property
    def is_ending(self) -> bool:
        """Whether its end has begun."""
        return self.ender.stopped.is_set()


class HostedEnd:
    """Carries out the steps of its end (an `antiphon.pipeline.ender.Session`)."""

    def __init__(self, hosted: Hosted) -> None:
        self._hosted = hosted

    def push_cancel(self) -> None:
        """Does nothing: a CancelFrame comes from home or not at all."""

    def tasks(self) -> list[asyncio.Task[Any]]:
        """What runs for the session, but for what ends it."""
        hosted = self._hosted
        emissions = (each._event_tasks for each in hosted.processors.values())
        return list(hosted.node.tasks.union(hosted.tasks.current_tasks(), *emissions))

    def hurry(self, secs: float) -> None:
        """Does nothing: nothing of it is elsewhere."""

    async def clean_up(self, *, crossed: bool) -> None:
        """Ends everything in good order."""
        hosted = self._hosted
        hosted.node.incoming.freeze()
        counted = {pid: each.statistics for pid, each in hosted.processors.items()}
        counted |= hosted.node.dropped_on_the_way()
        hosted.statistics = {pid: each.to_plain() for pid, each in counted.items()}
        # What was never set up has nothing to clean up.
        set_up = [each for each in hosted.processors.values() if each._task_manager is not None]
        await clean_up_all(set_up)
        try:
            if hosted.observer is not None:
                await hosted.observer.stop()
            if hosted.forward is not None:
                await hosted.forward.drain()
        except ChannelError as error:
            session_id = hosted.node.session_id
            logger.warning("pushes not reported", session_id=session_id, error=str(error))
        # While the session still listens: home may say that there is less time.
        while tasks := [*hosted.tasks.current_tasks(), *hosted.node.tasks]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if hosted.forward is not None:
            hosted.forward.close()
        await hosted.node.leave()
        self._let_go()

    async def abort(self, secs: float) -> None:
        """Leaves the session without waiting for anybody."""
        hosted = self._hosted
        try:
            if hosted.forward is not None:
                hosted.forward.close()
            await hosted.node.leave(_LEAVE_SHARE * secs)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        hosted = self._hosted
        for processor in hosted.processors.values():
            # So that it is freed without a garbage collection.
            processor._prev = processor._next = None
            processor._replace_inbox(CLOSED_INBOX)
        hosted.processors.clear()
        hosted.forget()
