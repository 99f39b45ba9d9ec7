"""The corpus of ordinary programs: how each one runs here, and what CPython makes of it."""

from __future__ import annotations

import ast
import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent / "corpora" / "programs"
sys.path.insert(0, str(HERE))

tools_fixture: Any = import_module("tools_fixture")
PROBES: list[tuple[str, str]] = import_module("micro").M

TOOLS = {**tools_fixture.SYNC, **tools_fixture.ASYNC}
PROGRAMS = {path.stem: path.read_text() for path in sorted(HERE.glob("[0-9x][0-9]*.py"))}
EXPECTED: dict[str, Any] = json.loads((HERE / "expected.json").read_text())

POLICY = {"open() read file", "locals()/globals()", "eval/exec", "input()", "sys.exit avoided: import sys"}
"""Probes of what the language refuses."""


def normalised(value: Any) -> Any:
    """A value in the form of expected.json: sets sorted, tuples as lists, floats to 9 digits, keys as strings."""
    if isinstance(value, dict):
        return {str(key): normalised(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [normalised(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((normalised(item) for item in value), key=repr)
    if isinstance(value, float) and not isinstance(value, bool):
        return round(value, 9)
    return value


def cpython(code: str) -> tuple[str, Any]:
    """What CPython makes of a probe, in a thread without an event loop: ("value", it) or ("error", its type)."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_cpython, code).result()


def _awaits(code: str) -> bool:
    try:
        compile(code, "<probe>", "exec", dont_inherit=True)
        return False
    except SyntaxError:
        return True


def _cpython(code: str) -> tuple[str, Any]:
    if "open(" in code:  # not on this machine
        return "error", "refused"
    tools_fixture._Poll.n = 0
    scope: dict[str, Any] = {"__name__": "__main__", **TOOLS}
    try:
        top_level_await = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if _awaits(code) else 0
        compiled = compile(code, "<probe>", "exec", flags=top_level_await, dont_inherit=True)
        result = eval(compiled, scope)
        if asyncio.iscoroutine(result):
            asyncio.run(result)
        return "value", normalised(scope.get("result"))
    except BaseException as error:
        return "error", type(error).__name__
