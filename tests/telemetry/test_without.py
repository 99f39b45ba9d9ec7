"""Without OpenTelemetry: the core works, and says what to install when it is asked to tell of itself."""

from __future__ import annotations

import subprocess
import sys

BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
"""

RUNS = """
from toolchord import CodeSandbox
import toolchord_langchain, toolchord_mcp
def add(a: int, b: int) -> int: return a + b
with CodeSandbox(tools=[add]) as sandbox:
    assert sandbox.execute_sync("add(1, 2)").value == 3
assert not [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]
try:
    from toolchord import telemetry
except ImportError as error:
    print(type(error).__name__, error)
"""


def test_the_core_runs_and_names_the_extra() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", BLOCKED + RUNS], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == (
        "MissingExtraError toolchord.telemetry needs an extra: pip install 'toolchord[telemetry]'"
    )


def test_who_does_not_ask_for_it_does_not_load_it() -> None:
    script = "import sys, toolchord; print([n for n in sys.modules if n.partition('.')[0] == 'opentelemetry'])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout.strip() == "[]", ended.stderr
