"""Owns the journal that outlives a process: what happened in a run, kept in a store, and taken up again.

A run has rows of five kinds: what program it is, each attempt at it, each call that began, what each call gave, and the
order of events. A row is written before anyone acts on what it says, and never changed.

- What a call gave is kept as soon as it ended, so a finished call is never run again.
- A call that acts on the world is written down before it begins. One that began and left no outcome is *unclear*: it is
  not repeated, somebody must say what became of it. READ_ONLY and IDEMPOTENT tools are simply called again.
- Each attempt claims the run. One that is known to be going on is left alone; one that can't be asked, because it runs
  on another machine, is stopped before its next call begins.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, Self

import msgspec

from toolchord.attempts import Attempt
from toolchord.errors import CallPaused, JournalConflict
from toolchord.identity import CallIdentity
from toolchord.journal import FORMAT, Event, Journal, Outcome, RunRecord

__all__ = ["DurableJournal", "JournalStore", "MemoryStore", "Unclear"]


class JournalStore(Protocol):
    """Where runs are kept: named rows of bytes, each written once.

    `put` must have written the row for good when it returns. A store that can't refuse a row by fence says so in its
    documentation; with it two attempts that overlap may both run a call.
    """

    async def load(self, run: str) -> Mapping[str, bytes]:
        """All rows of a run by key; empty if there are none."""
        ...

    async def put(self, run: str, key: str, data: bytes, *, fence: int | None = None) -> bool:
        """Write a row unless there is one of that key; whether it was written.

        Args:
            run, key: which row.
            data: what it says.
            fence: the attempt that writes it. If a later one has claimed the run, nothing is written.

        Raises:
            JournalConflict: a later attempt has claimed the run: a row ``attempt/N`` with N above `fence` is there.
        """
        ...

    async def delete(self, run: str) -> None:
        """Forget a run; harmless if there is none."""
        ...


class MemoryStore:
    """Runs in this process's memory: for tests, and for hosts that only pause within one process."""

    def __init__(self) -> None:
        self._runs: dict[str, dict[str, bytes]] = {}

    async def load(self, run: str) -> Mapping[str, bytes]:
        """See `JournalStore`."""
        return dict(self._runs.get(run, {}))

    async def put(self, run: str, key: str, data: bytes, *, fence: int | None = None) -> bool:
        """See `JournalStore`."""
        rows = self._runs.setdefault(run, {})
        if fence is not None and latest_attempt(rows) > fence:
            raise JournalConflict(run, fence)
        if key in rows:
            return False
        rows[key] = data
        return True

    async def delete(self, run: str) -> None:
        """See `JournalStore`."""
        self._runs.pop(run, None)


class Unclear:
    """Why a call waits: it began in an earlier attempt, acts on the world, and what became of it is not known.

    Attributes:
        call: which one.
    """

    def __init__(self, call: CallIdentity) -> None:
        self.call = call

    def __str__(self) -> str:
        return (
            f"{self.call.tool} (call {self.call.number}, line {self.call.line}) began before the run was cut off; "
            f"whether it took effect is not known"
        )


async def _wait(call: CallIdentity) -> None:
    raise CallPaused(Unclear(call))


class _Header(msgspec.Struct, frozen=True):
    """What program a run is of."""

    format: int
    seed: int
    epoch: float
    program: str
    python: tuple[int, int]


_START = re.compile(r"start/(\d+)/\d+(/\d+)?")


def latest_attempt(rows: Mapping[str, bytes]) -> int:
    """The number of the last attempt that claimed a run, 0 if none has."""
    return max((int(key[8:]) for key in rows if key.startswith("attempt/")), default=0)


class DurableJournal(Journal):
    """A run in a store. Made by `DurableJournal.open`, once for each attempt at the run."""

    def __init__(
        self, store: JournalStore, run: str, attempt: int, rows: Mapping[str, bytes], unclear: UnclearHandler
    ) -> None:
        """Not for users; see `open`."""
        header = msgspec.msgpack.decode(rows["header"], type=_Header) if "header" in rows else None
        super().__init__(seed=header.seed if header else None, epoch=header.epoch if header else None)
        self.run = run
        self.attempt = attempt
        self._store = store
        self._header = header
        self._mine: Attempt | None = None
        self._unclear = unclear
        self._outcomes: dict[int, Outcome] = {}
        self._starts: Counter[int] = Counter()
        self._take(rows)
        begun = (found for key in rows if (found := _START.fullmatch(key)) and f"pause/{key[6:]}" not in rows)
        self._begun = Counter(int(found[1]) for found in begun)
        while (data := rows.get(f"event/{len(self.events)}")) is not None:
            now, numbers = msgspec.msgpack.decode(data, type=tuple[float, list[int]])
            self.events.append(Event(now, [self._outcomes[number] for number in numbers]))

    def _take(self, rows: Mapping[str, bytes]) -> None:
        """Read what calls gave."""
        for key, data in rows.items():
            if key.startswith("call/"):
                outcome = msgspec.msgpack.decode(data, type=Outcome)
                self._outcomes[outcome.call] = outcome

    @classmethod
    async def open(cls, store: JournalStore, run: str, *, unclear: UnclearHandler = _wait) -> Self:
        """Begin an attempt at a run: its first one, or one that goes on where the last one was.

        Args:
            store: where runs are kept.
            run: the run's name in the store.
            unclear: asked before a call is run that began in an earlier attempt and left no outcome, if its tool is
                neither READ_ONLY nor IDEMPOTENT. It returns to let the call run (again), or raises: a `CallPaused`
                waits, which is the default.

        Raises:
            JournalConflict: an earlier attempt is still going on, or another one was begun at this very moment.
        """
        rows = await store.load(run)
        attempt = latest_attempt(rows) + 1
        if attempt > 1 and f"ended/{attempt - 1}" not in rows:
            before = msgspec.msgpack.decode(rows[f"attempt/{attempt - 1}"], type=Attempt)
            if before.surely_running:
                raise JournalConflict(run, attempt)
        mine = Attempt.here()
        if not await store.put(run, f"attempt/{attempt}", msgspec.msgpack.encode(mine), fence=attempt):
            raise JournalConflict(run, attempt)
        mine.begin()
        try:
            if attempt > 1:
                rows = await store.load(run)  # what an earlier attempt wrote until it was fenced off
            journal = cls(store, run, attempt, rows, unclear)
        except BaseException:
            mine.end()  # nobody would ever end it
            raise
        journal._mine = mine
        return journal

    async def end(self) -> None:
        """See `Journal.end`."""
        mine, self._mine = self._mine, None
        if mine is not None:
            mine.end()
            await self._store.put(self.run, f"ended/{self.attempt}", b"")

    async def begin(self, record: RunRecord) -> str | None:
        """See `Journal.begin`."""
        words = set(re.findall(r"\w+", record.code))  # other tools, and what is said of them, may change meanwhile
        named = [one for one in record.tools if one["name"].rpartition(".")[2] in words]
        tools = [{key: value for key, value in one.items() if key != "doc"} for one in named]
        program = hashlib.sha256(
            msgspec.msgpack.encode([record.code, record.inputs, record.language, tools, record.variables, record.keep])
        ).hexdigest()
        known = self._header
        if known is None:
            self._header = _Header(FORMAT, self.seed, self.epoch, program, sys.version_info[:2])
            await self._put("header", msgspec.msgpack.encode(self._header))
            return None
        if known.format != FORMAT:
            return f"the run was written down in format {known.format}; this version reads format {FORMAT}"
        if known.program != program:
            return "the run was begun with another program, other inputs or other tools"
        if known.python != sys.version_info[:2]:
            return f"the run was begun under Python {'.'.join(map(str, known.python))}"
        return None

    async def call(self, call: CallIdentity, produce: Callable[[], Awaitable[Outcome]], *, repeatable: bool) -> Outcome:
        """See `Journal.call`."""
        number, place = call.number, ""
        if (known := self._outcomes.get(number)) is not None:
            return known
        if not repeatable:
            if number in self._begun:
                await self._unclear(call)
            again = f"/{self._starts[number]}" if self._starts[number] else ""  # an adapter may have answered its pause
            place = f"{number}/{self.attempt}{again}"
            self._starts[number] += 1
            await self._put(f"start/{place}", call.digest.encode())
        try:
            outcome = await produce()
        except CallPaused:
            if not repeatable:
                await self._put(f"pause/{place}", b"")
            raise
        # A fact, whoever has taken over the run by now.
        await self._store.put(self.run, f"call/{number}", msgspec.msgpack.encode(outcome))
        self._outcomes[number] = outcome
        return outcome

    async def keep(self, event: Event) -> None:
        """See `Journal.keep`."""
        row = (event.now, [outcome.call for outcome in event.outcomes])
        await self._put(f"event/{len(self.events)}", msgspec.msgpack.encode(row))

    async def _put(self, key: str, data: bytes) -> None:
        if not await self._store.put(self.run, key, data, fence=self.attempt):
            raise JournalConflict(self.run, self.attempt)


UnclearHandler = Callable[[CallIdentity], Awaitable[None]]
"""Asked about a call of which it is not known whether it took effect."""
