"""What keeps a conversation, so that it can go on in another process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon.frames import codec
from antiphon.utils.function_names import function_named

if TYPE_CHECKING:
    from antiphon.pipeline.task import PipelineTask


@dataclass
class Restoring:
    """What those get who are restored.

    Attributes:
        is_own: Whether a module is one of the bot's own: only their functions are found by name.
        problems: What could not be restored, for people; never what somebody said.
        asked: Conversations about which a state's ``go_on()`` asks the model by itself.
        ends: Whether a state's ``go_on()`` ends the pipeline by itself.
    """

    is_own: Callable[[ModuleType], bool] = lambda _: False
    problems: list[str] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    ends: bool = False

    def problem(self, text: str) -> None:
        """Takes note of something that could not be restored, and logs it."""
        logger.warning("not restored", what=text)
        self.problems.append(text)

    def function(self, name: str) -> Callable[..., Any]:
        """A function of the bot that was saved by its name.

        Raises:
            LookupError: The bot's modules have no such function (any more).
        """
        return function_named(name, self.is_own)


class SavedState(ABC):
    """Something beside the conversation's messages that has to survive the bot's process.

    A bot registers it with ``PipelineTask.add_saved_state()``.
    """

    @abstractmethod
    def save(self) -> Any:
        """The state as plain data: what ``antiphon.frames.codec.encode_value`` can write.

        Called often, and must not wait for anything.
        """

    @abstractmethod
    def restore(self, saved: Any, restoring: Restoring) -> None:
        """Takes over what an object of another process has saved; before the pipeline starts.

        Args:
            saved: What save() returned there, possibly of an older version of the program.
            restoring: Takes note of what cannot be restored.
        """

    async def go_on(self) -> None:  # noqa: B027 - most have nothing under way
        """Goes on with what was under way; called once the restored pipeline runs."""


def savable(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What of a program's own values can be saved, and the names of the others."""
    try:
        codec.encode_value(dict(values))
    except codec.CodecError:
        lost = [name for name, value in values.items() if not _is_savable(value)]
        return {name: value for name, value in values.items() if name not in lost}, lost
    return dict(values), []


def _is_savable(value: Any) -> bool:
    try:
        codec.encode_value(value)
    except codec.CodecError:
        return False
    return True


class Keeper(ABC):
    """Keeps what the conversation of a task needs to go on elsewhere, and brings it back.

    One keeper serves one session; a task finds it by itself (`use_keeper`).
    """

    @abstractmethod
    async def begin(self, task: PipelineTask) -> bool:
        """Restores a task that is about to start, and follows it from now on.

        Nothing that goes wrong keeps the task from starting.

        Returns:
            Whether it goes on from another process.
        """

    @abstractmethod
    async def started(self, task: PipelineTask) -> None:
        """Goes on with what a restored task had under way; its StartFrame has crossed the pipeline.

        Cancelled when the task ends before.
        """

    @abstractmethod
    def state_added(self, task: PipelineTask, name: str, state: SavedState) -> None:
        """Restores a state that is registered while its task runs."""

    @abstractmethod
    def changed(self) -> None:
        """Is told that something to be kept has changed."""


_keeper: ContextVar[Keeper | None] = ContextVar("antiphon_keeper", default=None)


def current_keeper() -> Keeper | None:
    """The keeper of the session that runs here; None if nothing is kept."""
    return _keeper.get()


@contextmanager
def use_keeper(keeper: Keeper | None) -> Iterator[None]:
    """Makes the tasks that run inside the block, and in tasks begun there, use this keeper."""
    token = _keeper.set(keeper)
    try:
        yield
    finally:
        _keeper.reset(token)
