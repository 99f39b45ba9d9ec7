"""`toolchord bench`: what the sandbox costs, as ratios and figures of one run on this machine, each beside its aim.

Medians of several repeats; on a busy machine repeat the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from toolchord import CodeSandbox, Limits
from toolchord.cli.options import AsJson, say

LOOP = """
def work():
    total, table = 0, {}
    for i in range(600_000):
        total += i * i % 7
        table[i % 1000] = table.get(i % 1000, 0) + total
    words = sorted(str(i) for i in range(60_000))
    return total + len(table) + len(words)
"""
WIDE = Limits(wall_time=120, cpu_time=100, tool_calls=10_000, memory=1 << 30, result=256 << 20)


def echo(x: int = 0) -> int:
    return x


async def echo_async(x: int = 0) -> int:
    return x


async def median(measure: Callable[[], Awaitable[float]], repeats: int) -> float:
    """The median of several measurements, after one that does not count."""
    await measure()
    return statistics.median([await measure() for _ in range(repeats)])


async def seconds(action: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await action()
    return time.perf_counter() - begin


async def run(sandbox: CodeSandbox, code: str, **inputs: object) -> object:
    result = await sandbox.execute(code, inputs=inputs)
    result.raise_for_error()
    return result.value


async def compute(sandbox: CodeSandbox) -> float:
    """CPU time of a guest over CPU time of plain CPython, for the same loop."""

    async def inside() -> float:
        result = await sandbox.execute(LOOP + "work()")
        result.raise_for_error()
        return result.usage.cpu_time

    async def outside() -> float:
        scope: dict[str, Callable[[], int]] = {}
        exec(LOOP, scope)  # the plain interpreter that is compared with
        begin = time.process_time()
        scope["work"]()
        return time.process_time() - begin

    return await median(inside, 7) / await median(outside, 7)


async def round_trip(sandbox: CodeSandbox, tool: str) -> float:
    """Microseconds of one tool call that is awaited alone."""
    loop = f"for i in range(2000):\n    await {tool}(x=i)\n0"
    base = await median(lambda: seconds(lambda: run(sandbox, "0")), 5)
    return (await median(lambda: seconds(lambda: run(sandbox, loop)), 5) - base) / 2000 * 1e6


async def bare_round_trip() -> float:
    """Microseconds of one byte to another process and back: what the machine itself takes of a tool call."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        while theirs.recv(100):
            theirs.send(b"x")
        os._exit(0)
    theirs.close()

    async def many() -> float:
        begin = time.perf_counter()
        for _ in range(2000):
            ours.send(b"x")
            ours.recv(100)
        return (time.perf_counter() - begin) / 2000 * 1e6

    figure = await median(many, 5)
    ours.close()
    await asyncio.to_thread(os.waitpid, child, 0)
    return figure


async def gather(sandbox: CodeSandbox) -> float:
    """Microseconds of one call of a thousand that are gathered."""
    code = "import asyncio\nlen(await asyncio.gather(*[echo_async(x=i) for i in range(1000)]))"
    return await median(lambda: seconds(lambda: run(sandbox, code)), 7) / 1000 * 1e6


async def rows(sandbox: CodeSandbox) -> float:
    """100,000 rows handed in, over json.dumps and json.loads of the same rows."""
    table = [{"id": i, "name": f"n{i}", "price": i * 0.5, "ok": True} for i in range(100_000)]

    async def there() -> float:
        return await seconds(lambda: run(sandbox, "len(table)", table=table))

    async def plain() -> float:
        begin = time.perf_counter()
        json.loads(json.dumps(table))
        return time.perf_counter() - begin

    return await median(there, 5) / await median(plain, 5)


async def cold_start() -> float:
    """Milliseconds from nothing to the first result."""

    async def start() -> None:
        async with CodeSandbox() as sandbox:
            await run(sandbox, "1")

    return await median(lambda: seconds(start), 5) * 1e3


async def warm_execute(sandbox: CodeSandbox) -> float:
    """Milliseconds of an empty program with guests at hand."""

    async def one() -> float:
        await asyncio.sleep(0.03)  # the next guest is being forked meanwhile
        return await seconds(lambda: run(sandbox, "1"))

    return await median(one, 30) * 1e3


async def idle_memory(sandbox: CodeSandbox) -> float:
    """Private MB of a warm guest that waits for its program."""
    from toolchord.pool import Guest

    await run(sandbox, "1")
    await asyncio.sleep(0.3)
    guests: list[Guest] = list(sandbox._pool._idle)
    return statistics.median(private_memory(guest.pid) for guest in guests if guest.pid is not None)


def private_memory(pid: int) -> float:
    """MB that a process shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line and line.endswith("kB"))
    return sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) / 1024


class Figure(NamedTuple):
    """What was measured, in which unit, and what it should be ("" for no aim)."""

    what: str
    figure: float
    unit: str
    aim: str


async def figures() -> list[Figure]:
    """Measure everything; takes about a minute."""
    async with CodeSandbox(tools=[echo, echo_async], limits=WIDE) as sandbox:
        return [
            Figure("compute in a guest / plain CPython", await compute(sandbox), "x", "<= 1.1"),
            Figure("warm execute", await warm_execute(sandbox), "ms", "<= 5"),
            Figure("(one byte to a process and back)", await bare_round_trip(), "µs", ""),
            Figure("tool call round trip, async tool", await round_trip(sandbox, "echo_async"), "µs", "<= 120"),
            Figure("tool call round trip, sync tool (a thread)", await round_trip(sandbox, "echo"), "µs", ""),
            Figure("gather of 1,000 calls, per call", await gather(sandbox), "µs", "<= 120"),
            Figure("100,000 rows in / json.dumps + json.loads", await rows(sandbox), "x", "<= 2"),
            Figure("cold start of a sandbox", await cold_start(), "ms", "<= 1000"),
            Figure("private memory of an idle guest", await idle_memory(sandbox), "MB", "<= 4"),
        ]


def bench(as_json: AsJson = False) -> None:
    """Measure what the sandbox costs on this machine; takes about a minute."""
    lines = asyncio.run(figures())
    table = [f"{'':45}{'measured':>12}{'':4}{'aim':>8}"]
    table += [f"{what:45}{figure:12.2f} {unit:3}{aim:>8}" for what, figure, unit, aim in lines]
    say([one._asdict() for one in lines], as_json, "\n".join(table))
