"""``make savings``: runs the workloads in every way, shows tables, compares them with the figures that are kept."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks.savings import page, picture, tables
from benchmarks.savings.figures import KEPT, WORKLOADS, Figures, chosen, measure
from benchmarks.savings.measure import Cost

NOTE = """\
The "model" is a script: it makes no mistake and thinks nothing. Tools really run, programs in
the sandbox; every answer, result and effect is held against the ground truth. Tokens
(o200k_base): each request's whole input (instructions, tools, history), and its output.
docs/savings.md says what that means."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.savings", description=__doc__)
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS), help="only this one; may be repeated")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N tasks of each workload")
    parser.add_argument("--json", metavar="FILE", help='write all figures to a file, "-" for standard output')
    parser.add_argument(
        "--write", action="store_true", help="bring the kept figures, docs/savings.md and its picture up to date"
    )
    options = parser.parse_args(argv)
    if options.limit is not None and options.limit < 1:
        parser.error("--limit must be at least 1")
    if options.write and (options.workload or options.limit):
        parser.error("--write takes all workloads: leave --workload and --limit out")
    return options


def as_json(figures: Figures) -> list[dict[str, Any]]:
    """Every conversation as plain data."""
    return [
        {
            "workload": workload,
            "task": task,
            "way": way,
            **cost.as_json(),
            "tools": figures.fixed[workload, task].as_json(),
        }
        for (workload, task, way), cost in figures.costs.items()
    ]


def differences(figures: Figures, kept: Figures) -> list[str]:
    """Where what was measured is not what is kept."""
    nothing = Cost()
    return [
        f"{' / '.join(key)}: {kept.costs.get(key, nothing).tokens:,} kept, {cost.tokens:,} measured"
        for key, cost in figures.costs.items()
        if kept.costs.get(key) != cost
    ]


def main(argv: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Measure; 0 if all is right and as kept, 1 if not, 2 if it could not run."""
    options = arguments(argv)
    console = console or Console(stderr=options.json == "-")
    try:
        tasks = chosen(options.workload or WORKLOADS, options.limit)
    except OSError as error:
        console.print(f"[red]{escape(str(error))}")
        return 2
    with console.status("Running") as status:
        figures = asyncio.run(measure(tasks, told=lambda workload, task: status.update(f"{workload}: {task}")))
    for made in (
        tables.ways,
        tables.questions,
        tables.bfcl,
        tables.losers,
        tables.fixed,
        tables.cached,
        tables.grid,
        tables.even,
    ):
        if (table := made(figures)).rows:
            console.print(table.rich())
    console.print(NOTE, style="dim", highlight=False)
    if options.json:
        text = json.dumps(as_json(figures), indent=1) + "\n"
        sys.stdout.write(text) if options.json == "-" else Path(options.json).write_text(text, encoding="utf-8")
    for key in figures.wrong:
        console.print(f"[red]not as the ground truth has it: {escape(' / '.join(key))}")
    if figures.wrong:
        return 1
    if options.write:
        KEPT.write_text(figures.dumps(), encoding="utf-8")
        page.PAGE.write_text(page.filled(page.PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")
        picture.draw(figures)
        console.print("Written: the kept figures, docs/savings.md, docs/savings.svg")
        return 0
    if changed := differences(figures, Figures.kept()):
        console.print(f"[yellow]{len(changed)} figures are not those that are kept; --write keeps these:")
        console.print("\n".join(changed[:10]), highlight=False)
        return 1
    console.print("[green]All figures are those that are kept.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
