"""Calls that reach a processor wherever it runs.

A bot builds its processors in its own process; a placement may then run some of them elsewhere.
The bot keeps the object it built, the *twin*. A method marked with ``@relayed`` is what a bot may
call on it: before the processor is placed the call is carried out and noted, so that the processor
built elsewhere gets it too; after that it goes to where the processor runs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])

_MARK = "__antiphon_relayed__"

_LASTING = "__antiphon_lasting__"

_REACHABLE = "__antiphon_reachable__"


class Relay(Protocol):
    """The way from a twin to its processor."""

    async def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs the method where the processor is and returns its result."""

    def post(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Runs the method where the processor is, without waiting; order is kept."""


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A relayed call made before the processor was placed."""

    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Blueprint:
    """How a processor was built: enough to build another one like it."""

    cls: type
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def is_relayed(method: object) -> bool:
    """Whether a function was marked with ``@relayed``."""
    return getattr(method, _MARK, False) is True


def is_lasting(method: object) -> bool:
    """Whether a relayed async method was marked with ``@lasting``."""
    return getattr(method, _LASTING, False) is True


def lasting(method: Method) -> Method:
    """Marks a relayed async method, above ``@relayed``, that changes a setting of its processor.

    It is repeated on a processor that takes the place of one that was lost. Plain relayed methods
    always are.
    """
    setattr(method, _LASTING, True)
    return method


def reachable(method: Method) -> Method:
    """Marks a method that a twin's relay may call where the processor is, without wrapping it.

    For push_frame, which a processor calls itself for every frame: the twin's is replaced on the
    twin when the processor is placed, so the way everybody else takes costs nothing.
    """
    setattr(method, _MARK, True)
    setattr(method, _REACHABLE, True)
    return method


def relayed(method: Method) -> Method:
    """Marks a method that a bot may call on a processor, wherever that runs.

    An async method runs where the processor is, and its result comes back. A plain method (a
    setter, a registration) is applied to the twin as well, so that the bot can read back what it
    set. Arguments are plain data, frames, or callables; a callable arrives on the other side as a
    function to be awaited. Overrides in subclasses are marked by themselves.
    """
    name = method.__name__

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self._relay is not None:
                return self._relay.call(name, args, kwargs)
            if self._journal is None:  # the usual case while a pipeline runs
                return method(self, *args, **kwargs)
            return _recorded(method, self, args, kwargs)

    else:

        @functools.wraps(method)
        def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self._relay is not None:
                self._relay.post(name, args, kwargs)
            if self._journal is None:
                return method(self, *args, **kwargs)
            with _Recording(self, name, args, kwargs):
                return method(self, *args, **kwargs)

    setattr(wrapper, _MARK, True)
    return cast(Method, wrapper)


async def _recorded(
    method: Callable[..., Any], processor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    with _Recording(processor, method.__name__, args, kwargs):
        return await method(processor, *args, **kwargs)


class _Recording:
    """Notes a call in the processor's journal; calls made inside it are part of it."""

    __slots__ = ("_before", "_call", "_nested", "_processor")

    def __init__(
        self, processor: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._processor = processor
        self._call = (name, args, kwargs)

    def __enter__(self) -> None:
        self._nested = self._processor._recording
        self._processor._recording = True
        self._before = dict(vars(self._processor))

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        self._processor._recording = self._nested
        # None: the call was the one that sets the processor up, which ends the journal.
        journal: list[RecordedCall] | None = self._processor._journal
        if journal is not None and error_type is None and not self._nested:
            journal.append(RecordedCall(*self._call))
            self._processor._note_changes(self._before)


def mark_overrides(cls: type) -> None:
    """Makes a class's overrides of relayed methods relayed too."""
    for name, method in list(vars(cls).items()):
        if not inspect.isfunction(method) or is_relayed(method):
            continue
        for base in cls.__mro__[1:]:
            inherited = vars(base).get(name)
            if is_relayed(inherited):
                mark = reachable if hasattr(inherited, _REACHABLE) else relayed
                marked = mark(method)
                if is_lasting(inherited):
                    lasting(marked)
                setattr(cls, name, marked)
                break
