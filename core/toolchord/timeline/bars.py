"""Owns the drawing of calls over time: SVG with its places as attributes, since a strict policy forbids styles."""

from __future__ import annotations

from toolchord.timeline.layout import Strip, kind, span, ticks
from toolchord.trace import TracedCall

_WIDTH = 1000
_HEIGHT = 150
_GAP = 0.6
_LEAST = 3
"""A call is drawn at least so wide, in thousandths of the whole."""


def one(call: TracedCall, end: float) -> str:
    """A call's bar in a row of its own."""
    left, width = _place(call, end)
    return (
        f'<svg class="tc-bar" aria-hidden="true"><rect class="tc-k tc-k-{kind(call)}" x="{left / 10:.2f}%" '
        f'width="{width / 10:.2f}%" y="25%" height="50%" rx="2.5"/></svg>'
    )


def dense(strip: Strip, end: float) -> str:
    """All calls of a line as one picture: calls that ran together lie above each other."""
    rows = strip.tracks()
    step = max(2, min(9, _HEIGHT // len(rows)))
    thick = step - 1 if step > 2 else 1.4
    paths: dict[str, list[str]] = {}
    for number, row in enumerate(rows):
        for drawn, left, width in _merged(row, end):
            paths.setdefault(drawn, []).append(f"M{left:.1f} {number * step}h{width:.1f}v{thick}h-{width:.1f}z")
    paths = {drawn: paths[drawn] for drawn in sorted(paths, key="ok".__ne__)}  # what is not plain lies on top
    drawings = "".join(f'<path class="tc-k tc-k-{drawn}" d="{"".join(path)}"/>' for drawn, path in paths.items())
    height = len(rows) * step
    return (
        f'<svg class="tc-dense tc-h{-(-height // 10)}" aria-hidden="true" viewBox="0 0 {_WIDTH} {height}" '
        f'preserveAspectRatio="none">{drawings}</svg>'
    )


def _merged(row: list[TracedCall], end: float) -> list[tuple[str, float, float]]:
    """Kind, left end and width of a row's bars; bars between which no gap would be seen are one."""
    bars: list[tuple[str, float, float]] = []
    for call in row:
        drawn = kind(call)
        left, width = _place(call, end, _LEAST if drawn == "ok" else 2 * _LEAST)
        if bars and bars[-1][0] == drawn and left - (bars[-1][1] + bars[-1][2]) < _GAP:
            before = bars.pop()
            left, width = before[1], max(before[2], left + width - before[1])
        bars.append((drawn, left, width))
    return bars


def grid(end: float) -> str:
    """Lines at the axis' times, behind the bars of a strip."""
    lines = "".join(f'<line x1="{tick / end:.2%}" x2="{tick / end:.2%}" y1="0" y2="100%"/>' for tick in ticks(end))
    return f'<svg class="tc-grid" aria-hidden="true">{lines}</svg>'


def axis(end: float) -> str:
    """The times themselves."""
    words = []
    for tick in ticks(end):
        where = "start" if tick == 0 else "end" if tick / end > 0.95 else "middle"
        words.append(f'<text x="{tick / end:.2%}" y="11" text-anchor="{where}">{span(tick) if tick else "0"}</text>')
    return f'<div class="tc-axis" aria-hidden="true"><svg>{"".join(words)}</svg></div>'


def _place(call: TracedCall, end: float, least: float = _LEAST) -> tuple[float, float]:
    """Left end and width in thousandths."""
    left = min(max(call.started / end, 0.0), 1.0) * _WIDTH
    width = max(least, min(call.duration / end * _WIDTH, _WIDTH - left))
    return min(left, _WIDTH - least), width
