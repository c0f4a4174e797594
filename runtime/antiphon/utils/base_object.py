"""Named objects that emit events."""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from loguru import logger

from antiphon.utils.asyncio.receipts import Hold, context_of_work
from antiphon.utils.utils import obj_count, obj_id

Handler = TypeVar("Handler", bound=Callable[..., Any])

emissions: ContextVar[set[asyncio.Task[None]] | None] = ContextVar(
    "antiphon_emissions", default=None
)
"""The emissions in progress of the session that runs here, whichever object emits; None outside of one."""


def _check_handler(where: str, handler: Any) -> None:
    # What follows the object depends on the event, so only the first argument is looked at.
    if not callable(handler):
        raise TypeError(f"{where} must be a function, not {handler!r}")
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):  # builtins without a signature: only the call can tell
        return
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    if not any(one.kind in positional for one in parameters):
        raise TypeError(f"{where} must take the object whose event it is as its first argument")


class BaseObject(ABC):  # noqa: B024 - a base without abstract methods, as documented
    """An object with an id, a name and event handlers.

    Handlers receive the emitting object first and then the event's own arguments; they may be
    plain or async functions. One emission runs its handlers one after the other in a background
    task, so the emitter never waits for them. A handler that raises is logged and ends the
    remaining handlers of that emission only.
    """

    def __init__(self, *, name: str | None = None, **kwargs: Any) -> None:
        """Gives the object its identity.

        Args:
            name: A name for logs and metrics; ``ClassName#n`` when left out.
            **kwargs: Passed on to the next class in the method resolution order.
        """
        super().__init__(**kwargs)
        self._id: int = obj_id()
        self._name = name or f"{self.__class__.__name__}#{obj_count(self)}"
        self._event_handlers: dict[str, list[Callable[..., Any]]] = {}
        # Emissions in progress; cleanup() waits for them.
        self._event_tasks: set[asyncio.Task[None]] = set()

    @property
    def id(self) -> int:
        """The object's number, unique in this process."""
        return self._id

    @property
    def name(self) -> str:
        """The object's name."""
        return self._name

    async def cleanup(self) -> None:
        """Waits for the event handlers that are still running."""
        current = asyncio.current_task()
        while waiting := [task for task in self._event_tasks if task is not current]:
            await asyncio.wait(waiting)

    def event_handler(self, event_name: str) -> Callable[[Handler], Handler]:
        """Registers the decorated function for an event and returns it unchanged."""

        def decorator(handler: Handler) -> Handler:
            self.add_event_handler(event_name, handler)
            return handler

        return decorator

    def add_event_handler(self, event_name: str, handler: Callable[..., Any]) -> None:
        """Adds a handler for an event; an event this object does not have is only a warning.

        Raises:
            TypeError: If the handler cannot take the object that calls it.
        """
        _check_handler(f"{self._name}: the handler of {event_name}", handler)
        handlers = self._event_handlers.get(event_name)
        if handlers is None:
            logger.warning(
                "event handler not added: the object has no such event",
                object=self._name,
                event=event_name,
            )
            return
        handlers.append(handler)

    def _register_event_handler(self, event_name: str) -> None:
        """Declares an event of this class."""
        if event_name in self._event_handlers:
            logger.warning("event declared twice", object=self._name, event=event_name)
            return
        self._event_handlers[event_name] = []

    async def _call_event_handler(self, event_name: str, *args: Any, **kwargs: Any) -> None:
        """Starts the event's handlers in the background; without handlers it costs nothing."""
        handlers = self._event_handlers.get(event_name)
        if not handlers:
            return
        task = asyncio.get_running_loop().create_task(
            self._emit(event_name, list(handlers), args, kwargs),
            name=f"{self._name}::{event_name}",
            context=context_of_work(),
        )
        self._event_tasks.add(task)
        task.add_done_callback(self._event_tasks.discard)
        if (of_session := emissions.get()) is not None:
            of_session.add(task)
            task.add_done_callback(of_session.discard)
        # The frame that led to it is not answered before its handlers were called.
        hold = Hold()
        task.add_done_callback(lambda _: hold.release())

    async def _emit(
        self,
        event_name: str,
        handlers: list[Callable[..., Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        try:
            for handler in handlers:
                result = handler(self, *args, **kwargs)
                if inspect.isawaitable(result):
                    await result
        except Exception:  # noqa: BLE001 - handlers are code of bots
            logger.exception("event handler failed", object=self._name, event=event_name)

    def __str__(self) -> str:
        """The object's name."""
        return self._name
