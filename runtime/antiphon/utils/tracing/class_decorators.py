"""Spans around the methods of a program's own classes."""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Span, Tracer

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


class AttachmentStrategy(enum.Enum):
    """Where a span is attached.

    Attributes:
        CHILD: To the span under way, or to the object's if there is none.
        LINK: To the object's, with a link to the span under way.
        NONE: To the object's, whatever is under way.
    """

    CHILD = enum.auto()
    LINK = enum.auto()
    NONE = enum.auto()


class Traceable:
    """An object with a span of its own, to which the spans of its ``@traced`` methods belong."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        """Begins the object's span.

        Args:
            name: Its name.
            **kwargs: For the next class in the method resolution order.
        """
        super().__init__(**kwargs)
        from opentelemetry import metrics, trace

        self._tracer: Tracer = trace.get_tracer(type(self).__module__)
        self._meter: Meter = metrics.get_meter(type(self).__module__)
        self._span: Span = self._tracer.start_span(name)
        # Ended at once: children may come at any time, and nobody says when the object is done.
        self._span.end()

    @property
    def meter(self) -> Meter:
        """The meter for measurements of this object."""
        return self._meter


@contextmanager
def _span_of(target: Traceable, name: str, strategy: AttachmentStrategy) -> Iterator[Span]:
    from opentelemetry import trace

    under_way = trace.get_current_span()
    has_outer = under_way.get_span_context().is_valid
    own = trace.set_span_in_context(target._span)
    if strategy is AttachmentStrategy.CHILD:
        with target._tracer.start_as_current_span(name, context=None if has_outer else own) as span:
            yield span
        return
    linked = strategy is AttachmentStrategy.LINK and has_outer
    links = [trace.Link(under_way.get_span_context())] if linked else []
    with target._tracer.start_as_current_span(name, context=own, links=links) as span:
        yield span


@overload
def traced(
    func: F,
    *,
    name: str | None = None,
    attachment_strategy: AttachmentStrategy = AttachmentStrategy.CHILD,
) -> F: ...


@overload
def traced(
    func: None = None,
    *,
    name: str | None = None,
    attachment_strategy: AttachmentStrategy = AttachmentStrategy.CHILD,
) -> Callable[[F], F]: ...


def traced(
    func: F | None = None,
    *,
    name: str | None = None,
    attachment_strategy: AttachmentStrategy = AttachmentStrategy.CHILD,
) -> Any:
    """Makes a span of each call of an async method (or async generator) of a ``Traceable``.

    Args:
        func: The method.
        name: Name of the span; the method's if left out.
        attachment_strategy: Where the span is attached.

    Raises:
        ValueError: If the method is not async.
        RuntimeError: When it is called on an object that is not ``Traceable``.
    """

    def decorator(method: Callable[..., Any]) -> Any:
        span_name = name or method.__name__

        if inspect.isasyncgenfunction(method):

            @functools.wraps(method)
            async def generator(self: Any, *args: Any, **kwargs: Any) -> Any:
                _check(self)
                with _span_of(self, span_name, attachment_strategy):
                    async for item in method(self, *args, **kwargs):
                        yield item

            return generator

        if not inspect.iscoroutinefunction(method):
            raise ValueError(f"@traced is for async functions, and {method.__qualname__} is none")

        @functools.wraps(method)
        async def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            _check(self)
            with _span_of(self, span_name, attachment_strategy):
                return await method(self, *args, **kwargs)

        return wrapper

    return decorator if func is None else decorator(func)


def traceable(cls: C) -> C:
    """Makes a class ``Traceable``: a new class of the same name that derives from both.

    The object's span is named after the class.
    """
    constructor: Callable[..., None] = cls.__init__  # type: ignore[misc]

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        constructor(self, *args, **kwargs)
        Traceable.__init__(self, cls.__name__)

    # Traceable comes last, so that super().__init__() in the class does not get here.
    made = type(cls.__name__, (cls, _Silent, Traceable), {"__init__": init})
    functools.update_wrapper(made, cls, updated=())
    return cast("C", made)


class _Silent:
    """Ends the chain of constructors before ``Traceable``, which is called by itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass


def _check(target: Any) -> None:
    if not isinstance(target, Traceable):
        raise RuntimeError(
            f"@traced is for classes that are Traceable, not {type(target).__name__}"
        )
