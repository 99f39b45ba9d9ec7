"""Owns the trace of a run: what a person wants to see of it, as bounded plain data, with the record that replays it.

Every view (terminal, notebook, HTML page, command line) is a function of a trace, and a trace can be kept as a file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from toolchord.errors import ConfigurationError
from toolchord.ledger import RunLedger, ledger_of
from toolchord.recording import Outcome, RunRecord, content_hash
from toolchord.redact import redact
from toolchord.results import CallRecord, ExecutionResult, Output, RunError, Status, Usage, render, shorten, shown

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["LiveTrace", "Trace", "TracedCall"]

FORMAT = 1
_ARGUMENT = 300
_RESULT = 2000
_TEXT = 20_000
_CALLS = 5000
_PREVIEWED = 256 << 10
_PREVIEWS = 4 << 20

TraceStatus = Literal["running", "ok", "failed", "paused"]


class TracedCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call, as a person sees it.

    Attributes:
        id: its number in the run, from 1.
        tool: the tool's full name.
        line: the program's line that made it, 0 if unknown.
        arguments: by parameter name, as Python text of at most 300 characters.
        status, started, duration, error, result_bytes, replayed, held, cost: see `CallRecord`.
        waits: what a paused call waits for.
        result: what it gave, as Python text of at most 2,000 characters; "" if it gave nothing or nothing was kept.
        digest: SHA-256 of tool and arguments.
        sha: SHA-256 of what it gave, "" if that was not kept.
    """

    id: int
    tool: str
    line: int
    arguments: dict[str, str]
    status: Status
    started: float
    duration: float
    error: tuple[str, str] | None = None
    result: str = ""
    result_bytes: int = 0
    replayed: bool = False
    held: bool = False
    cost: float = 0.0
    waits: str = ""
    digest: str = ""
    sha: str = ""


class Trace(msgspec.Struct, omit_defaults=True):
    """A run, as a person sees it: plain data. What looks like a credential is masked in all texts but the program's.

    Attributes:
        code: the program.
        status: running, ok, failed, paused.
        epoch: when it started, in seconds since 1970.
        duration: seconds so far.
        calls: its calls in the order they were made, at most 5,000.
        more_calls: how many are left out.
        value: its value as text, at most 20,000 characters; "" if it gave none.
        stdout, stderr: what it printed, at most 20,000 characters of each.
        error: why it failed.
        usage: what it spent.
        ledger: tokens, turns, time and money.
        end: SHA-256 of value and output as they are, however much of them is shown.
        record: what replays it, if it was kept with the trace.
        format: the version of this layout.
    """

    code: str
    status: TraceStatus
    epoch: float = 0.0
    duration: float = 0.0
    calls: list[TracedCall] = []
    more_calls: int = 0
    value: str = ""
    stdout: str = ""
    stderr: str = ""
    error: RunError | None = None
    usage: Usage = Usage()
    ledger: RunLedger | None = None
    end: str = ""
    record: RunRecord | None = None
    format: int = FORMAT

    @classmethod
    def of(cls, result: ExecutionResult, *, count: Callable[[str], int] | None = None) -> Trace:
        """The trace of a run that has ended.

        Args:
            result: what it left.
            count: gives the number of tokens of a text, for the ledger; None: an estimate, four characters each.
        """
        record = result.record
        outcomes = record.outcomes() if record is not None else {}
        budget = _Budget(_PREVIEWS)
        return cls(
            code=record.code if record is not None else "",
            status=_status(result),
            epoch=record.epoch if record is not None else 0.0,
            duration=result.duration,
            calls=[_traced(call, outcomes.get(call.id), budget) for call in result.calls[:_CALLS]],
            more_calls=max(0, len(result.calls) - _CALLS),
            value=_masked(render(result.value), _TEXT) if result.returned else "",
            stdout=_masked(result.stdout, _TEXT),
            stderr=_masked(result.stderr, _TEXT),
            error=_error(result.error),
            usage=result.usage,
            ledger=ledger_of(result, count=count),
            end=_end(result),
            record=record,
        )

    def to_json(self, *, record: bool = True) -> str:
        """As JSON text; without the record nobody can replay it, and nothing unmasked is in it but the program."""
        return msgspec.json.encode(self if record else msgspec.structs.replace(self, record=None)).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Trace:
        """Read a trace back; ConfigurationError if it is none, or of another version."""
        try:
            trace = msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"not a trace of a run: {error}") from None
        if trace.format != FORMAT:
            raise ConfigurationError(f"a trace of format {trace.format}; this version reads format {FORMAT}")
        return trace

    def to_html(self, *, title: str = "") -> str:
        """As one HTML document that loads nothing; several runs go into one with `toolchord.timeline.page`."""
        from toolchord.timeline import page

        return page(self, title=title)

    def __rich__(self) -> RenderableType:
        from toolchord.terminal import view

        return view(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from toolchord.notebook import bundle

        return bundle([self])

    def save(self, path: str | os.PathLike[str], *, record: bool = True) -> None:
        """Write it to a file; see `to_json`."""
        Path(path).write_text(self.to_json(record=record), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read it from a file; ConfigurationError if there is none, or it holds something else."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{os.fspath(path)} can't be read: {error.strerror}") from None
        return cls.from_json(data)


class LiveTrace:
    """The trace of a run that goes on: give it to `execute` as ``watch=`` and look at `trace` whenever you like.

    It is told when a program begins and ends; given to an orchestrator, it sees several programs, see `traces`.

    Args:
        code: the program that runs; "": it is told when the run begins.
        count: gives the number of tokens of a text, for the ledger; None: an estimate, four characters each.
        clock: gives seconds; for tests.

    Example:
        live = LiveTrace(program)
        result = await sandbox.execute(program, watch=live)
    """

    def __init__(
        self, code: str = "", *, count: Callable[[str], int] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._clock = clock
        self._earlier: list[Trace] = []
        self._start(code)

    def _start(self, code: str) -> None:
        self.code = code
        self._began = self._clock()
        self._epoch = time.time()
        self._calls: dict[int, CallRecord] = {}
        self._seen: dict[int, TracedCall] = {}
        self._output: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._result: ExecutionResult | None = None
        self._made: tuple[ExecutionResult, Trace] | None = None

    def __call__(self, news: Output | CallRecord) -> None:
        """Take note of what happened."""
        if isinstance(news, CallRecord):
            if not self._calls:
                self._began = self._clock() - news.started  # the guest was waited for until here
            self._calls[news.id] = news
            self._seen.pop(news.id, None)
        else:
            self._output[news.stream].append(news.text)

    def began(self, code: str) -> None:
        """A program begins; what an earlier one left stays in `traces`."""
        if self.done:
            self._earlier.append(self.trace)
        self._start(code)

    def ended(self, result: ExecutionResult) -> None:
        """The run has ended."""
        self._result = result  # its trace is made when it is looked at: that takes a while, and others wait here

    def end(self, result: ExecutionResult, *, count: Callable[[str], int] | None = None) -> Trace:
        """The run has ended: its whole trace."""
        self._count = count or self._count
        self._made = None
        self.ended(result)
        return self.trace

    @property
    def done(self) -> bool:
        """Whether the last program has ended."""
        return self._result is not None

    @property
    def traces(self) -> list[Trace]:
        """Of every program so far, the last one as far as it is."""
        return [*self._earlier, self.trace]

    @property
    def trace(self) -> Trace:
        """How far it is."""
        if (result := self._result) is not None:
            if self._made is None or self._made[0] is not result:  # another thread may look at another run
                made = Trace.of(result, count=self._count)
                self._made = result, made if made.code else msgspec.structs.replace(made, code=self.code)
            return self._made[1]
        now = max(0.0, self._clock() - self._began)
        records = list(self._calls.values())
        return Trace(
            code=self.code,
            status="running",
            epoch=self._epoch,
            duration=now,
            calls=[self._sight(call, now) for call in records[:_CALLS]],
            more_calls=max(0, len(records) - _CALLS),
            stdout=_masked("".join(self._output["stdout"]), _TEXT),
            stderr=_masked("".join(self._output["stderr"]), _TEXT),
        )

    def _sight(self, call: CallRecord, now: float) -> TracedCall:
        """One call now; what has been looked at once is not masked again."""
        seen = self._seen.get(call.id)
        if seen is None or seen.status != call.status:
            seen = self._seen[call.id] = _traced(call, None, _Budget(0))
        if seen.status == "running":
            return msgspec.structs.replace(seen, duration=max(0.0, now - seen.started))
        return seen


class _Budget:
    """Bytes of results that may still be decoded for a look."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, size: int) -> bool:
        if size > min(self.left, _PREVIEWED):
            return False
        self.left -= size
        return True


def _end(result: ExecutionResult) -> str:
    try:
        ended = repr((_ordered(result.value), result.returned, result.stdout, result.stderr))
    except (RecursionError, ValueError):  # too deep, or an integer of too many digits
        return ""
    return hashlib.sha256(ended.encode("utf-8", "surrogatepass")).hexdigest()


def _ordered(value: Any) -> Any:
    """The value with its sets in an order that every process has."""
    if isinstance(value, dict):
        return {key: _ordered(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return ("set", sorted(map(repr, value)))
    return type(value)(map(_ordered, value)) if isinstance(value, list | tuple) else value


def _status(result: ExecutionResult) -> TraceStatus:
    if result.error is None:
        return "ok"
    return "paused" if result.error.kind == "paused" else "failed"


def _traced(call: CallRecord, outcome: Outcome | None, budget: _Budget) -> TracedCall:
    kept = outcome if outcome is not None and not outcome.missing else None
    arguments = {} if call.private else call.arguments
    return TracedCall(
        id=call.id,
        tool=call.tool,
        line=call.line,
        arguments={_masked(name, _ARGUMENT): _masked(shown(value), _ARGUMENT) for name, value in arguments.items()},
        status=call.status,
        started=call.started,
        duration=call.duration,
        error=(call.error[0], _masked(call.error[1], _RESULT)) if call.error is not None else None,
        result=_result(kept, budget) if kept is not None and kept.ok else "",
        result_bytes=call.result_bytes,
        replayed=call.replayed,
        held=call.held,
        cost=call.cost,
        waits=_masked(str(call.pause), _ARGUMENT) if call.status == "paused" and call.pause is not None else "",
        digest=call.digest,
        sha=_sha(outcome) if outcome is not None else "",
    )


def _sha(outcome: Outcome) -> str:
    return outcome.sha if outcome.missing else content_hash(outcome)


def _result(outcome: Outcome, budget: _Budget) -> str:
    if not budget.take(outcome.size):
        return f"({outcome.size:,} bytes)"
    return _masked(shown(outcome.value()), _RESULT)


def _error(error: RunError | None) -> RunError | None:
    if error is None:
        return None
    message, traceback, hint = (_masked(text, _TEXT) for text in (error.message, error.traceback, error.hint))
    return dataclasses.replace(error, message=message, traceback=traceback, hint=hint)


def _masked(text: Any, limit: int) -> str:
    # What is cut off is cut before it is masked as well, so that a credential at the cut is not shown in half.
    return shorten(redact(shorten(str(text), 4 * limit)), limit).encode("utf-8", "backslashreplace").decode()
