"""Prints what a coverage run came to, by package: statements, and branches, that the tests have run.

A guest's code runs in a process that was started with an empty environment and may open no file, so a guest's own
lines are not measured; of `toolchord_guest` only what the host and the tests import themselves is counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_NOTE = "toolchord_guest: only what runs in the host is measured; confined guests can write no figures."
_COUNTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def table(report: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a table, from coverage's JSON report: one for each package, and their sum."""
    packages: dict[str, list[int]] = defaultdict(lambda: [0] * len(_COUNTS))
    for name, file in report["files"].items():
        package = Path(name).parts[1]  # below core/ or integrations/
        for n, count in enumerate(_COUNTS):
            packages[package][n] += file["summary"][count]
    yield f"{'package':<24} {'statements':>10} {'run':>6} {'branches':>10} {'run':>6}"
    whole = [sum(counts) for counts in zip(*packages.values(), strict=True)]
    for package, (statements, lines, branches, taken) in [*sorted(packages.items()), ("all", whole)]:
        yield f"{package:<24} {statements:>10,} {_share(lines, statements)} {branches:>10,} {_share(taken, branches)}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:>5.1f}%" if whole else f"{'-':>6}"


def main() -> None:
    """Read the data that `coverage combine` left in this folder."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run([sys.executable, "-m", "coverage", "json", "--quiet", "-o", file.name], check=True)
        print("\n".join(table(json.load(file))))
    print(_NOTE)


if __name__ == "__main__":
    main()
