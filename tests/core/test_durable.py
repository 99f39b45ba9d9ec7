"""A run in a store: what ended never runs again, what is unclear is not repeated, one attempt goes on at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from toolchord import (
    CodeSandbox,
    DurableJournal,
    ExecutionResult,
    Limits,
    MemoryStore,
    ToolRegistry,
    Unclear,
    create_registry,
)
from toolchord.errors import CallPaused, JournalConflict


class Shop:
    """Tools with a ledger. `fail_at` ends the host's attempt in the middle of a call, as a crash would."""

    def __init__(self) -> None:
        self.registry: ToolRegistry = create_registry()
        self.ran: list[str] = []
        self.answers: dict[str, str] = {}
        self.crash_in: str | None = None
        for function, capabilities in ((self.look, ["read_only"]), (self.pay, []), (self.approve, [])):
            self.registry.add(function, capabilities=capabilities)

    async def look(self, key: str) -> str:
        """Look something up."""
        return await self._run(f"look {key}")

    async def pay(self, amount: int) -> str:
        """Pay."""
        return await self._run(f"pay {amount}")

    async def approve(self, what: str) -> str:
        """Ask a human."""
        if what not in self.answers:
            raise CallPaused(what)
        return await self._run(f"approve {what}")

    async def _run(self, what: str) -> str:
        self.ran.append(what)
        if what == self.crash_in:
            raise KeyboardInterrupt  # gets through everything, like the end of the process
        return what


async def attempt(shop: Shop, store: MemoryStore, code: str, **options: Any) -> ExecutionResult:
    journal = await DurableJournal.open(store, "run", **options)
    async with CodeSandbox(shop.registry, limits=Limits(wall_time=20.0)) as sandbox:
        return await sandbox.execute("import asyncio\n" + code, journal=journal)


MIXED = """\
first = await look('a')
done = await asyncio.gather(pay(1), approve('x'), pay(2), approve('y'))
return [first, *done, await pay(3)]
"""


async def test_a_paused_run_goes_on_from_its_store() -> None:
    shop, store = Shop(), MemoryStore()
    paused = await attempt(shop, store, MIXED)
    assert [call.id for call in paused.pending] == [3, 5]
    shop.answers["y"] = "yes"
    assert [call.id for call in (await attempt(shop, store, MIXED)).pending] == [3]
    shop.answers["x"] = "yes"
    result = await attempt(shop, store, MIXED)
    assert result.value == ["look a", "pay 1", "approve x", "pay 2", "approve y", "pay 3"]
    assert sorted(shop.ran) == ["approve x", "approve y", "look a", "pay 1", "pay 2", "pay 3"]
    assert [call.replayed for call in result.calls] == [True, True, False, True, True, False]


async def test_a_run_that_has_ended_gives_its_result_again_and_runs_nothing() -> None:
    shop, store = Shop(), MemoryStore()
    code = "return [await pay(1), await look('a')]"
    assert (await attempt(shop, store, code)).value == (await attempt(shop, store, code)).value
    assert shop.ran == ["pay 1", "look a"]


@pytest.mark.parametrize("crash", ["pay 2", "look b"])
async def test_a_call_that_was_cut_off_is_repeated_only_if_that_does_no_harm(crash: str) -> None:
    shop, store = Shop(), MemoryStore()
    code = "return [await pay(1), await look('b'), await pay(2)]"
    shop.crash_in = crash
    task = asyncio.get_running_loop().run_in_executor(None, _to_its_end, shop, store, code)
    with pytest.raises(KeyboardInterrupt):
        await task
    shop.crash_in = None
    result = await attempt(shop, store, code)
    if crash == "look b":
        assert result.value == ["pay 1", "look b", "pay 2"]
        assert shop.ran == ["pay 1", "look b", "look b", "pay 2"]
        return
    (waiting,) = result.pending
    assert waiting.pause is not None
    assert isinstance(waiting.pause.reason, Unclear)
    assert "whether it took effect is not known" in str(waiting.pause.reason)
    assert shop.ran == ["pay 1", "look b", "pay 2"]

    async def let_it_run(call: object) -> None:
        pass

    assert (await attempt(shop, store, code, unclear=let_it_run)).value == ["pay 1", "look b", "pay 2"]
    assert shop.ran == ["pay 1", "look b", "pay 2", "pay 2"]


def _to_its_end(shop: Shop, store: MemoryStore, code: str) -> None:
    asyncio.run(attempt(shop, store, code))


async def test_two_attempts_at_once_run_nothing_twice() -> None:
    shop, store = Shop(), MemoryStore()
    await attempt(shop, store, "await approve('x')\nreturn await pay(1)")
    shop.answers["x"] = "yes"
    code = "await approve('x')\nreturn await pay(1)"
    both = await asyncio.gather(attempt(shop, store, code), attempt(shop, store, code), return_exceptions=True)
    assert sum(isinstance(one, JournalConflict) for one in both) == 1
    assert [one.value for one in both if isinstance(one, ExecutionResult)] == ["pay 1"]
    assert shop.ran == ["approve x", "pay 1"]


async def test_an_attempt_that_is_going_on_is_left_alone() -> None:
    shop, store = Shop(), MemoryStore()
    begun, go_on = asyncio.Event(), asyncio.Event()
    shop.registry.add(_holding(begun, go_on), capabilities=["idempotent"])
    code = "await wait_here('a')\nreturn await pay(1)"
    first = asyncio.create_task(attempt(shop, store, code))
    await begun.wait()
    with pytest.raises(JournalConflict):
        await attempt(shop, store, code)
    go_on.set()
    assert (await first).value == "pay 1"
    assert (await attempt(shop, store, code)).value == "pay 1"
    assert shop.ran == ["pay 1"]


async def test_an_attempt_elsewhere_stops_before_its_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    shop, store = Shop(), MemoryStore()
    begun, go_on = asyncio.Event(), asyncio.Event()
    shop.registry.add(_holding(begun, go_on), capabilities=["idempotent"])
    code = "await wait_here('a')\nreturn await pay(1)"
    with monkeypatch.context() as patch:
        patch.setattr("toolchord.attempts._machine", lambda: "another machine")
        first = asyncio.create_task(attempt(shop, store, code))
        await begun.wait()
    journal = await DurableJournal.open(store, "run")
    assert journal.attempt == 2
    go_on.set()
    with pytest.raises(JournalConflict) as conflict:
        await first
    assert conflict.value.attempt == 1
    async with CodeSandbox(shop.registry) as sandbox:
        assert (await sandbox.execute("import asyncio\n" + code, journal=journal)).value == "pay 1"
    assert shop.ran == ["pay 1"]


def _holding(begun: asyncio.Event, go_on: asyncio.Event) -> Any:
    async def wait_here(key: str) -> str:
        """Hold the attempt."""
        begun.set()
        await go_on.wait()
        return key

    return wait_here


async def test_another_program_is_not_taken_for_the_one_that_was_begun() -> None:
    shop, store = Shop(), MemoryStore()
    await attempt(shop, store, "await approve('x')")
    result = await attempt(shop, store, "await approve('y')")
    assert result.error is not None
    assert result.error.kind == "divergence"
    assert "another program" in result.error.message
    await store.delete("run")
    assert (await attempt(shop, store, "return await pay(1)")).value == "pay 1"
