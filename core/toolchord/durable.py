"""Owns the journal that outlives a process: what happened in a run, kept in a store, and taken up again.

A run has rows of these kinds: what program it is, each attempt at it, each call that began, what each call gave, the
order of events, what was asked, and what was decided. A row is written before anyone acts on what it says, and never
changed.

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
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Self

import msgspec

from toolchord.approvals import ApprovalRequest, Decision, Request, Unclear
from toolchord.attempts import Attempt
from toolchord.errors import CallPaused, ConfigurationError, JournalConflict, JournalUnreadable
from toolchord.identity import CallIdentity
from toolchord.journal import Answers, Journal, UnclearHandler, check_same, named, unclear
from toolchord.recording import FORMAT, Event, Outcome, RunRecord
from toolchord.rows import JournalStore, MemoryStore, Rows, latest_attempt, unpacked

__all__ = ["DurableJournal", "JournalStore", "MemoryStore", "Unclear"]

_START = re.compile(r"start/(\d+)/(\d+)(?:/\d+)?")

_MOST = 256 << 20


class _Header(msgspec.Struct, frozen=True):
    """What program a run is of."""

    format: int
    seed: int
    epoch: float
    program: str
    python: tuple[int, int]
    repairs: str = ""
    traceparent: str = ""


class DurableJournal(Journal):
    """A run in a store. Made by `DurableJournal.open`, once for each attempt at the run."""

    lasts = True

    def __init__(
        self, rows: Rows, attempt: int, stored: Mapping[str, bytes], unclear: UnclearHandler | None, repairs: str
    ) -> None:
        """Not for users; see `open`."""
        header = unpacked(rows.run, stored["header"], _Header) if "header" in stored else None
        seed, epoch = (header.seed, header.epoch) if header else (None, None)
        super().__init__(seed=seed, epoch=epoch, unclear=unclear)
        self.traceparent = header.traceparent if header else ""
        self.run = rows.run
        self.attempt = attempt
        self._rows = rows
        self._header = header
        self._mine: Attempt | None = None
        self._repairs = header.repairs if header else repairs
        self._outcomes = _outcomes(rows.run, stored)
        self._begun = _begun(stored)
        self._starts: Counter[int] = Counter()
        self._given = _answers(rows.run, stored)
        self.asked = {one.id: one for one in _asked(rows.run, stored)}
        self.decisions = {
            key[9:]: unpacked(rows.run, data, Decision) for key, data in stored.items() if key.startswith("decision/")
        }
        while (data := stored.get(f"event/{len(self.events)}")) is not None:
            now, numbers = unpacked(rows.run, data, tuple[float, list[int]])
            if missing := [number for number in numbers if number not in self._outcomes]:
                raise JournalUnreadable(rows.run, f"it tells of call {missing[0]}, whose row is not there")
            self.events.append(Event(now, [self._outcomes[number] for number in numbers]))

    @classmethod
    async def open(
        cls,
        store: JournalStore,
        run: str,
        *,
        unclear: UnclearHandler | None = None,
        repairs: str = "",
        repeat_failed: bool = False,
        max_bytes: int = _MOST,
    ) -> Self:
        """Begin an attempt at a run: its first one, or one that goes on where the last one was.

        Args:
            store: where runs are kept.
            run: the run's name in the store.
            unclear: see `Journal`. By default the run waits for an answer, see `Approvals`.
            repairs: for another program's first attempt: the run whose calls it shall not repeat, see
                `Journal.repairing`. That run is fenced off.
            repeat_failed: see `Journal`.
            max_bytes: bytes that the run may write; past them no further call begins and the run ends with the limit
                ``"journal"``.

        Raises:
            ConfigurationError: a name that is none.
            JournalConflict: an earlier attempt is still going on, or another one was begun at this very moment.
            JournalUnreadable: the rows are not what was written.
        """
        for name in (run, repairs or run):
            if not isinstance(name, str) or not name or "\0" in name:
                raise ConfigurationError(f"a run's name is text without null characters, not {name!r}")
        if repairs == run:
            raise ConfigurationError(f"the run {run!r} can't repair itself; give the new run a name of its own")
        rows = Rows(store, run, max_bytes)
        attempt, mine, stored = await _claim(rows)
        try:
            journal = cls(rows, attempt, stored, unclear, repairs)
            journal.repeat_failed = repeat_failed
            if journal._repairs:
                await journal._learn(store)
        except BaseException:
            mine.end()
            raise
        journal._mine = mine
        return journal

    async def end(self) -> None:
        """See `Journal.end`."""
        mine, self._mine = self._mine, None
        if mine is not None:
            mine.end()
            await self._rows.put(f"ended/{self.attempt}", b"")

    async def _learn(self, store: JournalStore) -> None:
        """Take over what the run that this one repairs has done, and what that one took over itself."""
        names, name = [self.run], self._repairs
        while name and name not in names:
            names.append(name)
            if not await store.load(name):
                raise ConfigurationError(f"there is no run {name!r} to repair; what it did could happen twice")
            _, fenced, stored = await _claim(Rows(store, name), take_over=True)
            fenced.end()
            header = unpacked(name, stored["header"], _Header) if "header" in stored else None
            if header is None:
                break
            if self._header is None and len(names) == 2:
                self.seed, self.epoch = header.seed, header.epoch
            self.earlier = {**_answers(name, stored), **self.earlier}
            name = header.repairs

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
            python, trace = sys.version_info[:2], self.traceparent
            self._header = _Header(FORMAT, self.seed, self.epoch, program, python, self._repairs, trace)
            await self._put("header", msgspec.msgpack.encode(self._header))
            return None
        if known.format != FORMAT:
            return f"the run was written down in format {known.format}; this version reads format {FORMAT}"
        if known.program != program:
            return "the run was begun with another program, other inputs or other tools"
        if known.python != sys.version_info[:2]:
            return f"the run was begun under Python {'.'.join(map(str, known.python))}"
        return None

    def began(self, call: CallIdentity) -> bool:
        """See `Journal.began`."""
        return call.number in self._begun or super().began(call)

    async def call(self, call: CallIdentity, produce: Callable[[], Awaitable[Outcome]], *, repeatable: bool) -> Outcome:
        """See `Journal.call`."""
        number = call.number
        known = self._outcomes.get(number)
        if known is not None and not known.missing:
            return known
        outcome = None
        if number in self._begun and not repeatable:
            outcome = await self.clear(call, unclear(call, self._begun[number]))
        elif known is None:
            outcome = await self.recall(call, repeatable)
        if outcome is None:
            self._rows.make_room()
            outcome = await self._produced(call, produce)
            check_same(known, outcome)
        return await self._settled(named(outcome, call))

    async def _produced(self, call: CallIdentity, produce: Callable[[], Awaitable[Outcome]]) -> Outcome:
        try:
            return await produce()
        except CallPaused:
            if call.number in self._begun and self._begun[call.number] == self.attempt:
                await self._put(f"pause/{self._place(call.number)}", b"")  # it began, and took no effect
                self._starts[call.number] += 1  # an adapter may have it answered, and begun again, in this attempt
                del self._begun[call.number], self._given[call.place]
            raise

    async def _settled(self, outcome: Outcome) -> Outcome:
        """Keep an outcome, whoever has taken over the run by now: it is a fact. The first one counts."""
        row = msgspec.msgpack.encode(outcome.kept())
        if not await self._rows.put(f"call/{outcome.call}", row):
            first = _outcomes(self.run, await self._rows.load())[outcome.call]
            outcome = outcome if first.missing else first
        self._outcomes[outcome.call] = self._given[outcome.place] = outcome
        return outcome

    async def read_again(self) -> None:
        """Take up outcomes that were written by somebody else."""
        self._outcomes |= _outcomes(self.run, await self._rows.load())

    def _place(self, number: int) -> str:
        """Names a beginning of a call: the attempt, and which time in it."""
        return f"{number}/{self.attempt}" + (f"/{self._starts[number]}" if self._starts[number] else "")

    async def starting(self, call: CallIdentity) -> None:
        """See `Journal.starting`."""
        await self._put(f"start/{self._place(call.number)}", msgspec.msgpack.encode(call.place))
        self._begun[call.number] = self.attempt
        self._given[call.place] = None

    async def undoing(self, number: int) -> bool:
        """See `Journal.undoing`."""
        return await self._rows.put(f"undo/{number}", b"", fence=self.attempt)

    async def keep(self, event: Event) -> None:
        """See `Journal.keep`."""
        self._rows.make_room()
        row = (event.now, [outcome.call for outcome in event.outcomes])
        await self._put(f"event/{len(self.events)}", msgspec.msgpack.encode(row))

    async def decide(self, request: Request) -> Decision | None:
        """See `Journal.decide`."""
        asked = self.asked.get(request.id)
        if asked is None:
            await self._put(f"ask/{request.id}", msgspec.msgpack.encode(request))
            self.asked[request.id] = request
        elif request.id not in self.decisions and (decided := await super().decide(asked)) is not None:
            row = msgspec.msgpack.encode(decided)  # time decided
            if not await self._rows.put(f"decision/{request.id}", row, fence=self.attempt):
                known = await self._rows.load()  # somebody was faster
                self.decisions[request.id] = unpacked(self.run, known[f"decision/{request.id}"], Decision)
        return self.decisions.get(request.id)

    async def _put(self, key: str, data: bytes) -> None:
        if not await self._rows.put(key, data, fence=self.attempt):
            raise JournalConflict(self.run, self.attempt)


async def _claim(rows: Rows, *, take_over: bool = False) -> tuple[int, Attempt, dict[str, bytes]]:
    """Begin an attempt, so that no earlier one writes any more; its number, itself, and what was written until then."""
    stored = await rows.load()
    if "header" in stored:
        unpacked(rows.run, stored["header"], _Header)  # who can't read a run must not write into it
    attempt = latest_attempt(stored) + 1
    last = stored.get(f"attempt/{attempt - 1}") if f"ended/{attempt - 1}" not in stored else None
    if last is not None and not take_over and unpacked(rows.run, last, Attempt).surely_running:
        raise JournalConflict(rows.run, attempt)
    mine = Attempt.here()
    if not await rows.put(f"attempt/{attempt}", msgspec.msgpack.encode(mine), fence=attempt):
        raise JournalConflict(rows.run, attempt)
    mine.begin()
    try:
        return attempt, mine, await rows.load()
    except BaseException:
        mine.end()  # nobody would ever end it
        raise


def _outcomes(run: str, stored: Mapping[str, bytes]) -> dict[int, Outcome]:
    found = (unpacked(run, data, Outcome) for key, data in stored.items() if key.startswith("call/"))
    return {outcome.call: outcome for outcome in found}


def _open_starts(stored: Mapping[str, bytes]) -> Iterator[tuple[str, int, int]]:
    """Every row of a call that began and did not pause, with the call's number and the attempt."""
    for key in stored:
        if (found := _START.fullmatch(key)) and f"pause/{key[6:]}" not in stored:
            yield key, int(found[1]), int(found[2])


def _begun(stored: Mapping[str, bytes]) -> dict[int, int]:
    """The calls that began and did not pause, and in which attempt."""
    begun: dict[int, int] = {}
    for _, number, attempt in _open_starts(stored):
        begun[number] = max(begun.get(number, 0), attempt)
    return begun


def _asked(run: str, stored: Mapping[str, bytes]) -> list[Request]:
    kind = ApprovalRequest | Unclear
    return [unpacked(run, data, kind) for key, data in stored.items() if key.startswith("ask/")]  # type: ignore[arg-type]


def _answers(run: str, stored: Mapping[str, bytes]) -> Answers:
    """What the calls of a run gave, by `CallIdentity.place`."""
    outcomes = _outcomes(run, stored)
    answers: Answers = {one.place: one for one in outcomes.values()}
    for key, number, _ in _open_starts(stored):
        if number not in outcomes:
            answers[unpacked(run, stored[key], tuple[str, int])] = None
    return answers
