"""Owns what stands where in a view of a run: which lines are shown, which calls belong to them, where a bar lies.

Views of any kind (HTML, terminal) take it from here, so that they say the same. All of it is bounded.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from toolchord.ledger import RunLedger, ToolTotals
from toolchord.trace import Trace, TracedCall

FEW = 8
"""Up to so many calls of a line are shown one by one, above it all of them as one picture."""
LISTED = 100
"""Calls of one line whose details are shown, at most."""
LINES = 240
"""Lines of a program that are shown, at most; those around calls and the failing one come first."""
TRACKS = 48
"""Calls of one line that are drawn above each other, at most."""

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_WORDS = {
    "running": "running",
    "error": "failed",
    "cancelled": "cancelled",
    "unfinished": "unfinished",
    "paused": "waits",
}


@dataclass
class Strip:
    """The calls that one line made.

    Attributes:
        line: its number, 0 if it is not known.
        calls: all of them.
        listed: those whose details are shown, in order.
    """

    line: int
    calls: list[TracedCall] = field(default_factory=list)
    listed: list[TracedCall] = field(default_factory=list)

    @property
    def few(self) -> bool:
        """Whether they can be shown one by one."""
        return len(self.calls) <= FEW

    @property
    def left_out(self) -> int:
        """How many calls have no details."""
        return len(self.calls) - len(self.listed)

    @property
    def length(self) -> float:
        """Seconds from the first start to the last end."""
        return max(call.started + call.duration for call in self.calls) - min(call.started for call in self.calls)

    @property
    def tools(self) -> str:
        """What was called how often."""
        counts = Counter(name(call.tool) for call in self.calls)
        return ", ".join(f"{tool} \N{MULTIPLICATION SIGN} {count:,}" for tool, count in counts.items())

    def marks(self) -> dict[str, int]:
        """How many of them each mark has."""
        return Counter(word for call in self.calls for word in marks(call))

    def tracks(self) -> list[list[TracedCall]]:
        """Calls in rows, so that those of a row don't overlap; beyond `TRACKS` rows they do."""
        rows: list[list[TracedCall]] = []
        free: list[tuple[float, int]] = []  # when a row is free again
        for call in sorted(self.calls, key=lambda call: (call.started, call.id)):
            if free and (free[0][0] <= call.started or len(rows) >= TRACKS):
                _, row = heapq.heappop(free)
                rows[row].append(call)
            else:
                row = len(rows)
                rows.append([call])
            heapq.heappush(free, (call.started + call.duration, row))
        return rows


@dataclass(frozen=True)
class Line:
    """A line of the program."""

    number: int
    text: str
    strip: Strip | None
    failed: bool


@dataclass(frozen=True)
class Gap:
    """Lines that are left out, both ends included, and how many calls they made."""

    first: int
    last: int
    calls: int = 0

    def said(self) -> str:
        """In words."""
        which = f"line {self.first}" if self.first == self.last else f"lines {self.first} to {self.last}"
        return f"{which} not shown" + (f", with {plural(self.calls, 'call')}" if self.calls else "")


def lines(code: str) -> list[str]:
    """The program's lines as Python counts them; none if the program is not known."""
    if not code:
        return []
    return code.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")


def strips(trace: Trace, room: int) -> dict[int, Strip]:
    """Calls by the line that made them; details of at most `room` calls in all: failed ones and the like, then the
    slowest."""
    found: dict[int, Strip] = {}
    for call in trace.calls:
        found.setdefault(call.line, Strip(call.line)).calls.append(call)
    for position, strip in enumerate(found.values()):
        share = min(LISTED, max(0, room) // (len(found) - position))
        chosen = heapq.nsmallest(share, strip.calls, key=lambda call: (not marks(call), -call.duration, call.id))
        strip.listed = sorted(chosen, key=lambda call: call.id)
        room -= len(strip.listed)
    return found


def program(trace: Trace, found: dict[int, Strip]) -> list[Line | Gap]:
    """What is shown of the program."""
    texts = lines(trace.code)
    failing = trace.error.line if trace.error is not None else None
    shown = _shown(len(texts), [*sorted(found), failing or 0])
    rows: list[Line | Gap] = []
    last = 0
    for number in [*shown, len(texts) + 1]:
        if number > last + 1:
            calls = sum(len(strip.calls) for line, strip in found.items() if last < line < number)
            rows.append(Gap(last + 1, number - 1, calls))
        if number <= len(texts):
            rows.append(Line(number, texts[number - 1], found.get(number), number == failing))
        last = number
    return rows


def _shown(count: int, marked: Sequence[int]) -> list[int]:
    """Which lines: all if they are few, else those around what is marked, in ever larger circles, then the first."""
    if count <= LINES:
        return list(range(1, count + 1))
    chosen: set[int] = set()
    for number in (n + around for around in (0, -1, 1, -2, 2) for n in marked if n):
        if len(chosen) < LINES and 1 <= number <= count:
            chosen.add(number)
    chosen.update(range(1, min(count, max(0, LINES - len(chosen))) + 1))
    return sorted(chosen)


def elsewhere(trace: Trace, found: dict[int, Strip]) -> Strip | None:
    """The calls that stand under no line."""
    count = len(lines(trace.code))
    others = [strip for line, strip in found.items() if not 1 <= line <= count]
    calls = [call for strip in others for call in strip.calls]
    listed = [call for strip in others for call in strip.listed][:LISTED]
    return Strip(0, calls, listed) if calls else None


def in_place(trace: Trace) -> bool:
    """Whether the error stands under a line."""
    return trace.error is not None and 1 <= (trace.error.line or 0) <= len(lines(trace.code))


def marks(call: TracedCall) -> list[str]:
    """What is not plain about a call."""
    words = [_WORDS[call.status]] if call.status in _WORDS else []
    return words + ["replayed"] * call.replayed + ["held back"] * call.held


def kind(call: TracedCall) -> str:
    """How a call is drawn: ok, error, running, waits, cancelled, replayed, held."""
    if call.status != "ok":
        return {"paused": "waits", "unfinished": "cancelled"}.get(call.status, call.status)
    return "held" if call.held else "replayed" if call.replayed else "ok"


def explained(call: TracedCall) -> list[str]:
    """In sentences, what is not plain about a call."""
    told = {
        "running": "It runs.",
        "cancelled": "Nobody waited for it any more, so it was cancelled.",
        "unfinished": "The run ended before it did.",
        "paused": f"It waits for something outside: {call.waits}" if call.waits else "It waits for something outside.",
    }
    sentences = [told[call.status]] if call.status in told else []
    if call.replayed:
        sentences.append("Answered from the record; the tool did not run.")
    if call.held:
        sentences.append("Held back by a dry run; the tool did not run.")
    return sentences


def extent(trace: Trace) -> float:
    """Seconds from one end of the time axis to the other."""
    ends = (call.started + call.duration for call in trace.calls)
    return min(max([trace.duration, 1e-6, *(end for end in ends if math.isfinite(end))]), 1e9)


def ticks(seconds: float) -> list[float]:
    """Round times for the axis, three to six of them, 0 first."""
    rough = seconds / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in _STEPS if power * one >= rough * 0.999)
    return [n * step for n in range(int(seconds / step * 1.001) + 1)]


def span(seconds: float) -> str:
    """A time as a person reads it."""
    seconds = min(max(0.0, seconds), 1e9)
    if seconds < 0.00995:
        return f"{seconds * 1000:.1f}".removesuffix(".0") + " ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: int) -> str:
    """Bytes as a person reads them."""
    if count < 1000:
        return plural(count, "byte")
    return f"{count / 1e3:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"


def money(amount: float) -> str:
    """An amount of the user's own money."""
    return f"{amount:,.2f}" if amount >= 0.995 else f"{amount:.3g}"


def plural(count: int, noun: str) -> str:
    """ "1 call", "2 calls"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def name(tool: str) -> str:
    """A tool's name as programs write it."""
    return tool.removeprefix("default.")


def signature(call: TracedCall, limit: int = 160) -> str:
    """The call in one line."""
    text = f"{name(call.tool)}({', '.join(f'{name}={value}' for name, value in call.arguments.items())})"
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


@dataclass(frozen=True)
class Figure:
    """A number that stands above a view, and what it is."""

    number: str
    what: str


def headline(trace: Trace) -> str:
    """What came of a run, in a line of text."""
    return f"{STATES[trace.status]}: " + ", ".join(f"{one.number} {one.what}" for one in figures(trace))


STATES = {"running": "Running", "ok": "Done", "failed": "Failed", "paused": "Paused"}


def figures(trace: Trace) -> list[Figure]:
    """What a run came to, in numbers."""
    calls = len(trace.calls) + trace.more_calls
    found = [Figure(span(trace.duration), "from start to end" if trace.status != "running" else "so far")]
    found.append(Figure(f"{calls:,}", "tool call" + "s" * (calls != 1)))
    ledger = trace.ledger
    if ledger is None:
        return found
    if calls and ledger.finished:
        about = "" if ledger.exact else "about "
        saved = ledger.tokens_saved
        found.append(
            Figure(f"{about}{abs(saved):,}", "tokens kept out" if saved >= 0 else "tokens more than plain calls")
        )
        if ledger.turns_saved > 0:
            found.append(Figure(f"{ledger.turns_saved:,}", "turn" + "s" * (ledger.turns_saved != 1) + " saved"))
    if ledger.money:
        found.append(Figure(money(ledger.money), "spent by tools"))
    return found


TOOLS = 50
"""Tools of a ledger that are shown, at most."""

_COLUMNS: list[tuple[str, Callable[[ToolTotals], str]]] = [
    ("calls", lambda one: f"{one.calls:,}"),
    ("failed", lambda one: f"{one.failed:,}"),
    ("replayed", lambda one: f"{one.replayed:,}"),
    ("time", lambda one: span(one.time)),
    ("result", lambda one: size(one.result_bytes)),
    ("tokens", lambda one: f"{one.tokens:,}"),
    ("money", lambda one: money(one.money)),
]


def table(ledger: RunLedger) -> tuple[list[str], list[list[str]]]:
    """What calls came to by tool: headings and rows. A column of zeros is left out."""
    tools = ledger.tools[:TOOLS]
    columns = [one for one in _COLUMNS if one[0] == "calls" or any(one[1](tool) != "0" for tool in tools)]
    rows = [[name(tool.tool), *(tell(tool) for _, tell in columns)] for tool in tools]
    return ["tool", *(heading for heading, _ in columns)], rows


def spent(ledger: RunLedger) -> str:
    """In a sentence, what the verdict is made of."""
    about = "" if ledger.exact else "about "
    words = (
        f"{about}{ledger.program_tokens:,} tokens of program and {about}{ledger.answer_tokens:,} of result, against "
        f"{about}{ledger.plain_tokens:,} in {plural(ledger.plain_turns, 'turn')} of plain calls."
    )
    more = len(ledger.tools) - TOOLS
    return words[:1].upper() + words[1:] + (f" {plural(more, 'tool')} not shown." if more > 0 else "")


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
# What turns the direction of text, or shows as nothing, could make a program look like another one.
_CONTROLS |= {
    code: f"\\u{code:04x}"
    for code in (0x061C, *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x206A), 0xFEFF)
}
# Marks without which some scripts can't be written stay.
for _needed in (0x200C, 0x200D):
    del _CONTROLS[_needed]


def visible(text: str) -> str:
    """Text in which nothing steers what shows it: control characters and lone surrogates are written out."""
    return text.replace("\r\n", "\n").encode("utf-8", "backslashreplace").decode().translate(_CONTROLS)
