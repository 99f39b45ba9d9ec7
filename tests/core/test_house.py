"""The house's own rules: public names, which room imports which, how long a module is, what the text may name."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import pytest

import toolchord
from toolchord import CodeSandbox, ExecutionResult, Limits, RunError, errors

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "core").rglob("*.py"))
FRAMEWORKS = {"langchain", "langchain_core", "langgraph", "llama_index", "anthropic", "openai", "mcp", "ray"}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def test_the_names_that_others_write_against_are_there() -> None:
    promised = (
        "CodeSandbox Limits ExecutionResult ToolSpec ToolCapability ValidatedTool register_tool create_registry "
        "get_default_registry format_tools_for_llm"
    )
    assert set(promised.split()) <= set(toolchord.__all__)
    assert all(hasattr(toolchord, name) for name in toolchord.__all__)
    assert sorted(toolchord.__all__) == toolchord.__all__


def test_every_error_belongs_to_the_tree_and_to_one_family() -> None:
    for name in errors.__all__:
        error = getattr(errors, name)
        assert issubclass(error, errors.ToolchordError) or error is errors.CallPaused  # it is no failure
        assert not (issubclass(error, errors.DeveloperError) and issubclass(error, errors.ProgramError))
        assert f" {name} " in (errors.__doc__ or "").replace("\n", " \n") or name == "ToolchordError"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_what_it_may(path: Path) -> None:
    tops = {name.partition(".")[0] for name in imported(path)}
    assert not tops & FRAMEWORKS
    if "toolchord_guest" in path.parts:
        assert "toolchord" not in tops


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_what_it_owns_and_stays_short(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    opening = ast.get_docstring(tree)
    assert opening
    lines = text.count("\n")
    assert lines <= 460 or "lines" in opening, f"{lines} lines: split it, or say why in the opening"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 62, f"{node.name} is too long"


def test_nothing_committed_names_a_registry_or_this_machine() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    hosts = re.compile(
        "(" + "|".join(("py" + "pi.org", "python" + "hosted", "npm" + "js.org", "/ro" + "ot/", "/wo" + "rk/")) + ")"
    )
    texts = {".py", ".ipynb", ".md", ".toml", ".yml", ".yaml", ".cfg", ".txt", "", ".json"}
    for name in filter(None, listing):
        path = ROOT / name
        if path.is_file() and path.suffix in texts:
            found = hosts.search(path.read_text(errors="replace"))
            assert found is None, f"{name} names {found.group() if found else ''}"


async def typed_face() -> None:
    """Never run: mypy checks it."""
    sandbox = CodeSandbox(tools=[len], limits=Limits(wall_time=1.0))
    result = await sandbox.execute("1")
    assert_type(result, ExecutionResult)
    assert_type(result.error, RunError | None)
    assert_type(result.ok, bool)
    assert_type(sandbox.execute_sync("1"), ExecutionResult)
