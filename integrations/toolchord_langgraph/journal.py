"""Owns the journal of a program that runs in a graph: every call is a sub-task of the node that runs the program."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from langgraph.config import get_config
from langgraph.errors import GraphBubbleUp, is_invalid_resume

from toolchord import CallIdentity, Decision, DurableJournal
from toolchord.dispatch import guarded
from toolchord.errors import CallPaused, ConfigurationError
from toolchord.identity import current
from toolchord.journal import UnclearHandler
from toolchord.recording import Outcome
from toolchord.rows import Rows
from toolchord_langgraph import private

_KEPT = re.compile(r"kept/(\d+)/(\d+)")


class Host(Protocol):
    """What the journal needs to know of the program's place in the graph."""

    blocking: bool

    def subtask(self, call: CallIdentity, function: Callable[[], Any]) -> Any:
        """Run a function as the sub-task of a call; what it gives."""
        ...

    def shown(self, call: CallIdentity, outcome: Outcome) -> Any:
        """What the sub-task shows to those who stream the graph."""
        ...

    def ask(self, call: CallIdentity, reason: object) -> tuple[str, Decision] | None:
        """Interrupt the graph for what a policy or a tool waits for; what was answered to which request."""
        ...

    def kept(self, call: CallIdentity) -> bytes | None:
        """What else is to be kept with a call that has ended."""
        ...


class TaskJournal(DurableJournal):
    """A `DurableJournal` whose calls are sub-tasks.

    A sub-task gives each call its own interrupts, answers, place in the streams and traces. What a call gave is kept
    in the store before the sub-task ends, so it is never run again; its identity holds the digest of tool and
    arguments, so an answer never reaches another call than the one it was given for.
    """

    host: Host

    def __init__(
        self, rows: Rows, attempt: int, stored: Mapping[str, bytes], unclear: UnclearHandler | None, repairs: str
    ) -> None:
        super().__init__(rows, attempt, stored, unclear, repairs)
        self._acts: set[int] = set()
        newest: dict[int, tuple[int, bytes]] = {}
        for key, data in stored.items():
            if found := _KEPT.fullmatch(key):
                number = int(found[1])
                newest[number] = max(newest.get(number, (0, b"")), (int(found[2]), data))
        self._tried = frozenset(newest)
        self.kept = {number: data for number, (_, data) in newest.items() if data and number in self._outcomes}
        """What else was kept with calls that have ended, by number; a call that was cut off here has not ended."""

    async def starting(self, call: CallIdentity) -> None:
        """See `Journal.starting`. In a graph a person may be asked first, so it is written down by `acting`."""
        self._acts.add(call.number)

    async def acting(self, call: CallIdentity) -> None:
        """The tool itself is about to run, after all approvals.

        Raises:
            JournalTrouble: another attempt has taken over the run; no handler of tools' errors takes it for one.
        """
        if call.number in self._acts:
            self._acts.discard(call.number)
            await guarded(super().starting(call))

    def cut_off(self, number: int) -> int:
        """The attempt in which a call began and left no outcome."""
        return self._begun[number]

    def has_ended(self, number: int) -> bool:
        """Whether a call has given something, and that is kept."""
        return number in self._outcomes

    def in_order(self, numbers: Iterable[int]) -> list[int]:
        """Calls in the order in which they ended, as far as the program was told."""
        told = [outcome.call for event in self.events for outcome in event.outcomes]
        order = {number: place for place, number in enumerate(told)}
        return sorted(numbers, key=lambda number: (order.get(number, len(order)), number))

    async def call(self, call: CallIdentity, produce: Callable[[], Awaitable[Outcome]], *, repeatable: bool) -> Outcome:
        """See `Journal.call`."""
        if (known := self._outcomes.get(call.number)) is not None:
            return known
        host, given_up = self.host, False

        async def kept() -> Outcome:
            if given_up:  # a thread goes on though nobody waits for it; it must not begin anything
                raise asyncio.CancelledError
            outcome = await produce()
            more = host.kept(call)
            if more is not None or call.number in self._tried:  # what an earlier attempt kept counts no more
                await self._rows.put(f"kept/{call.number}/{self.attempt}", more or b"")
            return outcome

        async def run() -> Any:
            current.set(call)
            while True:
                try:
                    outcome = await DurableJournal.call(self, call, kept, repeatable=repeatable)
                    return host.shown(call, outcome)
                except CallPaused as pause:
                    if isinstance(pause.reason, Exception):
                        raise pause.reason from None
                    with private.as_child(private.only_new_answers(get_config())):
                        answered = host.ask(call, pause.reason)
                    if answered is not None:
                        self.answer(*answered)

        def run_blocking() -> Any:
            return asyncio.run(run())

        try:
            await private.result(host.subtask(call, run_blocking if host.blocking else run))
        except asyncio.CancelledError:
            given_up = True
            raise
        except GraphBubbleUp as pause:
            raise CallPaused(pause) from None
        except Exception as error:
            if is_invalid_resume(error):  # it was answered wrongly, which is nothing that the program did
                raise CallPaused(error) from None
            raise
        if call.number not in self._outcomes:  # the sub-task had ended in an earlier attempt
            await self.read_again()
        if call.number not in self._outcomes:
            raise ConfigurationError(
                f"the checkpointer remembers that {call.tool} (call {call.number}) has ended, but not what it gave; "
                f"it must keep every pending write that it is given"
            )
        return self._outcomes[call.number]
