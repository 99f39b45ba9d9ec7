"""Another program in place of one that failed: what both call is answered, what acts never runs twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchord import (
    Approvals,
    CodeSandbox,
    Decision,
    DurableJournal,
    ExecutionResult,
    Journal,
    JournalStore,
    Limits,
    MemoryStore,
    Policy,
    RunRecord,
    Unclear,
    ask,
    create_registry,
    current_call,
)
from toolchord.errors import ConfigurationError, JournalConflict

SANDBOX = CodeSandbox(limits=Limits(wall_time=30.0))


@pytest.fixture(autouse=True, scope="module")
def closed() -> Iterator[None]:
    with SANDBOX:
        yield


class Shop:
    """Tools that count, keep their keys, and fail on demand."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.keys: dict[str, list[str]] = {}
        self.fail: set[str] = set()
        self.hang: set[str] = set()
        self.turns: dict[int, int] = {}
        self.price = 10
        self.registry = create_registry()
        self.registry.add(self.look, capabilities=["read_only"])
        self.registry.add(self.pay)
        self.registry.add(self.get_price, capabilities=["read_only"], replay="rerun")
        self.registry.add(self.token, capabilities=["read_only"], replay="never")

    async def look(self, key: str) -> str:
        """Look something up."""
        return await self._run(f"look {key}")

    async def pay(self, amount: int) -> str:
        """Pay."""
        return await self._run(f"pay {amount}")

    async def get_price(self, size: int = 1) -> list[int]:
        """A large value that is cheap to get again."""
        await self._run("price")
        return [self.price] * size

    async def token(self, user: str) -> str:
        """A secret."""
        await self._run("token")
        return f"token-{len(self.ran)}-of-{user}"

    async def _run(self, what: str) -> str:
        call = current_call()
        assert call is not None
        self.ran.append(what)
        self.keys.setdefault(what, []).append(call.key)
        for _ in range(self.turns.get(call.number, 0)):
            await asyncio.sleep(0)
        if what in self.fail:
            raise ConnectionError(f"{what} failed")
        if what in self.hang:
            await asyncio.Event().wait()
        return what


async def execute(shop: Shop, code: str, **options: Any) -> ExecutionResult:
    return await SANDBOX.execute("import asyncio, random\n" + code, shop.registry, **options)


def record(result: ExecutionResult) -> RunRecord:
    assert result.record is not None
    return RunRecord.from_json(result.record.to_json())


BROKEN = """\
a = await look('a')
paid = await asyncio.gather(pay(1), pay(2), pay(1))
return paid.total
"""

REPAIRED = """\
paid = await asyncio.gather(pay(3), pay(1), pay(1), pay(1))
return [await look('b'), await look('a'), *paid]
"""


async def both(store: JournalStore | None, shop: Shop, first: str, second: str, **options: Any) -> ExecutionResult:
    """Run a program, and another one in its place: in memory, or in a store."""
    if store is None:
        broken = await execute(shop, first, **options)
        return await execute(shop, second, journal=Journal.repairing(record(broken)))
    await execute(shop, first, journal=await DurableJournal.open(store, "1"), **options)
    journal = await DurableJournal.open(store, "2", repairs="1")
    return await execute(shop, second, journal=journal)


@pytest.fixture(params=["memory", "store"])
def store(request: Any) -> MemoryStore | None:
    return MemoryStore() if request.param == "store" else None


async def test_calls_of_a_repaired_program_are_answered_by_digest_and_occurrence(store: MemoryStore | None) -> None:
    shop = Shop()
    result = await both(store, shop, BROKEN, REPAIRED)
    assert result.value == ["look b", "look a", "pay 3", "pay 1", "pay 1", "pay 1"]
    assert Counter(shop.ran) == {"look a": 1, "look b": 1, "pay 1": 3, "pay 2": 1, "pay 3": 1}
    assert len(set(shop.keys["pay 1"])) == 3
    assert [call.replayed for call in result.calls] == [False, True, True, False, False, True]
    # The answers are its own now: its record replays, and a third program goes on from it.
    assert (await SANDBOX.replay(record(result))).value == result.value
    if store is None:
        third = await execute(shop, "return await pay(2)", journal=Journal.repairing(record(result)))
    else:
        third = await execute(shop, "return await pay(2)", journal=await DurableJournal.open(store, "3", repairs="2"))
    assert third.value == "pay 2"
    assert Counter(shop.ran)["pay 2"] == 1  # known from the first


async def test_a_repaired_run_goes_on_after_a_crash_of_its_own() -> None:
    shop, store = Shop(), MemoryStore()
    await execute(shop, BROKEN, journal=await DurableJournal.open(store, "1"))
    policy = Policy(ask("pay", when=lambda a: a["amount"] == 3), otherwise="allow")
    journal = await DurableJournal.open(store, "2", repairs="1")
    assert (await execute(shop, REPAIRED, journal=journal, policy=policy)).pending
    (request,) = await Approvals(store).pending("2")
    assert await Approvals(store).answer("2", request.id, Decision.approve())
    journal = await DurableJournal.open(store, "2")  # it knows by itself what it repairs
    assert (await execute(shop, REPAIRED, journal=journal, policy=policy)).ok
    assert Counter(shop.ran) == {"look a": 1, "look b": 1, "pay 1": 3, "pay 2": 1, "pay 3": 1}


async def test_what_failed_runs_again_only_if_it_does_no_harm(store: MemoryStore | None) -> None:
    shop = Shop()
    shop.fail = {"look a", "pay 1"}
    code = "return await asyncio.gather(look('a'), pay(1), return_exceptions=True)"
    shown = "x = [str(e) for e in await asyncio.gather(look('a'), pay(1), return_exceptions=True)]\nreturn x"
    if store is None:
        broken = await execute(shop, code)
        journal = Journal.repairing(record(broken))
    else:
        await execute(shop, code, journal=await DurableJournal.open(store, "1"))
        journal = await DurableJournal.open(store, "2", repairs="1")
    shop.fail.clear()
    result = await execute(shop, shown, journal=journal)
    assert result.value == ["look a", "pay 1 failed"]
    assert shop.ran == ["look a", "pay 1", "look a"]


async def test_a_call_that_was_cut_off_is_unclear_to_the_repaired_program(store: MemoryStore | None) -> None:
    shop = Shop()
    shop.hang = {"pay 1"}
    limits = Limits(wall_time=0.5)
    result = await both(
        store, shop, "return await asyncio.gather(pay(1), pay(2))", "return await pay(2), await pay(1)", limits=limits
    )
    (waiting,) = result.pending
    assert waiting.pause is not None
    request = waiting.pause.reason
    assert isinstance(request, Unclear)
    assert (request.tool, request.key) == ("default.pay", shop.keys["pay 1"][0])
    assert sorted(shop.ran) == ["pay 1", "pay 2"]
    if store is None:
        journal = Journal.continuing(record(result))
        assert journal.answer(request.id, Decision.respond("it had been paid"))
    else:
        assert await Approvals(store).pending("2") == [request]
        with pytest.raises(ConfigurationError, match="can't be edited"):
            await Approvals(store).answer("2", request.id, Decision.edit({"amount": 5}))
        assert await Approvals(store).answer("2", request.id, Decision.respond("it had been paid"))
        journal = await DurableJournal.open(store, "2")
    result = await execute(shop, "return await pay(2), await pay(1)", journal=journal)
    assert result.value == ("pay 2", "it had been paid")
    assert sorted(shop.ran) == ["pay 1", "pay 2"]


async def test_a_run_in_memory_that_was_cut_short_goes_on_and_repeats_nothing() -> None:
    shop = Shop()
    shop.hang = {"look z"}
    code = "return await asyncio.gather(pay(1), look('z'), pay(2))"
    result = await execute(shop, code, limits=Limits(wall_time=0.5))
    shop.hang.clear()
    result = await execute(shop, code, journal=Journal.continuing(record(result)))
    assert result.value == ["pay 1", "look z", "pay 2"]
    assert sorted(shop.ran) == ["look z", "look z", "pay 1", "pay 2"]


async def test_the_run_that_is_repaired_can_not_go_on() -> None:
    shop, store = Shop(), MemoryStore()
    old = await DurableJournal.open(store, "1")
    await DurableJournal.open(store, "2", repairs="1")
    with pytest.raises(JournalConflict):
        await execute(shop, "return await pay(1)", journal=old)
    assert shop.ran == []


async def test_a_run_that_is_not_there_can_not_be_repaired() -> None:
    store = MemoryStore()
    with pytest.raises(ConfigurationError, match="no run 'one' to repair"):
        await DurableJournal.open(store, "2", repairs="one")
    assert await store.load("one") == {}


async def test_chance_stays_as_it_was(store: MemoryStore | None) -> None:
    shop = Shop()
    draw = "n = random.randrange(10**9)\nawait pay(n)\n"
    result = await both(store, shop, draw + "boom", draw + "return n")
    assert len(shop.ran) == 1
    assert shop.ran[0] == f"pay {result.value}"


# what a tool lets be kept


async def test_a_value_that_must_be_the_same_again_is_not_kept() -> None:
    shop, store = Shop(), MemoryStore()
    code = "prices = await get_price(200000)\nreturn [sum(prices), await pay(1)]"
    policy = Policy(ask("pay"), otherwise="allow")
    await execute(shop, code, journal=await DurableJournal.open(store, "r"), policy=policy)
    assert sum(map(len, (await store.load("r")).values())) < 3000
    result = await execute(shop, code, journal=await DurableJournal.open(store, "r"), policy=policy)
    assert result.pending
    assert shop.ran == ["price", "price"]
    shop.price = 11
    result = await execute(shop, code, journal=await DurableJournal.open(store, "r"), policy=policy)
    assert result.error is not None
    assert result.error.kind == "divergence"
    assert "call 1 was run again, and gave something else than before" in result.error.message


async def test_a_secret_is_kept_nowhere_and_got_again() -> None:
    shop, store = Shop(), MemoryStore()
    code = "secret = await token('anna-secret')\nawait pay(1)\nreturn len(secret)"
    policy = Policy(ask("pay"), ask("token"))
    for _ in range(2):
        result = await execute(shop, code, journal=await DurableJournal.open(store, "r"), policy=policy)
        (request,) = await Approvals(store).pending("r")
        assert await Approvals(store).answer("r", request.id, Decision.approve())
    stored = b"".join((await store.load("r")).values())
    assert b"token-" not in stored
    assert b"anna-secret" not in stored.replace(code.encode(), b"")
    text = record(result).to_json()
    assert "anna-secret" not in text.replace("token('anna-secret')", "")
    assert (await execute(shop, code, journal=await DurableJournal.open(store, "r"), policy=policy)).ok
    assert shop.ran == ["token", "token", "pay 1"]
    # Offline there is nobody to ask.
    again = await SANDBOX.replay(record(result))
    assert again.error is not None
    assert "leaves out what a tool gave" in again.error.message


async def test_a_value_in_memory_that_was_not_kept_is_got_again_by_a_run_that_goes_on() -> None:
    shop = Shop()
    code = "secret = await token('x')\nawait pay(1)\nreturn secret"
    policy = Policy(ask("pay"), otherwise="allow")
    result = await execute(shop, code, policy=policy)
    journal = Journal.continuing(record(result))
    assert journal.answer(result.pending[0].pause.reason.id, Decision.approve())  # type: ignore[union-attr]
    assert (await execute(shop, code, policy=policy, journal=journal)).value == "token-2-of-x"


# identity


PROGRAM = """\
async def part(base):
    got = await asyncio.gather(*(look(base + str(n)) for n in range(2)), pay(7))
    return [*got, await pay(len(got))]
first = [await one for one in asyncio.as_completed([look('x'), look('y'), look('z')])]
async with asyncio.TaskGroup() as group:
    tasks = [group.create_task(part(base)) for base in 'ab']
return [first, [task.result() for task in tasks]]
"""


@settings(max_examples=25)
@given(st.dictionaries(st.integers(1, 11), st.integers(0, 6)), st.integers(0, 12))
def test_calls_keep_their_identity_whatever_ends_first(turns: dict[int, int], cut: int) -> None:
    async def go() -> None:
        shop, store = Shop(), MemoryStore()
        shop.turns = turns
        result = await execute(shop, PROGRAM, journal=await DurableJournal.open(store, "r"))
        assert result.ok
        keys = {number: list(keys) for number, keys in shop.keys.items()}
        assert len({key for several in keys.values() for key in several}) == len(result.calls) == 11
        # Cut off anywhere, and with calls that take other turns, it goes the same way.
        shop.turns = {number: 6 - count for number, count in turns.items()}
        part = MemoryStore()
        for key, data in (await store.load("r")).items():
            if not (key.startswith("event/") and int(key[6:]) >= cut):
                await part.put("r", key, data)
        again = await execute(shop, PROGRAM, journal=await DurableJournal.open(part, "r"))
        assert len(shop.ran) == 11
        assert sorted(again.value[0]) == sorted(result.value[0])
        assert again.value[1] == result.value[1]
        identity = [(call.id, call.tool, call.digest, call.line) for call in result.calls[:3]]
        assert [(call.id, call.tool, call.digest, call.line) for call in again.calls[:3]] == identity

    asyncio.run(go())


# exhaustion


@pytest.mark.parametrize(
    "code",
    [
        "while True:\n    await look('x' * 1000)",
        "while True:\n    await asyncio.sleep(0)\n    await asyncio.sleep(0.0001)",
        "await asyncio.gather(*(pay(n) for n in range(900)))\nreturn 1",
    ],
)
async def test_a_program_can_not_fill_the_store(code: str) -> None:
    shop, store = Shop(), MemoryStore()
    journal = await DurableJournal.open(store, "r", max_bytes=20_000)
    result = await execute(shop, code, journal=journal, limits=Limits(tool_calls=100_000))
    assert result.error is not None
    assert (result.error.kind, result.error.limit) == ("limit", "journal")
    assert "at most 20,000 are kept" in result.error.message
    assert sum(len(data) + 64 for data in (await store.load("r")).values()) < 45_000
