"""What already happened: the events of a run, written down before the program sees them.

The order of events is all that a program takes from outside, so a run that is fed the same events goes the same way.
Two seams carry that, of one form: `event = await journal.next(produce)` for the order in which things happened, and
`outcome = await journal.call(call, produce)` for what one call gave. What is recorded is returned and nothing runs;
else it is produced, and kept before the program sees it. `durable.py` keeps both in a store.

A journal also carries what was asked and decided about calls, and, for a repaired program, what an earlier one's calls
gave: they are found again by digest and occurrence.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Literal, Self

import msgspec

from toolchord.approvals import ApprovalRequest, Decision, Request, Unclear, checked
from toolchord.errors import CallPaused, ConfigurationError, ReplayDivergence
from toolchord.identity import CallIdentity
from toolchord_guest.values import Decoder, Encoder
from toolchord_guest.wire import Part

FORMAT = 1

Replay = Literal["record", "rerun", "never"]


class RecordedPart(msgspec.Struct, array_like=True, frozen=True):
    """A piece of a large value, as it crossed the wall."""

    ref: int
    kind: Literal["list", "dict", "str", "bytes"]
    data: bytes


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one call ended: its number, the digest of tool and arguments, and the encoded value or error.

    Attributes:
        call, digest, occurrence: which call; see `CallIdentity`.
        ok: whether it gave a value.
        body, parts: the value, or the error.
        ran: whether the tool ran; not if a policy or a person answered in its place.
        held: a dry run held it back.
        replay: the tool's replay policy.
        missing: the value was not kept; the tool must run again.
        sha: of a value that was not kept but must be the same again.
        cost: what the call cost, see `toolchord.charge`.
    """

    call: int
    digest: str
    ok: bool
    body: bytes
    parts: list[RecordedPart] = []
    occurrence: int = 1
    ran: bool = True
    held: bool = False
    replay: Replay = "record"
    missing: bool = False
    sha: str = ""
    cost: float = 0.0

    @property
    def size(self) -> int:
        """Bytes of the encoded value."""
        return len(self.body) + sum(len(part.data) for part in self.parts)

    def value(self) -> Any:
        """What it gave, decoded; of a call that failed, the details of its error. It must not be `missing`."""
        decoder = Decoder()
        for part in self.parts:
            decoder.add(Part(part.ref, part.kind, part.data))
        return decoder.decode(self.body)

    @property
    def error(self) -> tuple[str, str] | None:
        """Why it failed: the exception's type name and its message."""
        if self.ok or self.missing:
            return None
        details = self.value()
        return str(details["type"]), str(details["message"])

    def kept(self) -> Outcome:
        """What of it may be written down."""
        if self.replay == "record" or not self.ran or (self.replay == "rerun" and not self.ok):
            return self
        sha = content_hash(self) if self.replay == "rerun" else ""
        return msgspec.structs.replace(self, body=b"", parts=[], missing=True, sha=sha)


def content_hash(outcome: Outcome) -> str:
    """SHA-256 of what a call gave."""
    content = hashlib.sha256(outcome.body)
    for part in outcome.parts:
        content.update(part.data)
    return content.hexdigest()


def refusal(call: CallIdentity, message: str) -> Outcome:
    """The outcome of a call that somebody said no to."""
    text = f"{call.tool} was refused" + (f": {message}" if message else "")
    details = {"type": "CallDenied", "base": "PermissionError", "message": text, "args": [text], "tool": call.tool}
    body = Encoder().encode({**details, "retryable": False})
    return Outcome(call.number, call.digest, False, body, occurrence=call.occurrence, ran=False)


class Event(msgspec.Struct, frozen=True):
    """One thing that happened: the time, in seconds since the start, and the calls that had ended by then."""

    now: float
    outcomes: list[Outcome] = []


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """What a call gave that no event tells of: it ended unheard, or in an earlier run. None: it is unclear."""

    digest: str
    occurrence: int
    outcome: Outcome | None


class RunRecord(msgspec.Struct):
    """All that is needed to run a program again, offline: plain data.

    Attributes:
        code: the program.
        inputs: its inputs, encoded.
        tools: what it saw of its tools.
        language: the language it was run in.
        seed: the seed of chance.
        epoch: when it started, in seconds since 1970.
        events: what happened, in order.
        variables: what an earlier program had left for it, see `toolchord.Variables`.
        keep: how many bytes it may leave for the next one; 0 if nothing is kept.
        format: the version of this layout.
        answers: what calls gave that no event tells of.
        asked: what was asked about calls.
        decisions: what was answered, by the request's id.
    """

    code: str
    inputs: bytes
    tools: list[dict[str, Any]]
    language: str
    seed: int
    epoch: float
    events: list[Event] = []
    variables: bytes = b""
    keep: int = 0
    format: int = FORMAT
    answers: list[Answer] = []
    asked: list[ApprovalRequest | Unclear] = []
    decisions: dict[str, Decision] = {}

    def to_json(self) -> str:
        """The record as JSON text."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> RunRecord:
        """Read a record back; ConfigurationError if it is none, or of another version."""
        try:
            record = msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"not a run record: {error}") from None
        if record.format != FORMAT:
            raise ConfigurationError(f"a run record of format {record.format}; this version reads format {FORMAT}")
        return record


Answers = dict[tuple[str, int], Outcome | None]
"""What calls gave, by digest and occurrence; None for one that began and left no outcome."""


class Journal:
    """Events in memory: those of a record first, then new ones.

    Args:
        events: what already happened, in order.
        seed, epoch: of the run that is continued; made anew if None.
    """

    lasts = False
    """Whether it outlives its process."""

    def __init__(
        self, events: list[Event] | None = None, *, seed: int | None = None, epoch: float | None = None
    ) -> None:
        self.events: list[Event] = list(events or [])
        self.seed = random.SystemRandom().getrandbits(48) if seed is None else seed
        self.epoch = time.time() if epoch is None else epoch
        self.position = 0
        self.asked: dict[str, Request] = {}
        self.decisions: dict[str, Decision] = {}
        self.earlier: Answers = {}
        self._given: Answers = {}
        self._undone: set[int] = set()

    @classmethod
    def continuing(cls, record: RunRecord) -> Self:
        """The journal with which a run of the same program goes on where the recorded one was.

        Raises:
            ConfigurationError: the record is of a dry run.
        """
        if any(outcome.held for event in record.events for outcome in event.outcomes):
            raise ConfigurationError("a dry run can't be continued; run it for real with Journal.repairing(record)")
        journal = cls(record.events, seed=record.seed, epoch=record.epoch)
        journal.earlier = {(one.digest, one.occurrence): one.outcome for one in record.answers}
        journal.asked = {one.id: one for one in record.asked}
        journal.decisions = dict(record.decisions)
        return journal

    @classmethod
    def repairing(cls, record: RunRecord) -> Journal:
        """The journal for another program in place of the recorded one: a repaired one.

        It also serves to run for real what was a dry run: what was read stays as it was, what was held back runs.

        Calls that both make are answered from the record: the same tool with the same arguments, as often as it was
        called. What failed runs again if the tool is READ_ONLY or IDEMPOTENT, else the program gets the error again.
        """
        journal = cls(seed=record.seed, epoch=record.epoch)
        journal.earlier = answers_of(record.events, {(a.digest, a.occurrence): a.outcome for a in record.answers})
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

    async def begin(self, record: RunRecord) -> str | None:
        """A program is about to run; why it can't be the one that is recorded, or None."""
        return None

    # calls

    def key(self, call: CallIdentity) -> str:
        """The idempotency key of a call: the same when the run is continued or its program is repaired."""
        text = f"{self.seed}/{self.epoch!r}/{call.digest}/{call.occurrence}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def began(self, call: CallIdentity) -> bool:
        """Whether a call has begun before, so that it may have taken effect."""
        return (call.digest, call.occurrence) in self.earlier

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
                self._given.pop((call.digest, call.occurrence), None)
                raise
        self._given[call.digest, call.occurrence] = known
        return known

    async def starting(self, call: CallIdentity) -> None:
        """A call that acts on the world is about to run its tool."""
        self._given[call.digest, call.occurrence] = None
        spent = [name for name in self.asked if name.startswith(f"{request_id(call)}:")]
        for name in spent:  # if it is cut off again, somebody must be asked again
            del self.asked[name]
            self.decisions.pop(name, None)

    async def recall(self, call: CallIdentity, repeatable: bool) -> Outcome | None:
        """What an earlier run's call of the same digest and occurrence gave; None if this one is to run."""
        key = (call.digest, call.occurrence)
        if key not in self.earlier:
            return None
        known = self.earlier[key]
        if known is None:
            return None if repeatable else await self.clear(call, unclear(call, 0))
        if known.missing or not known.ran or (repeatable and not known.ok):
            return None
        return msgspec.structs.replace(known, call=call.number)

    async def clear(self, call: CallIdentity, request: Unclear) -> Outcome | None:
        """What somebody says became of an unclear call; None: it is to run (again). Raises CallPaused to wait."""
        decision = await self.decide(request)
        if decision is None:
            raise CallPaused(request)
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


def expiry() -> Decision:
    """The decision that time makes."""
    return Decision(kind="expired", message="the request expired before anybody answered", at=time.time())


def answers_of(events: list[Event], rest: Answers) -> Answers:
    """What the calls of a run gave: those that its events tell of, and the rest."""
    told = {(one.digest, one.occurrence): one for event in events for one in event.outcomes}
    return {**rest, **told}


def _has_expired(request: Request) -> bool:
    return request.expires is not None and request.expires <= time.time()
