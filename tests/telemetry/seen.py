"""What OpenTelemetry's real SDK was told, in a form that tests can read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from toolchord import telemetry


def told(span: Any) -> dict[str, Any]:
    """The attributes of a span or an event."""
    return dict(span.attributes or {})


class Seen:
    """Providers of an application, and what came to them."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self._reader])
        self._logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.loggers = LoggerProvider()
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self._logs))
        self.tracer = self.tracers.get_tracer("application")

    @property
    def spans(self) -> list[ReadableSpan]:
        """Spans that have ended, in that order."""
        return list(self._spans.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def attributes(self, name: str) -> dict[str, Any]:
        return told(self.one(name))

    def way(self, span: ReadableSpan) -> list[str]:
        """The names from a root down to a span."""
        known = {one.context.span_id: one for one in self.spans if one.context is not None}
        names = [span.name]
        while span.parent is not None:
            span = known[span.parent.span_id]
            names.append(span.name)
        return names[::-1]

    @property
    def ways(self) -> list[str]:
        """Every span with its ancestors, in the order in which they began."""
        return [" > ".join(self.way(span)) for span in sorted(self.spans, key=lambda span: span.start_time or 0)]

    @property
    def traces(self) -> set[int]:
        return {span.context.trace_id for span in self.spans if span.context is not None}

    @property
    def logs(self) -> list[Any]:
        return [data.log_record for data in self._logs.get_finished_logs()]

    def points(self, name: str) -> dict[tuple[tuple[str, Any], ...], Any]:
        """A metric's points by their attributes, sorted."""
        data = self._reader.get_metrics_data()
        found = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        for point in metric.data.data_points:
                            found[tuple(sorted((point.attributes or {}).items()))] = point
        return found

    def values(self, name: str) -> dict[tuple[tuple[str, Any], ...], Any]:
        return {key: point.value for key, point in self.points(name).items()}


@contextmanager
def instrumented(*, content: bool | None = None) -> Iterator[Seen]:
    """The library tells of itself to providers of its own."""
    seen = Seen()
    telemetry.instrument(
        tracer_provider=seen.tracers,
        meter_provider=seen.meters,
        logger_provider=seen.loggers,
        capture_content=content,
    )
    try:
        yield seen
    finally:
        telemetry.uninstrument()
        seen.tracers.shutdown()
        seen.meters.shutdown()
        seen.loggers.shutdown()
