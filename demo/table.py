"""What the demo shows at its end: the figures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from rich import box
from rich.table import Table

from demo.conversation import Outcome
from demo.questions import Question


@dataclass(frozen=True, slots=True)
class Row:
    """One question answered in one way; ``expected`` is the answer by plain SQL."""

    number: int
    question: Question
    way: str
    outcome: Outcome
    expected: dict[str, Any]

    @property
    def right(self) -> bool:
        """Whether the answer is the one of the SQL."""
        return same(self.outcome.answer, self.expected)

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        about = {"question": self.number, "title": self.question.title, "way": self.way}
        return about | asdict(self.outcome) | {"expected": self.expected, "right": self.right}


def same(answer: Any, expected: Any) -> bool:
    """Compare two answers; numbers to one decimal, texts without regard to case."""
    if isinstance(expected, dict):
        return isinstance(answer, dict) and all(k in answer and same(answer[k], v) for k, v in expected.items())
    if isinstance(expected, list):
        return isinstance(answer, list) and len(answer) == len(expected) and all(map(same, answer, expected))
    if isinstance(expected, float):
        return isinstance(answer, int | float) and abs(answer - expected) <= 0.0501
    return str(answer).strip().lower() == str(expected).strip().lower()


def progress_line(outcome: Outcome) -> str:
    """One line on a run, also while it is under way."""
    return f"{outcome.turns:>3} turns {outcome.tool_calls:>4} tool calls {outcome.tokens:>10,} tokens"


def change(tokens: int, first: int) -> str:
    """How many more or fewer tokens, in per cent."""
    return f"{(tokens - first) / first:+.1%}".replace("-", "\N{MINUS SIGN}") if first else ""


def total(outcomes: Sequence[Outcome]) -> Outcome:
    """Add up what several runs cost."""
    return Outcome(
        turns=sum(o.turns for o in outcomes),
        tokens_in=sum(o.tokens_in for o in outcomes),
        tokens_out=sum(o.tokens_out for o in outcomes),
        tool_calls=sum(o.tool_calls for o in outcomes),
        failed_programs=sum(o.failed_programs for o in outcomes),
        seconds=sum(o.seconds for o in outcomes),
    )


def results(rows: Sequence[Row]) -> Table:
    """The table, 80 columns wide; tokens are compared with the first way of the same question."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("Question, way", no_wrap=True)
    for heading in ("Turns", "Calls", "Tokens in", "out", "change", "Time"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("SQL")
    sections = [
        (f"{number} {group[0].question.title}", group)
        for number, group in ((n, list(g)) for n, g in groupby(rows, key=lambda row: row.number))
    ]
    for title, group in sections:
        table.add_row(f"[bold]{title}")
        for row in group:
            answer = "[green]=" if row.right else "[red]\N{NOT EQUAL TO}"
            failed = f", {row.outcome.failed_programs} failed" if row.outcome.failed_programs else ""
            figures = cells(row.way + failed, row.outcome, group[0].outcome)
            table.add_row(*figures, answer, end_section=row is group[-1])
    if len(sections) > 1:
        table.add_row("[bold]All questions")
        ways = {way: total([row.outcome for row in rows if row.way == way]) for way in (r.way for r in sections[0][1])}
        for way, outcome in ways.items():
            table.add_row(*cells(way, outcome, next(iter(ways.values()))))
    return table


def cells(way: str, outcome: Outcome, first: Outcome) -> list[str]:
    """The figures of one line of the table."""
    return [
        f"  {way}",
        str(outcome.turns),
        str(outcome.tool_calls),
        f"{outcome.tokens_in:,}",
        f"{outcome.tokens_out:,}",
        "" if outcome is first else change(outcome.tokens, first.tokens),
        f"{outcome.seconds:.2f} s",
    ]
