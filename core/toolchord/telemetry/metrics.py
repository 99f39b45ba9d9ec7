"""Owns the instruments: durations as the conventions have them, and counts of our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import metrics

from toolchord.instructions import RUN_CODE
from toolchord.observing import CallNote, RunNote, TaskNote
from toolchord.telemetry.words import OTHER, Attributes, known_type, name_of, type_of

# Boundaries of the conventions' histograms, in seconds.
_TOOL_SECONDS = [0.01 * 2**n for n in range(14)]
_AGENT_SECONDS = [0.1 * 2**n for n in range(13)]


class Metrics:
    """The instruments; attributes are few, and none is a program's own word."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._tool = meter.create_histogram(
            "gen_ai.execute_tool.duration",
            unit="s",
            description="Measures the duration of a tool execution.",
            explicit_bucket_boundaries_advisory=_TOOL_SECONDS,
        )
        self._agent = meter.create_histogram(
            "gen_ai.invoke_agent.duration",
            unit="s",
            description="Measures the duration of an in-process agent invocation.",
            explicit_bucket_boundaries_advisory=_AGENT_SECONDS,
        )
        self._start = meter.create_histogram(
            "toolchord.guest.start_time",
            unit="s",
            description="From asking for a guest to having it.",
            explicit_bucket_boundaries_advisory=[0.0005 * 2**n for n in range(14)],
        )
        self._cpu = meter.create_counter("toolchord.guest.cpu_time", "s", "CPU time that programs used.")
        self._runs = meter.create_counter("toolchord.runs", "{run}", "Programs that ran.")
        self._calls = meter.create_counter("toolchord.calls", "{call}", "Calls that were served, or answered.")
        self._bytes = meter.create_counter(
            "toolchord.results.bytes", "By", "Results of tools that went to programs instead of a model's context."
        )
        self._tokens = meter.create_up_down_counter(
            "toolchord.tokens.saved", "{token}", "Estimated tokens that stayed out of a model's context."
        )
        self._cost = meter.create_counter("toolchord.cost", "1", "What calls cost, in the application's own money.")

    def run(self, note: RunNote, spent: Mapping[str, Any] | None) -> None:
        failed = note.result.error if note.result is not None else None
        attributes: Attributes = {"toolchord.run.status": note.status}
        if failed is not None:
            attributes["toolchord.run.error.kind"] = failed.kind
        self._runs.add(1, attributes)
        told: Attributes = {"gen_ai.tool.name": RUN_CODE, "gen_ai.tool.type": "function"}
        if note.status == "raised":
            told["error.type"] = type_of(note.error)
        elif note.status == "failed" and failed is not None:
            told["error.type"] = known_type(failed)
        self._tool.record(note.duration, told)
        for call in note.result.calls if note.result is not None else ():
            if call.replayed:
                known = not (call.error is not None and call.error[0] == "ToolNotAvailable")
                name = name_of(call.tool) if known else OTHER
                self._calls.add(1, {"gen_ai.tool.name": name, "toolchord.call.status": "replayed"})
        if spent is not None:
            self._bytes.add(spent["toolchord.results.bytes"])
            self._tokens.add(spent["toolchord.tokens.saved"])

    def guest(self, note: RunNote) -> None:
        if note.guest.there:
            self._start.record((note.guest.there - note.guest.wanted) / 1e9)
        if note.result is not None:
            self._cpu.add(note.result.usage.cpu_time)

    def call(self, note: CallNote, name: str, error_type: str | None) -> None:
        self._calls.add(1, {"gen_ai.tool.name": name, "toolchord.call.status": note.status})
        if note.identity.cost:
            self._cost.add(note.identity.cost, {"gen_ai.tool.name": name})
        if note.status in ("held", "paused") or (note.outcome is not None and not note.outcome.ran and note.outcome.ok):
            return  # no tool was executed
        attributes: Attributes = {"gen_ai.tool.name": name, "gen_ai.tool.type": "function"}
        if error_type is not None:
            attributes["error.type"] = error_type
        self._tool.record(note.duration, attributes)

    def task(self, note: TaskNote) -> None:
        attributes: Attributes = {"gen_ai.request.model": str(note.model)} if note.model else {}
        if note.error is not None:
            attributes["error.type"] = type_of(note.error)
        self._agent.record(note.duration, attributes)
