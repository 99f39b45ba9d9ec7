"""Owns the HTML of a run: a document that needs nothing but itself, or a fragment for another page.

No program's text gets into HTML but through `_text`. A document has no style attributes and no handlers in it, so its
policy names its own style and script by their hashes and forbids all else.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from toolchord.errors import ConfigurationError
from toolchord.ledger import RunLedger
from toolchord.results import RunError
from toolchord.timeline import bars
from toolchord.timeline.colours import pieces
from toolchord.timeline.layout import (
    STATES,
    Gap,
    Line,
    Strip,
    elsewhere,
    explained,
    extent,
    figures,
    in_place,
    kind,
    lines,
    marks,
    money,
    name,
    plural,
    program,
    signature,
    size,
    span,
    spent,
    strips,
    table,
    visible,
)
from toolchord.trace import Trace, TracedCall

ROOM = 600
"""Calls of a document whose details are in it, at most."""
_OPEN = 3
_LONG = 24


def page(traces: Trace | Sequence[Trace], *, title: str = "") -> str:
    """A document that shows runs one under another, and loads nothing.

    Args:
        traces: one run, or several.
        title: what the document is called; "": what came of the run.
    """
    runs = _runs(traces)
    shown = "\n".join(_run(trace, ROOM // len(runs), _numbered(n, len(runs)), 2) for n, trace in enumerate(runs, 1))
    title = title or (f"{STATES[runs[0].status]}: a Toolchord run" if len(runs) == 1 else f"{len(runs)} Toolchord runs")
    style, script = _asset("style.css") + _asset("page.css"), _asset("keys.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{_text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#outcome">Skip the program and its calls</a>\n'
        f"<main>\n<h1>{_text(title)}</h1>\n{shown}\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def fragment(traces: Trace | Sequence[Trace], *, room: int = 200) -> str:
    """A piece of HTML that shows runs inside another page, such as a notebook, without a script.

    Its style touches nothing outside of it. Where a page strips styles, it reads as plain HTML.

    Args:
        traces: one run, or several.
        room: calls whose details are in it, at most.
    """
    runs = _runs(traces)
    shown = "\n".join(_run(trace, room // len(runs), _numbered(n, len(runs)), 0) for n, trace in enumerate(runs, 1))
    return f"<style>{_asset('style.css')}</style>\n{shown}"


def _runs(traces: Trace | Sequence[Trace]) -> list[Trace]:
    runs = [traces] if isinstance(traces, Trace) else list(traces)
    if not runs or not all(isinstance(trace, Trace) for trace in runs):
        raise ConfigurationError("a view takes a Trace, or several; Trace.of(result) makes one")
    return runs


def _numbered(number: int, count: int) -> str:
    return f"Program {number} of {count}" if count > 1 else ""


@functools.cache
def _asset(file: str) -> str:
    """A file beside this one. Its rules outrank those of a page around a run, which they would not by a class alone."""
    text = Path(__file__).with_name(file).read_text(encoding="utf-8")
    return text.replace(".toolchord-run", ":is(.toolchord-run,#toolchord)") if file.endswith(".css") else text


@functools.cache
def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(text: str) -> str:
    """Any text, as HTML that shows it."""
    return html.escape(visible(text))


def _heading(words: str, level: int) -> str:
    """A heading; in a fragment it is none, since it would stand among those of the page around it."""
    return f'<h{level} class="tc-h">{words}</h{level}>' if level else f'<p class="tc-h">{words}</p>'


def _run(trace: Trace, room: int, number: str, level: int) -> str:
    found = strips(trace, room)
    parts = [_head(trace, number, level)]
    if trace.error is not None and not in_place(trace):
        parts.append(_failure(trace.error))
    parts.append(_heading("Program and calls", level))
    parts.append(_program(trace, found))
    parts += _outcome(trace, level)
    if trace.ledger is not None and trace.ledger.tools:
        parts += [_heading("What it came to", level), _ledger(trace.ledger, number)]
    label = f' aria-label="{_text(number)}"' if number else ""
    return f'<section class="toolchord-run tc-is-{trace.status}"{label}>\n' + "\n".join(parts) + "\n</section>"


def _head(trace: Trace, number: str, level: int) -> str:
    state = STATES[trace.status]
    told = [*([number] if number else []), _when(trace.epoch)]
    words = f'<span class="tc-dot"></span>{state}'
    tiles = "".join(f"<div><dt>{_text(one.what)}</dt><dd>{_text(one.number)}</dd></div>" for one in figures(trace))
    verdict = f'<p class="tc-verdict">{_text(trace.ledger.verdict())}</p>' if trace.ledger is not None else ""
    heading = f'<h{level} class="tc-state">{words}</h{level}>' if level else f'<p class="tc-state">{words}</p>'
    return (
        f'<header class="tc-head"><div class="tc-lead">{heading}'
        f'<p class="tc-when">{" · ".join(filter(None, told))}</p></div>'
        f'<dl class="tc-figures">{tiles}</dl>{verdict}</header>'
    )


def _when(epoch: float) -> str:
    try:
        when = datetime.fromtimestamp(epoch, UTC)
    except (OverflowError, ValueError, OSError):
        return ""
    return f'<time datetime="{when:%Y-%m-%dT%H:%M:%SZ}">{when:%Y-%m-%d %H:%M:%S} UTC</time>' if epoch > 0 else ""


# The program


def _program(trace: Trace, found: dict[int, Strip]) -> str:
    end = extent(trace)
    tools = frozenset(name(call.tool).rpartition(".")[2] for call in trace.calls)
    coloured = pieces(visible("\n".join(lines(trace.code))), tools)
    opened = _opened(trace)
    rows = []
    for row in program(trace, found):
        if isinstance(row, Gap):
            rows.append(f'<li class="tc-gap">{row.said()}</li>')
        else:
            rows.append(_line(row, coloured[row.number - 1], trace.error, end, opened))
    text = bars.axis(end) if found else ""
    if rows:
        text += f'<ol class="tc-lines">{"".join(rows)}</ol>'
    if (others := elsewhere(trace, found)) is not None:
        text += '<p class="tc-note">Calls whose line is not known</p>' if trace.code else ""
        text += _strip(others, end, opened)
    if trace.more_calls:
        text += f'<p class="tc-note">{plural(trace.more_calls, "more call")} not in this trace</p>'
    if not found:
        text += '<p class="tc-note">It called no tool.</p>'
    return f'<div class="tc-program">{text}</div>'


def _opened(trace: Trace) -> set[int]:
    """Calls that are worth a look at once, unless the run's own error says the same."""
    told = trace.error.message if trace.error is not None else ""
    worth = [call for call in trace.calls if call.status in ("error", "paused")]
    return {call.id for call in worth[:_OPEN] if call.error is None or call.error[1] != told}


def _line(row: Line, text: Sequence[tuple[str, str]], error: RunError | None, end: float, opened: set[int]) -> str:
    classes = " ".join(["tc-line", *_state(row)])
    code = "".join(f'<i class="tc-{what}">{_text(piece)}</i>' if what else _text(piece) for what, piece in text)
    below = _failure(error) if row.failed and error is not None else ""
    strip = _strip(row.strip, end, opened) if row.strip is not None else ""
    # <pre>, not <code>: nbconvert's parser keeps the spaces of an indentation in that alone.
    return f'<li class="{classes}" value="{row.number}"><pre>{code or " "}</pre>{below}{strip}</li>'


def _state(row: Line) -> list[str]:
    """How a line is marked: by its calls, and as the one that failed."""
    found = row.strip.marks() if row.strip is not None else {}
    words = (
        ["tc-made"] * (row.strip is not None) + ["tc-odd"] * ("failed" in found) + ["tc-held-up"] * ("waits" in found)
    )
    return words + ["tc-bad"] * row.failed


def _failure(error: RunError) -> str:
    waits = error.kind == "paused"
    hint = f"<p>{_text(error.hint)}</p>" if error.hint else ""
    where = f" (line {error.line})" if error.line else ""
    return (
        f'<div class="tc-error{" tc-waits" * waits}"><p><strong>{_text(error.type)}</strong>{where}: '
        f"{_text(error.message)}</p>{hint}</div>"
    )


def _strip(strip: Strip, end: float, opened: set[int]) -> str:
    rows = "".join(_call(call, end, call.id in opened) for call in strip.listed)
    if strip.left_out:
        few = f"{plural(strip.left_out, 'call')} without details"
        rows += f'<p class="tc-note">{few}: shown are those that did not go well, and the slowest.</p>'
    if not strip.few:
        pills = "".join(_mark(word, count) for word, count in strip.marks().items())
        is_open = " open" * (not strip.left_out and not opened.isdisjoint(call.id for call in strip.listed))
        rows = (
            f'<details class="tc-all"{is_open}><summary>'
            f'<span class="tc-label"><code>{_text(strip.tools)}</code>{pills}</span>'
            f'{bars.dense(strip, end)}<span class="tc-time">{span(strip.length)}</span></summary>{rows}</details>'
        )
    return f'<div class="tc-strip">{bars.grid(end)}{rows}</div>'


def _mark(word: str, count: int = 1) -> str:
    number = f"{count:,} " if count > 1 else ""
    return f'<b class="tc-mark tc-{word.partition(" ")[0]}">{number}{word}</b>'


def _call(call: TracedCall, end: float, is_open: bool) -> str:
    words = "".join(_mark(word) for word in marks(call))
    took = span(call.duration) if not (call.replayed or call.held) else "-"
    return (
        f'<details class="tc-call tc-was-{kind(call)}"{" open" * is_open}><summary><span class="tc-label">'
        f"<code>{_text(signature(call))}</code>{words}</span>{bars.one(call, end)}"
        f'<span class="tc-time">{took}</span></summary><div class="tc-body">{"".join(_body(call))}</div></details>'
    )


def _body(call: TracedCall) -> Iterator[str]:
    for sentence in explained(call):
        yield f"<p>{_text(sentence)}</p>"
    if call.error is not None:
        yield f'<div class="tc-error"><p><strong>{_text(call.error[0])}</strong>: {_text(call.error[1])}</p></div>'
    facts = [
        f"<dt>{_text(argument)}</dt><dd><code>{_text(value)}</code></dd>" for argument, value in call.arguments.items()
    ]
    if call.result:
        facts.append(f'<dt class="tc-result">result</dt><dd><pre>{_text(call.result)}</pre></dd>')
    if facts:
        yield f'<dl class="tc-facts">{"".join(facts)}</dl>'
    told = [f"call {call.id}", name(call.tool)]
    told += [f"line {call.line}"] if call.line else []
    told += [f"started at {span(call.started)}", f"took {span(call.duration)}"]
    told += [size(call.result_bytes)] if call.result_bytes else []
    told += [f"cost {money(call.cost)}"] if call.cost else []
    yield f'<p class="tc-small">{_text(" · ".join(told))}</p>'


# What came of it


def _outcome(trace: Trace, level: int) -> Iterator[str]:
    first = ' id="outcome"' if level else ""
    if trace.value:
        yield f"<div{first}>{_heading('Value', level)}{_block(trace.value, 'value')}</div>"
    elif level:
        yield f"<div{first}></div>"
    if trace.stdout:
        yield _heading("Printed", level) + _block(trace.stdout, "output")
    if trace.stderr:
        yield _heading("Warnings", level) + _block(trace.stderr, "warnings")
    if trace.error is not None and trace.error.traceback:
        yield _heading("Traceback", level) + _block(trace.error.traceback, "traceback")


def _block(text: str, what: str) -> str:
    """Text; a long one can be opened."""
    text = text.rstrip("\n")
    count = text.count("\n") + 1
    pre = f'<pre class="tc-text">{_text(text)}</pre>'
    if count <= _LONG and len(text) <= 100 * _LONG:
        return pre
    much = plural(count, "line") if count > 1 else plural(len(text), "character")
    return f'<details class="tc-long"><summary>{much} of {what}</summary>{pre}</details>'


def _ledger(ledger: RunLedger, number: str) -> str:
    headings, rows = table(ledger)
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{_text(tool)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for tool, *cells in rows
    )
    label = f"{number}, calls by tool" if number else "Calls by tool"
    return (
        f'<div class="tc-table" tabindex="0" role="region" aria-label="{label}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f'<p class="tc-small">{_text(spent(ledger))}</p>'
    )
