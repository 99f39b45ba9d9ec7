"""The escape corpus: every payload ends as its header says, behind both walls and behind the second alone."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CORPUS = HERE.parent / "corpora" / "escapes"
ADAPTERS = {"both walls": HERE / "escape_adapter.py", "wall two alone": HERE / "escape_adapter_unrestricted.py"}
REFUSALS = {"ProgramRefused", "LimitExceeded", "GuestDied", "UnsupportedValue"}
ENDS = REFUSALS | {"done", "SyntaxError", "MemoryError", "RecursionError"}
"""How a run may end besides an exception of the program's own."""

HOST_SIDE = {"adapter-error", "None", "report poisoned", "ReplayDivergence"}


def harness(adapter: Path, folder: str, report: Path) -> list[dict[str, Any]]:
    """Run the corpus's own harness, unedited; its report."""
    command: list[str | Path] = [
        sys.executable,
        CORPUS / "harness.py",
        adapter,
        "--python",
        sys.executable,
        "--dir",
        folder,
        "--jobs",
        "1",  # pytest itself may run two of these at a time, and a payload is timed
    ]
    ended = subprocess.run([*command, "--json", report], capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(report.read_text())
    assert len(found) == len(list((CORPUS / folder).glob("*.py")))
    return found


def unlike_its_header(payload: dict[str, Any]) -> str:
    """Why a payload did not end as its header says; empty if it did."""
    status = str(payload["status"])
    if payload["through"]:
        return "got through"
    if status in HOST_SIDE or not status.isidentifier():
        return f"the host reported {status!r}"
    if payload["expect"] in ("blocked", "limited") and "SURVIVED" in payload["shown"]:
        # A payload that hangs may also just be over in time: that is no escape, and the harness says so too.
        return "" if payload["observe"] == "hang" else "survived"
    if payload["expect"] == "limited" and payload["rss"] > 700:
        return f"{payload['rss']} MB"
    return ""


def table(results: list[dict[str, Any]]) -> str:
    """By category: payloads, how they ended, how many got through."""
    rows: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for payload in results:
        status = str(payload["status"])
        rows[payload["cat"]]["through" if payload["through"] else status if status in ENDS else "exception"] += 1
        rows[payload["cat"]]["all"] += 1
    columns = ["all", "through", *sorted({end for row in rows.values() for end in row} - {"all", "through"})]
    lines = [f"{'category':20}" + "".join(f"{column:>18}" for column in columns)]
    lines += [
        f"{name:20}" + "".join(f"{row[column] or '-':>18}" for column in columns) for name, row in sorted(rows.items())
    ]
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("walls", ADAPTERS)
def test_no_payload_of_the_corpus_gets_through(walls: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = harness(ADAPTERS[walls], "payloads", tmp_path / "report.json")
    with capsys.disabled():
        print(f"\n{walls}\n{table(results)}")
    wrong = {payload["file"]: why for payload in results if (why := unlike_its_header(payload))}
    assert wrong == {}
    by_category = collections.Counter(payload["cat"] for payload in results)
    assert len(by_category) == 24


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("walls", ADAPTERS)
def test_every_ordinary_program_of_the_corpus_runs(walls: str, tmp_path: Path) -> None:
    results = harness(ADAPTERS[walls], "benign", tmp_path / "report.json")
    assert {program["file"]: program["got"] for program in results if program["through"]} == {}
