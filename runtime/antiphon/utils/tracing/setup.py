"""Setting up OpenTelemetry for an application."""

from __future__ import annotations

import importlib.util
import os
import socket
from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter


def is_tracing_available() -> bool:
    """Whether OpenTelemetry is installed."""
    try:
        return importlib.util.find_spec("opentelemetry.sdk.trace") is not None
    except ModuleNotFoundError:
        return False


def setup_tracing(
    service_name: str = "antiphon",
    exporter: SpanExporter | None = None,
    console_export: bool = False,
) -> bool:
    """Sends this process's traces to an exporter.

    If a tracer provider is in place already (made by an earlier call or by the application), the
    exporter is added to it, and ``service_name`` has no effect.

    Args:
        service_name: Name of the service in the traces.
        exporter: Where finished spans go, in batches from a thread; None for nowhere.
        console_export: Whether they are also printed to the standard output, at once.

    Returns:
        Whether traces are recorded now.
    """
    if not is_tracing_available():
        logger.error("tracing not set up: opentelemetry-sdk is not installed")
        return False
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SimpleSpanProcessor,
    )

    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(
            resource=Resource.create(
                {
                    "service.name": service_name,
                    "service.instance.id": socket.gethostname(),
                    "deployment.environment": os.environ.get("ENVIRONMENT", "development"),
                }
            )
        )
        trace.set_tracer_provider(provider)
        if trace.get_tracer_provider() is not provider:
            logger.error("tracing not set up: another tracer provider is in place")
            return False
    if console_export:
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    if exporter is not None:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return True
