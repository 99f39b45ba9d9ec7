"""The core alone: built as a wheel, installed with its plain dependencies, it works with no framework near it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOREIGN = (
    "langchain langchain_core langgraph llama_index anthropic openai mcp ray rich opentelemetry httpx psycopg "
    "psycopg_pool requests"
).split()

SCRIPT = """
import json, sys, importlib.util
import toolchord
from toolchord import CodeSandbox, Limits, ToolSpec, format_tools_for_llm, create_registry
before = sorted(sys.modules)
def add(a: int, b: int = 1) -> int:
    "Add two numbers."
    return a + b
with CodeSandbox(tools=[add]) as sandbox:
    result = sandbox.execute_sync("sum([add(a=n, b=n) for n in range(5)])")
print(json.dumps({
    "value": result.value,
    "error": str(result.error),
    "text": result.for_model(),
    "modules": sorted(sys.modules),
    "installed": [name for name in sys.argv[1:] if importlib.util.find_spec(name)],
    "home": toolchord.__file__,
}))
"""


def call(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return ended.stdout


@pytest.mark.slow
def test_the_wheel_works_in_a_clean_environment_without_frameworks_and_sdks(tmp_path: Path) -> None:
    quiet = ("--quiet", "--disable-pip-version-check")
    call(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        *quiet,
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        ROOT,
        cwd=tmp_path,
    )
    (wheel,) = tmp_path.glob("toolchord-*.whl")
    call(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    call(python, "-m", "pip", "install", *quiet, wheel, cwd=tmp_path)
    seen = json.loads(call(python, "-c", SCRIPT, *FOREIGN, cwd=tmp_path))
    assert (seen["value"], seen["error"], seen["text"]) == (20, "None", "20")
    assert seen["home"].startswith(str(tmp_path))
    assert seen["installed"] == []
    assert {name.partition(".")[0] for name in seen["modules"]}.isdisjoint(FOREIGN)


def test_importing_toolchord_here_loads_no_framework_though_some_are_installed() -> None:
    seen = json.loads(call(sys.executable, "-c", SCRIPT, *FOREIGN, cwd=ROOT))
    assert seen["installed"], "none is installed here: this proves nothing"
    assert {name.partition(".")[0] for name in seen["modules"]}.isdisjoint(FOREIGN)
