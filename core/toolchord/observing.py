"""Owns who looks on while programs run: the one seam for traces, metrics and logs, which is free while nobody does.

An observer is a function of a note. It is called when something begins (a run, a call of a tool, a task of an
`Orchestrator`), with a note of what that is, and may return a function that is called at the end, when the note says
what came of it. Both are called in the same context, so what an observer makes current there is current for the work
between: a run's for its calls, a call's for its tool.

The log of this library is an observer that is always there: the logger ``toolchord``, with fields that a formatter can
read (`run_id`, `tool`, `call`, `line`, `status`, `duration`, `error_type`). It tells no arguments, results or messages,
and nothing above INFO, but for an observer that fails.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from toolchord.errors import CallPaused

if TYPE_CHECKING:
    from toolchord.dispatch import Prepared
    from toolchord.identity import CallIdentity
    from toolchord.journal import Journal
    from toolchord.limits import Limits
    from toolchord.orchestrator import OrchestratedRun
    from toolchord.recording import Outcome
    from toolchord.results import ExecutionResult

__all__ = [
    "CallNote",
    "GuestTimes",
    "Observer",
    "Propagator",
    "RunNote",
    "TaskNote",
    "foreign_spans",
    "observe",
    "on",
    "outgoing",
    "seen",
    "unobserve",
    "use_propagator",
    "within",
]

_logger = logging.getLogger("toolchord")
_logger.addHandler(logging.NullHandler())

_GIVEN_UP = (asyncio.CancelledError, GeneratorExit)


@dataclass
class GuestTimes:
    """When a run's guest was asked for and there, in nanoseconds since 1970, and what it held at its peak, in bytes.

    All are 0 of a guest that was there before, or never was.
    """

    wanted: int = 0
    there: int = 0
    peak_memory: int = 0


@dataclass
class RunNote:
    """A program that runs.

    Attributes:
        code, limits, caller, isolation, language, dry_run: what it is run with.
        journal: what already happened, and what is written down.
        offline: it is replayed from a record, and no tool runs.
        guest: its guest.
        result: what it left; None until then, or if `error` was raised to its host.
        error: what was raised instead.
        duration: seconds.
    """

    code: str
    journal: Journal
    limits: Limits
    isolation: str
    language: str
    caller: str = "sandbox"
    dry_run: bool = False
    offline: bool = False
    guest: GuestTimes = field(default_factory=GuestTimes)
    result: ExecutionResult | None = None
    error: BaseException | None = None
    duration: float = 0.0

    @property
    def run_id(self) -> str:
        """A name of the run, the same for each attempt at it."""
        return hashlib.sha256(f"{self.journal.seed}/{self.journal.epoch!r}".encode()).hexdigest()[:16]

    @property
    def status(self) -> str:
        """running, ok, failed, paused, cancelled or raised."""
        if self.error is not None:
            return "cancelled" if isinstance(self.error, _GIVEN_UP) else "raised"
        if self.result is None:
            return "running"
        if self.result.error is None:
            return "ok"
        return "paused" if self.result.error.kind == "paused" else "failed"


@dataclass
class CallNote:
    """A call that is served; calls that are answered from a record are not, see `ExecutionResult.calls`.

    Attributes:
        call, identity: which one.
        run: the run that it belongs to; None for a call that a model made without a program of ours.
        outcome: what it gave; None until then, or if it was paused or cancelled.
        error: what was raised instead of an outcome.
        cause: what its tool raised.
        duration: seconds.
    """

    call: Prepared
    identity: CallIdentity
    run: RunNote | None = None
    outcome: Outcome | None = None
    error: BaseException | None = None
    cause: BaseException | None = None
    duration: float = 0.0

    @property
    def status(self) -> str:
        """running, ok, error, held (by a dry run), paused, cancelled or raised."""
        if self.outcome is not None:
            return "held" if self.outcome.held else "ok" if self.outcome.ok else "error"
        if self.error is None:
            return "running"
        if isinstance(self.error, CallPaused):
            return "paused"
        return "cancelled" if isinstance(self.error, _GIVEN_UP) else "raised"

    @property
    def error_type(self) -> str | None:
        """The type's name of what the program was told instead of a value."""
        told = self.outcome.error if self.outcome is not None else None
        return told[0] if told is not None else None


@dataclass
class TaskNote:
    """A task that an `Orchestrator` does.

    Attributes:
        model: the model's name, "" if it has none.
        way: the way that was chosen.
        before: of a task that is resumed, what it had come to: turns, tokens read, tokens written.
        run: what came of it.
        error: what was raised instead, by the model for example.
        duration: seconds.
    """

    model: str
    way: str
    before: tuple[int, int, int] = (0, 0, 0)
    run: OrchestratedRun | None = None
    error: BaseException | None = None
    duration: float = 0.0


Note = RunNote | CallNote | TaskNote
Observer = Callable[[Note], Callable[[], None] | None]

running: ContextVar[RunNote | None] = ContextVar("toolchord_run", default=None)
"""The run that this code belongs to, while anybody looks on."""

_observers: tuple[Observer, ...] = ()

foreign_spans: list[Callable[[], Any]] = []
"""Each gives the span of another instrumentation in which this code runs though it is not the current one, or None.
Adapters of frameworks add theirs."""


class Propagator(Protocol):
    """Carries what this code belongs to over to other processes, as a few words by name."""

    def inject(self) -> dict[str, str]:
        """What another process shall be told."""
        ...

    def extract(self, carrier: Mapping[str, str]) -> Callable[[], None]:
        """Go on below what another process told, until the function that this gives is called."""
        ...


_propagator: Propagator | None = None


def use_propagator(propagator: Propagator | None) -> None:
    """From now on, tell other processes what calls belong to; None: tell them nothing, as at first."""
    global _propagator
    _propagator = propagator


def outgoing() -> dict[str, str]:
    """What a request to another process carries with it; nothing while no propagator is in use."""
    return _propagator.inject() if _propagator is not None else {}


@contextmanager
def within(carrier: Mapping[str, Any] | None) -> Iterator[None]:
    """What is done within belongs to what a request from another process carried with it."""
    told = {key: value for key, value in (carrier or {}).items() if isinstance(value, str)}
    if _propagator is None or not told:
        yield
        return
    leave = _propagator.extract(told)
    try:
        yield
    finally:
        leave()


def observe(observer: Observer) -> None:
    """From now on, tell an observer of everything that begins. What it raises is logged and disturbs nothing else."""
    global _observers
    _observers = (*(one for one in _observers if one is not observer), observer)


def unobserve(observer: Observer) -> None:
    """Tell it no more; what it has begun is still ended. Harmless when repeated."""
    global _observers
    _observers = tuple(one for one in _observers if one is not observer)


def on() -> bool:
    """Whether anybody looks on."""
    return bool(_observers) or _logger.isEnabledFor(logging.INFO)


@contextmanager
def seen(note: Note) -> Iterator[None]:
    """Let the observers see what is done within."""
    if not on():
        yield
        return
    if isinstance(note, CallNote):
        note.run = running.get()
    token = running.set(note) if isinstance(note, RunNote) else None
    observers = (*_observers, _log) if _logger.isEnabledFor(logging.INFO) else _observers
    ends = [end for one in observers if (end := _begun(one, note)) is not None]
    started = time.perf_counter()
    try:
        yield
    except BaseException as error:
        note.error = error
        raise
    finally:
        note.duration = time.perf_counter() - started
        for end in reversed(ends):
            _ended(end)
        if token is not None:
            try:
                running.reset(token)
            except ValueError:  # a run that nobody went on with is closed elsewhere: there is nothing to put back
                pass


@contextmanager
def guest_wanted() -> Iterator[None]:
    """A run's guest is got within."""
    note = running.get()
    if note is not None:
        note.guest.wanted = time.time_ns()
    yield
    if note is not None:
        note.guest.there = time.time_ns()


def _begun(observer: Observer, note: Note) -> Callable[[], None] | None:
    try:
        return observer(note)
    except Exception:
        _logger.exception("an observer failed at a beginning")
        return None


def _ended(end: Callable[[], None]) -> None:
    try:
        end()
    except Exception:
        _logger.exception("an observer failed at an end")


def _log(note: Note) -> Callable[[], None]:
    """The log: a line for each run and task (INFO) and for each call (DEBUG), when it has ended."""

    def end() -> None:
        if isinstance(note, CallNote):
            _log_call(note)
        elif isinstance(note, RunNote):
            _log_run(note)
        else:
            _log_task(note)

    return end


def _printable(name: str) -> str:
    """A name that a program may have made up, without what would begin a new line."""
    return name if name.isprintable() else ascii(name)


def _log_run(note: RunNote) -> None:
    result = note.result
    failed = result.error if result is not None else None
    calls = len(result.calls) if result is not None else 0
    kind = failed.kind if failed is not None else ""
    fields = {
        "run_id": note.run_id,
        "status": note.status,
        "duration": round(note.duration, 6),
        "calls": calls,
        "cpu_time": result.usage.cpu_time if result is not None else 0.0,
        "error_type": _printable(failed.type) if failed else type(note.error).__name__ if note.error else None,
        "error_kind": kind or None,
        "line": failed.line if failed is not None else None,
    }
    why = f" ({_printable(str(fields['error_type']))})" if note.status in ("failed", "raised") else ""
    _logger.info("run %s: %s%s, %d calls, %.3f s", note.run_id, note.status, why, calls, note.duration, extra=fields)


def _log_call(note: CallNote) -> None:
    if not _logger.isEnabledFor(logging.DEBUG):
        return
    identity, run_id = note.identity, note.run.run_id if note.run is not None else None
    fields = {
        "run_id": run_id,
        "tool": _printable(identity.tool),
        "call": identity.number,
        "line": identity.line or None,
        "status": note.status,
        "duration": round(note.duration, 6),
        "error_type": note.error_type and _printable(note.error_type),
        "result_bytes": note.outcome.size if note.outcome is not None else 0,
        "cost": identity.cost,
    }
    form = "run %s: call %d of %s: %s, %.3f s"
    _logger.debug(form, run_id, identity.number, _printable(identity.tool), note.status, note.duration, extra=fields)


def _log_task(note: TaskNote) -> None:
    run = note.run
    fields = {
        "status": run.stop if run is not None else "raised",
        "duration": round(note.duration, 6),
        "turns": run.turns - note.before[0] if run is not None else 0,
        "programs": len(run.attempts) if run is not None else 0,
        "error_type": type(note.error).__name__ if note.error is not None else None,
    }
    form = "task: %s, %d turns, %d programs, %.3f s"
    _logger.info(form, fields["status"], fields["turns"], fields["programs"], note.duration, extra=fields)
