"""Owns the calls of one run: which wait for their turn, run, are paused or have ended, and what they weigh.

It keeps count only; `run.py` starts calls and hands over what they gave.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import replace

from toolchord.dispatch import Prepared
from toolchord.identity import CallIdentity
from toolchord.recording import Outcome
from toolchord.results import CallRecord

_BATCH = 512 << 10
"""Bytes of outcomes in one event."""

_UNDELIVERED = 64 << 20
"""Bytes of results that the guest has not asked for yet, past which no further call starts."""

_UNSERVED = 64 << 20
"""Bytes of arguments of calls that have not ended, past which the guest is not read until some have."""

_KEPT_ARGUMENTS = 64 << 10


class Call:
    """A call of the program: where it came from and how far it is."""

    __slots__ = ("delivered", "identity", "line", "occurrence", "prepared", "record", "size", "task")

    def __init__(self, prepared: Prepared, record: CallRecord, size: int, occurrence: int, line: Line | None) -> None:
        self.prepared = prepared
        self.record = record
        self.size = size
        self.occurrence = occurrence
        self.line = line
        self.task: asyncio.Task[None] | None = None
        self.delivered = False
        self.identity: CallIdentity | None = None

    def charge(self) -> None:
        """Note what it has cost so far, even if nobody waits for its end."""
        if self.identity is not None:
            self.record.cost = self.record.cost or self.identity.cost

    def settle(self, outcome: Outcome, *, replayed: bool) -> bool:
        """Note how it ended; whether that is news."""
        record = self.record
        record.replayed = replayed
        record.held = outcome.held
        record.cost = outcome.cost
        record.result_bytes = outcome.size if outcome.ok else 0
        record.error = outcome.error
        if record.status != "running":
            return False
        record.status = "ok" if outcome.ok else "error"
        return True


class Line:
    """Calls that share a few places: more wait behind them, in the program's order, and let other tools' calls pass.

    Attributes:
        places: how many of them may run.
        keeps: a call that is paused holds its place, so that the order stays.
        inside: those that hold a place.
        behind: those that wait.
    """

    def __init__(self, places: int, keeps: bool) -> None:
        self.places = places
        self.keeps = keeps
        self.inside: set[int] = set()
        self.behind: deque[int] = deque()


class CallBook:
    """All calls of a run, by number.

    Attributes:
        calls: every call, in the order they were made.
        running: how many run now.
        paused: those that wait for something outside.
        completed: outcomes that the guest has not been told yet.
    """

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        self.running = 0
        self.paused: set[int] = set()
        self.completed: deque[Outcome] = deque()
        self._queue: deque[int] = deque()
        self._lines: dict[tuple[str, str], Line] = {}
        self._occurrences: Counter[str] = Counter()
        self._undelivered = 0
        self._unserved = 0

    @property
    def overloaded(self) -> bool:
        """Whether the guest must not make more calls until some have ended."""
        return self._unserved > _UNSERVED

    @property
    def idle(self) -> bool:
        """Whether no call runs or could start."""
        return not self.running and not self._queue

    def add(self, prepared: Prepared, line: int, size: int, now: float, heard: int) -> Call:
        """A call was made, after so many events; `size` is that of its encoded arguments in bytes."""
        number = len(self.calls) + 1
        kept = prepared.arguments if size <= _KEPT_ARGUMENTS else {"...": f"{size:,} bytes of arguments"}
        private = prepared.tool is not None and prepared.tool.metadata.replay == "never"
        record = CallRecord(
            number, prepared.name, kept, line, now, digest=prepared.digest, private=private, heard=heard
        )
        same = prepared.same or prepared.digest
        self._occurrences[same] += 1
        call = Call(prepared, record, size, self._occurrences[same], self._line(prepared))
        self.calls[number] = call
        self._unserved += size
        self._step_up(number)
        return call

    def _line(self, prepared: Prepared) -> Line | None:
        """The line that a call stands in: that of its ordering class, else that of a tool with few places."""
        if prepared.tool is None or prepared.problem is not None:
            return None
        metadata = prepared.tool.metadata
        if metadata.order is not None:
            return self._lines.setdefault(("order", metadata.order), Line(1, keeps=True))
        if metadata.concurrency_limit is not None:
            key = ("tool", prepared.tool.full_name)
            return self._lines.setdefault(key, Line(metadata.concurrency_limit, keeps=False))
        return None

    def _step_up(self, number: int) -> None:
        """A call may start if its line has a place; else it stands behind."""
        line = self.calls[number].line
        if line is not None:
            if len(line.inside) >= line.places:
                line.behind.append(number)
                return
            line.inside.add(number)
        self._queue.append(number)

    def _step_out(self, number: int) -> None:
        """A call gives its place in its line to the next one."""
        line = self.calls[number].line
        if line is None or number not in line.inside:
            return
        line.inside.remove(number)
        if line.behind:
            self._step_up(line.behind.popleft())

    def start(self, concurrency: int) -> tuple[int, Call] | None:
        """The next call that may start now; it counts as running from here on."""
        if not self._queue or self.running >= concurrency:
            return None
        stuck = self.overloaded and not self.running  # it must come to its wait to be handed anything
        if self._undelivered >= _UNDELIVERED and not stuck:
            return None
        number = self._queue.popleft()
        self.running += 1
        return number, self.calls[number]

    def complete(self, outcome: Outcome) -> None:
        """A call gave this, and the guest is to be told."""
        self.completed.append(outcome)
        self._undelivered += outcome.size

    def stopped(self, number: int) -> None:
        """A call runs no more."""
        call = self.calls[number]
        call.charge()
        self.running -= 1
        if not (number in self.paused and call.line is not None and call.line.keeps):
            self._step_out(number)
        self._forget_arguments(call)

    def withdraw(self, number: int, *, keep: bool = False) -> None:
        """A call that waits for its turn shall not start; with `keep` its arguments stay."""
        call = self.calls[number]
        if call.line is not None and number in call.line.behind:
            call.line.behind.remove(number)
            self._forget_arguments(call, keep)
        elif number in self._queue:
            self._queue.remove(number)
            self._forget_arguments(call, keep)
            self._step_out(number)

    def cancel(self, number: int) -> bool:
        """Nobody waits for a call any more; whether that is news."""
        call = self.calls[number]
        call.delivered = True
        self.withdraw(number)
        if number in self.paused:
            self.paused.remove(number)
            self._step_out(number)
        for outcome in [one for one in self.completed if one.call == number]:
            self.completed.remove(outcome)
            self._undelivered = max(0, self._undelivered - outcome.size)
        if call.task is not None:
            call.task.cancel()
        if call.record.status not in ("running", "paused"):
            return False
        call.record.status = "cancelled"
        return True

    def take(self) -> list[Outcome]:
        """What the next event tells the guest."""
        batch: list[Outcome] = []
        refs: set[int] = set()
        size = 0
        while self.completed and (not batch or size + len(self.completed[0].body) < _BATCH):
            # Outcomes of two attempts may number their large pieces alike; they are told one after the other.
            if not refs.isdisjoint(own := {part.ref for part in self.completed[0].parts}):
                break
            refs |= own
            batch.append(self.completed.popleft())
            size += len(batch[-1].body) + 32
        return batch

    def deliver(self, outcome: Outcome) -> None:
        """The guest is told this outcome now."""
        self.calls[outcome.call].delivered = True
        self._undelivered = max(0, self._undelivered - outcome.size)

    def stop(self, now: float) -> None:
        """The run has ended: nothing starts, and what runs is cancelled."""
        self._queue.clear()
        for line in self._lines.values():
            line.behind.clear()
        for call in self.calls.values():
            call.charge()
            if call.record.status == "running":
                call.record.status = "unfinished"
                if call.task is not None:
                    call.record.duration = now - call.record.started
            if call.task is not None:
                call.task.cancel()

    def _forget_arguments(self, call: Call, keep: bool = False) -> None:
        """A call needs its arguments no more; the record keeps the small ones."""
        if not keep and call.size > _KEPT_ARGUMENTS:
            call.prepared = replace(call.prepared, arguments={})
        self._unserved -= call.size
