"""Owns the tables made from the figures; each renders for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table as RichTable

from benchmarks.savings import breakeven
from benchmarks.savings.figures import WORKLOADS, Figures
from benchmarks.savings.ways import ONE_A_TURN, PROGRAM, TOGETHER, WAYS
from benchmarks.ways import CALLS, ROWS
from demo.table import change
from demo.tokens import count

REAL = ("team expenses", "flights", "BFCL multi-turn")
BFCL = "BFCL multi-turn"
BUCKETS = ((0.0, 1.0), (1.0, 1.5), (1.5, 2.0), (2.0, 9.9))
PRICES = ((1.0, 1.0), (1.0, 5.0), (0.5, 5.0), (0.1, 5.0))
"""Of an input token that was sent before, and of an output token, in new input tokens."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table: names of columns (the first holds words, the others figures), and rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """For a page."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

    def rich(self) -> RichTable:
        """For a terminal."""
        table = RichTable(title=self.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=not number)
        for row in self.rows:
            table.add_row(*row)
        return table


def ways(figures: Figures) -> Table:
    """Each workload in each way."""
    rows = []
    for workload in WORKLOADS:
        tasks = figures.tasks(workload)
        if not tasks or workload not in REAL:
            continue
        costs = {way: figures.cost(workload, way) for way in WAYS}
        for way, cost in costs.items():
            rows.append(
                [
                    f"{workload}: {way}",
                    f"{cost.requests:,}",
                    f"{cost.calls:,}",
                    f"{cost.tokens_in:,}",
                    f"{cost.tokens_out:,}",
                    f"{cost.tokens:,}",
                    "" if way == ONE_A_TURN else change(cost.tokens, costs[ONE_A_TURN].tokens),
                    "" if way in (ONE_A_TURN, TOGETHER) else change(cost.tokens, costs[TOGETHER].tokens),
                ]
            )
    columns = ["workload: way", "turns", "calls", "tokens in", "out", "all", "vs one a turn", "vs together"]
    return Table("What each way cost", columns, rows)


def questions(figures: Figures) -> Table:
    """The questions about flights, one by one."""
    rows = []
    for task in figures.tasks("flights"):
        cost = {way: figures.costs["flights", task, way] for way in WAYS}
        rows.append(
            [
                task,
                str(cost[ONE_A_TURN].calls),
                *(f"{cost[way].tokens:,}" for way in WAYS),
                change(cost[PROGRAM].tokens, cost[TOGETHER].tokens),
            ]
        )
    return Table("Flights, by question (all tokens)", ["question", "calls", *WAYS, "program vs together"], rows)


def ratio(figures: Figures, task: str, other: str = TOGETHER) -> float:
    """What a program of BFCL costs, in what another way does."""
    return figures.costs[BFCL, task, PROGRAM].tokens / figures.costs[BFCL, task, other].tokens


def per_turn(figures: Figures, task: str) -> float:
    """Calls of a BFCL conversation for each thing that the user says."""
    return figures.costs[BFCL, task, ONE_A_TURN].calls / figures.user_turns(BFCL, task)


def buckets(figures: Figures) -> Iterator[tuple[str, list[str]]]:
    """BFCL's conversations, by calls per user turn."""
    for low, high in BUCKETS:
        found = [task for task in figures.tasks(BFCL) if low < per_turn(figures, task) <= high]
        label = f"at most {high:g}" if not low else f"more than {low:g}" if high > 9 else f"{low:g} to {high:g}"
        if found:
            yield label, found
    if found := figures.tasks(BFCL):
        yield "all", found


def bfcl(figures: Figures) -> Table:
    """BFCL by calls per user turn: where programs lose, and where they do not."""
    rows = []
    for label, tasks in buckets(figures):
        cost = {way: figures.cost(BFCL, way, tasks) for way in WAYS}
        rows.append(
            [
                label,
                str(len(tasks)),
                f"{cost[ONE_A_TURN].requests:,} / {cost[TOGETHER].requests:,} / {cost[PROGRAM].requests:,}",
                *(change(cost[way].tokens, cost[ONE_A_TURN].tokens) for way in (TOGETHER, PROGRAM)),
                str(sum(ratio(figures, task, ONE_A_TURN) > 1 for task in tasks)),
                str(sum(ratio(figures, task) > 1 for task in tasks)),
            ]
        )
    columns = [
        "calls per user turn",
        "conversations",
        "turns: one / together / program",
        "together vs one",
        "program vs one",
        "program dearer than one",
        "dearer than together",
    ]
    return Table("BFCL, by calls per user turn", columns, rows)


def fixed(figures: Figures) -> Table:
    """What every request repeats."""
    rows = []
    for workload in WORKLOADS:
        tasks = figures.tasks(workload)
        if not tasks:
            continue
        mean = [
            sum(figures.fixed[workload, task].as_json()[name] for task in tasks) / len(tasks)
            for name in ("tools", "definitions", "bare_stubs", "stubs", "rules")
        ]
        told = mean[3] + mean[4]
        rows.append(
            [workload, *(f"{one:,.0f}" for one in mean), f"{told - mean[1]:+,.0f}".replace("-", "\N{MINUS SIGN}")]
        )
    columns = ["workload", "tools", "definitions", "stubs without results", "stubs", "rules", "program pays more"]
    return Table("What every request repeats (means over the tasks)", columns, rows)


def cached(figures: Figures) -> Table:
    """The same with prices: tokens that were sent before are cheaper, those that are written dearer."""
    rows = []
    for workload in REAL:
        if not figures.tasks(workload):
            continue
        costs = {way: figures.cost(workload, way) for way in WAYS}
        for again, out in PRICES:
            price = {way: cost.priced(again, out) for way, cost in costs.items()}
            rows.append(
                [
                    f"{workload}, {again:g} and {out:g}",
                    *(f"{price[way]:,.0f}" for way in WAYS),
                    change(round(price[PROGRAM]), round(price[ONE_A_TURN])),
                    change(round(price[PROGRAM]), round(price[TOGETHER])),
                ]
            )
    columns = ["workload, price of a re-sent and of a written token", *WAYS, "program vs one a turn", "vs together"]
    return Table("With prices, in new input tokens", columns, rows)


def grid(figures: Figures) -> Table:
    """Where a program begins to pay."""
    rows = []
    for label in ROWS:
        for calls in CALLS:
            task = f"{label}, {calls} calls"
            if task not in figures.tasks("orders"):
                continue
            cost = {way: figures.costs["orders", task, way] for way in WAYS}
            rows.append(
                [
                    label,
                    str(calls),
                    *(f"{cost[way].tokens:,}" for way in WAYS),
                    *(f"{cost[PROGRAM].tokens / cost[way].tokens:.2f}" for way in (ONE_A_TURN, TOGETHER)),
                ]
            )
    columns = ["result of a call", "calls", *WAYS, "program / one a turn", "program / together"]
    return Table("Orders: all tokens by size of result and number of calls", columns, rows)


def sizes(figures: Figures, label: str, calls: int) -> breakeven.Sizes:
    """The parts of an orders conversation, worked out of what was measured."""
    plain, coded = (figures.costs["orders", f"{label}, {calls} calls", way] for way in (TOGETHER, PROGRAM))
    call = count("get_orders") + count('{"customer_id": 1}')
    question = plain.again - plain.fixed
    answer = plain.tokens_out - calls * call
    return breakeven.Sizes(
        definitions=plain.fixed,
        instructions=coded.fixed,
        question=question,
        call=call,
        result=(plain.tokens_in - 2 * plain.again) / calls - call,
        program=coded.tokens_out - answer,
        value=coded.tokens_in - 2 * coded.again - (coded.tokens_out - answer),
        answer=answer,
    )


def even(figures: Figures) -> Table:
    """The formula's break-even beside the measured one."""
    rows = []
    for label in ROWS:
        tasks = {calls: f"{label}, {calls} calls" for calls in CALLS}
        if not set(tasks.values()) <= set(figures.tasks("orders")):
            continue
        cheaper = [
            calls
            for calls, task in tasks.items()
            if figures.costs["orders", task, PROGRAM].tokens < figures.costs["orders", task, TOGETHER].tokens
        ]
        at = sizes(figures, label, 5)
        rows.append(
            [
                label,
                *(f"{one:,.0f}" for one in (at.definitions, at.instructions, at.call, at.result, at.program, at.value)),
                f"{breakeven.break_even(at):.1f}",
                str(cheaper[0]) if cheaper else "none",
                f"{breakeven.break_even(at, 0.1, 5.0):.1f}",
            ]
        )
    columns = ["result of a call", "D", "P", "a", "r", "p", "v", "k*", "first measured", "k* at 0.1 and 5"]
    return Table("From how many calls on a program is cheaper than calls together", columns, rows)


def losers(figures: Figures, most: int = 8) -> Table:
    """The tasks of the real workloads where a program cost most, beside plain calls made together."""
    cost = figures.costs
    ratios = [(cost[w, t, PROGRAM].tokens / cost[w, t, TOGETHER].tokens, w, t) for w in REAL for t in figures.tasks(w)]
    rows = [
        [
            f"{workload}: {task}",
            str(cost[workload, task, ONE_A_TURN].calls),
            *(f"{cost[workload, task, way].tokens:,}" for way in WAYS),
            f"{share:.2f}",
        ]
        for share, workload, task in sorted(ratios, reverse=True)[:most]
    ]
    return Table("Where a program lost most", ["task", "calls", *WAYS, "program / together"], rows)


def sentence(figures: Figures) -> str:
    """How many tasks a program lost, in words."""
    parts = []
    for workload in REAL:
        tasks = figures.tasks(workload)
        lost = [
            sum(figures.costs[workload, t, PROGRAM].tokens > figures.costs[workload, t, way].tokens for t in tasks)
            for way in (ONE_A_TURN, TOGETHER)
        ]
        parts.append(
            f"{workload}: dearer than one call a turn in {lost[0]} of {len(tasks)}, than calls together in {lost[1]}"
        )
    return "; ".join(parts) + "."


def shapes(figures: Figures) -> str:
    """What the shapes of results come to on BFCL, in words: arithmetic, no run."""
    tasks = figures.tasks(BFCL)
    cost = {way: figures.cost(BFCL, way) for way in WAYS}
    spared = sum(
        figures.costs[BFCL, task, PROGRAM].requests
        * (figures.fixed[BFCL, task].stubs - figures.fixed[BFCL, task].bare_stubs)
        for task in tasks
    )
    left = cost[PROGRAM].tokens - spared
    return (
        f"On BFCL the shapes of results, which only stubs tell, are {spared:,} of the {cost[PROGRAM].tokens:,} tokens. "
        f"Without them it would be {left:,}: {change(left, cost[ONE_A_TURN].tokens)} beside one call a turn, "
        f"{change(left, cost[TOGETHER].tokens)} beside calls together."
    )
