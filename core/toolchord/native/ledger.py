"""What a provider's calls came to: what is asked for again is not done again.

A provider repeats calls: a program that waited too long is told so and calls anew, a container that is gone takes its
program with it, a lost request is sent again. A result that the other side can't have received is marked as lost, and
answers the next call that is the same. A result that arrived does not: a program may well pay twice on purpose.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from toolchord.errors import ConfigurationError

CallStatus = Literal["running", "ok", "error", "unfinished", "paused"]


class NativeCall(msgspec.Struct, kw_only=True):
    """One tool call of a model.

    Attributes:
        number: its number in the ledger, from 1.
        id: the provider's id of the call.
        tool: the tool's full name, or what was asked for if there is no such tool.
        arguments: by parameter name; empty where they were no object.
        caller: ``"direct"``, the provider's name for its code, or ``"sandbox"``.
        program: the id of the program that made it, or None.
        digest: SHA-256 of tool and arguments, in hexadecimal.
        status: running, ok, error, unfinished (the run ended first, so its outcome is not known), paused.
        text: what the other side got.
        error: the type's name and the message of a failed call.
        duration: seconds that the tool took; 0 if it did not run.
        same_as: the id of the earlier call whose outcome answered this one; the tool did not run again.
        received: the provider accepted the request that carried the result.
        lost: the result can't have reached who called, so it answers the next call that is the same.
        pause: what a paused call waits for, a CallPaused.
    """

    number: int
    id: str
    tool: str
    arguments: dict[str, Any] = {}
    caller: str = "direct"
    program: str | None = None
    digest: str = ""
    status: CallStatus = "running"
    text: str = ""
    error: tuple[str, str] | None = None
    duration: float = 0.0
    same_as: str | None = None
    received: bool = False
    lost: bool = False
    pause: Any = None

    @property
    def settled(self) -> bool:
        """Whether its outcome is known."""
        return self.status in ("ok", "error")


class Ledger:
    """Calls of one conversation. Kept with it, a run that broke off goes on and repeats nothing.

    Args:
        calls: what already happened.
        on_write: is called with a call before its tool starts and when it has ended; what it raises ends the run. Save
            the call there, and a process that dies knows what it had begun.
    """

    def __init__(
        self, calls: Iterable[NativeCall] = (), *, on_write: Callable[[NativeCall], None] | None = None
    ) -> None:
        self.calls: list[NativeCall] = []
        self._on_write = on_write
        self._by_id: dict[str, list[NativeCall]] = {}
        self._lost: dict[str, deque[NativeCall]] = {}
        for call in calls:
            self._keep(call)

    def _keep(self, call: NativeCall) -> None:
        self.calls.append(call)
        self._by_id.setdefault(call.id, []).append(call)
        if call.lost:
            self._lost.setdefault(call.digest, deque()).append(call)

    def add(self, call: NativeCall) -> None:
        """Write a call down."""
        self._keep(call)
        self.write(call)

    def write(self, call: NativeCall) -> None:
        """Tell that a call has changed."""
        if self._on_write is not None:
            self._on_write(call)

    def find(self, id: str, digest: str) -> NativeCall | None:
        """The call of that id. Some servers use an id twice, so it must be the same call too."""
        return next((call for call in reversed(self._by_id.get(id, ())) if call.digest == digest), None)

    def claim(self, digest: str) -> NativeCall | None:
        """The first lost outcome of such a call; whoever claims it is the one to hand it on."""
        waiting = self._lost.get(digest, deque())
        while waiting:
            if (call := waiting.popleft()).lost:
                call.lost, call.received = False, True
                return call
        return None

    def lose(self, *calls: NativeCall) -> None:
        """Mark calls as lost. One that failed is not: to make it again is to try again."""
        for call in calls:
            if not call.lost and call.status != "error":
                call.lost = True
                self._lost.setdefault(call.digest, deque()).append(call)

    def named(self, ids: Iterable[str]) -> list[NativeCall]:
        """The calls of those ids."""
        return [call for id in ids for call in self._by_id.get(id, ())]

    def to_json(self) -> str:
        """The ledger as JSON text."""
        plain = [msgspec.structs.replace(call, pause=None) for call in self.calls]
        return msgspec.json.encode(plain).decode()

    @classmethod
    def from_json(cls, text: str | bytes, *, on_write: Callable[[NativeCall], None] | None = None) -> Ledger:
        """Read a ledger back; ConfigurationError if it is none."""
        try:
            return cls(msgspec.json.decode(text, type=list[NativeCall]), on_write=on_write)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"not a ledger of calls: {error}; give what Ledger.to_json wrote") from None


def digest_of(tool: str, arguments: Mapping[str, Any]) -> str:
    """The digest of a call: the same for arguments in another order."""
    text = json.dumps([tool, arguments], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
