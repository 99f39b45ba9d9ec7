# ruff: noqa: E501  (a program is kept on one line)
"""A session: programs that share their variables, one after another, and share nothing with other sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from toolchord import CodeSandbox, ExecutionResult, Limits, Session
from toolchord.errors import SandboxClosed

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def f(x: int) -> int:
    """Ten times x."""
    return 10 * x


def g(x: int) -> int:
    """A hundred times x."""
    return 100 * x


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox(tools=[f, g], limits=Limits(wall_time=20)) as sandbox:
        yield sandbox


@pytest_asyncio.fixture(loop_scope="module")
async def session(sandbox: CodeSandbox) -> AsyncIterator[Session]:
    async with sandbox.session() as session:
        yield session


def value(result: ExecutionResult) -> Any:
    assert result.error is None, f"{result.error}\n{result.error.traceback}"
    return result.value


async def test_variables_functions_classes_and_imports_persist(session: Session) -> None:
    await session.execute(
        "import math, json as j\nfrom datetime import date\nx = [1]\ndef add(y):\n    x.append(y)\n    return x"
    )
    await session.execute(
        "class A:\n    n = 0\n    def __init__(self):\n        A.n += 1\n        self._own = 5\na = A()\ngen = iter(range(5))\nasync def co(i):\n    return await f(i)"
    )
    await session.execute("next(gen)\nx.append(2)\nz: int = 7")
    assert value(await session.execute("[math.floor(2.5), j.dumps(x), add(3), date(2024, 1, 2), A.n, isinstance(a, A), a._own, next(gen), z]")) == [
        2, "[1, 2]", [1, 2, 3], __import__("datetime").date(2024, 1, 2), 1, True, 5, 1, 7,
    ]  # fmt: skip
    assert value(await session.execute("await co(2)")) == 20


async def test_a_function_sees_later_values_of_its_globals(session: Session) -> None:
    await session.execute("rate = 1\ndef pay(n):\n    return n * rate")
    await session.execute("rate = 5")
    assert value(await session.execute("pay(2)")) == 10
    await session.execute("def pay(n):\n    return 'new'")
    assert value(await session.execute("pay(2)")) == "new"


async def test_a_deleted_variable_is_gone(session: Session) -> None:
    await session.execute("x = 1\ny = 2")
    await session.execute("del x")
    result = await session.execute("x")
    assert result.error is not None
    assert (result.error.type, result.error.line) == ("NameError", 1)
    assert value(await session.execute("y")) == 2


async def test_the_value_is_the_programs_own_and_not_an_earlier_ones(session: Session) -> None:
    assert value(await session.execute("x = 5")) == 5
    result = await session.execute("pass")
    assert (result.value, result.returned) == (None, False)
    result = await session.execute("if False:\n    5")
    assert (result.value, result.returned) == (None, False)
    assert value(await session.execute("if x:\n    x + 1")) == 6
    assert (await session.execute("if not x:\n    9")).value is None


async def test_sessions_and_plain_runs_share_nothing(sandbox: CodeSandbox) -> None:
    async with sandbox.session() as one, sandbox.session() as two:
        await one.execute("x = 1\nimport math\nmath_floor = math.floor\nclass A:\n    _p = 1")
        await two.execute("x = 2")
        assert value(await one.execute("x")) == 1
        assert value(await two.execute("x")) == 2
        for code in ("math", "A", "math_floor"):
            result = await two.execute(code)
            assert result.error is not None
            assert result.error.type == "NameError"
        plain = await sandbox.execute("x")
        assert plain.error is not None
        assert plain.error.type == "NameError"


async def test_an_error_keeps_what_was_assigned_before_it(session: Session) -> None:
    await session.execute("x = 1")
    result = await session.execute("x = 2\ny = 3\n1 / 0\nx = 4")
    assert result.error is not None
    assert value(await session.execute("[x, y]")) == [2, 3]


@pytest.mark.parametrize(
    "code",
    [
        "import os",
        "x = (",
        "raise SystemExit",
        "raise KeyboardInterrupt",
        "import asyncio\nawait asyncio.Event().wait()",
        "def r(): r()\nr()",
        "return lambda: 1",
        "raise BaseException('x')",
        "async def a():\n    raise StopIteration\nawait a()",
    ],
)
async def test_a_failed_program_leaves_the_session_usable(session: Session, code: str) -> None:
    await session.execute("x = 1")
    assert (await session.execute(code)).error is not None
    assert value(await session.execute("x + (await f(1))")) == 11


async def test_tasks_calls_and_locks_of_a_failed_program_do_not_reach_the_next(session: Session) -> None:
    code = "import asyncio, threading\nlock = asyncio.Lock()\nasync def back():\n    await lock.acquire()\n    await asyncio.sleep(100)\nt = asyncio.create_task(back())\nawait f(1)\n1 / 0"
    assert (await session.execute(code)).error is not None
    result = await session.execute("import asyncio\nawait asyncio.sleep(0.001)\n[t.done(), await f(2)]")
    assert value(result)[1] == 20
    assert [call.id for call in result.calls] == [1]


@pytest.mark.parametrize(
    ("code", "limits", "limit"),
    [
        ("while True: pass", Limits(wall_time=0.5), "wall_time"),
        ("while True: pass", Limits(cpu_time=0.3, wall_time=20), "cpu_time"),
        ("while True: print('x' * 1000)", Limits(output=10_000), "output"),
        ("'x' * 100_000", Limits(result=10_000), "result"),
        ("[await f(i) for i in range(9)]", Limits(tool_calls=3), "tool_calls"),
    ],
    ids=["wall time", "cpu time", "output", "result", "tool calls"],
)
async def test_a_limit_ends_the_guest_and_says_so(sandbox: CodeSandbox, code: str, limits: Limits, limit: str) -> None:
    async with sandbox.session() as session:
        await session.execute("x = 1")
        result = await session.execute(code, limits=limits)
        assert result.error is not None
        assert (result.error.type, result.error.limit) == ("LimitExceeded", limit)
        assert "variables are gone" in result.stderr
        assert "variables are gone" in result.for_model()
        fresh = await session.execute("x")
        assert fresh.error is not None
        assert fresh.error.type == "NameError"
        assert value(await session.execute("x = 2\nx")) == 2


async def test_programs_that_are_given_at_once_run_one_after_another(session: Session) -> None:
    await session.execute("log = []")
    code = "log.append(('start', N))\nawait f(N)\nlog.append(('end', N))\nN"
    results = await asyncio.gather(*[session.execute(code.replace("N", str(n))) for n in range(6)])
    assert [value(result) for result in results] == list(range(6))
    log = value(await session.execute("log"))
    assert log == [(what, n) for n in range(6) for what in ("start", "end")]


async def test_a_cancelled_program_ends_its_guest_and_the_session_goes_on(sandbox: CodeSandbox) -> None:
    started = asyncio.Event()

    async def stuck() -> None:
        started.set()
        await asyncio.Event().wait()

    async with sandbox.session(tools=[stuck]) as session:
        task = asyncio.create_task(session.execute("x = 1\nawait stuck()"))
        await asyncio.wait_for(started.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert value(await session.execute("5")) == 5


async def test_a_variable_that_shadows_a_tool_stays_until_it_is_deleted(session: Session) -> None:
    assert value(await session.execute("await f(1)")) == 10
    assert value(await session.execute("f = lambda x: 'mine'\nf(1)")) == "mine"
    assert value(await session.execute("f(1)")) == "mine"
    assert value(await session.execute("[await call_tool('f', 1), g(1)]")) == [10, 100]
    await session.execute("del f")
    assert value(await session.execute("f(2)")) == 20


async def test_a_function_that_shadows_a_tool_calls_it_no_more(session: Session) -> None:
    assert value(await session.execute("def f(x):\n    return g(x) + 1\nf(1)")) == 101
    assert value(await session.execute("f(2)")) == 201


async def test_each_program_sees_its_own_tools(session: Session) -> None:
    async def other(x: int) -> int:
        return -x

    assert value(await session.execute("keep = other\nother(3)", tools=[other])) == -3
    for code in ("other(3)", "f2 = f\nother"):
        result = await session.execute(code)
        assert result.error is not None
        assert result.error.type == "NameError"
    result = await session.execute("keep(3)")
    assert result.error is not None
    assert "other" in result.error.message
    assert value(await session.execute("f(1)")) == 10


async def test_inputs_are_variables_of_the_session(session: Session) -> None:
    assert value(await session.execute("data['n']", inputs={"data": {"n": 5}})) == 5
    assert value(await session.execute("data.n + extra", inputs={"extra": 1})) == 6


async def test_calls_and_output_are_of_their_own_program_only(session: Session) -> None:
    first = await session.execute("print('one')\nawait f(1)")
    second = await session.execute("print('two')\nawait f(2)\nawait f(3)")
    assert (first.stdout, second.stdout) == ("one\n", "two\n")
    assert [[call.id for call in result.calls] for result in (first, second)] == [[1], [1, 2]]


async def test_a_coroutine_function_or_pool_of_an_earlier_program_works_on(session: Session) -> None:
    await session.execute(
        "import asyncio\nfrom concurrent.futures import ThreadPoolExecutor\nlock = asyncio.Lock()\nqueue = asyncio.Queue()\npool = ThreadPoolExecutor(2)\nasync def many(n):\n    async with lock:\n        return await asyncio.gather(*[f(i) for i in range(n)])\nawait queue.put(await many(1))"
    )
    code = "[await many(3), await queue.get(), list(pool.map(g, [1, 2])), asyncio.run(many(2))]"
    assert value(await session.execute(code)) == [[0, 10, 20], [0], [100, 200], [0, 10]]


async def test_a_call_started_in_one_program_has_ended_when_the_next_begins(session: Session) -> None:
    await session.execute("def start():\n    return f(4)\nt = start()\nawait f(1)\n1")
    assert value(await session.execute("t + 1")) == 41


async def test_private_names_of_earlier_programs_stay_readable(session: Session) -> None:
    await session.execute("class A:\n    def __init__(self):\n        self._x = 1")
    assert value(await session.execute("A()._x")) == 1


async def test_a_closed_session_says_so(sandbox: CodeSandbox) -> None:
    session = sandbox.session()
    value(await session.execute("1"))
    session.close()
    session.close()
    with pytest.raises(SandboxClosed):
        await session.execute("1")


async def test_a_hundred_programs_in_one_session(session: Session) -> None:
    await session.execute("n = 0")
    for _ in range(100):
        value(await session.execute("n += len([await f(1)])"))
    assert value(await session.execute("n")) == 100
