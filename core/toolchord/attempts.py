"""Owns who runs an attempt: which process on which machine, and whether it still does."""

from __future__ import annotations

import functools
import os
import uuid
from pathlib import Path

import msgspec

_active: set[bytes] = set()
"""Tokens of the attempts that this process runs now."""


class Attempt(msgspec.Struct, frozen=True):
    """Who claimed a run.

    Attributes:
        token: which attempt; no two have the same.
        machine: names the machine since it was started; empty where that is not known.
        process, since: its number on that machine, and when it was started, in the machine's own units.
    """

    token: bytes
    machine: str
    process: int
    since: str

    @classmethod
    def here(cls) -> Attempt:
        """A new attempt of this process."""
        return cls(uuid.uuid4().bytes, _machine(), os.getpid(), _since(os.getpid()))

    def begin(self) -> None:
        """It runs, from now on until `end`."""
        _active.add(self.token)

    def end(self) -> None:
        """It runs no more."""
        _active.discard(self.token)

    @property
    def surely_running(self) -> bool:
        """Whether it still runs; False where that can't be known: on another machine, or where there is no /proc."""
        if not self.machine or self.machine != _machine():
            return False
        if self.process == os.getpid():
            return self.token in _active
        return bool(self.since) and _since(self.process) == self.since


@functools.cache
def _machine() -> str:
    """The kernel's own identity: another one after each start, and none that containers share by mistake."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _since(process: int) -> str:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
