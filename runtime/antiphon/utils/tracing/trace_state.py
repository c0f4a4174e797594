"""What tracing knows of the conversation that the running code belongs to."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from antiphon.utils.tracing.service_span import ServiceSpan

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext


@dataclass
class TraceState:
    """The trace of one conversation, in one process.

    Attributes:
        report: Takes the finished spans of services; None where nothing is traced.
        conversation: The conversation's span.
        conversation_id: Its id.
        turn: The span of the turn under way.
    """

    report: Callable[[ServiceSpan], None] | None = None
    conversation: SpanContext | None = None
    conversation_id: str | None = None
    turn: SpanContext | None = None


# A process may run several conversations. Each task of a pipeline inherits the state of its own
# from the pipeline task that started it.
_state: ContextVar[TraceState | None] = ContextVar("antiphon_trace_state", default=None)
_of_process = TraceState()


def current() -> TraceState:
    """The state of the conversation the running code belongs to, else the process's own."""
    return _state.get() or _of_process


def adopt(state: TraceState) -> None:
    """Makes a state the one of the running code and of all tasks it starts."""
    _state.set(state)


def states_to_set() -> tuple[TraceState, ...]:
    """Where a change is noted: for this conversation, and for code that belongs to none."""
    state = _state.get()
    return (_of_process,) if state is None else (state, _of_process)


def forget(conversation: SpanContext) -> None:
    """Takes note that a conversation is over, where it is the one that is known."""
    for state in states_to_set():
        if state.conversation == conversation:
            state.conversation = state.conversation_id = state.turn = None
