"""Who a tool call is: its number, digest and key, the same on every replay; who waits for it, and what it costs."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from toolchord.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class CallIdentity:
    """One call of a run.

    Attributes:
        number: its number in the run, from 1, in the order in which the program makes calls.
        tool: the tool's full name.
        digest: SHA-256 of tool and arguments as the program sent them, in hexadecimal.
        line: the program's line that made it, 0 if unknown.
        same: SHA-256 of tool and arguments by parameter name, the same however the call is written: ``f(1)`` or
            ``f(x=1)``; empty where that is not known.
        occurrence: which one of the run's calls that are the same it is, from 1.
        key: an idempotency key: the same whenever this call of this run is made, another one for every other call.
            It is left out when identities are compared.
        ended: set when nobody waits for the call any more; see `call_cancelled`.
        arguments: by parameter name, before they are checked; not to be changed.
        charges: what it has cost so far; see `charge`.
    """

    number: int
    tool: str
    digest: str
    line: int
    occurrence: int = 1
    key: str = field(default="", compare=False)
    ended: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)
    arguments: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    charges: list[float] = field(default_factory=list, compare=False, repr=False)
    same: str = field(default="", compare=False, repr=False)

    @property
    def cost(self) -> float:
        """What the call has cost so far, in the money of whoever charged it."""
        return math.fsum(self.charges)

    @property
    def place(self) -> tuple[str, int]:
        """Which call it is, in this program and in a repaired one."""
        return self.same or self.digest, self.occurrence


current: ContextVar[CallIdentity | None] = ContextVar("toolchord_call", default=None)


def current_call() -> CallIdentity | None:
    """The call that this code serves; None outside of a tool."""
    return current.get()


def call_cancelled() -> bool:
    """Whether nobody waits any more for the call that this code serves: it was cancelled, or took too long.

    A blocking tool can't be interrupted from outside; one that takes long asks this from time to time and stops.
    """
    call = current.get()
    return call is not None and call.ended.is_set()


def charge(amount: float) -> None:
    """Note, inside of a tool, what the call that it serves costs, beside the tool's `price`. It adds up.

    Args:
        amount: in your own money, the same for all tools; it is told by `CallRecord.cost` and `RunLedger.money`.

    Raises:
        ConfigurationError: no amount.
    """
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not math.isfinite(amount) or amount < 0:
        raise ConfigurationError(f"a charge is a number that is not negative, not {amount!r}")
    if (call := current.get()) is not None:
        call.charges.append(float(amount))
