"""The conversation under way, for code that makes spans of its own."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from antiphon.utils.tracing import trace_state
from antiphon.utils.tracing.turn_context_provider import as_context

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext


class ConversationContextProvider:
    """Knows the conversation under way: the one the calling code belongs to.

    Code outside any conversation gets the one that began last in this process.
    """

    _instance: ConversationContextProvider | None = None

    @classmethod
    def get_instance(cls) -> ConversationContextProvider:
        """The only instance."""
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def set_current_conversation_context(
        self, span_context: SpanContext | None, conversation_id: str | None = None
    ) -> None:
        """Sets the span and the id of the conversation; None when it is over."""
        for state in trace_state.states_to_set():
            state.conversation = span_context
            state.conversation_id = conversation_id

    def get_current_conversation_context(self) -> Context | None:
        """A context whose span is the conversation's; None outside one."""
        return as_context(trace_state.current().conversation)

    def get_conversation_id(self) -> str | None:
        """The conversation's id; None outside one."""
        return trace_state.current().conversation_id

    def generate_conversation_id(self) -> str:
        """A new id."""
        return str(uuid.uuid4())


def get_current_conversation_context() -> Context | None:
    """A context whose span is the conversation's; None outside one."""
    return ConversationContextProvider.get_instance().get_current_conversation_context()


def get_conversation_id() -> str | None:
    """The conversation's id; None outside one."""
    return ConversationContextProvider.get_instance().get_conversation_id()
