"""Whatever ends a run, nothing is left of it; and whoever ends a guest, the sandbox goes on."""

from __future__ import annotations

import asyncio
import collections
import functools
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.core import machines
from tests.core.machines import descendants, descriptors, exists, run_host, until, wait_until
from toolchord import CodeSandbox, ExecutionResult, Limits
from toolchord.errors import SandboxClosed

RUNS = 1000
SMALL = Limits(wall_time=20, output=10_000, concurrency=8)

Ending = Callable[[CodeSandbox], Coroutine[Any, Any, str]]


async def children() -> dict[int, str]:
    return await asyncio.to_thread(descendants)


def gone(pids: Collection[int]) -> bool:
    return not any(map(exists, pids))


def confined(pids: Iterable[int]) -> list[int]:
    """Those that are guests: a filter is on them."""
    return [pid for pid in pids if "\nSeccomp:\t2" in Path(f"/proc/{pid}/status").read_text()]


async def finish(sandbox: CodeSandbox) -> str:
    result = await sandbox.execute("return [await double(n=n) for n in range(3)]")
    assert result.value == [0, 2, 4], result.error
    return "finished"


async def run_out_of_time(sandbox: CodeSandbox) -> str:
    result = await sandbox.execute("while True: pass", limits=Limits(wall_time=0.03))
    assert result.error is not None
    assert result.error.limit == "wall_time"
    return "wall time"


async def run_out_of_time_in_a_tool(sandbox: CodeSandbox) -> str:
    result = await sandbox.execute("await forever()", limits=Limits(wall_time=0.03))
    assert result.error is not None
    assert result.error.limit == "wall_time"
    return "wall time in a tool"


async def be_cancelled(sandbox: CodeSandbox) -> str:
    task = asyncio.create_task(sandbox.execute("started()\nwhile True: pass"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return "cancelled at once"


async def print_too_much(sandbox: CodeSandbox) -> str:
    result = await sandbox.execute("while True: print('x' * 5000)")
    assert result.error is not None
    assert result.error.limit == "output"
    return "output"


async def leave(sandbox: CodeSandbox) -> str:
    result = await sandbox.execute("import os\nos._exit(7)")
    assert result.error is not None
    assert (result.error.kind, "exit code 7" in result.error.message) == ("died", True)
    return "os._exit"


async def abort(sandbox: CodeSandbox) -> str:
    result = await sandbox.execute("import ctypes\nctypes.string_at(8)")
    assert result.error is not None
    assert (result.error.kind, "SIGSEGV" in result.error.message) == ("died", True)
    return "crash"


async def hang_up(sandbox: CodeSandbox) -> str:
    result = await sandbox.execute("import os\nos.close(3)\nwhile True: pass", limits=Limits(wall_time=0.05))
    assert result.error is not None
    return "hung up and went on"


async def be_killed_from_outside(sandbox: CodeSandbox) -> str:
    async def kill_me() -> None:
        for pid in confined(descendants()):
            os.kill(pid, signal.SIGKILL)

    result = await sandbox.execute("await kill_me()\nwhile True: pass", tools=[kill_me])
    assert result.error is not None
    assert (result.error.kind, "SIGKILL" in result.error.message) == ("died", True)
    return "killed from outside"


async def lose_the_sandbox(sandbox: CodeSandbox) -> str:
    other = CodeSandbox(tools=TOOLS)
    began = asyncio.Event()

    async def begin() -> None:
        began.set()

    task = asyncio.create_task(other.execute("await begin()\nwhile True: pass", tools=[begin]))
    await began.wait()
    await asyncio.to_thread(other.close)
    result = await task
    assert result.error is not None
    assert result.error.kind == "died"
    with pytest.raises(SandboxClosed):
        await other.execute("1")
    return "sandbox closed"


def double(n: int) -> int:
    return 2 * n


def started() -> None:
    pass


async def forever() -> None:
    await asyncio.Event().wait()


TOOLS = [double, started, forever]
ENDINGS = (run_out_of_time, run_out_of_time_in_a_tool, be_cancelled, print_too_much, leave, abort, hang_up)


@pytest.mark.slow
async def test_a_thousand_runs_a_third_of_them_ended_midway_leave_nothing_behind() -> None:
    await asyncio.to_thread(lambda: None)  # the loop's own threads are there before we count
    gc.collect()
    files, open_before, processes = set(os.listdir(tempfile.gettempdir())), descriptors(), await children()
    kinds: collections.Counter[str] = collections.Counter()
    async with CodeSandbox(tools=TOOLS, limits=SMALL, language="unrestricted") as sandbox:

        async def one(number: int) -> None:
            ending = ENDINGS[number // 3 % len(ENDINGS)] if number % 3 == 0 else finish
            kinds[await ending(sandbox)] += 1

        for start in range(0, RUNS - 20, 10):
            await asyncio.gather(*map(one, range(start, start + 10)))
        for _ in range(15):  # these end their neighbours too, so they run alone
            kinds[await be_killed_from_outside(sandbox)] += 1
        for _ in range(5):
            kinds[await lose_the_sandbox(sandbox)] += 1
        await until(lambda: len(descendants()) - len(processes) <= 4)  # the zygote and its keeper, two warm guests
    assert sum(kinds.values()) == RUNS
    assert RUNS - kinds["finished"] >= RUNS // 3, kinds
    assert len(kinds) == len(ENDINGS) + 3
    await until(lambda: descendants().keys() <= processes.keys())
    gc.collect()
    await until(lambda: len(descriptors()) <= len(open_before))
    assert {number: what for number, what in descriptors().items() if number not in open_before} == {}
    assert {
        name for name in set(os.listdir(tempfile.gettempdir())) - files if "toolchord" in name or "guest" in name
    } == set()


async def test_a_cancelled_run_ends_its_guest_and_its_tools() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    before = await children()
    async with CodeSandbox(tools=[slow]) as sandbox:
        task = asyncio.create_task(sandbox.execute("await slow()"))
        await began.wait()
        running = (await children()).keys() - before.keys()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(ended.wait(), 10)
        await until(lambda: any(pid not in descendants() for pid in running))
        assert (await sandbox.execute("1 + 1")).value == 2


async def test_calls_that_wait_their_turn_never_start_once_the_run_has_ended() -> None:
    begun = 0

    async def slow() -> None:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    async with CodeSandbox(tools=[slow], limits=Limits(concurrency=1, wall_time=0.3)) as sandbox:
        result = await sandbox.execute("import asyncio\nawait asyncio.gather(*[slow() for _ in range(5)])")
        for _ in range(20):
            await asyncio.sleep(0)
    assert [call.status for call in result.calls] == ["unfinished"] * 5
    assert begun == 1


# the host goes, or splits


KILLED_HOST = """
async def wait():
    from tests.core.machines import descendants
    show(sorted(descendants()))
    os.kill(os.getpid(), signal.SIGKILL)
async with CodeSandbox(tools=[wait], isolation={isolation!r}) as sandbox:
    {denial}
    asyncio.create_task(sandbox.execute("while True: pass"))
    await sandbox.execute("await wait()")
"""


@pytest.mark.parametrize("namespaces", [True, False])
def test_a_killed_host_takes_its_zygote_and_guests_with_it(namespaces: bool) -> None:
    denial = "pass" if namespaces else "from tests.core.machines import deny; deny('unshare', errno.EPERM)"
    script = KILLED_HOST.format(isolation="auto", denial=denial)
    text = machines._PREAMBLE + "".join(f"    {line}\n" for line in script.strip().splitlines()) + machines._EPILOGUE
    path = os.pathsep.join((str(machines.ROOT), str(machines.ROOT / "core")))
    ended = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    left = json.loads(ended.stdout)
    assert len(left) >= 3
    wait_until(lambda: not any(map(exists, left)))


def test_a_fork_of_the_host_has_its_own_guests_and_leaves_the_parents_alone() -> None:
    seen = run_host("""
from tests.core.machines import descendants
def double(n): return 2 * n
sandbox = CodeSandbox(tools=[double])
first = await sandbox.execute("double(n=1)")
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    try:
        result = sandbox.execute_sync("double(n=2)")
        with CodeSandbox(tools=[double]) as own:
            own_result = own.execute_sync("double(n=3)")
        os.write(writer, json.dumps([result.value, own_result.value]).encode())
        sandbox.close()
    finally:
        sys.stdout.flush()
        import atexit
        atexit._run_exitfuncs()
        os._exit(0)
os.close(writer)
answer = await asyncio.to_thread(os.read, reader, 1000)
status = os.waitpid(child, 0)[1]
before = sandbox._pool._zygote.process.pid
last = await sandbox.execute("double(n=4)")
show([first.value, json.loads(answer or b"null"), status, last.value, before == sandbox._pool._zygote.process.pid])
await asyncio.to_thread(sandbox.close)
""")
    assert seen == [2, [4, 6], 0, 8, True]


async def test_a_killed_zygote_is_replaced_at_the_next_run() -> None:
    before = await children()
    async with CodeSandbox() as sandbox:
        for _ in range(3):
            assert (await sandbox.execute("6 * 7")).value == 42
            ours = (await children()).keys() - before.keys()
            for pid in ours:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:  # it went with another
                    pass
            await until(functools.partial(gone, ours))
            assert (await sandbox.execute("6 * 7")).value == 42
    await until(lambda: descendants().keys() <= before.keys())


async def test_a_run_whose_zygote_is_killed_ends_with_an_error_and_the_next_one_works() -> None:
    before = await children()

    async def strike() -> None:
        for pid in descendants().keys() - before.keys():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    async with CodeSandbox(tools=[strike]) as sandbox:
        result = await sandbox.execute("print('before')\nawait strike()\nwhile True: pass")
        assert result.error is not None
        assert (result.error.kind, result.stdout) == ("died", "before\n")
        assert (await sandbox.execute("6 * 7")).value == 42


async def test_a_session_whose_guest_was_killed_says_so_and_starts_anew() -> None:
    before = await children()

    async def strike() -> None:
        for pid in confined(descendants().keys() - before.keys()):
            os.kill(pid, signal.SIGKILL)

    async with CodeSandbox(tools=[strike]) as sandbox, sandbox.session() as session:
        assert (await session.execute("x = 1")).ok
        assert (await session.execute("x")).value == 1
        result = await session.execute("await strike()\nx = 2")
        assert result.error is not None
        assert result.error.kind == "died"
        assert "starts anew" in result.stderr
        gone = await session.execute("x")
        assert gone.error is not None
        assert gone.error.type == "NameError"
        assert (await session.execute("x = 3\nx")).value == 3


# many at once


def test_two_event_loops_and_four_threads_share_one_sandbox() -> None:
    results: list[int] = []
    errors: list[BaseException] = []

    async def many(sandbox: CodeSandbox, offset: int) -> None:
        async def one(n: int) -> ExecutionResult:
            return await sandbox.execute(
                f"import asyncio\nsum(await asyncio.gather(*[double(n=i) for i in range({n})]))"
            )

        for result in await asyncio.gather(*(one(offset + n) for n in range(10))):
            assert result.ok, result.error
            results.append(result.value)

    def loop(sandbox: CodeSandbox, offset: int) -> None:
        try:
            asyncio.run(many(sandbox, offset))
        except BaseException as error:
            errors.append(error)

    def thread(sandbox: CodeSandbox, offset: int) -> None:
        try:
            for n in range(offset, offset + 10):
                results.append(sandbox.execute_sync(f"sum(double(n=i) for i in range({n}))").value)
        except BaseException as error:
            errors.append(error)

    with CodeSandbox(tools=[double]) as sandbox:
        threads = [threading.Thread(target=loop, args=(sandbox, 10 * n)) for n in range(2)]
        threads += [threading.Thread(target=thread, args=(sandbox, 10 * n)) for n in range(2, 6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert errors == []
    assert sorted(results) == [n * (n - 1) for n in range(60)]


async def test_the_synchronous_face_works_inside_a_running_loop() -> None:
    with CodeSandbox(tools=[double]) as sandbox:
        assert sandbox.execute_sync("double(n=21)").value == 42
        assert (await sandbox.execute("double(n=21)")).value == 42


async def test_a_forgotten_sandbox_leaves_no_process_once_it_is_collected() -> None:
    before, open_before = await children(), descriptors()
    sandbox = CodeSandbox()
    assert (await sandbox.execute("1")).value == 1
    del sandbox
    gc.collect()
    await until(lambda: descendants().keys() <= before.keys())
    await until(lambda: len(descriptors()) <= len(open_before))
