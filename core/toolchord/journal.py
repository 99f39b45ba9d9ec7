"""What already happened: the events of a run, written down before the program sees them.

The order of events is all that a program takes from outside, so a run that is fed the same events goes the same way.
Two seams carry that, of one form: `event = await journal.next(produce)` for the order in which things happened, and
`outcome = await journal.call(call, produce)` for what one call gave. What is recorded is returned and nothing runs;
else it is produced, and kept before the program sees it. `durable.py` keeps both in a store.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from toolchord.errors import ConfigurationError
from toolchord.identity import CallIdentity

FORMAT = 1


class RecordedPart(msgspec.Struct, array_like=True, frozen=True):
    """A piece of a large value, as it crossed the wall."""

    ref: int
    kind: Literal["list", "dict", "str", "bytes"]
    data: bytes


class Outcome(msgspec.Struct, frozen=True):
    """How one call ended: its number, the digest of tool and arguments, and the encoded value or error."""

    call: int
    digest: str
    ok: bool
    body: bytes
    parts: list[RecordedPart] = []

    @property
    def size(self) -> int:
        """Bytes of the encoded value."""
        return len(self.body) + sum(len(part.data) for part in self.parts)


class Event(msgspec.Struct, frozen=True):
    """One thing that happened: the time, in seconds since the start, and the calls that had ended by then."""

    now: float
    outcomes: list[Outcome] = []


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


class Journal:
    """Events in memory: those of a record first, then new ones.

    Args:
        events: what already happened, in order.
        seed, epoch: of the run that is continued; made anew if None.
    """

    def __init__(
        self, events: list[Event] | None = None, *, seed: int | None = None, epoch: float | None = None
    ) -> None:
        self.events: list[Event] = list(events or [])
        self.seed = random.SystemRandom().getrandbits(48) if seed is None else seed
        self.epoch = time.time() if epoch is None else epoch
        self.position = 0

    @property
    def live(self) -> bool:
        """Whether everything that is recorded has been told."""
        return self.position >= len(self.events)

    async def begin(self, record: RunRecord) -> str | None:
        """A program is about to run; why it can't be the one that is recorded, or None."""
        return None

    async def call(self, call: CallIdentity, produce: Callable[[], Awaitable[Outcome]], *, repeatable: bool) -> Outcome:
        """What a call gave: as recorded, or produced and recorded before it is returned.

        Args:
            call: which one.
            produce: runs it; a `CallPaused` or a cancellation gets through and leaves no outcome.
            repeatable: running it twice does no harm.
        """
        return await produce()

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
