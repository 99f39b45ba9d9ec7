"""What already happened: the events of a run, written down before the program sees them.

The order of events is all that a program takes from outside, so a run that is fed the same events goes the same way.
Two seams carry that, of one form: `event = await journal.next(produce)` for the order in which things happened, and
`outcome = await journal.call(call, produce)` for what one call gave. What is recorded is returned and nothing runs;
else it is produced, and kept before the program sees it. `durable.py` keeps both in a store.

A journal also carries what was asked and decided about calls, and, for a repaired program, what an earlier one's calls
gave. A call is found again if it is the same: tool and arguments are, however they are written, and it is the same time
that they occur: the second ``send("a")`` is the second.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Self, TypedDict, Unpack

import msgspec

from toolchord.approvals import Decision, Request, Unclear, checked
from toolchord.errors import CallPaused, ConfigurationError, ReplayDivergence
from toolchord.identity import CallIdentity
from toolchord.recording import (
    Answer,
    Event,
    Outcome,
    RunRecord,
    content_hash,
    refusal,
)

Answers = dict[tuple[str, int], Outcome | None]
"""What calls gave, by `CallIdentity.place`; None for one that began and left no outcome."""

UnclearHandler = Callable[[CallIdentity], Awaitable[Decision | None]]
"""Asked about a call of which it is not known whether it took effect."""


class _Options(TypedDict, total=False):
    unclear: UnclearHandler | None
    repeat_failed: bool


class Journal:
    """Events in memory: those of a record first, then new ones.

    Args:
        events: what already happened, in order.
        seed, epoch: of the run that is continued; made anew if None.
        unclear: asked before a call runs that may have taken effect in an earlier attempt or program, if its tool is
            neither READ_ONLY nor IDEMPOTENT. It returns None to let the call run (again), a Decision that says what
            became of it, or raises: a `CallPaused` waits. By default the run waits for an answer.
        repeat_failed: run a call again that failed in an earlier program, though its tool is neither. By default its
            failure is given again, since a tool may have acted before it failed.
    """

    lasts = False
    """Whether it outlives its process."""

    def __init__(
        self,
        events: list[Event] | None = None,
        *,
        seed: int | None = None,
        epoch: float | None = None,
        unclear: UnclearHandler | None = None,
        repeat_failed: bool = False,
    ) -> None:
        self.events: list[Event] = list(events or [])
        self.seed = random.SystemRandom().getrandbits(48) if seed is None else seed
        self.epoch = time.time() if epoch is None else epoch
        self.position = 0
        self.traceparent = ""
        self.asked: dict[str, Request] = {}
        self.decisions: dict[str, Decision] = {}
        self.earlier: Answers = {}
        self.repeat_failed = repeat_failed
        self._unclear = unclear
        self._given: Answers = {}
        self._undone: set[int] = set()

    @classmethod
    def continuing(cls, past: RunRecord | Journal, **options: Unpack[_Options]) -> Self:
        """The journal with which a run of the same program goes on where an earlier one was.

        Args:
            past: the earlier run's record, or its journal, for one that left no result.
            options: see `Journal`.

        Raises:
            ConfigurationError: the record is of a dry run.
        """
        record = _recorded(past)
        if any(outcome.held for event in record.events for outcome in event.outcomes):
            raise ConfigurationError("a dry run can't be continued; run it for real with Journal.repairing(record)")
        journal = cls(record.events, seed=record.seed, epoch=record.epoch, **options)
        journal.earlier = {(one.same, one.occurrence): one.outcome for one in record.answers}
        journal.asked = {one.id: one for one in record.asked}
        journal.decisions = dict(record.decisions)
        journal.traceparent = record.traceparent
        return journal

    @classmethod
    def repairing(cls, past: RunRecord | Journal, **options: Unpack[_Options]) -> Journal:
        """The journal for another program in place of an earlier one: a repaired one.

        It also serves to run for real what was a dry run: what was read stays as it was, what was held back runs.

        Calls that both make are answered from what happened: the same tool with the same arguments, however they are
        written, as often as it was called. What failed runs again if the tool is READ_ONLY or IDEMPOTENT, else the
        program gets the error again. What the earlier program took over from one before it counts too.

        Args:
            past: the earlier run's record, or its journal, for one that left no result.
            options: see `Journal`.
        """
        record = _recorded(past)
        journal = cls(seed=record.seed, epoch=record.epoch, **options)
        journal.earlier = answers_of(record.events, {(a.same, a.occurrence): a.outcome for a in record.answers})
        journal.traceparent = record.traceparent
        return journal

    @property
    def live(self) -> bool:
        """Whether everything that is recorded has been told."""
        return self.position >= len(self.events)

    def write_to(self, record: RunRecord) -> None:
        """Put what happened into a record; values that a tool's replay policy keeps out are left out."""
        kept = [Event(event.now, [outcome.kept() for outcome in event.outcomes]) for event in self.events]
        told = answers_of(kept, {})
        rest = {**self.earlier, **self._given}
        record.events = kept
        record.answers = [Answer(*key, given and given.kept()) for key, given in rest.items() if key not in told]
        record.asked = list(self.asked.values())
        record.decisions = dict(self.decisions)
        record.traceparent = self.traceparent

    async def begin(self, record: RunRecord) -> str | None:
        """A program is about to run; why it can't be the one that is recorded, or None."""
        return None

    # calls

    def key(self, call: CallIdentity) -> str:
        """The idempotency key of a call: the same when the run is continued or its program is repaired."""
        same, occurrence = call.place
        text = f"{self.seed}/{self.epoch!r}/{same}/{occurrence}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def began(self, call: CallIdentity) -> bool:
        """Whether a call has begun before, so that it may have taken effect."""
        return call.place in self.earlier

    async def call(self, call: CallIdentity, produce: Callable[[], Awaitable[Outcome]], *, repeatable: bool) -> Outcome:
        """What a call gave: as recorded, or produced and recorded before it is returned.

        Args:
            call: which one.
            produce: runs it; a `CallPaused` or a cancellation gets through and leaves no outcome.
            repeatable: running it twice does no harm.
        """
        known = await self.recall(call, repeatable)
        if known is None:
            try:
                known = await produce()
            except CallPaused:  # it began, and took no effect
                self._given.pop(call.place, None)
                raise
        known = named(known, call)
        self._given[call.place] = known
        return known

    async def starting(self, call: CallIdentity) -> None:
        """A call that acts on the world is about to run its tool."""
        self._given[call.place] = None
        spent = [name for name in self.asked if name.startswith(f"{request_id(call)}:")]
        for name in spent:  # if it is cut off again, somebody must be asked again
            del self.asked[name]
            self.decisions.pop(name, None)

    async def recall(self, call: CallIdentity, repeatable: bool) -> Outcome | None:
        """What an earlier run's call that is the same gave; None if this one is to run."""
        if call.place not in self.earlier:
            return None
        known = self.earlier[call.place]
        if known is None:
            return None if repeatable else await self.clear(call, unclear(call, 0))
        if known.missing or not known.ran or ((repeatable or self.repeat_failed) and not known.ok):
            return None
        return named(known, call)

    async def clear(self, call: CallIdentity, request: Unclear) -> Outcome | None:
        """What somebody says became of an unclear call; None: it is to run (again). Raises CallPaused to wait."""
        if self._unclear is None:
            decision = await self.decide(request)
            if decision is None:
                raise CallPaused(request)
        else:
            decision = await self._unclear(call)
            if decision is None:
                return None
            checked(decision, request)
        return cleared(call, decision)

    async def undoing(self, number: int) -> bool:
        """A call is about to be undone; whether nobody has begun to undo it before."""
        first = number not in self._undone
        self._undone.add(number)
        return first

    # events

    async def next(self, produce: Callable[[], Awaitable[Event]]) -> Event:
        """The next event: the recorded one, or a new one, recorded before it is returned."""
        if self.live:
            event = await produce()
            await self.keep(event)
            self.events.append(event)
        event = self.events[self.position]
        self.position += 1
        return event

    async def keep(self, event: Event) -> None:
        """Write down an event that has just happened; its calls' outcomes are."""

    async def end(self) -> None:
        """The program has ended, or pauses; the journal is not used any more."""

    # decisions

    def answer(self, request: str, decision: Decision) -> bool:
        """Answer a request by its id, before the run is continued; whether it counts.

        A stale answer does nothing: one to a request that is not there, was answered, or has expired.
        """
        checked(decision)
        asked = self.asked.get(request)
        if asked is None or request in self.decisions or _has_expired(asked):
            return False
        checked(decision, asked)
        self.decisions[request] = decision
        return True

    async def decide(self, request: Request) -> Decision | None:
        """What was answered to a request, which is kept if it is new; None if nobody has answered yet."""
        asked = self.asked.get(request.id)
        if asked is None:
            self.asked[request.id] = request
        elif asked.id not in self.decisions and _has_expired(asked):
            self.decisions[asked.id] = expiry()
        return self.decisions.get(request.id)

    def asked_about(self, call: CallIdentity) -> Request | None:
        """What a policy asked about a call."""
        return self.asked.get(request_id(call))

    def decision_about(self, call: CallIdentity) -> Decision | None:
        """What was decided about a call that a policy asked about."""
        return self.decisions.get(request_id(call))

    def answered(self) -> Iterator[tuple[Request, Decision]]:
        """Every request that was answered, with the decision."""
        for name, decision in self.decisions.items():
            if name in self.asked:
                yield self.asked[name], decision


def check_same(known: Outcome | None, again: Outcome) -> None:
    """Raise ReplayDivergence if a tool that was run again gave something else than it must."""
    if known is not None and known.sha and content_hash(again) != known.sha:
        raise ReplayDivergence(f"call {known.call} was run again, and gave something else than before", position=0)


def request_id(call: CallIdentity) -> str:
    """The id of a policy's request about a call: it fits this call, tool and arguments only."""
    return f"{call.number}:{call.digest}"


def unclear(call: CallIdentity, attempt: int) -> Unclear:
    """The request about a call that was cut off in an attempt."""
    name = f"{request_id(call)}:{attempt}"
    return Unclear(number=call.number, tool=call.tool, line=call.line, id=name, key=call.key)


def cleared(call: CallIdentity, decision: Decision) -> Outcome | None:
    """A decision about an unclear call as its outcome; None: it is to run."""
    if decision.kind == "respond":
        return Outcome(call.number, call.digest, True, decision.body, occurrence=call.occurrence)
    if decision.kind in ("reject", "expired"):
        return msgspec.structs.replace(refusal(call, decision.message), ran=True)
    return None


def named(outcome: Outcome, call: CallIdentity) -> Outcome:
    """An outcome as that of a call, which may have been written in another way."""
    return msgspec.structs.replace(outcome, call=call.number, digest=call.digest, same=call.same)


def expiry() -> Decision:
    """The decision that time makes."""
    return Decision(kind="expired", message="the request expired before anybody answered", at=time.time())


def answers_of(events: list[Event], rest: Answers) -> Answers:
    """What the calls of a run gave: those that its events tell of, and the rest."""
    told = {one.place: one for event in events for one in event.outcomes}
    return {**rest, **told}


def _recorded(past: RunRecord | Journal) -> RunRecord:
    if isinstance(past, RunRecord):
        return past
    record = RunRecord("", b"", [], "", past.seed, past.epoch)
    past.write_to(record)
    return record


def _has_expired(request: Request) -> bool:
    return request.expires is not None and request.expires <= time.time()
