"""Owns the restoring of what an earlier program left: what it may spend, and what is given up where it takes more.

A definition is run again by every later program, so one that never ends must not end them all. The guest says which
one it restores; where it goes too far, the host lets go of that definition and begins again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from toolchord.limits import Limits
from toolchord.results import RunError
from toolchord.variables import Variables
from toolchord_guest.wire import WireError

_CPU_SHARE, _WALL_SHARE = 0.1, 0.5
_CPU_LEAST, _WALL_LEAST = 1.0, 5.0  # seconds; a busy machine must not cost a session its definitions


class Restoring:
    """Follows the restoring at the start of one run.

    Args:
        limits: of the run. Restoring may take a tenth of its CPU time, or a second if that is more, and half of its
            wall time, or five seconds.
        cpu_time: seconds of CPU that the run has used.
        exceed: ends the run, with the limit's name and a message.

    Attributes:
        name: what is being restored: a definition's name, empty for no particular one; None if nothing is.
    """

    def __init__(self, limits: Limits, cpu_time: Callable[[], float], exceed: Callable[[str, str], None]) -> None:
        self.name: str | None = None
        self._cpu = min(limits.cpu_time, max(_CPU_LEAST, limits.cpu_time * _CPU_SHARE))
        self._wall = max(_WALL_LEAST, limits.wall_time * _WALL_SHARE)
        self._late = False
        self._cpu_time = cpu_time
        self._exceed = exceed
        self._over = False
        self._timers: list[asyncio.TimerHandle] = []

    def on_frame(self, name: str | None) -> None:
        """The guest says how far it is; WireError once the program has begun."""
        if self._over:
            raise WireError("it restores variables after the program has begun")
        if self.name is None and name is not None:
            loop = asyncio.get_running_loop()
            self._timers = [loop.call_later(self._wall, self._wall_time_over)]
            self._watch_cpu()
        self.name = name
        if name is None:
            self.stop()

    def check_over(self) -> None:
        """The program does something; WireError while it can't have begun."""
        if self.name is not None:
            raise WireError("it acts while variables are restored")
        self._over = True

    def stop(self) -> None:
        """Watch no more."""
        self._over = True
        for timer in self._timers:
            timer.cancel()

    def stuck(self, error: RunError | None) -> str | None:
        """What was being restored when the run ended, if that is why it did; None if there was just too little time."""
        if error is None or (error.limit == "wall_time" and not self._late):
            return None
        return self.name

    def _wall_time_over(self) -> None:
        self._late = True
        self._exceed("wall_time", f"restoring variables took longer than {self._wall:g} s")

    def _watch_cpu(self) -> None:
        left = self._cpu - self._cpu_time()
        if left <= 0:
            self._exceed("cpu_time", f"restoring variables used more than {self._cpu:g} s of CPU")
        else:
            self._timers[1:] = [asyncio.get_running_loop().call_later(max(left, 0.01), self._watch_cpu)]


def without(variables: Variables, name: str, reason: str) -> Variables:
    """Variables that may be restored where these could not be, with what is lost by it.

    The definition of that name goes first; if something has gone before, or it was no particular one, all definitions
    do; at last the data.
    """
    known = variables.definitions
    if not variables.lost and name in known:
        gone = {other for other, text in known.items() if text == known[name]}
    else:
        gone = set(known) or set(variables.data)
    return Variables(
        {name: data for name, data in variables.data.items() if name not in gone},
        {name: text for name, text in known.items() if name not in gone},
        {**variables.lost, **dict.fromkeys(sorted(gone), reason)},
    )
