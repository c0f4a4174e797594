"""What of a task has to survive its process: reads it, puts it back, and lets it go on."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from loguru import logger

from antiphon.frames.frames import ControlFrame, EndFrame, Frame, SystemFrame
from antiphon.observers.turn_record import TurnRecord
from antiphon.pipeline.keeper import Restoring, SavedState, savable
from antiphon.pipeline.task import PipelineTask
from antiphon.runner._conversations import (
    RepeatedCall,
    conversations_of,
    restore_conversations,
    services_of,
)
from antiphon.runner.checkpoint import CheckpointError, SavedTurns, SessionCheckpoint


class SessionState:
    """The state of one task."""

    def __init__(self, task: PipelineTask, restoring: Restoring) -> None:
        """Looks at a task.

        Args:
            task: The task.
            restoring: Takes note of what cannot be restored.
        """
        self.conversations = conversations_of(task)
        self._task = task
        self._restoring = restoring
        self._repeated: list[RepeatedCall] = []
        # Saved by an earlier process, and not registered here so far.
        self._unclaimed: dict[str, Any] = {}
        # Restored, and not told to go on.
        self._waiting: list[tuple[str, SavedState]] = []
        self._goes_on = False
        self._is_ending = False

    def capture(self, blank: SessionCheckpoint) -> SessionCheckpoint:
        """The task as it is now.

        Args:
            blank: What is known of the session besides.

        Raises:
            CheckpointError: It holds something that is no plain data.
        """
        try:
            contexts = [conversation.save() for conversation in self.conversations]
        except TypeError as error:
            raise CheckpointError(f"the session cannot be saved: {error}") from error
        metadata, lost = savable(self._task.params.start_metadata)
        states = {name: state.save() for name, state in self._task.saved_states.items()}
        return replace(
            blank,
            contexts=contexts,
            turns=self._turns(),
            states={**self._unclaimed, **states},
            start_metadata=metadata,
            lost=lost,
            is_ending=self._task.is_ending,
        )

    async def restore(self, saved: SessionCheckpoint) -> None:
        """Puts a checkpoint back into the task, which has not started."""
        # The greeting, and whatever else a bot queues for its beginning.
        if dropped := self._task.forget_queued(_is_no_beginning):
            logger.debug("frames of the beginning dropped", task=self._task.name, count=dropped)
        for name in saved.lost:
            self._restoring.problem(f"start_metadata[{name!r}] could not be saved")
        self._task.params.start_metadata.update(saved.start_metadata)
        restore_conversations(self.conversations, saved.contexts, self._restoring)
        self._restore_turns(saved)
        self._unclaimed = dict(saved.states)
        for name, state in self._task.saved_states.items():
            self.restore_state(name, state)
        # Last, as flows register functions.
        services = services_of(self._task)
        for conversation, content in zip(self.conversations, saved.contexts, strict=False):
            self._repeated += await conversation.resolve(content.calls, services)
        self._is_ending = saved.is_ending

    def restore_state(self, name: str, state: SavedState) -> None:
        """Gives a state back what was saved of it, if anything was."""
        if name not in self._unclaimed:
            return
        try:
            state.restore(self._unclaimed.pop(name), self._restoring)
            self._waiting.append((name, state))
        except Exception as error:  # noqa: BLE001 - code of the bot, or of another version of it
            logger.opt(exception=error).error("state not restored", state=name)
            self._restoring.problem(f"{name}: {type(error).__name__}")

    async def go_on(self) -> None:
        """Lets the model answer what it has not answered, and goes on with what was under way."""
        for name in self._unclaimed:
            self._restoring.problem(f"{name} was saved, and the bot has registered no such state")
        # Functions that are run again, and nodes that are entered, ask by themselves.
        others = [*self._restoring.asked, *(call.context for call in self._repeated)]
        for conversation in self.conversations:
            context = conversation.context
            if context.pending_answers.is_to_be_asked and not any(
                context is other for other in others
            ):
                await conversation.ask()
        for call in self._repeated:
            await call.run()
        self._goes_on = True
        await self.go_on_with_states()
        if self._is_ending and not self._restoring.ends:
            await self._task.queue_frame(EndFrame())

    async def go_on_with_states(self) -> None:
        """Goes on with what restored states had under way, once the conversation does."""
        while self._waiting and self._goes_on:
            name, state = self._waiting.pop(0)
            try:
                await state.go_on()
            except Exception as error:  # noqa: BLE001 - code of the bot
                logger.opt(exception=error).error("a restored state does not go on", state=name)
                self._restoring.problem(f"{name}: {type(error).__name__}")

    def _turns(self) -> SavedTurns | None:
        turns = self._task.turn_tracking_observer
        if turns is None:
            return None
        records = [
            {name: value for name, value in vars(record).items() if value not in (None, "", [], 0)}
            for record in turns.records
        ]
        return SavedTurns(turns.state, records)

    def _restore_turns(self, saved: SessionCheckpoint) -> None:
        turns = self._task.turn_tracking_observer
        if turns is None or saved.turns is None:
            return
        turns.resume(saved.turns.state)
        # The pipeline's clock begins again.
        past_secs = saved.elapsed_secs + time.time() - saved.saved_at
        try:
            turns.records.extend(
                TurnRecord(**{"started_secs": 0.0, **record}).shifted(past_secs)
                for record in saved.turns.records
            )
        except TypeError:
            self._restoring.problem("the records of earlier turns are those of another version")


def _is_no_beginning(frame: Frame) -> bool:
    return isinstance(frame, (ControlFrame, SystemFrame))
