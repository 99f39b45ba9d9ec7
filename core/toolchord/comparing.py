"""Owns the difference between two runs: program, calls, what they gave, and how the runs ended."""

from __future__ import annotations

import difflib
from collections import defaultdict, deque
from dataclasses import dataclass

from toolchord.trace import Trace, TracedCall

__all__ = ["Difference", "compare"]

_MOST = 50


@dataclass(frozen=True)
class Difference:
    """What is different about a second run.

    Attributes:
        program: the lines of a unified diff of the programs.
        calls: one line for each call that only one of them made (``-`` the first, ``+`` the second), or that gave
            something else (``~``).
        ending: one line for each part of the end that differs: status, error, value, stdout.
    """

    program: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    ending: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether the second run went the same way to the same end."""
        return not (self.program or self.calls or self.ending)

    def __bool__(self) -> bool:
        return not self.same

    def __str__(self) -> str:
        if self.same:
            return "The runs are the same: program, calls, results and end."
        parts = [(name, getattr(self, name)) for name in ("program", "calls", "ending")]
        return "\n\n".join(f"{name}:\n" + "\n".join(_bounded(lines)) for name, lines in parts if lines)


def compare(one: Trace, other: Trace) -> Difference:
    """What is different about `other`; times, costs, and whether an answer came from a record, are not looked at.

    Calls are the same if tool and arguments are, and it is the same time that they occur. Their order counts only in so
    far as it shows in the results.
    """
    program = tuple(
        difflib.unified_diff(one.code.splitlines(), other.code.splitlines(), "first", "second", lineterm="", n=2)
    )
    return Difference(program, tuple(_calls(one, other)), tuple(_ending(one, other)))


def _calls(one: Trace, other: Trace) -> list[str]:
    waiting: defaultdict[str, deque[TracedCall]] = defaultdict(deque)
    for call in other.calls:
        waiting[call.digest].append(call)
    lines = []
    for call in one.calls:
        if not waiting[call.digest]:
            lines.append(f"- line {call.line}: {_shown(call)} -> {_gave(call)}")
            continue
        again = waiting[call.digest].popleft()
        if call.sha != again.sha:  # what the program was not told of made no difference to it
            lines.append(f"~ line {call.line}: {_shown(call)} -> {_gave(call)}, then {_gave(again)}")
    left = sorted((call for calls in waiting.values() for call in calls), key=lambda call: call.id)
    lines += [f"+ line {call.line}: {_shown(call)} -> {_gave(call)}" for call in left]
    if one.more_calls != other.more_calls:
        lines.append(f"~ {one.more_calls:,} calls are not listed, then {other.more_calls:,}")
    return lines


def _shown(call: TracedCall) -> str:
    arguments = ", ".join(f"{name}={value[:80]}" for name, value in call.arguments.items())
    return f"{call.tool.removeprefix('default.')}({arguments})"


def _gave(call: TracedCall) -> str:
    if call.error is not None:
        return f"{call.error[0]}: {call.error[1][:200]}"
    return call.result[:200] or call.status


def _ending(one: Trace, other: Trace) -> list[str]:
    pairs = {"status": (one.status, other.status), "error": (str(one.error or ""), str(other.error or ""))}
    printed = {
        "value": (one.value, other.value),
        "stdout": (one.stdout, other.stdout),
        "stderr": (one.stderr, other.stderr),
    }
    if not one.end or one.end != other.end:
        pairs |= printed
    lines = [f"{name}: {_short(a)}, then {_short(b)}" for name, (a, b) in pairs.items() if a != b]
    if not lines and one.end and other.end and one.end != other.end:
        lines.append("value or output: they differ where this trace does not show them, or in their types")
    return lines


def _short(text: str) -> str:
    return repr(text if len(text) <= 300 else f"{text[:300]}…")


def _bounded(lines: tuple[str, ...]) -> list[str]:
    shown = [f"  {line}" for line in lines[:_MOST]]
    return shown if len(lines) <= _MOST else [*shown, f"  and {len(lines) - _MOST:,} more"]
