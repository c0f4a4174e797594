"""Spans leave the process over OTLP, as the documentation sets it up."""

from __future__ import annotations

import asyncio
import gzip
import sys
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_PROGRAM = textwrap.dedent(
    """
    import sys
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from antiphon.frames.frames import EndFrame, TextFrame
    from antiphon.pipeline.pipeline import Pipeline
    from antiphon.pipeline.runner import PipelineRunner
    from antiphon.pipeline.task import PipelineTask
    from antiphon.testing import FakeTTSService, virtual_time
    from antiphon.utils.tracing.setup import is_tracing_available, setup_tracing

    assert is_tracing_available()
    exporter = OTLPSpanExporter(endpoint=sys.argv[1])
    assert setup_tracing(service_name="my-voice-app", exporter=exporter)
    assert setup_tracing(service_name="again")  # adds nothing, and changes nothing

    async def main():
        task = PipelineTask(
            Pipeline([FakeTTSService()]), enable_tracing=True, conversation_id="customer-123"
        )
        await task.queue_frames([TextFrame("Hello."), EndFrame()])
        await PipelineRunner(handle_sigint=False).run(task)

    virtual_time.run(main())
    trace.get_tracer_provider().shutdown()
    """
)


class _Collector(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        super().__init__(("127.0.0.1", 0), _Receiver)


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert isinstance(self.server, _Collector)
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[_Collector]:
    with _Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_a_conversation_reaches_a_collector(collector: _Collector) -> None:
    url = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", _PROGRAM, url)
    assert await child.wait() == 0
    (resource,) = [
        spans.resource for request in collector.requests for spans in request.resource_spans
    ]
    names = {item.key: item.value.string_value for item in resource.attributes}
    assert names["service.name"] == "my-voice-app"
    found = {
        span.name: span
        for request in collector.requests
        for resource_spans in request.resource_spans
        for scope in resource_spans.scope_spans
        for span in scope.spans
    }
    assert set(found) == {"conversation", "turn", "tts"}
    assert found["tts"].parent_span_id == found["turn"].span_id
    assert found["turn"].parent_span_id == found["conversation"].span_id
