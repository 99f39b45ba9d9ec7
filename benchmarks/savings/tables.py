"""Owns the tables made from the figures; each renders for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table as RichTable

from benchmarks.savings import breakeven
from benchmarks.savings.figures import WORKLOADS, Figures
from benchmarks.savings.measure import Cost
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
    """A table: names of columns (words in the first, figures in the others), rows; a row of one cell heads a group."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """For a page. Words of the first column stay on one line."""
        rows = [
            [words, *figures] if figures else [f"**{words}**"]
            for words, *figures in ([row[0].replace(" ", "\N{NO-BREAK SPACE}"), *row[1:]] for row in self.rows)
        ]
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)]]
        lines += [[*row, *[""] * (len(self.columns) - len(row))] for row in rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

    def rich(self) -> RichTable:
        """For a terminal."""
        table = RichTable(title=self.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=not number)
        for row in self.rows:
            table.add_row(*row if len(row) > 1 else [f"[bold]{row[0]}"])
        return table


def both(cost: dict[str, Cost], way: str) -> str:
    """How a way differs from one call a turn, and from calls together."""
    if way == ONE_A_TURN:
        return ""
    first = change(cost[way].tokens, cost[ONE_A_TURN].tokens)
    return first if way == TOGETHER else f"{first} / {change(cost[way].tokens, cost[TOGETHER].tokens)}"


def ways(figures: Figures) -> Table:
    """Each workload in each way."""
    rows = []
    for workload in REAL:
        if not figures.tasks(workload):
            continue
        rows.append([workload])
        costs = {way: figures.cost(workload, way) for way in WAYS}
        for way, cost in costs.items():
            counts = (cost.requests, cost.calls, cost.tokens_out, cost.tokens)
            rows.append([way, *(f"{one:,}" for one in counts), both(costs, way)])
    columns = ["way", "turns", "calls", "tokens written", "all tokens", "vs one a turn / together"]
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
        dearer = [sum(ratio(figures, task, way) > 1 for task in tasks) for way in (ONE_A_TURN, TOGETHER)]
        rows.append(
            [
                label,
                str(len(tasks)),
                f"{cost[ONE_A_TURN].requests:,} / {cost[TOGETHER].requests:,} / {cost[PROGRAM].requests:,}",
                *(both(cost, way) for way in (TOGETHER, PROGRAM)),
                f"{dearer[0]} / {dearer[1]}",
            ]
        )
    columns = [
        "calls per user turn",
        "conversations",
        "turns: one / together / program",
        "together vs one",
        "program vs one / together",
        "program dearer than one / together",
    ]
    return Table("BFCL, by calls per user turn", columns, rows)


def fixed(figures: Figures) -> Table:
    """What every request repeats."""
    rows = []
    for workload in WORKLOADS:
        tasks = figures.tasks(workload)
        if not tasks:
            continue
        names = ("tools", "definitions", "bare_stubs", "stubs", "rules", "both")
        mean = {
            name: sum(figures.fixed[workload, task].as_json()[name] for task in tasks) / len(tasks) for name in names
        }
        more = mean["stubs"] + mean["rules"] - mean["definitions"]
        cells = [f"{mean[name]:,.0f}" for name in names[:-1]]
        cells += [f"{more:+,.0f}".replace("-", "\N{MINUS SIGN}"), f"{mean['both']:,.0f}" if mean["both"] else ""]
        rows.append([workload, *cells])
    columns = [
        "workload",
        "tools",
        "definitions",
        "stubs without results",
        "stubs",
        "rules",
        "program pays more",
        "both",
    ]
    return Table("What every request repeats (means over the tasks)", columns, rows)


def cached(figures: Figures) -> Table:
    """The same with prices: tokens that were sent before are cheaper, those that are written dearer."""
    rows = []
    for workload in REAL:
        if not figures.tasks(workload):
            continue
        rows.append([workload])
        costs = {way: figures.cost(workload, way) for way in WAYS}
        for again, out in PRICES:
            price = {way: round(cost.priced(again, out)) for way, cost in costs.items()}
            change_of = " / ".join(change(price[PROGRAM], price[way]) for way in (ONE_A_TURN, TOGETHER))
            rows.append([f"{again:g} and {out:g}", *(f"{price[way]:,}" for way in WAYS), change_of])
    columns = ["price of a re-sent, of a written token", *WAYS, "program vs one a turn / together"]
    return Table("With prices, in new input tokens", columns, rows)


def grid(figures: Figures) -> Table:
    """Where a program begins to pay."""
    rows = []
    for label in ROWS:
        tasks = {calls: f"{label}, {calls} calls" for calls in CALLS}
        if not set(tasks.values()) <= set(figures.tasks("orders")):
            continue
        rows.append([f"results: {label}"])
        for calls, task in tasks.items():
            cost = {way: figures.costs["orders", task, way] for way in WAYS}
            rows.append([str(calls), *(f"{cost[way].tokens:,}" for way in WAYS), both(cost, PROGRAM)])
    columns = ["calls", *WAYS, "program vs one a turn / together"]
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
            task,
            str(cost[workload, task, ONE_A_TURN].calls),
            *(f"{cost[workload, task, way].tokens:,}" for way in WAYS[:3]),
            f"{share:.2f}",
        ]
        for share, workload, task in sorted(ratios, reverse=True)[:most]
    ]
    return Table("Where a program lost most", ["task", "calls", *WAYS[:3], "program / together"], rows)


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
