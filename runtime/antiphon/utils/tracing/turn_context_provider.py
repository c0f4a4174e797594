"""The turn under way, for code that makes spans of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from antiphon.utils.tracing import trace_state

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext


class TurnContextProvider:
    """Knows the turn under way: of the conversation the calling code belongs to.

    Code outside any conversation gets the turn that began last in this process.
    """

    _instance: TurnContextProvider | None = None

    @classmethod
    def get_instance(cls) -> TurnContextProvider:
        """The only instance."""
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def set_current_turn_context(self, span_context: SpanContext | None) -> None:
        """Sets the span of the turn; None between turns."""
        for state in trace_state.states_to_set():
            state.turn = span_context

    def get_current_turn_context(self) -> Context | None:
        """A context whose span is the turn's; None between turns."""
        return as_context(trace_state.current().turn)


def get_current_turn_context() -> Context | None:
    """A context whose span is that of the turn under way; None between turns."""
    return TurnContextProvider.get_instance().get_current_turn_context()


def as_context(span_context: SpanContext | None) -> Context | None:
    """A context for children of a span."""
    if span_context is None:
        return None
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    return set_span_in_context(NonRecordingSpan(span_context))
