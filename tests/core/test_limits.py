"""Each field of Limits is kept, says which it was, and loses nothing of what happened; and the host's loop goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from toolchord import CodeSandbox, ExecutionResult, Limits

MiB = 1 << 20
BEFORE = "print('before')\nnote(n=1)\n"

STALL = 2.0
"""Seconds between two turns of the loop, or a third of the whole: a busy machine stretches both."""


def note(n: int) -> int:
    return n


async def forever() -> None:
    await asyncio.Event().wait()


def check(result: ExecutionResult, limit: str, *, calls: int = 1) -> None:
    """The limit is named, and what happened before it is all there."""
    assert result.error is not None
    assert (result.error.kind, result.error.limit, result.error.type) == ("limit", limit, "LimitExceeded"), result.error
    assert result.error.message.startswith(limit)
    assert result.stdout.startswith("before\n")
    assert len(result.calls) >= calls
    assert (result.calls[0].tool, result.calls[0].status) == ("default.note", "ok")
    assert result.value is None


@asynccontextmanager
async def beating() -> AsyncIterator[list[float]]:
    """The largest gap between two beats of the loop, as the only item of the list once the block has ended.

    A gap is no longer than what this process has computed meanwhile: what others take of the machine is no stall.
    """
    largest = [0.0]

    async def beat() -> None:
        last = (time.perf_counter(), time.process_time())
        while True:
            await asyncio.sleep(0.002)
            now = (time.perf_counter(), time.process_time())
            largest[0] = max(largest[0], min(now[0] - last[0], now[1] - last[1] + 0.05))
            last = now

    task = asyncio.create_task(beat())
    await asyncio.sleep(0.01)
    try:
        yield largest
    finally:
        await asyncio.sleep(0.01)
        task.cancel()


SPENDERS = {
    "wall_time": (Limits(wall_time=0.5), "import time\ntime.sleep(60)"),
    "cpu_time": (Limits(cpu_time=0.2), "while True: pass"),
    "memory": (Limits(memory=32 * MiB), "x = [bytearray(1 << 20) for _ in range(1000)]"),
    "output": (Limits(output=10_000), "while True: print('y' * 100)"),
    "result": (Limits(result=100_000), "return 'z' * 200_000"),
    "tool_calls": (Limits(tool_calls=10), "for n in range(20): note(n=n)"),
}


@pytest.mark.parametrize("limit", SPENDERS)
@pytest.mark.parametrize("language", ["restricted", "unrestricted"])
async def test_a_limit_that_is_reached_is_named_and_nothing_is_lost(limit: str, language: Any) -> None:
    limits, spend = SPENDERS[limit]
    async with CodeSandbox(tools=[note], language=language) as sandbox:
        check(await sandbox.execute(BEFORE + spend, limits=limits), limit)
        assert (await sandbox.execute("1 + 1")).value == 2


async def test_a_program_longer_than_the_limit_is_not_read() -> None:
    async with CodeSandbox(tools=[note], limits=Limits(source=100)) as sandbox:
        result = await sandbox.execute("note(n=1)\n" + "# long\n" * 100)
    assert result.error is not None
    assert (result.error.kind, result.error.limit, result.calls) == ("limit", "source", [])


async def test_arguments_larger_than_the_limit_end_the_run() -> None:
    async with CodeSandbox(tools=[note], limits=Limits(result=100_000)) as sandbox:
        check(await sandbox.execute(BEFORE + "note(n='z' * 200_000)"), "result")


async def test_output_is_kept_up_to_the_limit_and_no_further() -> None:
    async with CodeSandbox(limits=Limits(output=1000)) as sandbox:
        exact = await sandbox.execute("print('é' * 499 + 'x')")
        over = await sandbox.execute("print('é' * 500 + 'x')")
    assert (exact.ok, len(exact.stdout.encode())) == (True, 1000)
    assert over.error is not None
    assert (over.error.limit, over.stdout) == ("output", "é" * 500)


async def test_as_many_calls_as_the_limit_says_are_made() -> None:
    async with CodeSandbox(tools=[note], limits=Limits(tool_calls=10)) as sandbox:
        assert (await sandbox.execute("[note(n=n) for n in range(10)][-1]")).value == 9
        result = await sandbox.execute("[note(n=n) for n in range(11)]")
    assert result.error is not None
    assert result.error.limit == "tool_calls"
    assert len(result.calls) == 10
    assert {call.status for call in result.calls} == {"ok"}


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_never_more_calls_run_at_once_than_the_limit_says(concurrency: int) -> None:
    now = most = 0

    async def busy(n: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        return n

    async with CodeSandbox(tools=[busy], limits=Limits(concurrency=concurrency)) as sandbox:
        result = await sandbox.execute("import asyncio\nawait asyncio.gather(*[busy(n=n) for n in range(30)])")
    assert result.value == list(range(30))
    assert most == concurrency


async def test_the_time_that_tools_take_counts_and_the_message_names_the_tool() -> None:
    async with CodeSandbox(tools=[note, forever], limits=Limits(wall_time=0.5)) as sandbox:
        result = await sandbox.execute(BEFORE + "await forever()")
    check(result, "wall_time", calls=2)
    assert result.error is not None
    assert "forever" in result.error.message
    assert [call.status for call in result.calls] == ["ok", "unfinished"]


async def test_tools_that_still_run_at_the_end_are_cancelled_and_recorded_as_unfinished() -> None:
    cancelled = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with CodeSandbox(tools=[note, slow], limits=Limits(wall_time=0.5)) as sandbox:
        result = await sandbox.execute(BEFORE + "import asyncio\nawait asyncio.gather(slow(), slow())")
        await asyncio.wait_for(cancelled.wait(), 10)
    check(result, "wall_time", calls=3)
    assert [call.status for call in result.calls] == ["ok", "unfinished", "unfinished"]
    assert all(call.duration > 0 for call in result.calls[1:])


async def test_a_program_can_not_catch_its_way_past_a_limit() -> None:
    stubborn = (
        "import time\nwhile True:\n    try:\n        while True: time.sleep(1)\n    except BaseException:\n        pass"
    )
    async with CodeSandbox(tools=[note], language="unrestricted") as sandbox:
        check(await sandbox.execute(BEFORE + stubborn, limits=Limits(wall_time=0.5)), "wall_time")


async def test_cpu_time_is_counted_anew_for_each_program_of_a_session() -> None:
    async with CodeSandbox(limits=Limits(cpu_time=2)) as sandbox, sandbox.session() as session:
        for _ in range(4):
            result = await session.execute("import time\nt = 0\nfor i in range(9_000_000): t += i\nt")
            assert result.ok, result.error
        result = await session.execute("while True: pass")
    assert result.error is not None
    assert result.error.limit == "cpu_time"


async def test_the_loop_goes_on_while_guests_compute_and_are_killed() -> None:
    async with CodeSandbox(tools=[note]) as sandbox:
        await sandbox.execute("1")
        async with beating() as gap:
            results = await asyncio.gather(
                *(sandbox.execute("while True: pass", limits=Limits(wall_time=0.3)) for _ in range(6)),
                *(sandbox.execute("x = [0] * 10**9", limits=Limits(memory=32 * MiB)) for _ in range(4)),
            )
    assert [r.error.limit for r in results if r.error is not None] == ["wall_time"] * 6 + ["memory"] * 4
    assert gap[0] < max(STALL, sum(r.duration for r in results) / 3)


BIG = 50_000_000
LARGE = Limits(result=3 * BIG, memory=2 << 30, wall_time=100, cpu_time=100)
TEXT = "t" * BIG
NUMBERS = list(range(4_000_000))
ROWS = [{"id": i, "name": f"name {i}", "price": i / 7, "tags": ["a", "b"]} for i in range(400_000)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "value"), [("text", TEXT), ("numbers", NUMBERS), ("rows", ROWS)], ids=["text", "numbers", "rows"]
)
@pytest.mark.parametrize("way", ["in", "out", "into a tool", "out of a tool"])
async def test_the_loop_goes_on_while_a_large_value_crosses(way: str, kind: str, value: Any) -> None:
    taken: list[Any] = []

    def take(value: Any) -> int:
        taken.append(value)
        return len(value)

    def give() -> Any:
        return value

    make = {
        "text": f"'t' * {BIG}",
        "numbers": "list(range(4_000_000))",
        "rows": "[{'id': i, 'name': f'name {i}', 'price': i / 7, 'tags': ['a', 'b']} for i in range(400_000)]",
    }[kind]
    code, inputs = {
        "in": ("len(given)", {"given": value}),
        "out": (make, {}),
        "into a tool": (f"take(value={make})", {}),
        "out of a tool": ("len(give())", {}),
    }[way]
    async with CodeSandbox(tools=[take, give], limits=LARGE) as sandbox:
        await sandbox.execute("1")
        begin = time.perf_counter()
        async with beating() as gap:
            result = await sandbox.execute(code, inputs=inputs)
        whole = time.perf_counter() - begin
    assert result.ok, result.error
    assert result.value == (value if way == "out" else len(value))
    assert taken == ([value] if way == "into a tool" else [])
    assert gap[0] < max(STALL, whole / 3)


async def test_a_large_call_replays_and_a_different_one_diverges() -> None:
    def measure(value: Any) -> int:
        return len(value)

    code = "measure(value=[[n, str(n)] for n in range(size)])"
    async with CodeSandbox(tools=[measure]) as sandbox:
        result = await sandbox.execute(code, inputs={"size": 100_000})
        assert result.value == 100_000, result.error
        assert result.record is not None
        assert (await sandbox.replay(result.record)).value == 100_000
        result.record.code = code.replace("str(n)", "str(n + (n == 77_777))")
        other = await sandbox.replay(result.record)
    assert other.error is not None
    assert other.error.kind == "divergence"


async def test_more_arguments_than_the_host_holds_at_once_still_arrive() -> None:
    taken: list[int] = []

    async def take(value: str) -> int:
        await asyncio.sleep(0)
        taken.append(len(value))
        return len(value)

    code = "import asyncio\nsum(await asyncio.gather(*[take(value='x' * 12_000_000) for _ in range(15)]))"
    async with CodeSandbox(tools=[take], limits=Limits(memory=1 << 30, concurrency=2, wall_time=60)) as sandbox:
        result = await sandbox.execute(code)
    assert result.value == 15 * 12_000_000, result.error
    assert taken == [12_000_000] * 15
