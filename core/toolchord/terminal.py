"""A run as a person sees it in a terminal; needs rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from toolchord.errors import MissingExtraError

try:
    from rich.console import Console, ConsoleOptions, Group, RenderableType
    from rich.live import Live
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.segment import Segment
    from rich.style import Style
    from rich.table import Table
    from rich.text import Text
except ModuleNotFoundError as error:
    if error.name != "rich":
        raise
    raise MissingExtraError("to see a run in a terminal", "terminal") from None

from toolchord.ledger import RunLedger
from toolchord.results import RunError, shorten
from toolchord.timeline.colours import pieces
from toolchord.timeline.layout import (
    Gap,
    Line,
    Strip,
    elsewhere,
    extent,
    figures,
    in_place,
    kind,
    lines,
    marks,
    name,
    plural,
    program,
    signature,
    span,
    strips,
    table,
    visible,
)
from toolchord.trace import LiveTrace, Trace, TracedCall

__all__ = ["view", "watching"]

_ROOM = 60
_NOTABLE = 6
"""Calls shown one by one where a line made many."""
_COLOURS = {"keyword": "magenta", "string": "green", "number": "yellow", "comment": "dim", "tool": "bold blue"}
_BARS = {
    "ok": ("━", "blue"),
    "error": ("━", "red"),
    "running": ("━", "bright_blue"),
    "waits": ("━", "yellow"),
    "cancelled": ("━", "bright_black"),
    "replayed": ("┅", "cyan"),
    "held": ("┅", "magenta"),
}
_LEVELS = "▁▂▃▄▅▆▇█"
_STATES = {
    "running": ("running", "blue"),
    "ok": ("ok", "green"),
    "failed": ("failed", "red"),
    "paused": ("paused", "yellow"),
}


def _text(text: str, style: str = "") -> Text:
    """Text without what would steer the terminal or can't be written to it."""
    return Text(visible(text), style=style, overflow="fold")


def view(trace: Trace) -> RenderableType:
    """A run as a panel: state, program with its calls over time, value or error, output, ledger."""
    parts: list[RenderableType] = []
    if trace.code or trace.calls:
        parts.append(_program(trace, only_calls=False))
    if trace.error is not None:
        if not in_place(trace):
            parts.append(_failure(trace.error))
        if trace.error.traceback:
            parts.append(_text(trace.error.traceback.rstrip(), style="dim"))
    elif trace.status != "running":
        parts.append(_text(shorten(trace.value, 2000) or "None"))
    for title, printed in (("printed", trace.stdout), ("warnings", trace.stderr)):
        if printed:
            parts.append(Panel(_text(shorten(printed.rstrip(), 4000)), title=title, border_style="dim"))
    if trace.ledger is not None and trace.ledger.tools:
        parts += [_ledger(trace.ledger), _text(trace.ledger.verdict(), style="dim")]
    return Panel(_spaced(parts), title=_title(trace), title_align="left", border_style="dim")


@contextmanager
def watching(
    code: str = "", *, console: Console | None = None, count: Callable[[str], int] | None = None
) -> Iterator[LiveTrace]:
    """Show a run while it goes on, and then whole. Where the output is no terminal, only the latter.

    Args:
        code: the program; "": it is told when the run begins.
        console: where to; None: stdout.
        count: gives the number of tokens of a text, for the ledger; None: an estimate, four characters each.

    Example:
        with watching() as live:
            result = await sandbox.execute(program, watch=live)
    """
    console = console or Console()
    live = LiveTrace(code, count=count)
    try:
        if console.is_terminal:
            look: Callable[[], RenderableType] = lambda: _glance(live.trace, console.height)  # noqa: E731
            with Live(get_renderable=look, console=console, refresh_per_second=5, transient=True):
                yield live
        else:
            yield live
    finally:
        for trace in live.traces:
            if trace.code:  # else nothing has begun
                console.print(view(trace))


def _glance(trace: Trace, height: int) -> RenderableType:
    """What fits a terminal while the run goes on: the lines with calls, the last ones first to stay."""
    inside = _program(trace, only_calls=True, room=max(4, height - 6))
    return Panel(inside, title=_title(trace), title_align="left", border_style="dim")


def _spaced(parts: Sequence[RenderableType]) -> Group:
    spaced: list[RenderableType] = []
    for part in parts:
        spaced += [Text(), part] if spaced else [part]
    return Group(*spaced)


def _title(trace: Trace) -> Text:
    word, colour = _STATES[trace.status]
    time, *others = figures(trace)
    told = [f" in {time.number}" if trace.status != "running" else f" for {time.number}"]
    told += [f", {one.number} {one.what}" for one in others]
    return Text.assemble((word, f"bold {colour}"), "".join(told))


# The program


def _program(trace: Trace, *, only_calls: bool, room: int = 0) -> Group:
    found = strips(trace, _ROOM)
    end = extent(trace)
    tools = frozenset(name(call.tool).rpartition(".")[2] for call in trace.calls)
    coloured = pieces(visible("\n".join(lines(trace.code))), tools)
    rows: list[RenderableType] = []
    for row in program(trace, found):
        if isinstance(row, Line) and (row.strip is not None or not only_calls):
            rows.append(_line(row, coloured[row.number - 1], trace.status))
            if row.failed and trace.error is not None:
                rows.append(Padding(_failure(trace.error), (0, 0, 0, 5)))
            if row.strip is not None:
                rows += _strip(row.strip, end)
        elif isinstance(row, Gap) and not only_calls:
            rows.append(_text(f"     {row.said()}", style="dim italic"))
    if (others := elsewhere(trace, found)) is not None:
        rows += _strip(others, end)
    if trace.more_calls:
        rows.append(_text(f"{plural(trace.more_calls, 'more call')} not in this trace", style="dim"))
    return Group(*(rows[-room:] if room else rows))


def _line(row: Line, text: Sequence[tuple[str, str]], status: str) -> Text:
    mark, style = ("▌", "blue") if row.strip is not None else (" ", "dim")
    if row.failed:
        mark, style = "▌", "yellow" if status == "paused" else "red"
    number = (f"{row.number:>4}", f"bold {style}" if mark != " " else style)
    code = [(piece, _COLOURS.get(what, "")) for what, piece in text]
    return Text.assemble(number, (mark, style), *code, overflow="fold")


def _failure(error: RunError) -> Text:
    style = "yellow" if error.kind == "paused" else "red"
    text = _text(str(error), style=f"bold {style}")
    return text.append_text(_text(f"\n{error.hint}")) if error.hint else text


def _strip(strip: Strip, end: float) -> list[RenderableType]:
    """The calls of a line: one by one if they are few, else how many ran at each time, and the notable ones."""
    rows: list[RenderableType] = []
    shown: Sequence[TracedCall] = strip.listed
    if not strip.few:
        words = "".join(f", {count:,} {word}" for word, count in strip.marks().items())
        rows.append(_row(_text(strip.tools + words), _Density(strip.calls, end), strip.length))
        shown = [call for call in strip.listed if marks(call)][:_NOTABLE]
    for call in shown:
        # What happened comes before what was called: the end of a line may be cut off.
        words = "".join(f"{word} " for word in marks(call))
        label = _text(words, style=f"bold {_BARS[kind(call)][1]}").append_text(_text(signature(call)))
        rows.append(_row(label, _Bar(call, end), call.duration))
        if call.error is not None:
            rows.append(_told(f"{call.error[0]}: {call.error[1]}", "red"))
        elif call.waits:
            rows.append(_told(call.waits, "yellow"))
    if strip.few and strip.left_out:
        rows.append(_told(f"and {plural(strip.left_out, 'call')} more", "dim"))
    return rows


def _row(label: Text, bar: RenderableType, seconds: float) -> RenderableType:
    """Rows are as wide as the panel, so their bars stand below each other."""
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
    grid.add_column(ratio=3)
    grid.add_column(width=9, justify="right", no_wrap=True)
    label.overflow = "ellipsis"
    grid.add_row(label, bar, _text(span(seconds), style="dim"))
    return Padding(grid, (0, 0, 0, 6))


def _told(text: str, style: str) -> RenderableType:
    return Padding(_text(shorten(" ".join(text.split()), 300), style), (0, 0, 0, 8))


class _Bar:
    """A call's time, as wide as there is room."""

    def __init__(self, call: TracedCall, end: float) -> None:
        self._call = call
        self._end = end

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        width = options.max_width
        glyph, colour = _BARS[kind(self._call)]
        left, right = _cells(self._call, self._end, width)
        yield Segment(" " * left)
        yield Segment(glyph * (right - left), Style.parse(colour))
        yield Segment(" " * (width - right))


class _Density:
    """How many calls ran at each time, as wide as there is room."""

    def __init__(self, calls: Sequence[TracedCall], end: float) -> None:
        self._calls = calls
        self._end = end

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        width = options.max_width
        counts = [0] * width
        colours = ["blue"] * width
        for call in self._calls:
            left, right = _cells(call, self._end, width)
            for cell in range(left, right):
                counts[cell] += 1
                if kind(call) != "ok":
                    colours[cell] = _BARS[kind(call)][1]
        most = max(counts)
        for count, colour in zip(counts, colours, strict=True):
            level = max(0, -(-count * len(_LEVELS) // most) - 1) if most else 0
            yield Segment(_LEVELS[level] if count else " ", Style.parse(colour))


def _cells(call: TracedCall, end: float, width: int) -> tuple[int, int]:
    left = min(max(0, int(call.started / end * width)), max(0, width - 1))
    return left, max(left + 1, min(width, round((call.started + call.duration) / end * width)))


def _ledger(ledger: RunLedger) -> Table:
    headings, rows = table(ledger)
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        grid.add_column(heading, justify="left" if heading == "tool" else "right", overflow="fold")
    for row in rows:
        grid.add_row(*map(_text, row))
    return grid
