"""What a review found in runs that outlive their process."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from toolchord import CallIdentity, DurableJournal, MemoryStore, Unclear
from toolchord.errors import CallPaused
from toolchord.journal import Outcome

CALL = CallIdentity(1, "default.pay", "0" * 64, 1)


async def test_an_attempt_that_could_not_be_opened_is_not_going_on() -> None:
    class Store(MemoryStore):
        loads = 0

        async def load(self, run: str) -> Mapping[str, bytes]:
            self.loads += 1
            if self.loads == 4:  # after the claim
                raise OSError("no connection")
            return await super().load(run)

    store = Store()
    await (await DurableJournal.open(store, "run")).end()
    with pytest.raises(OSError, match="no connection"):
        await DurableJournal.open(store, "run")
    assert (await DurableJournal.open(store, "run")).attempt == 3


async def test_a_call_that_paused_began_again_and_was_cut_off_is_not_repeated() -> None:
    """An adapter that gets an answer within the attempt calls again; the first pause says nothing of the second try."""
    store = MemoryStore()
    journal = await DurableJournal.open(store, "run")
    tries: list[str] = []

    async def produce() -> Outcome:
        await journal.starting(CALL)
        tries.append("pay")
        if len(tries) == 1:
            raise CallPaused("wait")
        raise KeyboardInterrupt  # the process ends in the middle of it

    with pytest.raises(CallPaused):
        await journal.call(CALL, produce, repeatable=False)
    with pytest.raises(KeyboardInterrupt):
        await journal.call(CALL, produce, repeatable=False)
    await journal.end()
    journal = await DurableJournal.open(store, "run")
    with pytest.raises(CallPaused) as paused:
        await journal.call(CALL, produce, repeatable=False)
    assert isinstance(paused.value.reason, Unclear)
    assert tries == ["pay", "pay"]
