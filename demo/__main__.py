"""``python -m demo``: asks every question in every way, shows the progress, then a table."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from demo import classic, data, programmatic, tokens
from demo.conversation import Outcome, Watch
from demo.models import LiveModel, Model, live_model
from demo.questions import QUESTIONS, Question
from demo.recorded import RecordedCaller, RecordedProgrammer
from demo.table import Row, progress_line, results
from demo.tools import registry
from toolchord import CodeSandbox, Limits

RECORDED = """\
[bold yellow]A recorded model answers; no live one is used.[/] What it says was written down
beforehand (demo/questions) and is replayed through the same loop that drives
a live one (--model). Real here: the data, the tool calls, the sandboxed runs,
the answers, the counted tokens. Not shown: a model's thinking time, and its
mistakes, but for one first program that fails.

  [bold]one call a turn[/]  classic: each turn replays one call, the history grows by it
  [bold]calls together[/]   classic at its best: calls that need not wait share a turn
  [bold]one program[/]      the model's program calls the tools, in the sandbox\
"""
NOTE = """\
Tokens (o200k_base): each request's whole input (system, tools, history), and
its output. change: all tokens, against the first way. SQL: the answer is the
one of plain SQL. Time: tools and sandbox, {model}.\
"""

Ask = Callable[[Watch], Awaitable[Outcome]]
Way = tuple[str, Ask]


def ways_of(question: Question, model: Model | None, sandbox: CodeSandbox, max_turns: int) -> list[Way]:
    """The ways to answer a question: two with a live model, three with the recorded one."""

    def calls(who: Model) -> Ask:
        return lambda watch: classic.ask(who, question.text, registry, max_turns=max_turns, watch=watch)

    def program(who: Model) -> Ask:
        return lambda watch: programmatic.ask(who, question.text, registry, sandbox, max_turns=max_turns, watch=watch)

    if model is not None:
        return [("single calls", calls(model)), ("one program", program(model))]
    return [
        ("one call a turn", calls(RecordedCaller(question.script(), together=False))),
        ("calls together", calls(RecordedCaller(question.script(), together=True))),
        ("one program", program(RecordedProgrammer(question.programs))),
    ]


def show(progress: Progress, line: TaskID, outcome: Outcome) -> None:
    """Bring a line of the progress up to date."""
    progress.update(line, figures=progress_line(outcome))


async def run(numbers: Sequence[int], model: LiveModel | None, console: Console, max_turns: int = 200) -> list[Row]:
    """Answer the questions of these numbers (from 1) in every way, by the recorded model if there is no other."""
    rows: list[Row] = []
    try:
        async with CodeSandbox(registry, limits=Limits(wall_time=60.0)) as sandbox:
            for number in numbers:
                rows += await answer(number, model, sandbox, console, max_turns)
    finally:
        if model is not None:
            await model.close()
    return rows


async def answer(number: int, model: Model | None, sandbox: CodeSandbox, console: Console, max_turns: int) -> list[Row]:
    """Answer one question in every way, with progress on the console."""
    question = QUESTIONS[number - 1]
    expected = await asyncio.to_thread(question.expected)
    rows: list[Row] = []
    console.print(f"\n[bold]{number} {question.title}.[/] {question.text}", highlight=False)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[figures]}")
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        for way, ask in ways_of(question, model, sandbox, max_turns):
            line = progress.add_task(f"{way:<15}", total=1, figures="")
            outcome = await ask(partial(show, progress, line))
            progress.update(line, completed=1)
            rows.append(Row(number, question, way, outcome, expected))
    if all(row.right for row in rows):
        console.print(f"  [green]Equal in every way, and by SQL:[/] {escape(json.dumps(expected))}", highlight=False)
    for row in rows:
        if not row.right:
            got = row.outcome.stopped or str(row.outcome.answer)
            console.print(
                f"  [red]{row.way}:[/] {escape(got)}; by SQL: {escape(json.dumps(expected))}", highlight=False
            )
    if question.remark and model is None:
        console.print(f"  {question.remark}", style="italic")
    return rows


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument(
        "--model",
        metavar="PROVIDER:NAME",
        help="a live model: openai:NAME (any OpenAI-compatible server, OPENAI_BASE_URL), anthropic:NAME, gguf:FILE",
    )
    parser.add_argument(
        "--question",
        type=int,
        action="append",
        choices=range(1, len(QUESTIONS) + 1),
        help="only this question; may be repeated",
    )
    parser.add_argument("--max-turns", type=int, default=200, help="stop a conversation after so many turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Run the demo; 0 if every answer is right, 1 if one is not, 2 if it could not run."""
    options = arguments(argv)
    console = console or Console()
    try:
        model = live_model(options.model) if options.model else None
        with console.status("Loading 336,776 flights"):
            data.database()
            tokens.encoder()
    except (ImportError, OSError, ValueError) as error:
        console.print(f"[red]{escape(str(error))}")
        return 2
    console.print(RECORDED if model is None else f"Live model: [bold]{model.name}[/]\n", highlight=False)
    rows = asyncio.run(run(options.question or range(1, len(QUESTIONS) + 1), model, console, options.max_turns))
    console.print(results(rows))
    thinking = "no model's time" if model is None else "and the model"
    console.print(NOTE.format(model=thinking), style="dim", highlight=False)
    if options.json:
        report = {"model": model.name if model else "recorded", "rows": [row.as_json() for row in rows]}
        options.json.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")
    return 0 if all(row.right for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
