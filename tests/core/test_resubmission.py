# ruff: noqa: E501  (a program is kept on one line)
"""A corrected program gets what its failed version already did, and nothing is done twice."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from toolchord import (
    CallIdentity,
    CodeSandbox,
    Decision,
    DurableJournal,
    ExecutionResult,
    Journal,
    JournalStore,
    Limits,
    MemoryStore,
    ToolCapability,
    create_registry,
    current_call,
)

DONE: list[Any] = []


async def send(to: str, text: str = "hello") -> str:
    DONE.append((to, text))
    return f"sent {len(DONE)}"


def read(key: str) -> str:
    DONE.append(key)
    return f"{key} {len(DONE)}"


def fail(n: int) -> int:
    DONE.append(n)
    if len(DONE) == 1:
        raise ConnectionError("gone")
    return n


def flaky(n: int) -> int:
    return fail(n)


HUNG: list[asyncio.Event] = []


async def hang(n: int) -> int:
    DONE.append(n)
    HUNG[0].set()
    await asyncio.Event().wait()
    return n


def big(n: int) -> list[str]:
    DONE.append(n)
    return [f"{n} " + "x" * 1000] * 400


REGISTRY = create_registry()
for tool in (send, fail, hang, big):
    REGISTRY.add(tool)
REGISTRY.add(read, capabilities=[ToolCapability.READ_ONLY])
REGISTRY.add(flaky, capabilities=[ToolCapability.IDEMPOTENT])


@pytest_asyncio.fixture
async def sandbox() -> AsyncIterator[CodeSandbox]:
    DONE.clear()
    async with CodeSandbox(REGISTRY) as sandbox:
        yield sandbox


class Versions:
    """The versions of a program, each in place of the one before: in memory, or in a store."""

    def __init__(self, store: JournalStore | None, **options: Any) -> None:
        self.store = store
        self.options = options
        self.journal: Journal | None = None
        self.number = 0
        self.name = uuid.uuid4().hex

    async def next(self) -> Journal:
        before, self.number = self.journal, self.number + 1
        if self.store is not None:
            repairs = f"{self.name}/{self.number - 1}" if before else ""
            name = f"{self.name}/{self.number}"
            self.journal = await DurableJournal.open(self.store, name, repairs=repairs, **self.options)
        else:
            self.journal = Journal.repairing(before, **self.options) if before else Journal(**self.options)
        return self.journal


@pytest.fixture(params=["memory", "store"])
def store(request: Any) -> MemoryStore | None:
    return MemoryStore() if request.param == "store" else None


async def attempts(
    sandbox: CodeSandbox, store: JournalStore | None, *programs: str, **options: Any
) -> list[ExecutionResult]:
    versions = Versions(store, **options)
    return [await sandbox.execute(program, journal=await versions.next()) for program in programs]


async def test_an_unchanged_call_is_answered_from_the_record(sandbox: CodeSandbox, store: MemoryStore | None) -> None:
    first, second = await attempts(
        sandbox,
        store,
        "a = await send(to='ann')\nb = read('k')\nreturn a['x']",
        "a = await send(to='ann')\nb = read('k')\nreturn a, b",
    )
    assert not first.ok
    assert second.value == ("sent 1", "k 2")
    assert DONE == [("ann", "hello"), "k"]
    assert [call.replayed for call in second.calls] == [True, True]


async def test_it_counts_how_often_not_where_and_not_how_it_is_written(
    sandbox: CodeSandbox, store: MemoryStore | None
) -> None:
    _, second = await attempts(
        sandbox,
        store,
        "await send('ann')\nawait send('bob', 'x')\nawait send('ann')\n1 / 0",
        "import asyncio\nreturn await asyncio.gather(send(text='x', to='bob'), send({'to': 'ann'}), send(to='ann'), send('ann'), send('cat'))",
    )
    assert second.value == ["sent 2", "sent 1", "sent 3", "sent 4", "sent 5"]
    assert DONE == [("ann", "hello"), ("bob", "x"), ("ann", "hello"), ("ann", "hello"), ("cat", "hello")]


async def test_a_third_version_gets_what_both_before_did(sandbox: CodeSandbox, store: MemoryStore | None) -> None:
    _, _, third = await attempts(
        sandbox,
        store,
        "await send('a')\n1 / 0",
        "await send('a')\nawait send('b')\n1 / 0",
        "return [await send('a'), await send('b'), await send('a')]",
    )
    assert third.value == ["sent 1", "sent 2", "sent 3"]


async def test_a_failed_call_that_may_have_acted_is_not_repeated(
    sandbox: CodeSandbox, store: MemoryStore | None
) -> None:
    _, second = await attempts(
        sandbox, store, "fail(7)", "try:\n    return fail(7)\nexcept ConnectionError as e:\n    return str(e)"
    )
    assert (second.value, DONE) == ("gone", [7])
    DONE.clear()
    _, second = await attempts(sandbox, store, "fail(7)", "return fail(7)", repeat_failed=True)
    assert (second.value, DONE) == (7, [7, 7])
    DONE.clear()
    _, second = await attempts(sandbox, store, "flaky(7)", "return flaky(7)")
    assert (second.value, DONE) == (7, [7, 7])  # the tool says that repeating does no harm


async def test_a_call_that_never_ran_runs_when_it_is_asked_for_again(
    sandbox: CodeSandbox, store: MemoryStore | None
) -> None:
    registry = create_registry()
    calls: list[int] = []

    def strict(n: int) -> int:
        calls.append(n)
        return n

    registry.add(strict)

    async with CodeSandbox(registry) as other:
        _, second = await attempts(other, store, "x = {'n': 'many'}\nstrict(**x)", "x = {'n': 5}\nreturn strict(**x)")
    assert (second.value, calls) == (5, [5])


async def test_a_call_whose_end_nobody_saw_is_not_repeated(sandbox: CodeSandbox, store: MemoryStore | None) -> None:
    versions = Versions(store)
    HUNG[:] = [asyncio.Event()]
    first = asyncio.create_task(sandbox.execute("await hang(1)", journal=await versions.next()))
    await HUNG[0].wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = await sandbox.execute("await hang(n=1)", journal=await versions.next())
    assert [call.pause.reason.tool for call in second.pending if call.pause] == ["default.hang"]  # type: ignore[attr-defined]

    async def told(call: CallIdentity) -> Decision:
        return Decision.reject(f"nobody knows what {call.tool} did")

    versions.options = {"unclear": told}
    third = await sandbox.execute("await hang(1)", journal=await versions.next())
    assert third.error is not None
    assert third.error.type == "CallDenied"
    assert "nobody knows what default.hang did" in third.error.message
    assert DONE == [1]


async def test_chance_and_the_clocks_start_are_the_same_in_every_version(
    sandbox: CodeSandbox, store: MemoryStore | None
) -> None:
    program = (
        "import uuid, random\nfrom datetime import date\nx = await send(str(uuid.uuid4()), str(random.random()))\n"
    )
    _, second = await attempts(sandbox, store, program + "1 / 0", program + "return x")
    assert second.value == "sent 1"
    assert len(DONE) == 1


async def test_large_results_of_several_runs_travel_together(sandbox: CodeSandbox, store: MemoryStore | None) -> None:
    _, second = await attempts(
        sandbox,
        store,
        "import asyncio\nawait asyncio.gather(big(1), big(2))\n1 / 0",
        "import asyncio\nr = await asyncio.gather(big(1), big(2), big(3), big(4))\nreturn [(x[0][:1], len(x)) for x in r]",
        # a program's large arguments are compared by what they hold
    )
    assert second.value == [("1", 400), ("2", 400), ("3", 400), ("4", 400)]
    assert sorted(DONE) == [1, 2, 3, 4]
    assert sum(call.replayed for call in second.calls) == 2


async def test_large_arguments_are_compared_too(sandbox: CodeSandbox, store: MemoryStore | None) -> None:
    _, second = await attempts(
        sandbox,
        store,
        "await send('a', 'x' * 500_000)\nawait send('b', 'x' * 2_000_000)\n1 / 0",
        "return [await send(text='x' * 500_000, to='a'), await send('b', 'x' * 2_000_000), await send('a', 'x' * 499_999 + 'y')]",
    )
    assert second.value == ["sent 1", "sent 2", "sent 3"]


async def test_arguments_of_every_kind_are_compared(sandbox: CodeSandbox, store: MemoryStore | None) -> None:
    ran: list[Any] = []

    async def keep(value: Any, note: str = "") -> int:
        ran.append(value)
        return len(ran)

    values = [
        "{3, 1, 2}",
        "(1, [2])",
        "[1, [2]]",
        "date(2020, 1, 1)",
        "Decimal('1.50')",
        "Decimal('1.5')",
        "b'x'",
        "'x'",
    ]
    values += ["1", "1.0", "True", "None", "2 ** 70", "{1: 2}", "{'1': 2}", "{}", "[]", "()", "''", "float('nan')"]
    head = "from datetime import date\nfrom decimal import Decimal\n"
    first = head + "".join(f"await keep({value})\n" for value in values) + "1 / 0"
    second = head + "return [" + ", ".join(f"await keep(value={value})" for value in values) + "]"
    async with CodeSandbox(tools=[keep]) as other:
        _, again = await attempts(other, store, first, second)
    assert again.value == list(range(1, len(values) + 1))
    assert len(ran) == len(values)


async def test_a_limit_that_ends_a_program_keeps_what_it_did(sandbox: CodeSandbox, store: MemoryStore | None) -> None:
    versions = Versions(store)
    first = await sandbox.execute(
        "await send('a')\nwhile True: pass", journal=await versions.next(), limits=Limits(cpu_time=0.5)
    )
    assert first.error is not None
    assert first.error.kind == "limit"
    second = await sandbox.execute("return await send('a')", journal=await versions.next())
    assert (second.value, len(DONE)) == ("sent 1", 1)


async def test_the_key_stays_however_the_call_is_written(sandbox: CodeSandbox, store: MemoryStore | None) -> None:
    keys: list[str] = []

    async def pay(amount: int, to: str = "ann") -> str:
        call = current_call()
        assert call is not None
        keys.append(call.key)
        if len(keys) == 1:
            raise ConnectionError("gone")
        return "paid"

    async with CodeSandbox(tools=[pay]) as other:
        for code in ("await pay(5, 'bob')", "await pay(to='bob', amount=5)", "await pay({'amount': 5, 'to': 'bob'})"):
            keys.clear()
            _, second = await attempts(other, store, "await pay(5, 'bob')", f"return {code}", repeat_failed=True)
            assert second.value == "paid"
            assert len(keys) == 2
            assert keys[0] == keys[1]


async def test_a_record_of_a_repaired_run_replays_and_is_repaired_in_its_turn(
    sandbox: CodeSandbox, store: MemoryStore | None
) -> None:
    _, second = await attempts(
        sandbox, store, "await send('a')\n1 / 0", "x = await send(to='a')\nawait send('b')\nreturn [x, boom]"
    )
    assert second.record is not None
    again = await sandbox.replay(second.record)
    assert again.error == second.error
    third = await sandbox.execute(
        "return [await send('b', 'hello'), await send({'to': 'a'}), await send(to='b')]",
        journal=Journal.repairing(second.record),
    )
    assert third.value == ["sent 3", "sent 1", "sent 2"]
