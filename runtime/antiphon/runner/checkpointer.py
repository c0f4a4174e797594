"""Saves a conversation as it goes, and lets it go on from what was saved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import ModuleType, TracebackType
from typing import Self

from loguru import logger

from antiphon.pipeline.base_pipeline import walk
from antiphon.pipeline.keeper import Keeper, Restoring, SavedState
from antiphon.pipeline.task import PipelineTask
from antiphon.runner._hearing import Hearing
from antiphon.runner._session_state import SessionState
from antiphon.runner._write_schedule import WriteSchedule
from antiphon.runner.checkpoint import CheckpointError, SessionCheckpoint
from antiphon.transports.base_input import BaseInputTransport
from antiphon.transports.caller_line import CallerLine

SAVE_DEADLINE_SECS = 5.0
"""How long the store may take for one checkpoint before that counts as failed."""

CLOSE_DEADLINE_SECS = 2.0
"""How long closing waits for a write under way before it gives it up."""

SILENCE_PERIOD_SECS = 1.0
"""How often the messages of a silent caller are committed: what came before the last such moment."""

Save = Callable[[bytes], Awaitable[None]]


@dataclass
class CheckpointStatistics:
    """What became of a session's checkpoints.

    Attributes:
        saved: How many were written.
        failed: How many attempts have failed.
        unsavable: How often the session held something that cannot be saved.
        last_bytes: Size of the last one.
        last_secs: How long the store took for it.
    """

    saved: int = 0
    failed: int = 0
    unsavable: int = 0
    last_bytes: int = 0
    last_secs: float = 0.0


class Checkpointer(Keeper):
    """Keeps the first pipeline of a session; an async context manager.

    A checkpoint is written when the conversation has changed (a message, a function call, a node of
    a flow, a turn), one at a time, the newest. The pipeline never waits for it, and goes on when it
    fails: that is counted, logged and tried again.

    What the caller sent is committed (`CallerLine`) once a checkpoint holds what it said: messages up
    to the end of the last speech that is in the conversation.
    """

    def __init__(
        self,
        session_id: str,
        bot_version: str,
        save: Save,
        *,
        resume: SessionCheckpoint | None = None,
        is_own: Callable[[ModuleType], bool] = lambda _: False,
    ) -> None:
        """Makes a keeper that waits for a task.

        Args:
            session_id: The session.
            bot_version: Which version of the bot it runs.
            save: Stores a checkpoint; an error it raises means that it is not stored.
            resume: Where the session goes on.
            is_own: Whether a module is one of the bot's own, whose functions a flow may find again.
        """
        self.statistics = CheckpointStatistics()
        self._save = save
        self._resume = resume
        self._restoring = Restoring(is_own, resume.problems if resume is not None else [])
        self._sequence = resume.sequence if resume is not None else 0
        started_at = resume.started_at if resume is not None else time.time()
        # What is the same in each checkpoint; what changes all the time is stamped on it.
        self._blank = SessionCheckpoint(session_id, bot_version, started_at)
        self._saved_content = b""
        self._saving = asyncio.Lock()
        self._schedule = WriteSchedule()
        self._news = asyncio.Event()
        self._state: SessionState | None = None
        self._task: PipelineTask | None = None
        self._started_secs = 0.0
        self._line: CallerLine | None = None
        self._hearing = Hearing(resume.received if resume is not None else 0)
        self._writer: asyncio.Task[None] | None = None
        self._late: set[asyncio.Task[None]] = set()  # as many as the bot registers states

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stops saving; nothing is written after it."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_DEADLINE_SECS):
                    await self._saving.acquire()
        finally:
            # Nothing is written any more: the lock is never given back.
            tasks = {*self._late, *([self._writer] if self._writer is not None else [])}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def flush(self) -> None:
        """Saves the session as it is now.

        Raises:
            CheckpointError: It cannot be saved.
            Exception: What the store raises.
        """
        self._schedule.changed()
        await self._save_now()

    # -- for the task --------------------------------------------------------------------------

    async def begin(self, task: PipelineTask) -> bool:
        """Restores a task that is about to start, and follows it from now on."""
        if self._task is not None:
            logger.warning("only the first pipeline of a session is kept", task=task.name)
            return False
        loop = asyncio.get_running_loop()
        self._task, self._started_secs = task, loop.time()
        state = self._state = SessionState(task, self._restoring)
        self._line = _line_of(task)
        if self._line is not None:
            self._line.commit(self._hearing.understood)
        if self._resume is not None:
            await self._restore(state, self._resume)
        for conversation in state.conversations:
            for aggregator in (*conversation.users, *conversation.assistants):
                aggregator.watch(self.changed)
        if (turns := task.turn_tracking_observer) is not None:
            for event in ("on_turn_started", "on_turn_ended", "on_turn_recorded"):
                turns.add_event_handler(event, lambda *_: self.changed())
        self._writer = loop.create_task(self._write(), name="checkpoints")
        self.changed()
        return self._resume is not None

    async def started(self, task: PipelineTask) -> None:
        """Lets the restored conversation go on."""
        if self._state is not None:
            await self._state.go_on()

    def state_added(self, task: PipelineTask, name: str, state: SavedState) -> None:
        """Restores a state that is registered while its task runs."""
        if task is self._task and self._state is not None:
            self._state.restore_state(name, state)
            going_on = asyncio.get_running_loop().create_task(self._state.go_on_with_states())
            self._late.add(going_on)
            going_on.add_done_callback(self._late.discard)

    def changed(self) -> None:
        """Writes a checkpoint soon, if there is something new to save."""
        if self._line is not None and self._state is not None:
            users = [user for one in self._state.conversations for user in one.users]
            self._hearing.note(
                is_listening=any(user.is_listening for user in users),
                is_speaking=any(user.is_user_speaking for user in users),
                received=self._line.received,
            )
        self._schedule.changed()
        self._news.set()

    async def _restore(self, state: SessionState, saved: SessionCheckpoint) -> None:
        try:
            await state.restore(saved)
        except Exception as error:  # noqa: BLE001 - code of the bot; what was restored stays
            logger.opt(exception=error).error("session not restored")
            self._restoring.problem(f"restoring ended early: {type(error).__name__}")
        logger.info(
            "session restored",
            sequence=saved.sequence,
            age_secs=round(time.time() - saved.saved_at, 3),
            problems=len(self._restoring.problems),
        )

    # -- writing -------------------------------------------------------------------------------

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_secs = self._schedule.due_secs()
            if due_secs is not None and due_secs <= loop.time():
                await self._try_to_save()
                continue
            self._news.clear()
            pause_secs = SILENCE_PERIOD_SECS if due_secs is None else due_secs - loop.time()
            try:
                async with asyncio.timeout(pause_secs):
                    await self._news.wait()
            except TimeoutError:
                self._be_silent()

    def _be_silent(self) -> None:
        if self._line is not None:
            self._hearing.period(self._line.received)
            if self._schedule.is_settled:
                self._line.commit(self._hearing.understood)

    async def _try_to_save(self) -> None:
        try:
            await self._save_now()
        except CheckpointError as error:
            # The next change may make it possible again; until then it would only fail again.
            self.statistics.unsavable += 1
            logger.error("session cannot be saved", error=str(error))
        except Exception as error:  # noqa: BLE001 - of whatever store; it is tried again
            self.statistics.failed += 1
            logger.warning(
                "checkpoint not saved",
                failed=self.statistics.failed,
                error=str(error) or type(error).__name__,
            )

    async def _save_now(self) -> None:
        """Saves what is new, if anything is."""
        async with self._saving:
            loop = asyncio.get_running_loop()
            self._schedule.begun()
            try:
                understood = self._hearing.understood
                now = self._state.capture(self._blank) if self._state is not None else self._blank
                content = now.encode()
                if content != self._saved_content:
                    await self._store(now, understood)
                    self._saved_content = content
            except CheckpointError:
                self._schedule.done()
                raise
            except BaseException:
                self._schedule.failed(loop.time())
                raise
            self._schedule.done()
            if self._line is not None:
                self._line.commit(understood)

    async def _store(self, content: SessionCheckpoint, understood: int) -> None:
        loop = asyncio.get_running_loop()
        began_secs = loop.time()
        self._sequence += 1
        data = replace(
            content,
            sequence=self._sequence,
            saved_at=time.time(),
            elapsed_secs=began_secs - self._started_secs,
            received=understood,
        ).encode()
        async with asyncio.timeout(SAVE_DEADLINE_SECS):
            await self._save(data)
        self.statistics.saved += 1
        self.statistics.last_bytes = len(data)
        self.statistics.last_secs = loop.time() - began_secs


def _line_of(task: PipelineTask) -> CallerLine | None:
    inputs = (one for one in walk(task.pipeline) if isinstance(one, BaseInputTransport))
    return next((one.caller_line for one in inputs if one.caller_line is not None), None)
