"""Owns the spans of runs, guests, calls and tasks, and the events of what failed in them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from opentelemetry import context, trace
from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber, get_logger
from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from toolchord.errors import InvalidArguments
from toolchord.instructions import RUN_CODE
from toolchord.observing import CallNote, Note, RunNote, TaskNote
from toolchord.results import shorten
from toolchord.telemetry.metrics import Metrics
from toolchord.telemetry.places import around, foreign_span, is_suppressed
from toolchord.telemetry.words import (
    MESSAGE,
    OTHER,
    TEXT,
    Attributes,
    as_text,
    clean,
    decision_about,
    masked,
    message_of,
    name_of,
    spent_by,
    stack_of,
    type_of,
)

_EXCEPTIONS = "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN"

_DECODED = 256 << 10
_EVENTS = 100

_OURS = ("limit", "died", "protocol", "deadlock", "divergence", "paused")
"""Kinds of errors whose message is this library's own; in the other ones a program speaks."""


class Telemetry:
    """One instrumentation: the observer of everything, and what it writes to."""

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: MeterProvider | None,
        logger_provider: LoggerProvider | None,
        content: bool,
    ) -> None:
        try:
            ours = version("toolchord")
        except PackageNotFoundError:  # run from its sources
            ours = ""
        self.tracer = trace.get_tracer("toolchord", ours, tracer_provider)
        self.content = content
        said = os.environ.get(_EXCEPTIONS, "").strip().lower()
        self._as_logs = said in ("logs", "logs/dup")
        self._as_span_events = said != "logs"
        self._logger = get_logger("toolchord", ours, logger_provider)
        self._propagator = TraceContextTextMapPropagator()
        self.metrics = Metrics(get_meter("toolchord", ours, meter_provider))

        def observe(note: Note) -> Callable[[], None] | None:
            if is_suppressed():
                return None
            if isinstance(note, RunNote):
                return self._run(note)
            return self._call(note) if isinstance(note, CallNote) else self._task(note)

        self.observe = observe

    # runs

    def _run(self, note: RunNote) -> Callable[[], None]:
        attributes: Attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": RUN_CODE,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.description": "Runs a program that calls tools.",
            "toolchord.isolation": note.isolation,
            "toolchord.language": note.language,
            "toolchord.caller": note.caller,
            "toolchord.dry_run": note.dry_run,
            "toolchord.replay": note.offline,
        }
        if isinstance(note.code, str):
            attributes["toolchord.code.sha256"] = hashlib.sha256(note.code.encode("utf-8", "replace")).hexdigest()
            if self.content:
                attributes["gen_ai.tool.call.arguments"] = as_text({"code": note.code})
        earlier = self._span_context(note.journal.traceparent)
        links = [Link(earlier, {"toolchord.link": "earlier_attempt"})] if earlier is not None else None
        began = time.time_ns()
        span, leave = self._enter(f"execute_tool {RUN_CODE}", attributes, links)
        if (mine := span.get_span_context()).is_valid:
            note.journal.traceparent = f"00-{mine.trace_id:032x}-{mine.span_id:016x}-{mine.trace_flags:02x}"

        def end() -> None:
            leave()
            spent = spent_by(note.result) if note.result is not None else None
            self._guest(note, span, began)
            if span.is_recording():
                span.set_attributes(self._outcome(note, spent))
                self._replays(note, span)
                self._run_error(note, span)
            self.metrics.run(note, spent)
            span.end()

        return end

    def _outcome(self, note: RunNote, spent: Mapping[str, Any] | None) -> Attributes:
        attributes: Attributes = {"toolchord.run.id": note.run_id, "toolchord.run.status": note.status}
        if (result := note.result) is None:
            return attributes
        calls = result.calls
        attributes |= {
            "toolchord.calls": len(calls),
            "toolchord.calls.failed": sum(call.status == "error" for call in calls),
            "toolchord.calls.replayed": sum(call.replayed for call in calls),
            "toolchord.calls.held": sum(call.held for call in calls),
            "toolchord.calls.paused": sum(call.status == "paused" for call in calls),
            **(spent or {}),
        }
        if result.error is not None:
            attributes["toolchord.run.error.kind"] = result.error.kind
            attributes |= {"toolchord.run.error.line": result.error.line} if result.error.line else {}
            attributes |= {"toolchord.limit.reached": result.error.limit} if result.error.limit else {}
        if self.content:
            calls = [replace(call, arguments={}, error=None) if call.private else call for call in result.calls]
            attributes["gen_ai.tool.call.result"] = as_text(replace(result, calls=calls).for_model())
        return attributes

    def _replays(self, note: RunNote, span: Span) -> None:
        """Calls that were answered from the record are events: nothing ran."""
        calls = note.result.calls if note.result is not None else []
        for call in [one for one in calls if one.replayed][:_EVENTS]:
            told: Attributes = {"gen_ai.tool.name": name_of(call.tool), "toolchord.call.number": call.id}
            span.add_event("toolchord.call.replayed", {**told, "toolchord.call.line": call.line})

    def _run_error(self, note: RunNote, span: Span) -> None:
        failed = note.result.error if note.result is not None else None
        if note.status == "raised" and note.error is not None:
            self._failed(span, type_of(note.error), message_of(note.error), RUN_CODE, note.error)
        elif note.status == "failed" and failed is not None:
            tell = self.content or failed.kind in _OURS
            message = masked(failed.message, MESSAGE) if tell else ""
            told = masked(failed.traceback, MESSAGE) if self.content else ""
            self._failed(span, clean(failed.type[:100]), message, RUN_CODE, stacktrace=told)

    def _guest(self, note: RunNote, parent: Span, began: int) -> None:
        """The guest's span, which is written when it is gone: what came of it is known to the host only then."""
        result, times = note.result, note.guest
        if not times.wanted and not (result is not None and result.usage.bytes_out):
            return
        attributes: Attributes = {
            "gen_ai.operation.name": "run_program",
            "toolchord.run.id": note.run_id,
            "toolchord.guest.reused": not times.wanted,
            "toolchord.limit.wall_time": note.limits.wall_time,
            "toolchord.limit.cpu_time": note.limits.cpu_time,
            "toolchord.limit.memory": note.limits.memory,
            "toolchord.limit.tool_calls": note.limits.tool_calls,
        }
        if times.there:
            attributes["toolchord.guest.start_time"] = (times.there - times.wanted) / 1e9
        if times.peak_memory:
            attributes["toolchord.guest.peak_memory"] = times.peak_memory
        if result is not None:
            usage = result.usage
            attributes |= {
                "toolchord.guest.cpu_time": usage.cpu_time,
                "toolchord.guest.host_time": usage.host_time,
                "toolchord.guest.bytes_in": usage.bytes_in,
                "toolchord.guest.bytes_out": usage.bytes_out,
            }
        span = self.tracer.start_span(
            "run_program",
            trace.set_span_in_context(parent, context.get_current()),
            SpanKind.INTERNAL,
            attributes,
            start_time=times.wanted or began,
        )
        if times.there:
            span.add_event("toolchord.guest.ready", timestamp=times.there)
        failed = result.error if result is not None else None
        if failed is not None and failed.kind in ("limit", "died", "protocol"):
            span.set_attribute("error.type", failed.limit or failed.type)
            span.set_status(Status(StatusCode.ERROR, masked(failed.message, MESSAGE)))
        span.end()
        self.metrics.guest(note)

    # calls

    def _call(self, note: CallNote) -> Callable[[], None] | None:
        tool, identity = note.call.tool, note.identity
        if tool is not None and tool.metadata.source == "langchain" and foreign_span() is not None:
            return None  # LangChain's callbacks tell of its tools
        name = name_of(identity.tool)
        attributes: Attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "function",
            "toolchord.call.number": identity.number,
        }
        if identity.line:
            attributes["toolchord.call.line"] = identity.line
        if note.run is not None:
            attributes["toolchord.run.id"] = note.run.run_id
            attributes["gen_ai.tool.call.id"] = f"{note.run.run_id}.{identity.number}"
        if tool is not None and tool.metadata.description:
            attributes["gen_ai.tool.description"] = clean(shorten(tool.metadata.description, MESSAGE))
        private = tool is not None and tool.metadata.replay == "never"
        content = self.content and not private
        if content and not note.call.large:
            attributes["gen_ai.tool.call.arguments"] = as_text(dict(note.call.arguments))
        decision = decision_about(note)
        # A name that the program made up goes into no span's name.
        span, leave = self._enter(f"execute_tool {name}" if tool is not None else "execute_tool", attributes)

        def end() -> None:
            leave()
            if span.is_recording():
                span.set_attributes(self._call_outcome(note, decision or decision_about(note), content))
                self._call_error(note, span, name, content, private)
            self.metrics.call(note, name if tool is not None else OTHER, type_of(note.cause) or note.error_type)
            span.end()

        return end

    def _call_outcome(self, note: CallNote, decision: str | None, content: bool) -> Attributes:
        attributes: Attributes = {"toolchord.call.status": note.status}
        if note.identity.cost:
            attributes["toolchord.cost"] = note.identity.cost
        if decision is not None:
            attributes["toolchord.call.approval"] = decision
        if (outcome := note.outcome) is not None:
            attributes["toolchord.call.ran"] = outcome.ran
            attributes["toolchord.call.result_bytes"] = outcome.size
            if content and outcome.ok and outcome.size <= _DECODED:
                attributes["gen_ai.tool.call.result"] = as_text(outcome.value())
        return attributes

    def _call_error(self, note: CallNote, span: Span, name: str, content: bool, private: bool) -> None:
        error = note.cause if note.status == "error" else note.error if note.status == "raised" else None
        if note.status not in ("error", "raised"):
            return
        message, stacktrace = "", ""
        told = note.outcome.error if note.outcome is not None else None
        if content or not (private or isinstance(error, InvalidArguments)):  # which repeats the arguments
            message = masked(told[1], MESSAGE) if told is not None else message_of(error)
        self._failed(span, type_of(error) or (told[0] if told else OTHER), message, name, error, stacktrace)

    # tasks

    def _task(self, note: TaskNote) -> Callable[[], None]:
        attributes: Attributes = {"gen_ai.operation.name": "invoke_agent", "toolchord.way": note.way}
        if note.model:
            attributes["gen_ai.request.model"] = clean(str(note.model))
        span, leave = self._enter("invoke_agent", attributes)

        def end() -> None:
            leave()
            if (run := note.run) is not None:
                turns, read, written = note.before
                told: Attributes = {
                    "toolchord.task.stop": run.stop,
                    "toolchord.task.turns": run.turns - turns,
                    "toolchord.task.programs": len(run.attempts),
                    "toolchord.task.plain_calls": len(run.plain_calls),
                }
                if run.usage is not None:
                    told["gen_ai.usage.input_tokens"] = run.usage.input_tokens - read
                    told["gen_ai.usage.output_tokens"] = run.usage.output_tokens - written
                span.set_attributes(told)
            elif note.error is not None and isinstance(note.error, Exception):
                self._failed(span, type_of(note.error), message_of(note.error), "", note.error)
            self.metrics.task(note)
            span.end()

        return end

    # what they share

    def _enter(
        self, name: str, attributes: Attributes, links: list[Link] | None = None
    ) -> tuple[Span, Callable[[], None]]:
        """A span that is current until the function that comes with it is called."""
        where = around()
        span = self.tracer.start_span(name, where, SpanKind.INTERNAL, attributes, links)
        token = context.attach(trace.set_span_in_context(span, where))
        return span, lambda: context.detach(token)

    def _failed(
        self,
        span: Span,
        type_name: str | None,
        message: str,
        tool: str,
        error: BaseException | None = None,
        stacktrace: str = "",
    ) -> None:
        """Say that what a span is about failed, and why."""
        span.set_attribute("error.type", type_name or OTHER)
        span.set_status(Status(StatusCode.ERROR, message or None))
        told = {"exception.type": type_name or OTHER}
        if message:
            told["exception.message"] = message
            if error is not None:
                stacktrace = masked(f"{stack_of(error)}{type_name}: {message}", TEXT)
        if stacktrace:
            told["exception.stacktrace"] = stacktrace
        if self._as_span_events:
            span.add_event("exception", told)
        if self._as_logs:
            event = "gen_ai.execute_tool.exception" if tool else "gen_ai.client.operation.exception"
            where = trace.set_span_in_context(span)
            if tool:
                told["gen_ai.tool.name"] = tool
            record = LogRecord(
                timestamp=time.time_ns(),
                context=where,
                severity_number=SeverityNumber.WARN,
                event_name=event,
                attributes=told,
            )
            self._logger.emit(record)

    def _span_context(self, traceparent: str) -> trace.SpanContext | None:
        if not traceparent:
            return None
        found = trace.get_current_span(self._propagator.extract({"traceparent": traceparent}, context.Context()))
        return found.get_span_context() if found.get_span_context().is_valid else None

    def inject(self) -> dict[str, str]:
        """See `observing.Propagator`. Baggage is left out: it may hold what is none of a server's business."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    def extract(self, carrier: Mapping[str, str]) -> Callable[[], None]:
        """See `observing.Propagator`."""
        token = context.attach(self._propagator.extract(carrier, context.get_current()))
        return lambda: context.detach(token)
