"""`opentelemetry-instrument`: switched on from outside, without a changed line."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"

PROGRAM = """
from toolchord import CodeSandbox
def add(a: int, b: int) -> int: return a + b
with CodeSandbox(tools=[add]) as sandbox:
    assert sandbox.execute_sync("add(1, 2)").value == 3
"""


def test_the_command_switches_it_on_by_the_entry_point(tmp_path: Path) -> None:
    points = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]["opentelemetry_instrumentor"]
    # As the wheel has it: where an older version is installed beside this source, it has no such line yet.
    info = tmp_path / "toolchord_here-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toolchord-here\nVersion: 0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[opentelemetry_instrumentor]", *lines]))
    others = {point.name for point in entry_points(group="opentelemetry_instrumentor")} - points.keys()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(others),
    }
    command = Path(sys.executable).parent / "opentelemetry-instrument"
    ended = subprocess.run(
        [command, sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for name in ("execute_tool add", "execute_tool run_code", "run_program"):
        assert ended.stdout.count(f'"name": "{name}"') == 1, ended.stdout + ended.stderr
