"""A run as an HTML page, in a real browser: it looks as it should, can be read by anybody, and nothing in it acts."""

from __future__ import annotations

import asyncio
import html.parser
import io
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.browser import Page
from tests.core.runs import every_kind, many, results
from toolchord import RunError, Trace, TracedCall
from toolchord.errors import ConfigurationError
from toolchord.timeline import fragment, page
from toolchord.timeline.colours import pieces
from toolchord.timeline.layout import (
    LINES,
    TRACKS,
    Gap,
    Strip,
    lines,
    marks,
    program,
    size,
    span,
    strips,
    ticks,
    visible,
)

STYLE = Path(__file__).parents[2] / "core" / "toolchord" / "timeline" / "style.css"

HOSTILE = [
    "<script>window.hit=1</script>",
    "</script><script>window.hit=1</script>",
    "</style><script>window.hit=1</script>",
    "</title></textarea></pre></code><img src=x onerror=window.hit=1>",
    "<svg/onload=window.hit=1>",
    "<svg><script>window.hit=1</script></svg>",
    '"><details open ontoggle=window.hit=1><summary>x</summary></details>',
    "' onfocus=window.hit=1 autofocus='",
    "javascript:window.hit=1//",
    "<a href=javascript:window.hit=1 id=outcome>x</a>",
    "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "<!--><script>window.hit=1</script>-->",
    "]]><script>window.hit=1</script>",
    "<meta http-equiv=refresh content='0;url=data:text/html,x'>",
    "<base href=//example.com/><link rel=stylesheet href=//example.com/x.css>",
    "<form action=//example.com/><input name=x>",
    "<math><mtext><table><mglyph><style><!--</style><img src onerror=window.hit=1>",
    "&lt;script&gt;window.hit=1&lt;/script&gt;&#60;script&#62;",
    "\x00<\x00script>window.hit=1</script>",
    "+ADw-script+AD4-window.hit=1+ADw-/script+AD4-",
    "{{constructor.constructor('window.hit=1')()}}${window.hit=1}",
    "<x\u2028onclick=window.hit=1\u2029>\u202egnp.exe\u2066",
    "<plaintext>",
    "\ud800<script>window.hit=1</script>",
]


@pytest.fixture(scope="module")
def traces() -> dict[str, Trace]:
    """Of real runs."""
    return {name: result.trace() for name, result in asyncio.run(results()).items()}


class Tags(html.parser.HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def opened(tab: Page, trace: Trace | list[Trace], folder: Path, **options: Any) -> Page:
    (folder / "run.html").write_text(page(trace), encoding="utf-8")
    tab.open(folder / "run.html", **options)
    return tab


# What it shows


@pytest.mark.parametrize(
    ("name", "width", "dark"),
    [
        ("done", 390, False),
        ("single", 1180, False),
        ("failed", 1180, True),
        ("failed", 390, True),
        ("paused", 1180, False),
        ("paused", 390, True),
        ("every kind", 1180, False),
        ("every kind", 1180, True),
        ("many", 1180, False),
        ("many", 390, True),
    ],
)
def test_anybody_can_read_it(
    name: str, width: int, dark: bool, page: Page, traces: dict[str, Trace], tmp_path: Path
) -> None:
    trace = {"every kind": every_kind(), "many": many()}.get(name) or traces[name]
    opened(page, trace, tmp_path, dark=dark, width=width)
    page.evaluate("document.querySelectorAll('details').forEach((one, n) => one.open = n < 12)")
    assert page.axe() == []
    assert page.problems == []
    assert len(page.requests) == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # every text has room: nothing but code in a bar's row is cut off
    assert page.evaluate(
        "[...document.querySelectorAll('dd, h2, .tc-time')].every(e => e.scrollWidth <= e.clientWidth + 1)"
    )


def test_calls_stand_under_their_lines_and_where_they_were_in_time(
    page: Page, traces: dict[str, Trace], tmp_path: Path
) -> None:
    trace = traces["failed"]
    opened(page, trace, tmp_path)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    seen = page.evaluate(
        """[...document.querySelectorAll('.tc-call')].map(one => {
            const bar = one.querySelector('rect').getBBox(), all = one.querySelector('svg').clientWidth;
            return [one.closest('li').value, one.querySelector('code').textContent, bar.x / all, bar.width / all];
        })"""
    )
    assert len(seen) == len(trace.calls) == 30
    for (line, text, left, width), call in zip(seen, trace.calls, strict=True):
        assert line == call.line
        assert text == f"{call.tool[8:]}({', '.join(f'{name}={value}' for name, value in call.arguments.items())})"
        assert left == pytest.approx(call.started / trace.duration, abs=0.002)
        assert width == pytest.approx(max(0.003, call.duration / trace.duration), abs=0.002)
    assert {line for line, *_ in seen} == {4, 6, 8}
    # the error is on its line, before that line's calls
    [place] = page.evaluate("[...document.querySelectorAll('.tc-bad')].map(one => [one.value, one.innerText])")
    assert place[0] == 8
    assert place[1].index("KeyError (line 8)") < place[1].index("get_budget(level='junior')")
    assert "Fix: call it with other arguments" in place[1]


def test_the_page_tells_what_the_run_came_to(page: Page, traces: dict[str, Trace], tmp_path: Path) -> None:
    trace = traces["done"]
    opened(page, trace, tmp_path)
    assert trace.ledger is not None
    text = page.evaluate("document.body.innerText")
    for said in (
        "Done",
        "tool calls\n29",
        f"tokens kept out\nabout {trace.ledger.tokens_saved:,}",
        "turns saved\n3",
        "spent by tools\n0.004",
        trace.ledger.verdict(),
        "looked at 1040 receipts of 26 people",
        trace.value,
        "get_expenses \N{MULTIPLICATION SIGN} 26",
        "get_budget\t2\t",
        "in 4 turns of plain calls",
    ):
        assert said in text
    assert page.evaluate("document.title") == "Done: a Toolchord run"


def test_a_call_opens_to_arguments_result_and_what_was_odd(page: Page, tmp_path: Path) -> None:
    opened(page, every_kind("what"), tmp_path)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    bodies = page.evaluate(
        """Object.fromEntries(
            [...document.querySelectorAll('.tc-call')].reverse().map(one => [one.classList[1], one.innerText]))"""
    )
    assert "failed" in bodies["tc-was-error"]
    assert "what: what" in bodies["tc-was-error"]
    assert "It waits for something outside: what" in bodies["tc-was-waits"]
    assert "so it was cancelled" in bodies["tc-was-cancelled"] or "The run ended" in bodies["tc-was-cancelled"]
    assert "the tool did not run" in bodies["tc-was-replayed"]
    assert "Held back by a dry run" in bodies["tc-was-held"]
    assert "It runs." in bodies["tc-was-running"]
    for said in ("result\nwhat", "call 1 ", "line 1", "took 200 ms", "what=what", "cost 0.5", "12 bytes"):
        assert said in bodies["tc-was-ok"]
    assert "3 more calls not in this trace" in page.evaluate("document.body.innerText")


def test_five_thousand_calls_are_bounded_and_what_is_left_out_is_said(page: Page, tmp_path: Path) -> None:
    trace = many()
    text = trace.to_html()
    assert len(text) < 400_000
    opened(page, trace, tmp_path)
    assert page.evaluate("document.querySelectorAll('*').length") < 3000
    [path] = page.evaluate("[...document.querySelectorAll('path.tc-k-error')].map(one => one.getBBox().width)")
    assert path > 3  # the one that failed is seen among all
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    shown = page.evaluate("document.body.innerText")
    assert "4,900 calls without details" in shown
    assert "get(n=2500)" in shown
    longest = max(trace.calls, key=lambda call: call.duration)
    assert f"get(n={longest.arguments['n']})" in shown
    assert len(fragment(trace, room=10)) < 60_000


def test_it_prints_in_light_colours_without_what_is_for_the_screen(
    page: Page, traces: dict[str, Trace], tmp_path: Path
) -> None:
    opened(page, traces["done"], tmp_path, dark=True)
    rules = page.evaluate(
        """[...document.styleSheets].flatMap(sheet => [...sheet.cssRules])
            .filter(rule => rule.media?.mediaText === 'print')
            .flatMap(rule => [...rule.cssRules].map(one => one.cssText))"""
    )
    assert any(".toolchord-run" in rule and "color-scheme: light" in rule for rule in rules)
    assert any(".skip" in rule and "display: none" in rule for rule in rules)


def test_several_runs_stand_one_under_another(page: Page, traces: dict[str, Trace], tmp_path: Path) -> None:
    opened(page, [traces["failed"], traces["done"]], tmp_path)
    assert page.evaluate("document.querySelectorAll('main > section').length") == 2
    text = page.evaluate("document.body.innerText")
    assert text.index("Program 1 of 2") < text.index("Program 2 of 2")
    assert page.axe() == []


def test_what_is_no_trace_is_refused() -> None:
    for wrong in ([], [1], "trace"):
        with pytest.raises(ConfigurationError, match=r"Trace\.of\(result\)"):
            page(wrong)  # type: ignore[arg-type]


# By keyboard


def test_it_can_be_used_without_a_mouse(page: Page, traces: dict[str, Trace], tmp_path: Path) -> None:
    opened(page, traces["done"], tmp_path)
    focused = "document.activeElement.innerText.split('\\n')[0]"
    page.press("Tab")
    assert page.evaluate(focused) == "Skip the program and its calls"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top >= 0")
    page.press("Tab")
    assert page.evaluate(focused).startswith("get_team(")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open")
    page.press("Space")
    assert not page.evaluate("document.activeElement.parentElement.open")
    page.press("ArrowDown")
    assert page.evaluate(focused).startswith("get_expenses \N{MULTIPLICATION SIGN} 26")
    page.press("Enter", "ArrowDown", "ArrowDown")
    assert page.evaluate(focused).startswith("get_expenses(person='E001'")
    page.press("End")
    assert page.evaluate(focused).startswith("get_budget(level='senior')")
    page.press("ArrowDown")  # there is no other
    assert page.evaluate(focused).startswith("get_budget(level='senior')")
    page.press("Home", "Shift+Tab", "Enter")
    assert page.evaluate("location.hash") == "#outcome"
    # each call is a stop of its own
    stops = page.evaluate("[...document.querySelectorAll('summary')].every(one => one.tabIndex === 0)")
    assert stops


# Hostile text


def test_nothing_in_a_trace_acts(page: Page, tmp_path: Path) -> None:
    structure = """[...document.querySelectorAll('main > section')].map(section =>
        [...section.querySelectorAll('*')].filter(one => one.tagName != 'I')
            .map(one => one.tagName + one.getAttributeNames()).join())"""
    seen = []
    for texts in (HOSTILE, ["harmless"] * len(HOSTILE)):
        opened(page, [every_kind(text) for text in texts], tmp_path)
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        seen.append(page.evaluate(structure))
        values = page.evaluate("[...document.querySelectorAll('.tc-text')].map(one => one.textContent)")
        assert values[::4] == list(map(visible, texts))
    assert page.evaluate("window.hit === undefined")
    assert page.problems == []
    assert len(page.requests) == 2
    for text, hostile, harmless in zip(HOSTILE, *seen, strict=True):
        assert hostile == harmless, text  # the very same elements and attributes, pieces of coloured code apart


def test_the_policy_refuses_what_would_act_all_the_same(page: Page, tmp_path: Path) -> None:
    opened(page, every_kind(), tmp_path)
    page.evaluate(
        """(() => {
            const script = document.createElement('script'); script.textContent = 'window.hit = 1';
            document.body.append(script);
            const unsafe = '<img src=x onerror="window.hit = 1"><p id=p style="color:red">';
            document.body.insertAdjacentHTML('beforeend', unsafe);
        })()"""
    )
    assert page.evaluate("window.hit === undefined")
    assert page.evaluate("getComputedStyle(document.querySelector('#p')).color") != "rgb(255, 0, 0)"
    refused = page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.name)")
    assert refused == "TypeError"
    assert any("Content Security Policy" in problem for problem in page.problems)


_ANY = st.text(min_size=1, max_size=20) | st.sampled_from(HOSTILE)


_HARMLESS = Counter(tag for tag, _ in Tags(every_kind("x").to_html()).tags if tag != "i")


@settings(max_examples=60)
@given(_ANY)
def test_any_text_is_text(text: str) -> None:
    shown = every_kind(text).to_html()
    seen = Tags(shown)
    assert not any(name.startswith("on") or name in ("style", "src") for _, names in seen.tags for name in names)
    counted = Counter(tag for tag, _ in seen.tags if tag != "i")
    assert counted == _HARMLESS
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)


# In another page


def test_a_fragment_touches_nothing_around_it(page: Page, tmp_path: Path) -> None:
    around = (
        "<h2>Title</h2><p>text <code>code</code></p><table><tr><th>a</th><td>b</td></tr></table><details><summary>s"
    )
    around += "</summary>d</details><pre>p</pre><svg><text>t</text></svg><ol><li value=3>i</li></ol><dl><dt>a</dt></dl>"
    styles = """[...document.querySelectorAll('#around, #around *')].map(one =>
        [...getComputedStyle(one)].map(name => name + getComputedStyle(one).getPropertyValue(name)).join())"""
    seen = []
    for inside in ("", fragment(every_kind("x"))):
        text = f"<!doctype html><meta charset=utf-8><div id=around>{around}</div><div>{inside}</div>"
        (tmp_path / "cell.html").write_text(text)
        page.open(tmp_path / "cell.html")
        seen.append(page.evaluate(styles))
    assert seen[0] == seen[1]
    assert "<script" not in inside
    assert " id=" not in inside


# What notebooks and documentation do to what is shown in them.
AROUND = """
.a dt { float: left; width: 20%; display: block; font-weight: bold } .a dd { margin-left: 2em } .a dl { margin: 1em }
.a code, .a pre { background: #eee; padding: 1px 5px; font-size: 20px; color: red; border: 1px solid }
.a pre code { display: block; overflow: auto; margin: 1em } .a svg { max-width: 100%; height: auto; margin: 1em }
.a tbody tr:nth-child(odd) { background: #eee } .a table { margin: 1em auto; font-size: 9px; table-layout: fixed }
.a td, .a th { text-align: left; padding: 2em; border: 1px solid; max-width: none } .a thead { background: blue }
.a ol { padding-left: 2em; list-style: decimal } .a li, .a p { margin: 1em 2em; line-height: 3; font-size: 20px }
.a summary, .a details { margin: 1em; padding: 1em; border: 1px solid; background: #eee; min-height: 3em }
.a p { text-align: justify } .a b, .a strong { font-weight: 100; color: red } .a i { font-style: italic }
.a time, .a header, .a span { color: red; padding: 1em }
"""


def test_the_page_around_a_fragment_changes_nothing_in_it(page: Page, tmp_path: Path) -> None:
    places = """[...document.querySelectorAll('.toolchord-run, .toolchord-run *')].map(one => {
        const box = one.getBoundingClientRect(), style = getComputedStyle(one);
        return [one.tagName + one.className, box.x, box.width, box.height, style.backgroundColor, style.color,
            style.fontSize, style.fontStyle, style.padding, style.borderWidth].join()})"""
    seen = []
    for rules in ("", AROUND):
        text = (
            f"<!doctype html><meta charset=utf-8><style>{rules}</style><div class=a>{fragment(every_kind('x'))}</div>"
        )
        (tmp_path / "cell.html").write_text(text)
        page.open(tmp_path / "cell.html")
        page.evaluate("document.querySelectorAll('details').forEach((one, n) => one.open = n < 9)")
        seen.append(page.evaluate(places))
    assert [pair for pair in zip(*seen, strict=True) if pair[0] != pair[1]] == []


def test_every_rule_of_a_fragment_is_for_the_fragment() -> None:
    text = re.sub(r"@(container|media) [^{]*\{", "", STYLE.read_text())
    selectors = re.findall(r"(?:^|\})\s*([^{}]+)\{", text)
    assert len(selectors) > 60
    for selector in ",".join(selectors).split(","):
        assert ".toolchord-run" in selector
        assert selector.strip().startswith((".toolchord-run", "[data-", ".vscode-"))


@pytest.mark.parametrize(
    ("attribute", "dark"),
    [
        ('data-jp-theme-light="false"', True),
        ('data-jp-theme-light="true"', False),
        ('data-md-color-scheme="slate"', True),
        ('class="vscode-dark"', True),
        ('class="vscode-light"', False),
    ],
)
def test_a_fragment_follows_the_colours_of_its_page(attribute: str, dark: bool, page: Page, tmp_path: Path) -> None:
    (tmp_path / "cell.html").write_text(f"<!doctype html><body {attribute}>{fragment(every_kind('x'))}")
    page.open(tmp_path / "cell.html", dark=not dark)
    colour = page.evaluate("getComputedStyle(document.querySelector('.toolchord-run')).backgroundColor")
    assert colour == ("rgb(21, 26, 32)" if dark else "rgb(255, 255, 255)")


def test_indentation_outlives_parsers_that_drop_space() -> None:
    code = "if x:\n    if y:\n        f()\n \n    # end"
    shown = fragment(Trace(code, "ok"))
    assert re.findall(r"<pre>(.*?)</pre>", re.sub("</?i[^>]*>", "", shown)) == code.split("\n")


def test_where_styles_are_taken_away_it_still_reads(traces: dict[str, Trace]) -> None:
    text = Tags(fragment(traces["failed"]).partition("</style>")[2]).text
    for said in ("Failed", "30", "tool calls", "get_team(team='engineering')", "KeyError (line 8)", "What it came to"):
        assert said in text


# What stands where


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5)), min_size=1, max_size=200))
def test_calls_of_a_track_do_not_overlap(times: list[tuple[float, float]]) -> None:
    calls = [TracedCall(n, "t", 1, {}, "ok", began, took) for n, (began, took) in enumerate(times)]
    tracks = Strip(1, calls).tracks()
    assert sorted(call.id for track in tracks for call in track) == [call.id for call in calls]
    assert len(tracks) <= TRACKS
    if len(tracks) < TRACKS:
        for track in tracks:
            assert all(a.started + a.duration <= b.started for a, b in pairwise(track))


@settings(max_examples=25)
@given(st.integers(0, 700), st.integers(1, 9))
def test_details_are_bounded_and_odd_calls_come_first(room: int, of_lines: int) -> None:
    trace = many(900)
    calls = [TracedCall(c.id, c.tool, c.id % of_lines + 1, c.arguments, c.status, 0, c.duration) for c in trace.calls]
    found = strips(Trace("x\n" * 9, "ok", calls=calls), room)
    assert sum(len(strip.listed) for strip in found.values()) <= room
    assert sum(strip.left_out + len(strip.listed) for strip in found.values()) == 900
    if room >= of_lines:
        assert any(marks(call) for strip in found.values() for call in strip.listed)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 3000))
def test_a_long_program_shows_what_matters(count: int, call: int, failing: int) -> None:
    error = RunError("E", "m", min(failing, count))
    calls = [TracedCall(1, "t", min(call, count), {}, "ok", 0, 1)]
    trace = Trace("x\n" * count, "failed", calls=calls, error=error)
    rows = program(trace, strips(trace, 10))
    shown = [row for row in rows if not isinstance(row, Gap)]
    assert len(shown) <= LINES
    assert [row.number for row in shown if row.failed] == [error.line]
    assert [row.number for row in shown if row.strip] == [calls[0].line]
    told = [n for row in rows for n in (range(row.first, row.last + 1) if isinstance(row, Gap) else [row.number])]
    assert told == list(range(1, count + 1))


def test_calls_of_lines_that_are_not_shown_are_counted() -> None:
    calls = [TracedCall(n, "default.f", n, {}, "ok", n / 100, 0.01) for n in range(1, 1001)]
    text = Tags(Trace("f()\n" * 1000, "ok", duration=11.0, calls=calls).to_html()).text
    assert "lines 241 to 1000 not shown, with 760 calls" in text


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=9) | st.sampled_from(HOSTILE[:-1])
_NUMBER = st.floats(allow_nan=False, allow_infinity=False)
_WHOLE = st.integers(-(2**63), 2**63 - 1)
_CALL = st.builds(
    TracedCall,
    id=_WHOLE,
    tool=_TEXT,
    line=_WHOLE | st.integers(0, 3),
    arguments=st.dictionaries(_TEXT, _TEXT, max_size=1),
    status=st.sampled_from(["ok", "error", "paused", "running"]),
    started=_NUMBER,
    duration=_NUMBER,
    result_bytes=_WHOLE,
    cost=_NUMBER,
)


@settings(max_examples=30)
@given(_TEXT, _NUMBER, _NUMBER, st.lists(_CALL, max_size=12))
def test_a_trace_from_any_file_is_shown(code: str, epoch: float, duration: float, calls: list[TracedCall]) -> None:
    trace = Trace(code, "ok", epoch, duration, calls)
    trace = Trace.from_json(trace.to_json())
    assert len(trace.to_html()) < 100_000
    assert len(fragment(trace)) < 100_000
    Console(file=io.StringIO(), width=80).print(trace)


@given(st.text(alphabet="ab\"'#\\\n fr0.(", max_size=200) | st.text(max_size=200))
def test_coloured_pieces_make_up_the_program(text: str) -> None:
    code = "\n".join(lines(text))
    assert "\n".join("".join(piece for _, piece in row) for row in pieces(code)) == code


def test_a_program_is_coloured() -> None:
    rows = pieces('match = 1\nmatch x:\n    case "a": await f(0x1f)  # no\ns = """a\nb"""\nx.match', frozenset({"f"}))
    kinds = [[(kind, text) for kind, text in row if kind] for row in rows]
    assert kinds == [
        [("number", "1")],
        [("keyword", "match")],
        [
            ("keyword", "case"),
            ("string", '"a"'),
            ("keyword", "await"),
            ("tool", "f"),
            ("number", "0x1f"),
            ("comment", "# no"),
        ],
        [("string", '"""a')],
        [("string", 'b"""')],
        [],
    ]


@given(st.floats(1e-6, 1e6))
def test_the_axis_has_a_few_round_times(seconds: float) -> None:
    found = ticks(seconds)
    assert 3 <= len(found) <= 7
    assert found[0] == 0
    assert found[-1] <= seconds * 1.01


def test_times_and_sizes_read_well() -> None:
    times = [0, 0.0004, 0.0021, 0.0123, 0.9996, 1.234, 59.996, 61, 3700, -1]
    assert list(map(span, times)) == [
        *("0 ms", "0.4 ms", "2.1 ms", "12 ms", "1.00 s", "1.23 s", "1 min 0 s", "1 min 1 s", "1 h 1 min", "0 ms")
    ]
    assert [size(n) for n in (0, 1, 999, 1500, 2_500_000)] == ["0 bytes", "1 byte", "999 bytes", "1.5 kB", "2.5 MB"]


@given(st.text(max_size=300))
def test_text_that_is_shown_steers_nothing(text: str) -> None:
    shown = visible(text)
    shown.encode()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
