"""What a run leaves: its value, what it printed, what it called, and how the model and a person get to see it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from toolchord import errors
from toolchord.recording import RunRecord
from toolchord.variables import Variables

if TYPE_CHECKING:
    from rich.console import RenderableType

    from toolchord.ledger import RunLedger
    from toolchord.trace import Trace

Status = Literal["running", "ok", "error", "cancelled", "unfinished", "paused"]


@dataclass(frozen=True)
class Output:
    """Text that a program printed.

    Attributes:
        stream: stdout or stderr.
        text: what was printed at once, at most 64 KiB.
    """

    stream: Literal["stdout", "stderr"]
    text: str


@dataclass
class CallRecord:
    """One tool call.

    Attributes:
        id: its number in the run, from 1.
        tool: the tool's full name.
        arguments: by parameter name; a note instead where they are larger than 64 KiB.
        line: the program's line that made it, 0 if unknown.
        started, duration: seconds since the run's start, and seconds it took.
        status: ok, error, cancelled (nobody waited any more), unfinished (the run ended first),
            paused (it waits for something outside, see `pause`).
        error: the type's name and the message of a failed call.
        result_bytes: size of the encoded result.
        replayed: answered from the journal; the tool did not run.
        pause: what a paused call waits for.
        digest: SHA-256 of tool and arguments as the program sent them.
        held: a dry run held it back; the tool did not run.
        cost: what it cost in your own money, as its tool's `price` and `charge` tell.
        private: its tool's replay policy is "never", so nothing that is kept tells arguments or result.
        heard: how many of the run's events the program had been told of when it made the call.
    """

    id: int
    tool: str
    arguments: dict[str, Any]
    line: int = 0
    started: float = 0.0
    duration: float = 0.0
    status: Status = "running"
    error: tuple[str, str] | None = None
    result_bytes: int = 0
    replayed: bool = False
    pause: errors.CallPaused | None = None
    digest: str = ""
    held: bool = False
    cost: float = 0.0
    private: bool = False
    heard: int = 0


Watch = Callable[[Output | CallRecord], None]
"""Told of a run while it goes on. What it raises ends the run and is raised to its host.

If it has methods ``began(code)`` and ``ended(result)``, it is told of these as well; see `LiveTrace`.
"""


@dataclass(frozen=True)
class RunError:
    """Why a run gave no value.

    Attributes:
        type: the exception's name as the program would see it, or ProgramRefused, LimitExceeded, GuestDied,
            UnsupportedValue, ReplayDivergence.
        message: what happened, in one line or a few.
        line: the program's line, from 1; None if there is none.
        kind: program, syntax, refused, limit, value, deadlock, died, protocol, divergence,
            paused.
        traceback: the program's own lines.
        limit: the field of Limits that was reached.
        path: where an unsupported value is.
        position: the journal's event at which a replay diverged.
        hint: how to repair the program: what the value looked like, the nearest name, the smallest fix.
    """

    type: str
    message: str
    line: int | None = None
    kind: str = "program"
    traceback: str = ""
    limit: str | None = None
    path: str | None = None
    position: int | None = None
    hint: str = ""

    def __str__(self) -> str:
        where = f" (line {self.line})" if self.line else ""
        return f"{self.type}{where}: {self.message}"

    def exception(self) -> errors.ProgramError:
        """The exception that says the same."""
        if self.kind == "refused":
            return errors.ProgramRefused(self.message, line=self.line)
        if self.kind == "limit":
            return errors.LimitExceeded(self.message, limit=self.limit or "", line=self.line)
        if self.kind == "value":
            return errors.UnsupportedValue(self.message, path=self.path or "$", line=self.line)
        if self.kind in ("died", "protocol"):
            return errors.GuestDied(self.message, line=self.line)
        if self.kind == "divergence":
            return errors.ReplayDivergence(self.message, position=self.position or 0, line=self.line)
        return errors.ProgramError(f"{self.type}: {self.message}", line=self.line)


@dataclass(frozen=True)
class Usage:
    """What a run spent.

    Attributes:
        cpu_time: seconds of CPU in the guest.
        host_time: seconds in which the program waited for the host (tools, timers).
        tool_calls: calls it made.
        bytes_in, bytes_out: bytes that crossed the wall into the guest and out of it.
    """

    cpu_time: float = 0.0
    host_time: float = 0.0
    tool_calls: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass
class ExecutionResult:
    """What a run gave.

    Attributes:
        value: the program's value, plain data; None too if it gave none (see `returned`).
        stdout, stderr: what it printed.
        error: why it failed, or None.
        calls: every tool call, in the order they were made.
        usage: what it spent.
        duration: seconds from start to end.
        returned: whether the program gave a value at all.
        record: all that is needed to replay it.
        variables: what it leaves for the next program, if that was asked for.
    """

    value: Any = None
    stdout: str = ""
    stderr: str = ""
    error: RunError | None = None
    calls: list[CallRecord] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    duration: float = 0.0
    returned: bool = False
    record: RunRecord | None = field(default=None, repr=False)
    variables: Variables | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether the program came to its end."""
        return self.error is None

    @property
    def pending(self) -> list[CallRecord]:
        """The calls that wait for something outside; the run is continued with a journal of what happened so far."""
        return [call for call in self.calls if call.status == "paused"]

    @property
    def held(self) -> list[CallRecord]:
        """The calls that a dry run held back, in the program's order; see `Policy.granting`."""
        return [call for call in self.calls if call.held]

    def trace(self, *, count: Callable[[str], int] | None = None) -> Trace:
        """The run as a person sees it, as plain data that can be kept and viewed; see `toolchord.Trace`."""
        from toolchord.trace import Trace

        return Trace.of(self, count=count)

    def ledger(self, *, count: Callable[[str], int] | None = None) -> RunLedger:
        """Tokens, turns, time and money, beside what plain calls would have cost; see `toolchord.RunLedger`.

        Args:
            count: gives the number of tokens of a text; None: an estimate, four characters each.
        """
        from toolchord.ledger import ledger_of

        return ledger_of(self, count=count)

    def raise_for_error(self) -> None:
        """Raise the ProgramError of a failed run; nothing if it is ok."""
        if self.error is not None:
            raise self.error.exception()

    def for_model(self, max_chars: int = 20_000) -> str:
        """The text that goes back to the model: value, output, error; at most `max_chars` characters."""
        sections: list[str] = []
        if self.error is not None:
            sections.append(f"The program failed. {self.error}")
            if self.error.traceback:
                sections.append(self.error.traceback.rstrip())
            if hint := self.error.hint or _advice(self.error):
                sections.append(hint)
            sections.append(self._history())
        elif self.returned:
            sections.append(render(self.value))
        elif not self.stdout:
            sections.append("The program ended without a value and printed nothing. Return what you need.")
        if self.stdout:
            sections.append((f"Printed:\n{self.stdout}" if sections else self.stdout).rstrip())
        if self.variables is not None and self.variables.lost:
            lost = [f"{name} ({reason})" for name, reason in list(self.variables.lost.items())[:20]]
            sections.append(f"Not kept for the next program, which keeps plain data: {', '.join(lost)}")
        if self.stderr:
            sections.append(f"Warnings:\n{self.stderr}".rstrip())
        sections = list(map(_sendable, sections))
        share = max(200, max_chars // max(1, len(sections)) - 2)
        if sum(map(len, sections)) + 2 * len(sections) <= max_chars:
            share = max_chars
        return shorten("\n\n".join(shorten(section, share) for section in sections), max_chars)

    def _history(self) -> str:
        """What already ran, for the author of a repaired program."""
        if self.calls:
            return "Calls that already happened (their effects remain):\n" + self._call_lines()
        if self.error is not None and self.error.kind in ("syntax", "refused") and not self.error.traceback:
            return "Nothing ran: no tool was called."
        return "No tool was called."

    def _call_lines(self) -> str:
        lines = []
        for call in self.calls[:20]:
            outcome = f"{call.error[0]}: {call.error[1]}" if call.error else call.status
            lines.append(f"- line {call.line}: {made(call, 60)} -> {shorten(outcome, 200)}")
        if len(self.calls) > 20:
            lines.append(f"- and {len(self.calls) - 20} more")
        return "\n".join(lines)

    def __rich__(self) -> RenderableType:
        from toolchord.terminal import view

        return view(self.trace())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from toolchord.notebook import bundle

        return bundle([self.trace()])

    def __str__(self) -> str:
        return self.for_model()


_ADVICE = {
    "wall_time": "do less in one program: fewer calls, or calls that run together with asyncio.gather",
    "cpu_time": "look for a loop that does not end; else work on less data at a time",
    "memory": "work on less data at a time, and keep only what is needed of each result",
    "output": "print less, and return what is needed",
    "result": "return less: a summary, or the items that matter",
    "tool_calls": "make fewer calls: filter before calling, or use a tool that takes many at once",
    "source": "pass data as inputs or get it from a tool, not as text in the program",
}


def _advice(error: RunError) -> str:
    """How to repair what the guest itself could not explain."""
    fix = _ADVICE.get(error.limit or "", "") if error.kind == "limit" else ""
    if error.kind == "value":
        fix = "return plain data: dicts, lists, text and numbers; list(...) of an iterator, dict(...) of an object"
    elif error.kind == "deadlock":
        fix = "wait only for what something will set or put: a call, a timer, another task"
    return f"Fix: {fix}" if fix else ""


def render(value: Any) -> str:
    """A value as text for a model: text as it is, data as JSON where JSON can say it, else as Python."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        pass
    return shown(value)


def _sendable(text: str) -> str:
    """The text with lone surrogates written out: no API takes them."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def shown(value: Any) -> str:
    """The repr of plain data, or a note of why there is none."""
    try:
        return repr(value)
    except (ValueError, RecursionError) as error:  # an integer of too many digits, a nest too deep
        return f"(a {type(value).__name__} that can't be shown: {error})"


def made(call: CallRecord, each: int) -> str:
    """A call as a program writes it, with each argument at most so long."""
    return f"{call.tool.removeprefix('default.')}({written(call.arguments, each)})"


def written(arguments: Mapping[str, Any], each: int) -> str:
    """Arguments as text, each value at most so long; a name that is none is quoted, so that it can't look like more."""
    return ", ".join(
        f"{name if name.isidentifier() else shown(name)}={shorten(shown(value), each)}"
        for name, value in arguments.items()
    )


def shorten(text: str, limit: int) -> str:
    """Head and tail of a text, with a note of what was cut; `limit` characters at the most."""
    if len(text) <= limit:
        return text
    note: Callable[[int], str] = lambda cut: f"\n... [{cut} characters cut] ...\n"  # noqa: E731
    room = limit - len(note(len(text)))
    if room <= 0:
        return text[: max(0, limit)]
    head = room * 2 // 3
    return text[:head] + note(len(text) - room) + text[len(text) - (room - head) :]
