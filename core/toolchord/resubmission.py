"""Owns what a failed program leaves to its corrected version: the calls that happened, so that none happens twice.

A call of the corrected program is the same as an earlier one if tool and arguments are (however they are written) and
it is the same time that they occur: the second ``send("a")`` is the second. What an earlier call gave is given again.
One that began and left no outcome is not repeated either, unless its tool says that this does no harm.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from toolchord.dispatch import is_small
from toolchord.errors import CallPaused
from toolchord.identity import CallIdentity
from toolchord.journal import Event, Journal, Outcome
from toolchord_guest.values import Decoder, Encoder

__all__ = ["Resubmission"]

_NEVER_RAN = frozenset({"InvalidArguments", "ToolNotAvailable"})


@dataclass
class _Happened:
    """A call that began: its digest as it was written, and what it gave (None: nobody knows)."""

    digest: str
    outcome: Outcome | None = None


class Resubmission:
    """The calls of a program and of its corrected versions, in memory.

    Args:
        repeat_failed: run a call again that failed, though its tool is neither READ_ONLY nor IDEMPOTENT. By default its
            failure is given again, since a tool may have acted before it failed.

    Example:
        attempts = Resubmission()
        first = await sandbox.execute(program, journal=attempts.journal())
        second = await sandbox.execute(corrected, journal=attempts.journal())
    """

    def __init__(self, *, repeat_failed: bool = False) -> None:
        self._repeat_failed = repeat_failed
        self._happened: dict[str, list[_Happened]] = {}
        self._first: Journal | None = None

    @property
    def calls(self) -> int:
        """How many calls began in all."""
        return sum(map(len, self._happened.values()))

    def journal(self, events: list[Event] | None = None) -> Journal:
        """The journal for the next attempt; with `events`, for going on with one that was paused.

        All attempts see the same chance and the same start of time, so that they compute the same arguments.
        """
        first = self._first
        journal = _Attempt(
            self._happened,
            self._repeat_failed,
            events,
            seed=first.seed if first is not None else None,
            epoch=first.epoch if first is not None else None,
        )
        self._first = first or journal
        return journal


class _Attempt(Journal):
    """One attempt. Calls are looked up when they start, which is the order in which they were made."""

    def __init__(
        self,
        happened: dict[str, list[_Happened]],
        repeat_failed: bool,
        events: list[Event] | None,
        *,
        seed: int | None,
        epoch: float | None,
    ) -> None:
        super().__init__(events, seed=seed, epoch=epoch)
        self._happened = happened
        self._repeat_failed = repeat_failed
        self._seen: Counter[str] = Counter()
        told = Counter(outcome.digest for event in self.events for outcome in event.outcomes)
        for key, entries in happened.items():  # what the events tell is behind us
            for entry in entries:
                if told[entry.digest] > 0:
                    told[entry.digest] -= 1
                    self._seen[key] += 1

    async def call(self, call: CallIdentity, produce: Callable[[], Awaitable[Outcome]], *, repeatable: bool) -> Outcome:
        """See `Journal.call`."""
        small = is_small(call.arguments)
        key = _key(call) if small else await asyncio.to_thread(_key, call)
        entries = self._happened.setdefault(key, [])
        position = self._seen[key]
        self._seen[key] += 1
        if position < len(entries):
            entry = entries[position]
            if (known := self._known(call, entry, repeatable)) is not None:
                return known
        else:
            entry = _Happened(call.digest)
            entries.append(entry)
        entry.digest = call.digest
        try:
            entry.outcome = await produce()
        except CallPaused:
            entries.remove(entry)  # it has not begun
            self._seen[key] -= 1
            raise
        return entry.outcome

    def _known(self, call: CallIdentity, entry: _Happened, repeatable: bool) -> Outcome | None:
        """What an earlier call gave, or None if it shall run."""
        outcome = entry.outcome
        if outcome is not None and outcome.ok:
            pass
        elif repeatable:
            return None
        elif outcome is None:
            outcome = Outcome(call.number, call.digest, False, Encoder().encode(_unclear(call)))
        elif self._repeat_failed or Decoder().decode(outcome.body)["type"] in _NEVER_RAN:
            return None
        entry.digest = call.digest
        return msgspec.structs.replace(outcome, call=call.number, digest=call.digest)


def _key(call: CallIdentity) -> str:
    """A digest of tool and arguments, the same for ``f(1)`` and ``f(x=1)``."""
    digest = hashlib.sha256(call.tool.encode())
    encoder = Encoder(lambda part: digest.update(part.data))
    for name in sorted(call.arguments):
        body = encoder.encode(call.arguments[name])
        digest.update(b"%d %s %d " % (len(name), name.encode("utf-8", "surrogatepass"), len(body)) + body)
    return digest.hexdigest()


def _unclear(call: CallIdentity) -> dict[str, Any]:
    tool = call.tool.removeprefix("default.")
    message = (
        f"the same call of {tool} began in an earlier version of this program, and it is not known how it ended. It is "
        f"not repeated; find out by other means what happened, or go on without it"
    )
    return {
        "type": "OutcomeUnknown",
        "base": "RuntimeError",
        "message": message,
        "args": [message],
        "tool": call.tool,
        "retryable": False,
    }
