"""What a review found in runs that outlive their process."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from toolchord import DurableJournal, MemoryStore


async def test_an_attempt_that_could_not_be_opened_is_not_going_on() -> None:
    class Store(MemoryStore):
        loads = 0

        async def load(self, run: str) -> Mapping[str, bytes]:
            self.loads += 1
            if self.loads == 3:
                raise OSError("no connection")
            return await super().load(run)

    store = Store()
    await (await DurableJournal.open(store, "run")).end()
    with pytest.raises(OSError, match="no connection"):
        await DurableJournal.open(store, "run")
    assert (await DurableJournal.open(store, "run")).attempt == 3
