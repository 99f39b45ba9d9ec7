"""The sandbox under attack, as the harness of the escape corpus runs it; the file's name says in which language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolchord import CodeSandbox, Limits

LANGUAGE: Any = Path(__file__).stem.removeprefix("escape_adapter").removeprefix("_") or "restricted"


def run(code: str, tools: dict[str, Any], lim: dict[str, Any]) -> tuple[str, Any, str]:
    """(status, the global `result`, everything that came out as text)."""
    limits = Limits(wall_time=lim["wall"], cpu_time=lim["wall"], memory=lim["mem"])
    with CodeSandbox(tools=tools, limits=limits, language=LANGUAGE) as sandbox:
        result = sandbox.execute_sync(code + "\nresult")
    if result.error is None:
        return "done", result.value, result.stdout + result.stderr
    text = result.for_model(100_000) + str(result.error) + result.error.traceback
    return result.error.type, None, result.stdout + result.stderr + text
