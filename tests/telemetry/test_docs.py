"""The page on telemetry: every block of Python runs, and what it says of names is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.telemetry.seen import instrumented, told
from toolchord import CodeSandbox, Limits, Orchestrator, Reply

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_five_minute_start_prints_what_it_says() -> None:
    first = BLOCKS[0]
    ended = python(first)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == re.findall(r"^# (.*)$", first, re.MULTILINE)


def test_the_other_blocks_run() -> None:
    provider = "from opentelemetry.sdk.trace import TracerProvider\nfrom toolchord import telemetry\n"
    provider += "provider = TracerProvider()\n"
    some = "\nfrom toolchord import CodeSandbox\nwith CodeSandbox() as sandbox:\n    sandbox.execute_sync('1')\n"
    # Nothing is sent: no span is made with this provider.
    ended = python(provider + "\n".join(BLOCKS[1:]) + some, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert ended.returncode == 0, ended.stderr
    assert '"status": "ok"' in ended.stderr


async def test_every_attribute_that_is_written_is_on_the_page() -> None:
    def pay(amount: float) -> None:
        raise ValueError

    def model(messages: list[Any], tools: list[Any]) -> Reply:
        return Reply("No.")

    with instrumented(content=True) as seen:
        async with CodeSandbox(tools=[pay], limits=Limits(wall_time=10)) as sandbox:
            await sandbox.execute("pay(1)")
            await sandbox.execute("while True: pass", limits=Limits(cpu_time=0.1))
            await Orchestrator(model, sandbox).run("Hello.")
    names = {name for span in seen.spans for name in told(span)}
    written = set(re.findall(r"`([a-z0-9_.]+)`", PAGE))
    for name in sorted(names):
        head, _, tail = name.rpartition(".")
        assert name in written or f".{tail}" in written or head == "toolchord.limit", name
