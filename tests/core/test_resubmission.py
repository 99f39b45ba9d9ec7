# ruff: noqa: E501  (a program is kept on one line)
"""A corrected program gets what its failed version already did, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from toolchord import CodeSandbox, Limits, ToolCapability, create_registry
from toolchord.resubmission import Resubmission

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


async def attempts(sandbox: CodeSandbox, *programs: str, **options: Any) -> list[Any]:
    resubmission = Resubmission(**options)
    return [await sandbox.execute(program, journal=resubmission.journal()) for program in programs]


async def test_an_unchanged_call_is_answered_from_the_record(sandbox: CodeSandbox) -> None:
    first, second = await attempts(
        sandbox,
        "a = await send(to='ann')\nb = read('k')\nreturn a['x']",
        "a = await send(to='ann')\nb = read('k')\nreturn a, b",
    )
    assert not first.ok
    assert second.value == ("sent 1", "k 2")
    assert DONE == [("ann", "hello"), "k"]
    assert [call.replayed for call in second.calls] == [True, True]


async def test_it_counts_how_often_not_where_and_not_how_it_is_written(sandbox: CodeSandbox) -> None:
    _, second = await attempts(
        sandbox,
        "await send('ann')\nawait send('bob', 'x')\nawait send('ann')\n1 / 0",
        "import asyncio\nreturn await asyncio.gather(send(text='x', to='bob'), send({'to': 'ann'}), send(to='ann'), send('ann'), send('cat'))",
    )
    assert second.value == ["sent 2", "sent 1", "sent 3", "sent 4", "sent 5"]
    assert DONE == [("ann", "hello"), ("bob", "x"), ("ann", "hello"), ("ann", "hello"), ("cat", "hello")]


async def test_a_third_version_gets_what_both_before_did(sandbox: CodeSandbox) -> None:
    _, _, third = await attempts(
        sandbox,
        "await send('a')\n1 / 0",
        "await send('a')\nawait send('b')\n1 / 0",
        "return [await send('a'), await send('b'), await send('a')]",
    )
    assert third.value == ["sent 1", "sent 2", "sent 3"]


async def test_a_failed_call_that_may_have_acted_is_not_repeated(sandbox: CodeSandbox) -> None:
    _, second = await attempts(
        sandbox, "fail(7)", "try:\n    return fail(7)\nexcept ConnectionError as e:\n    return str(e)"
    )
    assert (second.value, DONE) == ("gone", [7])
    DONE.clear()
    _, second = await attempts(sandbox, "fail(7)", "return fail(7)", repeat_failed=True)
    assert (second.value, DONE) == (7, [7, 7])
    DONE.clear()
    _, second = await attempts(sandbox, "flaky(7)", "return flaky(7)")
    assert (second.value, DONE) == (7, [7, 7])  # the tool says that repeating does no harm


async def test_a_call_that_never_ran_runs_when_it_is_asked_for_again(sandbox: CodeSandbox) -> None:
    registry = create_registry()
    calls: list[int] = []

    def strict(n: int) -> int:
        calls.append(n)
        return n

    registry.add(strict)

    async with CodeSandbox(registry) as other:
        _, second = await attempts(other, "x = {'n': 'many'}\nstrict(**x)", "x = {'n': 5}\nreturn strict(**x)")
    assert (second.value, calls) == (5, [5])


async def test_a_call_whose_end_nobody_saw_is_not_repeated(sandbox: CodeSandbox) -> None:
    resubmission = Resubmission()
    HUNG[:] = [asyncio.Event()]
    first = asyncio.create_task(sandbox.execute("await hang(1)", journal=resubmission.journal()))
    await HUNG[0].wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = await sandbox.execute("await hang(1)", journal=resubmission.journal())
    assert second.error is not None
    assert second.error.type == "OutcomeUnknown"
    assert "not known how it ended" in second.error.message
    assert DONE == [1]


async def test_chance_and_the_clocks_start_are_the_same_in_every_version(sandbox: CodeSandbox) -> None:
    program = (
        "import uuid, random\nfrom datetime import date\nx = await send(str(uuid.uuid4()), str(random.random()))\n"
    )
    _, second = await attempts(sandbox, program + "1 / 0", program + "return x")
    assert second.value == "sent 1"
    assert len(DONE) == 1


async def test_large_results_of_several_runs_travel_together(sandbox: CodeSandbox) -> None:
    _, second = await attempts(
        sandbox,
        "import asyncio\nawait asyncio.gather(big(1), big(2))\n1 / 0",
        "import asyncio\nr = await asyncio.gather(big(1), big(2), big(3), big(4))\nreturn [(x[0][:1], len(x)) for x in r]",
        # a program's large arguments are compared by what they hold
    )
    assert second.value == [("1", 400), ("2", 400), ("3", 400), ("4", 400)]
    assert sorted(DONE) == [1, 2, 3, 4]
    assert sum(call.replayed for call in second.calls) == 2


async def test_large_arguments_are_compared_too(sandbox: CodeSandbox) -> None:
    _, second = await attempts(
        sandbox,
        "await send('a', 'x' * 500_000)\n1 / 0",
        "return [await send('a', 'x' * 500_000), await send('a', 'x' * 499_999 + 'y')]",
    )
    assert second.value == ["sent 1", "sent 2"]


async def test_a_limit_that_ends_a_program_keeps_what_it_did(sandbox: CodeSandbox) -> None:
    resubmission = Resubmission()
    first = await sandbox.execute(
        "await send('a')\nwhile True: pass", journal=resubmission.journal(), limits=Limits(cpu_time=0.5)
    )
    assert first.error is not None
    assert first.error.kind == "limit"
    second = await sandbox.execute("return await send('a')", journal=resubmission.journal())
    assert (second.value, len(DONE)) == ("sent 1", 1)
    assert resubmission.calls == 1
