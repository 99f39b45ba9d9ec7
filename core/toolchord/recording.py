"""Owns what is written down of a run: events, what calls gave, and the record that holds all of it, as plain data."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from toolchord.approvals import ApprovalRequest, Decision, Unclear
from toolchord.errors import ConfigurationError
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
        same: which call it is, however it was written; see `CallIdentity`.
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
    same: str = ""

    @property
    def place(self) -> tuple[str, int]:
        """See `CallIdentity.place`."""
        return self.same or self.digest, self.occurrence

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

    same: str
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

    Examples:
        >>> import asyncio
        >>> from toolchord import CodeSandbox
        >>> def roll() -> int:
        ...     return 4
        >>> with CodeSandbox(tools=[roll]) as sandbox:
        ...     kept = sandbox.execute_sync("return roll()").record.to_json()
        >>> with CodeSandbox() as elsewhere:  # without the tool
        ...     asyncio.run(elsewhere.replay(RunRecord.from_json(kept))).value
        4
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
    traceparent: str = ""

    def outcomes(self) -> dict[int, Outcome]:
        """What each call gave, by its number, in the order in which the program was told."""
        return {outcome.call: outcome for event in self.events for outcome in event.outcomes}

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
