"""Who a tool call is: its number and digest, the same on every replay, for tools that take an idempotency key."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class CallIdentity:
    """One call of a run.

    Attributes:
        number: its number in the run, from 1, in the order in which the program makes calls.
        tool: the tool's full name.
        digest: SHA-256 of tool and arguments as the program sent them, in hexadecimal.
        line: the program's line that made it, 0 if unknown.
        arguments: by parameter name, before they are checked; not to be changed.
    """

    number: int
    tool: str
    digest: str
    line: int
    arguments: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


current: ContextVar[CallIdentity | None] = ContextVar("toolchord_call", default=None)


def current_call() -> CallIdentity | None:
    """The call that this code serves; None outside of a tool."""
    return current.get()
