"""The log: fields that formatters can read, through the standard library, structlog and a JSON formatter."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
from opentelemetry import trace
from pythonjsonlogger.json import JsonFormatter

from tests.telemetry.seen import instrumented
from toolchord import CodeSandbox, Orchestrator, Reply, ToolRequest


def search(words: str) -> list[str]:
    """Find documents."""
    return [f"the-answer-to {words}"]


def fail() -> None:
    """Fail."""
    raise ValueError("the-reason")


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("toolchord")
    handlers = list(logger.handlers)
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(logging.NOTSET)


def handled(logger: logging.Logger, formatter: logging.Formatter, level: int) -> io.StringIO:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    logger.setLevel(level)
    return stream


async def run_some() -> None:
    async with CodeSandbox(tools=[search, fail]) as sandbox:
        assert (await sandbox.execute("search('the-question')")).ok
        assert not (await sandbox.execute("search('the-question')\nfail()")).ok


async def test_a_json_formatter_writes_a_line_for_each_run_and_call(logger: logging.Logger) -> None:
    stream = handled(logger, JsonFormatter("%(levelname)s %(name)s %(message)s"), logging.DEBUG)
    await run_some()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["levelname"], line.get("tool"), line["status"]) for line in lines] == [
        ("DEBUG", "default.search", "ok"),
        ("INFO", None, "ok"),
        ("DEBUG", "default.search", "ok"),
        ("DEBUG", "default.fail", "error"),
        ("INFO", None, "failed"),
    ]
    call, run = lines[3], lines[4]
    assert call["run_id"] == run["run_id"] != lines[1]["run_id"]
    assert (call["call"], call["line"], call["error_type"]) == (2, 2, "ValueError")
    assert (run["calls"], run["line"], run["error_type"], run["error_kind"]) == (2, 2, "ValueError", "program")
    assert run["duration"] >= call["duration"] >= 0
    assert "the-" not in stream.getvalue()  # no arguments, results or messages


async def test_a_program_writes_no_lines_of_its_own(logger: logging.Logger) -> None:
    stream = handled(logger, logging.Formatter("%(levelname)s %(message)s"), logging.DEBUG)
    async with CodeSandbox(tools=[search]) as sandbox:
        await sandbox.execute("call_tool('x\\nINFO forged')")
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == ["DEBUG", "INFO"]


async def test_structlog_renders_the_fields_beside_its_own(logger: logging.Logger) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
    )
    stream = handled(logger, formatter, logging.INFO)
    await run_some()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["level"], line["status"], line["calls"]) for line in lines] == [
        ("info", "ok", 1),
        ("info", "failed", 2),
    ]
    assert all(line["event"].startswith(f"run {line['run_id']}: ") for line in lines)


async def test_a_line_is_written_where_its_span_is_current(logger: logging.Logger) -> None:
    seen_spans: list[str] = []

    class Correlating(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            context = trace.get_current_span().get_span_context()
            seen_spans.append(f"{context.span_id:016x}")

    logger.addHandler(Correlating())
    logger.setLevel(logging.DEBUG)
    with instrumented() as seen:
        async with CodeSandbox(tools=[search]) as sandbox:
            await sandbox.execute("search('a')")
    spans = [seen.one("execute_tool search"), seen.one("execute_tool run_code")]
    assert seen_spans == [f"{span.context.span_id:016x}" for span in spans if span.context is not None]


async def test_a_task_has_a_line_of_its_own(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    logger.setLevel(logging.INFO)
    replies = [Reply(calls=[ToolRequest("1", "run_code", {"code": "search('a')"})]), Reply("Done.")]
    async with CodeSandbox(tools=[search]) as sandbox:
        await Orchestrator(lambda messages, tools: replies.pop(0), sandbox, way="sandbox").run("Look.")
    told = [record.__dict__ for record in caplog.records if record.name == "toolchord"]
    assert [(one["levelname"], one["status"]) for one in told] == [("INFO", "ok"), ("INFO", "answered")]
    assert (told[1]["turns"], told[1]["programs"]) == (2, 1)


QUIET = """
from toolchord import CodeSandbox
def fail(): raise ValueError("no")
with CodeSandbox(tools=[fail]) as sandbox:
    assert not sandbox.execute_sync("fail()").ok
"""


def test_nothing_is_written_unless_an_application_asks_for_it() -> None:
    ended = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
