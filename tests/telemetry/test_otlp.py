"""Over the wire: the real OTLP exporter, and a receiver on loopback that reads its protobuf."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from toolchord import CodeSandbox, telemetry


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent, decoded."""

    def __init__(self) -> None:
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            self.server.traces.append(ExportTraceServiceRequest.FromString(body))
        else:
            self.server.metrics.append(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


async def search(words: str) -> list[str]:
    """Find documents."""
    return [words]


def fail() -> None:
    """Fail with half of a character."""
    raise ValueError("\ud800")


async def test_spans_and_metrics_arrive_at_a_collector(receiver: Receiver) -> None:
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces")))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{receiver.url}/v1/metrics"))
    meters = MeterProvider(metric_readers=[reader])
    telemetry.instrument(tracer_provider=tracers, meter_provider=meters, capture_content=True)
    try:
        async with CodeSandbox(tools=[search, fail]) as sandbox:
            assert (await sandbox.execute("return len(search('ä'))")).value == 1
            await sandbox.execute("x = chr(0xD800)\nprint(x)\nsearch(words=x)")  # what can't be written as UTF-8
            await sandbox.execute("try:\n    fail()\nexcept ValueError:\n    pass")
            await sandbox.execute("call_tool('\ud800')")
    finally:
        telemetry.uninstrument()
        tracers.shutdown()
        meters.shutdown()
    scopes = [scope for sent in receiver.traces for resource in sent.resource_spans for scope in resource.scope_spans]
    assert {scope.scope.name for scope in scopes} == {"toolchord"}
    found = [span for scope in scopes for span in scope.spans]
    assert len([span for span in found if span.name == "execute_tool run_code"]) == 4
    spans = {span.name: span for span in reversed(found)}  # the first of each name
    assert {"execute_tool run_code", "run_program", "execute_tool search", "execute_tool fail"} <= set(spans)
    assert spans["execute_tool search"].parent_span_id == spans["execute_tool run_code"].span_id
    told = {one.key: one.value for one in spans["execute_tool search"].attributes}
    assert told["gen_ai.tool.name"].string_value == "search"
    assert told["toolchord.call.line"].int_value == 1
    names = {
        metric.name
        for sent in receiver.metrics
        for resource in sent.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert {"gen_ai.execute_tool.duration", "toolchord.calls", "toolchord.results.bytes"} <= names
