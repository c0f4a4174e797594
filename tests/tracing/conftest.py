"""One tracer provider for all tests here (there can be only one in a process)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.session.conftest import actors

from antiphon.utils.tracing.setup import setup_tracing

__all__ = ["Spans", "actors", "spans"]

_exporter = InMemorySpanExporter()


@dataclass
class Spans:
    """What was exported."""

    exporter: InMemorySpanExporter

    def all(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        found = [span for span in self.all() if span.name == name]
        return sorted(found, key=lambda span: span.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def children(self, parent: ReadableSpan) -> list[str]:
        context = parent.get_span_context()
        assert context is not None
        found = [
            span
            for span in self.all()
            if span.parent is not None and span.parent.span_id == context.span_id
        ]
        return [span.name for span in sorted(found, key=lambda span: span.start_time or 0)]


@pytest.fixture
def spans() -> Iterator[Spans]:
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        assert setup_tracing("tests")
        provider = trace.get_tracer_provider()
        assert isinstance(provider, TracerProvider)
        provider.add_span_processor(SimpleSpanProcessor(_exporter))
    _exporter.clear()
    yield Spans(_exporter)
    _exporter.clear()
