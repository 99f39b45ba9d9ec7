"""Owns regression tests that are made of recorded runs: a run that went wrong once is kept, and replayed offline.

    toolchord record run.json --as-test tests/test_orders.py

writes such a test; it is yours to edit.
"""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path

import msgspec

from toolchord.catalogue import Catalogue, Source
from toolchord.comparing import compare
from toolchord.errors import ConfigurationError, InvalidArguments
from toolchord.limits import Limits
from toolchord.recording import RunRecord
from toolchord.results import ExecutionResult, shown
from toolchord.sandbox import CodeSandbox, Language
from toolchord.tools import waited
from toolchord.trace import Trace

__all__ = ["load_run", "misfits", "regression_test", "replay", "replayed"]

_LITERAL = 2000
_CALLS = 20


def load_run(path: str | os.PathLike[str]) -> Trace:
    """A run that was kept in a file: a trace, or a bare `RunRecord`, which is replayed to see what it did.

    Raises:
        ConfigurationError: there is no such file, or it holds no run.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{os.fspath(path)} can't be read: {error.strerror}") from None
    try:
        return Trace.from_json(data)
    except ConfigurationError as as_trace:
        try:
            record = RunRecord.from_json(data)
        except ConfigurationError:
            raise ConfigurationError(f"{os.fspath(path)}: {as_trace}; `toolchord run --record` keeps one") from None
    return _whole(Trace.of(replay(record)), record)


def _whole(trace: Trace, record: RunRecord) -> Trace:
    """The trace of a replayed record with what only the record knows."""
    return msgspec.structs.replace(trace, code=record.code, record=record, epoch=record.epoch)


def replay(record: RunRecord, limits: Limits | None = None) -> ExecutionResult:
    """Run a recorded program again from its record alone: no tool runs. See `CodeSandbox.replay`."""
    language: Language = "unrestricted" if record.language == "unrestricted" else "restricted"
    with CodeSandbox(limits=limits, language=language) as sandbox:
        result: ExecutionResult = waited(sandbox.replay(record))
        return result


def replayed(path: str | os.PathLike[str], limits: Limits | None = None) -> ExecutionResult:
    """Replay a run that was kept, and check that it goes the same way to the same end; for tests.

    Args:
        path: what `Trace.save`, or ``toolchord run --record``, wrote.
        limits: what it may spend; give those of the original if it needed more than `Limits()`.

    Returns:
        What the replay left, for more to be checked.

    Raises:
        AssertionError: it ended in another way, with the differences.
        ConfigurationError: there is no such file, or no record in it.
    """
    kept = load_run(path)
    if kept.record is None:
        raise ConfigurationError(f"{os.fspath(path)} holds no record; keep it with Trace.save(path)")
    result = replay(kept.record, limits)
    if went_on_to_its_record(kept, result):
        return result
    if difference := compare(kept, Trace.of(result)):
        raise AssertionError(f"{os.fspath(path)} replays in another way.\n\n{difference}")
    return result


def was_cut_off(trace: Trace) -> bool:
    """Whether the run ended before its program did, so that a replay ends with the record."""
    return trace.status in ("paused", "running") or (
        trace.error is not None and trace.error.kind in ("limit", "died", "protocol")
    )


def went_on_to_its_record(kept: Trace, again: ExecutionResult) -> bool:
    """Whether a run that was cut off was replayed as far as its record goes; the rest never happened."""
    if not was_cut_off(kept) or kept.record is None or again.error is None:
        return False
    made, known = ([call.digest for call in calls] for calls in (again.calls, kept.calls))
    return again.error.position == len(kept.record.events) and made == known[: len(made)]


def misfits(trace: Trace, tools: Source) -> list[str]:
    """The calls of a run that today's tools would not take: one line each, for a tool that is gone or has changed.

    Args:
        trace: the run.
        tools: a registry, or whatever a sandbox takes as tools.
    """
    if trace.record is None:
        raise ConfigurationError("the trace holds no record; keep it with Trace.save(path)")
    result = replay(trace.record)
    catalogue = Catalogue.of(tools)
    lines = []
    for call in result.calls:
        exposed = catalogue.resolve(call.tool)
        if exposed is None:
            if call.tool not in ("search_tools", "describe_tool"):
                lines.append(f"line {call.line}: {catalogue.explain(call.tool)}")
            continue
        try:
            tool = exposed.tool.load()
            # A replay knows no parameters: what was given by position goes by number.
            positional = [value for name, value in call.arguments.items() if name.isdigit()]
            named = {name: value for name, value in call.arguments.items() if not name.isdigit()}
            tool.validate(tool.bind(positional, named))
        except InvalidArguments as error:
            if call.status != "error":  # it was refused then, too
                lines.append(f"line {call.line}: {error.message}")
    return lines


def regression_test(trace: Trace, record: str, *, name: str = "", tools: str | None = None) -> str:
    """The text of a regression test for a run.

    Args:
        trace: the run.
        record: the name of the file that holds it, beside the test.
        name: what the test is called, after ``test_``.
        tools: where the tools are, as ``module:attribute``: the calls must fit them, too.
    """
    name = re.sub(r"\W+", "_", (name or Path(record).stem).removeprefix("test_")).strip("_").lower() or "run"
    checks = [f"assert {text}" for text in _checks(trace)]
    imports = ["from pathlib import Path", ""]
    names = ["replayed"]
    if tools is not None:
        names += ["load_run", "misfits"]
        imports.append("from toolchord.loading import load_tools")
        checks.append(f"assert misfits(load_run(RUN), load_tools([{tools!r}])) == []")
    imports.append(f"from toolchord.testing import {', '.join(sorted(names))}")
    body = textwrap.indent("\n".join(["run = replayed(RUN)", *checks]), "    ")
    opening = '"""A recorded run: its program, with what its tools gave then, goes the same way. No tool runs."""'
    head = "\n".join([opening, "", *imports, "", f"RUN = Path(__file__).with_name({record!r})"])
    return f"{head}\n\n\ndef test_{name}() -> None:\n{body}\n"


def _checks(trace: Trace) -> list[str]:
    """What is true of the run, as Python expressions."""
    if was_cut_off(trace):
        return [f"[call.tool for call in run.calls][:{_CALLS}] == {[call.tool for call in trace.calls[:_CALLS]]!r}"]
    if trace.error is not None:
        known = (trace.error.type, trace.error.line)
        return ["run.error is not None", f"(run.error.type, run.error.line) == {known!r}"]
    checks = ["run.error is None"]
    if trace.record is not None:
        value = replay(trace.record).value
        literal = shown(value)
        if len(literal) <= _LITERAL and _is_literal(value):
            checks.append("run.value is None" if value is None else f"run.value == {literal}")
    return checks


def _is_literal(value: object) -> bool:
    """Whether its repr is Python that gives it again."""
    if isinstance(value, float):
        return value == value and value not in (float("inf"), float("-inf"))
    if isinstance(value, int):
        return value.bit_length() < 10_000  # more digits are not read, or written
    if isinstance(value, list | tuple | set):
        return (bool(value) or not isinstance(value, set)) and all(map(_is_literal, value))
    if isinstance(value, dict):
        return all(_is_literal(key) and _is_literal(item) for key, item in value.items())
    return value is None or isinstance(value, str | bytes)
