"""Makes the trace of a conversation: its span, those of its turns, and those of the services."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loguru import logger

from antiphon.clocks.base_clock import BaseClock
from antiphon.frames.frames import StartFrame
from antiphon.observers.base_observer import BaseObserver, FramePushed
from antiphon.observers.turn_record_observer import TurnRecordObserver
from antiphon.observers.turn_tracking_observer import TurnTrackingObserver
from antiphon.utils.tracing import trace_state
from antiphon.utils.tracing.conversation_context_provider import ConversationContextProvider
from antiphon.utils.tracing.service_span import ServiceSpan
from antiphon.utils.tracing.turn_context_provider import TurnContextProvider, as_context

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext, Tracer

_TURNS_KEPT = 256
# Spans of services that wait until it is known which turn they belong to. Beyond it the oldest
# becomes a child of what is known by then.
_WAITING_LIMIT = 1_000


@dataclass
class _Turn:
    """A turn: when it began and ended on the pipeline's clock; no end while it is open."""

    number: int
    span: Span
    start_ns: int
    end_ns: int | None = None

    @property
    def context(self) -> SpanContext:
        return self.span.get_span_context()


class TurnTraceObserver(BaseObserver):
    """Makes a span of the conversation, in it one of each turn, and in those the services' spans.

    A service's span belongs to the turn in which it began. Turns are told by frames that this
    observer may see later than a service reports: a span waits until a turn has ended or begun
    after it.
    """

    def __init__(
        self,
        turn_tracker: TurnTrackingObserver,
        conversation_id: str | None = None,
        additional_span_attributes: Mapping[str, Any] | None = None,
        *,
        clock: BaseClock | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes an observer; the trace begins with the StartFrame.

        Args:
            turn_tracker: Tells where turns begin and end.
            conversation_id: Name of the conversation; a new UUID if left out.
            additional_span_attributes: Further attributes of the conversation's span.
            clock: The pipeline's clock.
            **kwargs: For the base class.
        """
        super().__init__(**kwargs)
        self._turn_tracker = turn_tracker
        self._conversation_id = conversation_id
        self._additional_span_attributes = dict(additional_span_attributes or {})
        self._clock = clock
        self._epoch_ns: int | None = None
        self._tracer: Tracer | None = None
        self._conversation: Span | None = None
        self._ended = False
        self._turns: deque[_Turn] = deque(maxlen=_TURNS_KEPT)
        self._waiting: deque[ServiceSpan] = deque()
        turn_tracker.add_event_handler("on_turn_started", self._on_turn_started)
        turn_tracker.add_event_handler("on_turn_ended", self._on_turn_ended)

    async def on_push_frame(self, data: FramePushed) -> None:
        """Begins the trace with the pipeline."""
        if isinstance(data.frame, StartFrame):
            self.start_conversation_tracing(self._conversation_id)

    @property
    def conversation_id(self) -> str | None:
        """Name of the conversation; None before it begins, if it was not given one."""
        return self._conversation_id

    # -- the conversation ----------------------------------------------------------------------

    def start_conversation_tracing(self, conversation_id: str | None = None) -> None:
        """Begins the conversation's span; a second call does nothing."""
        if self._conversation is not None or self._ended:
            return
        from opentelemetry import trace
        from opentelemetry.context import Context

        provider = ConversationContextProvider.get_instance()
        self._conversation_id = (
            conversation_id or self._conversation_id or provider.generate_conversation_id()
        )
        if self._clock is not None:
            self._epoch_ns = time.time_ns() - self._clock.get_time()
        self._tracer = trace.get_tracer("antiphon")
        # A context without a span: whatever else is traced in this process, this is a trace.
        self._conversation = self._tracer.start_span("conversation", context=Context())
        self._conversation.set_attributes(
            {
                "conversation.id": self._conversation_id,
                "conversation.type": "voice",
                **self._additional_span_attributes,
            }
        )
        provider.set_current_conversation_context(
            self._conversation.get_span_context(), self._conversation_id
        )
        logger.debug("conversation traced", observer=self.name)

    def end_conversation_tracing(self) -> None:
        """Ends the conversation's span and all that is open in it."""
        conversation, self._conversation = self._conversation, None
        if conversation is None:
            return
        self._ended = True
        turn = self._turns[-1] if self._turns else None
        if turn is not None and turn.end_ns is None:
            turn.span.set_attribute("turn.was_interrupted", True)
            turn.span.end()
        for span in self._waiting:
            self._export(span, self._turn_of(span), conversation)
        self._waiting.clear()
        conversation.end()
        trace_state.forget(conversation.get_span_context())

    # -- turns ---------------------------------------------------------------------------------

    def get_current_turn_context(self) -> SpanContext | None:
        """The span of the turn under way; None between turns."""
        turn = self._turns[-1] if self._turns else None
        return turn.context if turn is not None and turn.end_ns is None else None

    def get_turn_context(self, turn_number: int) -> SpanContext | None:
        """The span of a turn; None if it is long over or has not begun."""
        return next((turn.context for turn in self._turns if turn.number == turn_number), None)

    async def _on_turn_started(self, tracker: TurnTrackingObserver, turn_number: int) -> None:
        if self._ended:
            return
        self.start_conversation_tracing(self._conversation_id)
        assert self._tracer is not None
        assert self._conversation is not None
        start_ns = tracker.turn_started_at(turn_number) or 0
        span = self._tracer.start_span(
            "turn",
            context=as_context(self._conversation.get_span_context()),
            start_time=self._unix_ns(start_ns),
        )
        span.set_attributes(
            {
                "turn.number": turn_number,
                "turn.type": "conversation",
                "conversation.id": self._conversation_id or "",
            }
        )
        self._turns.append(_Turn(turn_number, span, start_ns))
        TurnContextProvider.get_instance().set_current_turn_context(span.get_span_context())
        self._settle()

    async def _on_turn_ended(
        self,
        tracker: TurnTrackingObserver,
        turn_number: int,
        duration: float,
        was_interrupted: bool,
    ) -> None:
        turn = self._turns[-1] if self._turns else None
        if turn is None or turn.number != turn_number or turn.end_ns is not None or self._ended:
            return
        turn.end_ns = turn.start_ns + round(duration * 1e9)
        turn.span.set_attributes(
            {"turn.duration_seconds": duration, "turn.was_interrupted": was_interrupted}
        )
        if isinstance(tracker, TurnRecordObserver):
            record = tracker.record(turn_number)
            if record is not None and record.latency_secs is not None:
                turn.span.set_attribute("turn.latency_seconds", record.latency_secs)
                for stage, secs in record.stages.items():
                    turn.span.set_attribute(f"turn.latency.{stage}_seconds", secs)
        turn.span.end(end_time=self._unix_ns(turn.end_ns))
        TurnContextProvider.get_instance().set_current_turn_context(None)
        self._settle()

    # -- services ------------------------------------------------------------------------------

    def report_span(self, span: ServiceSpan) -> None:
        """Takes a finished span of a service, of this process or another one."""
        if self._ended:
            return
        self._waiting.append(span)
        self._settle()

    def _settle(self) -> None:
        """Exports the spans whose turn is known."""
        if self._conversation is None or not self._turns:
            return
        last = self._turns[-1]
        known_until_ns = last.start_ns if last.end_ns is None else last.end_ns
        kept: deque[ServiceSpan] = deque()
        surplus = len(self._waiting) - _WAITING_LIMIT
        for number, span in enumerate(self._waiting):
            if span.start_ns < known_until_ns or number < surplus:
                self._export(span, self._turn_of(span), self._conversation)
            else:
                kept.append(span)
        self._waiting = kept

    def _turn_of(self, span: ServiceSpan) -> _Turn | None:
        for turn in reversed(self._turns):
            if span.start_ns >= turn.start_ns:
                within = turn.end_ns is None or span.start_ns <= turn.end_ns
                return turn if within else None
        return None

    def _export(self, record: ServiceSpan, turn: _Turn | None, conversation: Span) -> None:
        from opentelemetry.trace import Status, StatusCode

        assert self._tracer is not None
        parent: Context | None = as_context(
            turn.context if turn is not None else conversation.get_span_context()
        )
        span = self._tracer.start_span(
            record.name,
            context=parent,
            start_time=self._unix_ns(record.start_ns),
            attributes=record.attributes,
        )
        if record.error:
            span.set_status(Status(StatusCode.ERROR, record.error))
        span.end(end_time=self._unix_ns(record.end_ns))

    def _unix_ns(self, pipeline_ns: int) -> int | None:
        """A time of the pipeline's clock for OpenTelemetry; None, the present, without a clock."""
        return None if self._epoch_ns is None else self._epoch_ns + pipeline_ns
