"""What is done when a node is entered, and after its first answer.

What an action says, and what runs "in the pipeline", is put behind what the pipeline still has to
do. Whether that has been done is seen by an ``ActionFrame`` that is sent after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon.flows._functions import finish, takes
from antiphon.flows.exceptions import ActionError
from antiphon.flows.frames import ActionFrame
from antiphon.flows.types import ActionConfig
from antiphon.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    Frame,
    TTSSpeakFrame,
)

if TYPE_CHECKING:
    from antiphon.flows.manager import FlowManager
    from antiphon.pipeline.task import PipelineTask

CROSSING_DEADLINE_SECS = 120.0
"""How long what is queued in the pipeline, speech included, may take to be worked off."""

_GRACE_SECS = 2.0
"""How long an action may go on after the pipeline has ended."""

_BUILT_IN = ("tts_say", "end_conversation", "function")

Handler = Callable[[dict[str, Any], "FlowManager"], Awaitable[Any]]


class _PipelineOverError(ActionError):
    """Nothing more will cross the pipeline."""


class ActionManager:
    """Runs the actions of nodes."""

    def __init__(
        self,
        task: PipelineTask,
        flow_manager: FlowManager,
        report: Callable[[str, Exception], Awaitable[None]],
    ) -> None:
        """Makes a manager that follows a task.

        Args:
            task: Whose pipeline the actions use.
            flow_manager: Given to handlers.
            report: Told what went wrong where nobody waits.
        """
        self._task = task
        self._flow_manager = flow_manager
        self._report = report
        self._handlers: dict[str, Handler] = {}
        # ActionFrames on their way; one for each action that is waited for.
        self._crossings: dict[int, asyncio.Future[bool]] = {}
        # The end of the answer that deferred post-actions wait for, whether one may begin yet, and
        # whether it has. Only the current node has such actions.
        self._spoken: asyncio.Future[bool] | None = None
        self._listening = False
        self._answering = False
        # The current node's post-actions that are not done, in order.
        self._left: list[ActionConfig] = []
        # Sequences of post-actions; each ends with the pipeline at the latest.
        self._running: set[asyncio.Task[None]] = set()
        self._over = False
        task.watch_reached_downstream(
            (ActionFrame, BotStartedSpeakingFrame, BotStoppedSpeakingFrame), self._arrived
        )
        for event in ("on_pipeline_ended", "on_pipeline_stopped", "on_pipeline_cancelled"):
            task.add_event_handler(event, self._pipeline_over)

    # -- configuration -------------------------------------------------------------------------

    def register(self, action_type: str, handler: Any) -> None:
        """Registers what actions of a type run; a built-in type may be replaced.

        Raises:
            ActionError: It cannot be called with an action.
        """
        self._handlers[action_type] = _adapt(handler, f"action {action_type!r}")

    def check(self, given: Any, where: str) -> list[ActionConfig]:
        """Checks actions as they are configured, and registers the handlers they bring along.

        Whether every type is registered is not looked at (`require`).

        Raises:
            ActionError: One of them cannot be run; the message says which, and why.
        """
        if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
            raise ActionError(f"{where} must be a list, not {type(given).__name__}")
        for index, action in enumerate(given):
            self._check_one(action, f"{where}[{index}]")
        return list(given)

    def require(self, actions: Sequence[ActionConfig], where: str) -> None:
        """Checks that every type is built in or registered by now.

        Raises:
            ActionError: One is not.
        """
        for index, action in enumerate(actions):
            kind = action["type"]
            if kind not in _BUILT_IN and kind not in self._handlers:
                raise ActionError(
                    f"{where}[{index}] ({kind}): no such action is registered, and it has no handler"
                )

    def _check_one(self, action: Any, where: str) -> None:
        kind = action.get("type") if isinstance(action, dict) else None
        if not isinstance(kind, str) or not kind:
            raise ActionError(f"{where} must be a dict with the field type")
        where = f"{where} ({kind})"
        if kind in self._handlers and "handler" not in action:
            return
        if kind == "tts_say":
            if not isinstance(action.get("text"), str):
                raise ActionError(f"{where}: text is missing")
        elif kind == "end_conversation":
            if not isinstance(action.get("text", ""), str):
                raise ActionError(f"{where}: text must be text")
        elif kind == "function":
            if "handler" not in action:
                raise ActionError(f"{where}: handler is missing")
            _adapt(action["handler"], where)
        elif "handler" in action:
            self._handlers[kind] = _adapt(action["handler"], where)

    # -- running -------------------------------------------------------------------------------

    @property
    def left(self) -> tuple[int, bool]:
        """How many post-actions of the current node are not done, and if they wait for speech."""
        return len(self._left), self._spoken is not None

    async def run(
        self,
        actions: Sequence[ActionConfig],
        *,
        crossed: bool = True,
        left: list[ActionConfig] | None = None,
    ) -> None:
        """Runs actions in order.

        Cancelled, it leaves out the ones that have not begun.

        Args:
            actions: The actions.
            crossed: Whether nothing in the pipeline has to be waited for before the first one.
            left: Has its first action removed for each that is done.

        Raises:
            ActionError: One failed; the ones after it are left out.
        """
        for action in actions:
            kind = action["type"]
            try:
                if kind in self._handlers:
                    if not crossed:
                        await self._cross()
                    crossed = True
                    await self._handlers[kind](dict(action), self._flow_manager)
                elif kind == "function":
                    await self._cross()
                    crossed = True
                    await _adapt(action["handler"], kind)(dict(action), self._flow_manager)
                else:
                    crossed = False
                    await self._say(action)
            except ActionError:
                raise
            except Exception as error:
                raise ActionError(f"action {kind!r} failed: {error}") from error
            # The end of a conversation is done when there is nothing left to be resumed.
            if left and kind != "end_conversation":
                left.pop(0)
                self._task.state_changed()

    def schedule(self, actions: Sequence[ActionConfig], *, after_speech: bool) -> None:
        """Runs post-actions in the background.

        Args:
            actions: The actions.
            after_speech: Whether the answer they follow has not been asked for yet: they wait for
                the bot to speak. Without it they follow what is queued in the pipeline.
        """
        self._left = list(actions)
        if not actions or self._over:
            return
        if after_speech:
            spoken = asyncio.get_running_loop().create_future()
            self._spoken, self._listening, self._answering = spoken, False, False
            work = self._after_speech(spoken, self._left)
        else:
            work = self._after_queued(self._left)
        running = asyncio.get_running_loop().create_task(work, name="flows::post_actions")
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    def forget_deferred(self) -> None:
        """Drops post-actions that still wait for the bot to speak: their node is left."""
        if self._spoken is not None:
            _settle(self._spoken, False)
        self._spoken = None
        self._left = []

    def abandon(self) -> None:
        """Drops all post-actions, also those under way."""
        self.forget_deferred()
        for running in self._running:
            running.cancel()

    async def _after_queued(self, left: list[ActionConfig]) -> None:
        try:
            await self.run(list(left), crossed=False, left=left)
        except _PipelineOverError:
            logger.debug("post-actions left out: the pipeline has ended")
        except Exception as error:  # noqa: BLE001 - nobody waits for this; it is reported
            left.clear()
            await self._report("post-actions failed", error)

    async def _after_speech(self, spoken: asyncio.Future[bool], left: list[ActionConfig]) -> None:
        try:
            # What the pre-actions say is no answer yet.
            await self._cross()
        except _PipelineOverError:
            return
        except ActionError as error:
            await self._report("post-actions failed", error)
            return
        if self._spoken is spoken:
            self._listening = True
        # As long as the user is silent; ends with the node or the pipeline.
        if await spoken:
            if self._spoken is spoken:
                self._spoken = None
            await self._after_queued(left)

    async def _say(self, action: ActionConfig) -> None:
        if text := action.get("text"):
            await self._task.queue_frame(TTSSpeakFrame(text=text))
        if action["type"] == "end_conversation":
            await self._task.queue_frame(EndFrame())

    async def _cross(self) -> None:
        """Waits until everything queued so far has left the pipeline."""
        if self._over:
            raise _PipelineOverError("the pipeline has ended")
        frame = ActionFrame()
        arrived = self._crossings[frame.id] = asyncio.get_running_loop().create_future()
        await self._task.queue_frame(frame)
        try:
            async with asyncio.timeout(CROSSING_DEADLINE_SECS):
                if not await arrived:
                    raise _PipelineOverError("the pipeline has ended")
        except TimeoutError:
            raise ActionError(
                f"the pipeline did not get to an action within {CROSSING_DEADLINE_SECS:.0f} s"
            ) from None
        finally:
            del self._crossings[frame.id]

    # -- what the pipeline tells ---------------------------------------------------------------

    def _arrived(self, frame: Frame) -> None:
        if isinstance(frame, ActionFrame):
            if (waiting := self._crossings.get(frame.id)) is not None:
                _settle(waiting, True)
        elif isinstance(frame, BotStartedSpeakingFrame):
            self._answering = self._listening
        elif self._answering and self._spoken is not None:
            _settle(self._spoken, True)

    async def _pipeline_over(self, _task: Any, _frame: Frame) -> None:
        self._over = True
        self.forget_deferred()
        for waiting in self._crossings.values():
            _settle(waiting, False)
        running = set(self._running)
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=_GRACE_SECS)
        for action in late:
            logger.warning("an action goes on after the end of the pipeline: it is cancelled")
            action.cancel()
        if late:
            await asyncio.wait(late, timeout=_GRACE_SECS)


def _settle(waiting: asyncio.Future[bool], result: bool) -> None:
    if not waiting.done():
        waiting.set_result(result)


def _adapt(handler: Any, where: str) -> Handler:
    """Brings an action's handler into one form.

    Raises:
        ActionError: It cannot be called with an action.
    """
    if not callable(handler):
        raise ActionError(f"{where}: handler must be a function, not {handler!r}")
    both = takes(handler, 2)
    if not both and not takes(handler, 1):
        raise ActionError(f"{where}: handler must take (action, flow_manager), or only action")

    async def adapted(action: dict[str, Any], flow_manager: FlowManager) -> Any:
        given = (action, flow_manager) if both else (action,)
        return await finish(handler(*given))

    return adapted
