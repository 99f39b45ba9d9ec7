"""Owns what passes between a run that waits and whoever answers: requests and decisions, as plain data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from toolchord.errors import ConfigurationError
from toolchord.policy import Bounds
from toolchord.rows import JournalStore, Rows, unpacked
from toolchord_guest.values import Decoder, Encoder, Unsupported

__all__ = ["ApprovalRequest", "Approvals", "Decision", "Unclear"]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody answered to a request. Made by `approve`, `edit`, `reject` or `respond`.

    Attributes:
        kind: which of the four, or ``"expired"``.
        body: the encoded arguments or value.
        message: why not.
        by: who said so, for the record.
        at: when, in seconds since 1970.
        within: what further calls it covers; see `approve`.
    """

    kind: Literal["approve", "edit", "reject", "respond", "expired"]
    body: bytes = b""
    message: str = ""
    by: str = ""
    at: float = 0.0
    within: Bounds | None = None

    @classmethod
    def approve(cls, *, within: Bounds | None = None, by: str = "") -> Decision:
        """Let the call run, once.

        Args:
            within: this loop's other calls too: those that the same line makes to the same tool later in this run, as
                far as they stay within these bounds, which count them and not this one.
            by: who says so.
        """
        return cls(kind="approve", within=within, by=by, at=time.time())

    @classmethod
    def edit(cls, arguments: Mapping[str, Any], *, by: str = "") -> Decision:
        """Let the call run, once, with these arguments by parameter name instead."""
        if not isinstance(arguments, Mapping):
            raise ConfigurationError(f"Decision.edit takes all arguments by parameter name, not {arguments!r:.80}")
        return cls(kind="edit", body=_encoded(dict(arguments), "arguments"), by=by, at=time.time())

    @classmethod
    def reject(cls, message: str = "", *, by: str = "") -> Decision:
        """Refuse the call: the program gets a CallDenied, a PermissionError, with this message."""
        return cls(kind="reject", message=message, by=by, at=time.time())

    @classmethod
    def respond(cls, value: Any, *, by: str = "") -> Decision:
        """Answer in the tool's place: the program gets this value, plain data, and nothing runs."""
        return cls(kind="respond", body=_encoded(value, "value"), by=by, at=time.time())

    @property
    def value(self) -> Any:
        """The arguments of `edit`, or the value of `respond`."""
        return Decoder().decode(self.body) if self.body else None


class ApprovalRequest(msgspec.Struct, frozen=True, kw_only=True, tag="approval"):
    """Why a call waits: a rule of the policy says that somebody is to be asked.

    Attributes:
        id: what an answer names. It holds the digest of tool and arguments, so that an answer fits this call only.
        number: the call's number in the run.
        tool: the tool's full name.
        line: the program's line, 0 if unknown.
        why: what the rule says.
        asked: when, in seconds since 1970.
        expires: until when an answer counts, in seconds since 1970; None for ever.
        body: the encoded arguments; see `arguments`.
    """

    id: str
    number: int
    tool: str
    line: int
    why: str
    asked: float
    expires: float | None = None
    body: bytes = b""

    @property
    def arguments(self) -> dict[str, Any] | None:
        """The arguments by parameter name as the program sent them; None for a tool that is never stored."""
        found = Decoder().decode(self.body) if self.body else None
        return found if isinstance(found, dict) else None

    def __str__(self) -> str:
        return f"{self.tool} (call {self.number}, line {self.line}) waits for an approval: {self.why}"


class Unclear(msgspec.Struct, frozen=True, kw_only=True, tag="unclear"):
    """Why a call waits: it began, acts on the world, and what became of it is not known.

    It is answered like a request: `Decision.approve` runs it (again), `Decision.respond` says what it gave,
    `Decision.reject` makes it fail.

    Attributes:
        number, tool, line: which call.
        id: what an answer names: this call in the attempt that was cut off.
        key: the call's idempotency key, by which the other side may know it.
    """

    number: int
    tool: str
    line: int
    id: str
    key: str = ""
    expires: float | None = None

    def __str__(self) -> str:
        return (
            f"{self.tool} (call {self.number}, line {self.line}) began before the run was cut off; "
            f"whether it took effect is not known"
        )


Request = ApprovalRequest | Unclear


class Approvals:
    """The other end of a run in a store: what waits there, and the way to answer it, from any process.

    Args:
        store: where the run is kept, with the same codec.
    """

    def __init__(self, store: JournalStore) -> None:
        self._store = store

    async def pending(self, run: str) -> list[Request]:
        """The requests of a run that nobody has answered, by call number."""
        rows = await Rows(self._store, run).load()
        asked = [_request(run, data) for key, data in rows.items() if key.startswith("ask/")]
        return sorted((one for one in asked if _is_open(rows, one)), key=lambda one: one.number)

    async def answer(self, run: str, request: str, decision: Decision) -> bool:
        """Answer a request; the run takes it up when it is continued.

        A stale answer does nothing: one to a request that is not there, was answered, has expired, or whose call has
        ended.

        Args:
            run: the run's name in the store.
            request: the request's id.
            decision: what to do.

        Returns:
            Whether it counts.

        Raises:
            ConfigurationError: it is no Decision, or edits an unclear call.
        """
        checked(decision)
        rows = Rows(self._store, run)
        known = await rows.load()
        asked = known.get(f"ask/{request}")
        if asked is None or not _is_open(known, open_request := _request(run, asked)):
            return False
        checked(decision, open_request)
        return await rows.put(f"decision/{request}", msgspec.msgpack.encode(decision))


def checked(decision: Decision, request: Request | None = None) -> None:
    """Raise ConfigurationError if a decision is none, or does not fit what is asked."""
    if not isinstance(decision, Decision):
        raise ConfigurationError(f"an answer is a Decision, not {type(decision).__name__}; see Decision.approve")
    if isinstance(request, Unclear) and decision.kind == "edit":
        raise ConfigurationError(
            "a call that may have taken effect can't be edited; approve runs it again as it was, respond says what "
            "it gave, reject makes it fail"
        )


def _request(run: str, data: bytes) -> Request:
    return unpacked(run, data, Request)  # type: ignore[arg-type]  # a union is no class


def _is_open(rows: Mapping[str, bytes], request: Request) -> bool:
    if f"decision/{request.id}" in rows or f"call/{request.number}" in rows:
        return False
    return request.expires is None or request.expires > time.time()


def _encoded(value: Any, what: str) -> bytes:
    try:
        return Encoder().encode(value)
    except Unsupported as error:
        raise ConfigurationError(f"{what}{error.path[1:]}: {error.reason}") from None
