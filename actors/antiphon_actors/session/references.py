"""Objects that stay where they are: what travels of them is a reference.

A process of a session keeps the objects it has sent references of; when a reference comes back it
is the object again. Elsewhere it is a stand-in: a processor's stub, a copy of the conversation, or
a function that is carried out where it belongs.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext
from antiphon.processors.frame_processor import FrameProcessor
from antiphon_actors.channels import ChannelError

KEPT_OBJECTS = 65_536
"""Objects that travelled in frames that a session keeps per process.

Those that were not used for longest go first; they are reported if they are asked for.
"""

_PROCESSOR, _CONTEXT, _OBJECT, _FUNCTION = "p", "c", "o", "f"


class UnknownReference(ChannelError):
    """A reference came back to a process that does not keep its object (any more)."""


class _Home(Protocol):
    """What references need of the session in this process."""

    @property
    def process(self) -> str:
        """Name of this process, unique in the session: the address of its hub."""

    def processor_number(self, processor: FrameProcessor) -> int | None:
        """The number of a processor of this session."""

    def processor(self, pid: int, name: str) -> FrameProcessor:
        """The processor of that number, or a stub of it."""

    async def invoke(
        self, process: str, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Carries out a function another process keeps."""


class RemoteObject:
    """Stands for an object of another process; all it can do is go back there."""

    def __init__(self, process: str, number: int, what: str) -> None:
        self.process = process
        self.number = number
        self.what = what

    def __repr__(self) -> str:
        return f"<{self.what} of another process>"


class RemoteFunction(RemoteObject):
    """Stands for a function of another process; calling it returns something to await."""

    def __init__(self, home: _Home, process: str, number: int, what: str) -> None:
        super().__init__(process, number, what)
        self._home = home
        self.__name__ = what

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Carries the function out where it belongs and returns its result."""
        return self._home.invoke(self.process, self.number, args, kwargs)


class SessionReferences:
    """The references of one session in one process (``antiphon.frames.codec.References``)."""

    def __init__(self, home: _Home) -> None:
        # Which has this.
        self._weak_home = weakref.ref(home)
        self._kept: OrderedDict[int, Any] = OrderedDict()
        # Bounded by what the bot registers.
        self._lasting: dict[int, Any] = {}
        self._is_lasting = False
        self._numbers: dict[int, int] = {}
        self._next = 1

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """What is referred to inside the block is kept until the end of the session."""
        self._is_lasting = True
        try:
            yield
        finally:
            self._is_lasting = False

    @property
    def _home(self) -> _Home:
        home = self._weak_home()
        if home is None:
            raise UnknownReference("the session is over")
        return home

    def claims(self, obj: object) -> bool:
        """Whether an object travels by reference although the codec could send its content."""
        return isinstance(obj, (FrameProcessor, OpenAILLMContext))

    def refer(self, obj: object) -> object:
        """Plain data that stands for the object."""
        if isinstance(obj, RemoteFunction):
            return [_FUNCTION, obj.process, obj.number, obj.what]
        if isinstance(obj, RemoteObject):
            return [_OBJECT, obj.process, obj.number, obj.what]
        if isinstance(obj, FrameProcessor):
            pid = self._home.processor_number(obj)
            if pid is not None:
                return [_PROCESSOR, pid, obj.name]
        if isinstance(obj, OpenAILLMContext):
            owner = getattr(obj, "_antiphon_owner", None)
            process, number = owner or (self._home.process, self._keep(obj))
            return [_CONTEXT, process, number, obj.to_plain()]
        what = getattr(obj, "__qualname__", type(obj).__qualname__)
        kind = _FUNCTION if callable(obj) else _OBJECT
        return [kind, self._home.process, self._keep(obj), what]

    def resolve(self, ref: object) -> object:
        """The object, or what stands for it here.

        Raises:
            UnknownReference: If the object is this process's and no longer kept.
            ValueError: If the data is no reference.
        """
        match ref:
            case [str(kind), int(pid), str(name)] if kind == _PROCESSOR:
                return self._home.processor(pid, name)
            case [str(kind), str(process), int(number), dict(plain)] if kind == _CONTEXT:
                if process == self._home.process:
                    return self.kept(number)
                context = OpenAILLMContext.from_plain(plain)
                context._antiphon_owner = (process, number)  # type: ignore[attr-defined]
                return context
            case [str(kind), str(process), int(number), str(what)] if kind in (_OBJECT, _FUNCTION):
                if process == self._home.process:
                    return self.kept(number)
                if kind == _FUNCTION:
                    return RemoteFunction(self._home, process, number, what)
                return RemoteObject(process, number, what)
        raise ValueError("not a reference of this version")

    def kept(self, number: int) -> Any:
        """The object this process keeps under a number.

        Raises:
            UnknownReference: If it keeps none.
        """
        if number in self._lasting:
            return self._lasting[number]
        if number not in self._kept:
            raise UnknownReference(f"no object number {number} is kept for this session")
        self._kept.move_to_end(number)
        return self._kept[number]

    def function(self, number: int) -> Callable[..., Any]:
        """The function this process keeps under a number.

        Raises:
            UnknownReference: If it keeps none.
        """
        function = self.kept(number)
        if not callable(function):
            raise UnknownReference(f"object number {number} is no function")
        return function  # type: ignore[no-any-return]

    def clear(self) -> None:
        """Lets go of every object."""
        self._kept.clear()
        self._lasting.clear()
        self._numbers.clear()

    def _keep(self, obj: Any) -> int:
        # Numbers are those of objects that are kept, so ids are not used again.
        number = self._numbers.get(id(obj))
        if number is None:
            number = self._numbers[id(obj)] = self._next
            self._next += 1
        if self._is_lasting or number in self._lasting:
            self._lasting[number] = obj
            self._kept.pop(number, None)
            return number
        self._kept[number] = obj
        self._kept.move_to_end(number)
        if len(self._kept) > KEPT_OBJECTS:
            _, dropped = self._kept.popitem(last=False)
            del self._numbers[id(dropped)]
        return number
