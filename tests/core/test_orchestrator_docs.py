"""The page on the orchestrator: its snippets run, in order, and do what it says."""

from __future__ import annotations

import ast
import io
import re
import textwrap
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "orchestrator.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


async def run(code: str, scope: dict[str, Any]) -> str:
    """Run code that awaits at its top level; what it printed."""
    names = sorted(
        {n.id for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        | {n.name for n in ast.parse(code).body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
        | {a.asname or a.name for n in ast.parse(code).body if isinstance(n, ast.ImportFrom) for a in n.names}
    )
    exec(f"async def snippet():\n    global {', '.join(names)}\n{textwrap.indent(code, '    ')}", scope)
    printed = io.StringIO()
    with redirect_stdout(printed):
        await scope["snippet"]()
    return printed.getvalue()


async def test_every_snippet_runs_and_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # one of them writes a file
    scope: dict[str, Any] = {"__name__": "docs"}
    assert len(SNIPPETS) == 7
    first, openai, langchain, repaired, choice, native, shapes = SNIPPETS
    told = await run(first, scope)
    assert told.startswith("Ann's orders come to 55.50 euros.\n55.5\n2\n[CallRecord(id=1, tool='default.list_orders'")
    assert "programs run here" in told
    await run(openai, scope)
    await scope["client"].close()
    await run(langchain, scope)
    async with scope["CodeSandbox"](tools=[scope["list_orders"]]) as sandbox:
        scope["sandbox"] = sandbox
        await run(repaired, scope)
        assert scope["second"].value == 20.0
    chosen = (await run(choice, scope)).splitlines()
    assert chosen[0] == "native anthropic"
    assert "claude-haiku-4-5 is not known" in chosen[1]
    assert chosen[2:] == ["plain", "sandbox"]
    assert await run(native, scope) == "claude-opus-4-6 runs programs that call tools at its provider\n"
    await scope["claude"].close()
    told = await run(shapes, scope)
    assert "def profile(name: str) -> ProfileObserved" in told
    assert (tmp_path / "shapes.json").exists()


def test_a_small_table_of_the_page_is_the_measured_one() -> None:
    """Its ratios follow from its own figures."""
    row = r"^\| [a-z]+ \(.*?\) \| (\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \|$"
    rows = re.findall(row, PAGE.read_text(), re.MULTILINE)
    assert len(rows) == 9
    for _, together, _, program, ratio in rows:
        assert round(int(program.replace(",", "")) / int(together.replace(",", "")), 2) == float(ratio)
