# ruff: noqa: E501  (a program is kept on one line)
"""Tools are functions: every way of calling one works, in one program, for plain and asynchronous tools alike."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from toolchord import CodeSandbox, ExecutionResult, Limits, create_registry

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHORT = Limits(wall_time=5)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox(limits=SHORT) as sandbox:
        yield sandbox


def tools_of(kind: str) -> tuple[list[Callable[..., Any]], list[tuple[int, int]]]:
    """The tools `f`, `row` and `bad`, plain or asynchronous, and the list in which `f` notes its calls."""
    calls: list[tuple[int, int]] = []

    def f(x: int, y: int = 0) -> int:
        """Ten times x, plus y."""
        calls.append((x, y))
        return 10 * x + y

    def row(n: int) -> dict[str, Any]:
        """A record with rows."""
        return {"n": n, "rows": [{"id": n}, {"id": n + 1}], "meta": {"page": {"next": None}}}

    def bad(x: int = 0) -> int:
        """Fails."""
        raise KeyError(f"no {x}")

    if kind == "plain":
        return [f, row, bad], calls

    async def af(x: int, y: int = 0) -> int:
        """Ten times x, plus y."""
        await asyncio.sleep(0)
        return f(x, y)

    async def arow(n: int) -> dict[str, Any]:
        """A record with rows."""
        return row(n)

    async def abad(x: int = 0) -> int:
        """Fails."""
        await asyncio.sleep(0)
        return bad(x)

    for function, name in ((af, "f"), (arow, "row"), (abad, "bad")):
        function.__name__ = function.__qualname__ = name
    return [af, arow, abad], calls


def value(result: ExecutionResult) -> Any:
    """The run's value; the run must have ended well."""
    assert result.error is None, f"{result.error}\n{result.error.traceback}"
    return result.value


WAYS: dict[str, tuple[str, Any]] = {
    "awaited": ("r = await f(1)", 10),
    "not awaited": ("r = f(1)", 10),
    "keywords": ("r = [await f(x=1, y=2), f(y=2, x=1), f(1, y=2)]", [12, 12, 12]),
    "one dict as the only argument": ('r = [await f({"x": 1, "y": 2}), f({"x": 1})]', [12, 10]),
    "keywords from a dict": ('args = {"x": 3, "y": 4}\nr = [await f(**args), f(**args), await f(*[3, 4])]', [34, 34, 34]),
    "map": ("r = list(map(f, [1, 2]))", [10, 20]),
    "map, used by sum": ("r = sum(map(f, [1, 2]))", 30),
    "map of two lists": ("r = [*map(f, [1, 2], [3, 4])]", [13, 24]),
    "filter": ("r = list(filter(f, [0, 1, 2]))", [1, 2]),
    "reduce": ("import functools\nr = functools.reduce(f, [1, 2, 3])", 123),
    "starmap": ("import itertools\nr = list(itertools.starmap(f, [(1, 2), (3, 4)]))", [12, 34]),
    "sorted key": ("r = sorted([3, 1, 2], key=f)", [1, 2, 3]),
    "max key": ("r = [max([3, 1], key=f), min([3, 1], key=f)]", [3, 1]),
    "list.sort key": ("r = [3, 1, 2]\nr.sort(key=lambda x: -f(x))", [3, 2, 1]),
    "groupby key": ("import itertools\nr = [k for k, _ in itertools.groupby([1, 1, 2], key=f)]", [10, 20]),
    "list comprehension": ("r = [f(i) for i in range(3)]", [0, 10, 20]),
    "awaiting comprehension": ("r = [await f(i) for i in range(3)]", [0, 10, 20]),
    "dict comprehension": ("r = {i: f(i) for i in range(2)}", {0: 0, 1: 10}),
    "dict comprehension, key": ("r = {f(i): i for i in range(2)}", {0: 0, 10: 1}),
    "set comprehension": ("r = {f(i % 2) for i in range(4)}", {0, 10}),
    "condition of a comprehension": ("r = [i for i in range(3) if f(i) > 5]", [1, 2]),
    "generator": ("r = [sum(f(i) for i in range(3)), any(f(i) > 15 for i in range(3))]", [30, True]),
    "async generator": (
        "async def gen():\n    for i in range(3):\n        yield await f(i)\nr = [v async for v in gen()]",
        [0, 10, 20],
    ),
    "plain generator": ("def gen():\n    for i in range(3):\n        yield f(i)\nr = [v + 1 for v in gen()]", [1, 11, 21]),
    "nested function": ("def a():\n    def b():\n        return f(1)\n    return b() + 1\nr = a()", 11),
    "function that returns the call": ("def a(i):\n    return f(i)\nr = [a(1), await a(2), [a(3)]]", [10, 20, [30]]),
    "coroutine that returns the call": ("async def a(i):\n    return f(i)\nr = (await a(1)) + 1", 11),
    "forgotten await in a coroutine": ("async def a(i):\n    v = f(i)\n    return v + 1\nr = await a(1)", 11),
    "lambda": ("g = lambda i: f(i)\nr = [g(1), await g(2), g(3) + 1]", [10, 20, 31]),
    "class": (
        "class A:\n    tool = f\n    many = {'t': f}\n    def __init__(self):\n        self.t = f\n"
        "    def go(self):\n        return self.t(1) + self.tool(2) + self.many['t'](3)\n"
        "    async def ago(self):\n        return await self.t(1) + await self.tool(2)\n"
        "    @property\n    def p(self):\n        return f(4)\n"
        "    @classmethod\n    def c(cls):\n        return cls.tool(5)\n"
        "    @staticmethod\n    def s():\n        return f(6)\n"
        "    def __getitem__(self, i):\n        return f(i)\n"
        "    async def __aenter__(self):\n        return await f(8)\n    async def __aexit__(self, *e):\n        await f(9)\n"
        "a = A()\nasync with a as entered:\n    pass\n"
        "r = [a.go(), await a.ago(), a.p, A.c(), A.s(), a[7], entered]",
        [60, 30, 40, 50, 60, 70, 80],
    ),
    "decorator": (
        "import functools\ndef d(g):\n    @functools.wraps(g)\n    def w(*a, **k):\n        return g(*a, **k) + 1\n    return w\n"
        "@d\ndef h(i):\n    return f(i)\nr = [h(1), d(f)(2), h.__name__]",
        [11, 21, "h"],
    ),
    "async decorator": (
        "def d(g):\n    async def w(*a):\n        return (await g(*a)) + 1\n    return w\nr = await d(f)(2)",
        21,
    ),
    "cache": ("import functools\ng = functools.lru_cache(lambda i: f(i))\nr = [g(1) + 0, g(1) + 0]", [10, 10]),
    "partial": ("import functools\ng = functools.partial(f, y=5)\nr = [g(1), await g(2)]", [15, 25]),
    "in a dict": ("t = {'a': f}\nr = [t['a'](1), await t['a'](2), [g(3) for g in t.values()]]", [10, 20, [30]]),
    "handed to a function": ("def apply(g, *a):\n    return g(*a)\nr = [apply(f, 1), await apply(f, 2)]", [10, 20]),
    "arithmetic": ("r = f(1) + f(2) * 2 - -f(3) // 7", 55),
    "comparison": ("r = [f(1) == 10, f(1) == 10.0, 10.0 == f(1), f(1) < 11, 5 < f(1) < 11, f(0) or 7]", [True] * 5 + [7]),
    "condition": ("r = 'yes' if f(0) else 'no'", "no"),
    "while": ("n = 0\nwhile f(n) < 30:\n    n += 1\nr = n", 3),
    "match": ("match f(1):\n    case 10:\n        r = 'ten'\n    case _:\n        r = 'other'", "ten"),
    "format": ("r = f'{f(1)} {f(2):05d} {f(3)!r}' + ' %d ' % f(4) + '{}'.format(f(5))", "10 00020 30 40 50"),
    "subscript": ("r = [{10: 'x'}[f(1)], list(range(30))[f(2)], 'abc'[f(0)]]", ["x", 20, "a"]),
    "slice": ("r = list(range(30))[f(1):f(1) + 2]", [10, 11]),
    "set": ("r = {f(1), f(1), 10}", {10}),
    "builtins": (
        "r = [str(f(1)), abs(f(1)), round(f(1)), isinstance(f(1), int), type(f(1)).__name__, list(range(f(0), 2)), divmod(f(1), 3)]",
        ["10", 10, 10, True, "int", [0, 1], (3, 1)],
    ),
    "json": ("import json\nr = [json.dumps(f(1)), json.dumps({'a': [f(1)]}), json.loads(json.dumps(row(1)))['n']]", ["10", '{"a": [10]}', 1]),
    "join": ("r = ','.join(str(f(i)) for i in range(3))", "0,10,20"),
    "augmented": ("d = {'n': 1}\nd['n'] += f(1)\nr = d['n']\nr += f(1)", 21),
    "append": ("r = []\nfor i in range(3):\n    r.append(f(i))", [0, 10, 20]),
    "walrus": ("r = [v for i in range(3) if (v := f(i)) > 5]", [10, 20]),
    "record": ("d = row(1)\nr = [d['n'], d.n, d['rows'][0]['id'], d.rows[0].id, d.meta.page.next]", [1, 1, 1, 1, None]),
    "record, awaited": ("r = [(await row(1))['n'], (await row(1)).rows[1].id, row(2)['n'], row(2).n]", [1, 2, 2, 2]),
    "record, as a dict": ("r = [sorted(row(1)), dict(row(1))['n'], {**row(1)}['n'], [k for k in row(1)][0], len(row(1))]",
                          [["meta", "n", "rows"], 1, 1, "n", 3]),
    "gather, list": ("import asyncio\nr = await asyncio.gather(*[f(i) for i in range(3)])", [0, 10, 20]),
    "gather, generator": ("import asyncio\nr = await asyncio.gather(*(f(i) for i in range(3)))", [0, 10, 20]),
    "gather, map": ("import asyncio\nr = await asyncio.gather(*map(f, range(3)))", [0, 10, 20]),
    "gather, one by one": ("import asyncio\na, b = await asyncio.gather(f(1), f(2))\nr = [a, b]", [10, 20]),
    "gather, list built by append": (
        "import asyncio\nts = []\nfor i in range(3):\n    ts.append(f(i))\nr = await asyncio.gather(*ts)", [0, 10, 20]),
    "gather of coroutines": ("import asyncio\nasync def a(i):\n    return await f(i)\nr = await asyncio.gather(a(1), a(2))", [10, 20]),
    "gather with errors": (
        "import asyncio\nr = [type(v).__name__ for v in await asyncio.gather(f(1), bad(), return_exceptions=True)]",
        ["int", "KeyError"],
    ),
    "gather, imported by name": ("from asyncio import gather\nr = await gather(f(1), f(2))", [10, 20]),
    "calls in a dict, awaited": ("ts = {k: f(k) for k in range(3)}\nr = {k: await t for k, t in ts.items()}", {0: 0, 1: 10, 2: 20}),
    "calls in a dict, gathered": (
        "import asyncio\nts = {k: f(k) for k in range(3)}\nr = dict(zip(ts, await asyncio.gather(*ts.values())))", {0: 0, 1: 10, 2: 20}),
    "calls in a list, awaited": ("ts = [f(i) for i in range(3)]\nr = [await t for t in ts]", [0, 10, 20]),
    "TaskGroup": (
        "import asyncio\nasync with asyncio.TaskGroup() as g:\n    ts = [g.create_task(f(i)) for i in range(3)]\nr = [t.result() for t in ts]",
        [0, 10, 20],
    ),
    "create_task": ("import asyncio\nt = asyncio.create_task(f(1))\nr = await t", 10),
    "ensure_future": ("import asyncio\nr = await asyncio.ensure_future(f(1))", 10),
    "wait_for": ("import asyncio\nr = [await asyncio.wait_for(f(1), 9), await asyncio.wait_for(f(2), timeout=None)]", [10, 20]),
    "timeout": ("import asyncio\nasync with asyncio.timeout(9):\n    r = await f(1)", 10),
    "shield": ("import asyncio\nr = await asyncio.shield(f(1))", 10),
    "as_completed": ("import asyncio\nr = []\nfor c in asyncio.as_completed([f(1), f(2)]):\n    r.append(await c)\nr.sort()", [10, 20]),
    "asyncio.wait": ("import asyncio\ndone, pending = await asyncio.wait([f(1), f(2)])\nr = sorted(t.result() for t in done)", [10, 20]),
    "asyncio.wait on a set of tasks": (
        "import asyncio\ndone, pending = await asyncio.wait({asyncio.create_task(f(i)) for i in range(2)})\n"
        "r = [sorted(t.result() for t in done), len(pending)]", [[0, 10], 0]),
    "pool map": ("from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as p:\n    r = list(p.map(f, [1, 2], [3, 4]))", [13, 24]),
    "pool map of a function": (
        "from concurrent.futures import ThreadPoolExecutor\ndef g(i):\n    return {'v': f(i) + 1}\n"
        "with ThreadPoolExecutor(max_workers=2) as p:\n    r = [d['v'] for d in p.map(g, range(4))]", [1, 11, 21, 31]),
    "pool submit": (
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(1) as p:\n"
        "    fs = [p.submit(f, i, y=1) for i in range(3)]\nr = [t.result() for t in fs]", [1, 11, 21]),
    "pool as_completed": (
        "import concurrent.futures\nwith concurrent.futures.ThreadPoolExecutor() as p:\n"
        "    fs = {p.submit(f, i): i for i in range(3)}\n"
        "    r = {fs[t]: t.result() for t in concurrent.futures.as_completed(fs)}", {0: 0, 1: 10, 2: 20}),
    "pool with a coroutine inside": (
        "import asyncio\nfrom concurrent.futures import ThreadPoolExecutor\nasync def a(i):\n    return await f(i)\n"
        "with ThreadPoolExecutor() as p:\n    r = list(p.map(lambda i: asyncio.run(a(i)), range(3)))", [0, 10, 20]),
    "threads": (
        "import threading\nr = []\ndef g(i):\n    r.append(f(i))\n"
        "ts = [threading.Thread(target=g, args=(i,)) for i in range(3)]\n[t.start() for t in ts]\n[t.join() for t in ts]\nr.sort()",
        [0, 10, 20],
    ),
    "to_thread": ("import asyncio\nr = [await asyncio.to_thread(f, 1), await asyncio.to_thread(lambda: f(2) + 1)]", [10, 21]),
    "run_in_executor": ("import asyncio\nr = await asyncio.get_running_loop().run_in_executor(None, f, 1)", 10),
    "asyncio.run": ("import asyncio\nasync def main():\n    return await f(1)\nr = asyncio.run(main())", 10),
    "asyncio.run beside a top-level await": (
        "import asyncio\nasync def main():\n    return await f(1)\nr = [asyncio.run(main()), await main(), await f(1)]", [10, 10, 10]),
    "asyncio.run inside a coroutine": (
        "import asyncio\nasync def a():\n    return await f(1)\nasync def b():\n    return asyncio.run(a()) + await f(2)\nr = asyncio.run(b())", 30),
    "run_until_complete": (
        "import asyncio\nasync def main():\n    return await f(1)\nloop = asyncio.new_event_loop()\n"
        "r = [loop.run_until_complete(main()), asyncio.get_event_loop().run_until_complete(f(2)), "
        "loop.run_until_complete(asyncio.gather(f(1), f(2)))]", [10, 20, [10, 20]]),
    "call_tool": ("r = [await call_tool('f', x=1), call_tool('f', 1, y=2), await call_tool('f', {'x': 3}), call_tool(name='f', x=4)]",
                  [10, 12, 30, 40]),
    "search_tools": ("r = [[t['name'] for t in await search_tools('ten times')][0], search_tools('ten times')[0]['name']]", ["f", "f"]),
    "describe_tool": ("r = ['x: int' in await describe_tool('f'), 'x: int' in describe_tool('f')]", [True, True]),
    "caught": ("try:\n    await bad(1)\nexcept KeyError as e:\n    r = e.args[0]", "no 1"),
    "caught, not awaited": ("try:\n    bad(1)\nexcept KeyError as e:\n    r = e.args[0]", "no 1"),
    "caught around a return": (
        "def g():\n    try:\n        return bad(1)\n    except KeyError:\n        return 'caught'\n"
        "async def h():\n    try:\n        return bad(1)\n    except KeyError:\n        return 'caught'\nr = [g(), await h()]",
        ["caught", "caught"],
    ),
    "finally around a return": ("log = []\ndef g():\n    try:\n        return f(1)\n    finally:\n        log.append('end')\nr = [g() + 0, log]", [10, ["end"]]),
    "retry": (
        "import asyncio\nr = 0\nfor attempt in range(3):\n    try:\n        await bad(attempt)\n    except KeyError:\n"
        "        await asyncio.sleep(0)\n        r += 1", 3),
    "queue of work": (
        "import asyncio\nq = asyncio.Queue()\nfor i in range(4):\n    q.put_nowait(i)\nr = []\n"
        "async def worker():\n    while not q.empty():\n        r.append(await f(q.get_nowait()))\n"
        "await asyncio.gather(worker(), worker())\nr.sort()", [0, 10, 20, 30]),
    "semaphore": (
        "import asyncio\ns = asyncio.Semaphore(2)\nasync def g(i):\n    async with s:\n        return await f(i)\n"
        "r = await asyncio.gather(*[g(i) for i in range(4)])", [0, 10, 20, 30]),
    "assigned from itself": ("f1 = f\nr = f1(1) + await f1(2)", 30),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_tool_can_be_called(sandbox: CodeSandbox, way: str, kind: str) -> None:
    code, expected = WAYS[way]
    assert value(await sandbox.execute(f"{code}\nreturn r", tools=tools_of(kind)[0])) == expected


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_all_ways_work_in_one_program(sandbox: CodeSandbox, kind: str) -> None:
    code = "\n".join(f"{code}\nresults[{way!r}] = r" for way, (code, _) in WAYS.items())
    found = value(await sandbox.execute(f"results = {{}}\n{code}\nreturn results", tools=tools_of(kind)[0]))
    assert {way: found[way] for way in WAYS} == {way: expected for way, (_, expected) in WAYS.items()}


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_all_ways_work_inside_a_coroutine(sandbox: CodeSandbox, kind: str) -> None:
    blocks = []
    for number, (way, (code, _)) in enumerate(WAYS.items()):
        body = "\n".join(f"    {line}" for line in code.splitlines())
        blocks.append(f"async def way{number}():\n{body}\n    return r\nresults[{way!r}] = await way{number}()")
    code = "results = {}\n" + "\n".join(blocks) + "\nreturn results"
    found = value(await sandbox.execute(code, tools=tools_of(kind)[0]))
    assert {way: found[way] for way in WAYS} == {way: expected for way, (_, expected) in WAYS.items()}


async def test_a_namespaced_tool_is_called_by_its_path(sandbox: CodeSandbox) -> None:
    registry = create_registry()

    async def list_files(path: str) -> str:
        return f"list {path}"

    def run(path: str) -> str:
        return f"run {path}"

    registry.add(list_files, "list", "files")  # names that mean something elsewhere
    registry.add(run, "run", "files")

    code = """
import asyncio
a = await files.list("a")
b = files.list_("b")
c = await asyncio.gather(*[files.run(p) for p in "cd"], files.list_("e"))
d = await call_tool("files.run", path="f")
g = getattr(files, "run")("g")
return [a, b, c, d, g]
"""
    expected = ["list a", "list b", ["run c", "run d", "list e"], "run f", "run g"]
    assert value(await sandbox.execute(code, tools=registry)) == expected


# together


class Meeting:
    """A tool that returns only when `parties` calls of it are in flight, plain or asynchronous."""

    def __init__(self, kind: str, parties: int) -> None:
        self.arrived = 0
        self._parties = parties
        self._barrier = threading.Barrier(parties, timeout=4)
        self._all_here = asyncio.Event()
        self.tool = self._tool(kind)

    def _tool(self, kind: str) -> Callable[..., Any]:
        def meet(i: int) -> int:
            """Meet the others."""
            self.arrived += 1
            self._barrier.wait()
            return i

        async def ameet(i: int) -> int:
            """Meet the others."""
            self.arrived += 1
            if self.arrived >= self._parties:
                self._all_here.set()
            await self._all_here.wait()
            return i

        ameet.__name__ = "meet"
        return meet if kind == "plain" else ameet


TOGETHER = {
    "gather": "import asyncio\nreturn await asyncio.gather(*[meet(i) for i in range(3)])",
    "gather of a map": "import asyncio\nreturn await asyncio.gather(*map(meet, range(3)))",
    "gather of a generator": "import asyncio\nreturn await asyncio.gather(*(meet(i) for i in range(3)))",
    "gather of coroutines": "import asyncio\nasync def a(i):\n    return await meet(i)\nreturn await asyncio.gather(*[a(i) for i in range(3)])",
    "gather of a built list": "import asyncio\nts = []\nfor i in range(3):\n    ts.append(meet(i))\nreturn await asyncio.gather(*ts)",
    "gather of an extended list": "import asyncio\nts = []\nts.extend([meet(0), meet(1)])\nts += [meet(2)]\nreturn await asyncio.gather(*ts)",
    "gather of a list in a helper": (
        "import asyncio\nasync def main(n):\n    ts = [meet(i) for i in range(n)]\n    return await asyncio.gather(*ts)\nreturn asyncio.run(main(3))"
    ),
    "gather of a dict's values": "import asyncio\nts = {i: meet(i) for i in range(3)}\nreturn list(await asyncio.gather(*ts.values()))",
    "gather of an attribute": (
        "import asyncio\nclass A:\n    def __init__(self):\n        self.ts = [meet(i) for i in range(3)]\n"
        "    async def go(self):\n        return await asyncio.gather(*self.ts)\nreturn await A().go()"
    ),
    "gather in a comprehension of gathers": (
        "import asyncio\nasync def pair(*ns):\n    return await asyncio.gather(*[meet(n) for n in ns])\n"
        "a, b = await asyncio.gather(pair(0, 1), pair(2))\nreturn a + b"
    ),
    "awaited one after another": "a, b, c = meet(0), meet(1), meet(2)\nreturn [await a, await b, await c]",
    "awaited in a loop": "ts = [meet(i) for i in range(3)]\nout = []\nfor t in ts:\n    out.append(await t)\nreturn out",
    "awaited from a dict": "ts = {i: meet(i) for i in range(3)}\nreturn [await t for i, t in ts.items()]",
    "awaited from a dict by key": "ts = {}\nfor i in range(3):\n    ts[i] = meet(i)\nreturn [await ts[i] for i in ts]",
    "awaited from records": (
        "ts = [{'i': i, 'call': meet(i)} for i in range(3)]\nout = []\nfor t in ts:\n    out.append(await t['call'])\nreturn out"
    ),
    "awaited from pairs": "ts = [(i, meet(i)) for i in range(3)]\nreturn [await t for i, t in ts]",
    "TaskGroup": (
        "import asyncio\nasync with asyncio.TaskGroup() as g:\n    ts = [g.create_task(meet(i)) for i in range(3)]\nreturn [t.result() for t in ts]"
    ),
    "create_task": "import asyncio\nts = [asyncio.create_task(meet(i)) for i in range(3)]\nreturn [await t for t in ts]",
    "create_task of a dict": (
        "import asyncio\nts = {i: asyncio.create_task(meet(i)) for i in range(3)}\nawait asyncio.wait(ts.values())\nreturn [t.result() for t in ts.values()]"
    ),
    "tasks of forgetful coroutines": (
        "import asyncio\nasync def a(i):\n    v = MEET(i)\n    return v\nreturn await asyncio.gather(a(0), a(1), a(2))"
    ),
    "wait_for": "import asyncio\nreturn await asyncio.gather(*[asyncio.wait_for(meet(i), 10) for i in range(3)])",
    "shield": "import asyncio\nreturn await asyncio.gather(*[asyncio.shield(meet(i)) for i in range(3)])",
    "as_completed": "import asyncio\nreturn sorted([await c for c in asyncio.as_completed([meet(i) for i in range(3)])])",
    "asyncio.wait": "import asyncio\ndone, _ = await asyncio.wait([meet(i) for i in range(3)])\nreturn sorted(t.result() for t in done)",
    "asyncio.wait on a set": "import asyncio\ndone, _ = await asyncio.wait({meet(i) for i in range(3)})\nreturn sorted(t.result() for t in done)",
    "to_thread": "import asyncio\nreturn await asyncio.gather(*[asyncio.to_thread(meet, i) for i in range(3)])",
    "to_thread of a function": (
        "import asyncio\ndef g(i):\n    return meet(i) + 0\nreturn await asyncio.gather(*[asyncio.to_thread(g, i) for i in range(3)])"
    ),
    "run_in_executor": (
        "import asyncio\nloop = asyncio.get_running_loop()\nreturn await asyncio.gather(*[loop.run_in_executor(None, meet, i) for i in range(3)])"
    ),
    "pool map": "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as p:\n    return list(p.map(meet, range(3)))",
    "pool map of a function": (
        "from concurrent.futures import ThreadPoolExecutor\ndef g(i):\n    v = meet(i)\n    return v + 0\n"
        "with ThreadPoolExecutor(3) as p:\n    return list(p.map(g, range(3)))"
    ),
    "pool map of a method": (
        "from concurrent.futures import ThreadPoolExecutor\nclass A:\n    def g(self, i):\n        return [meet(i)][0]\n"
        "with ThreadPoolExecutor(3) as p:\n    return list(p.map(A().g, range(3)))"
    ),
    "pool submit": (
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as p:\n"
        "    fs = [p.submit(lambda i=i: meet(i)) for i in range(3)]\n    return [t.result() for t in fs]"
    ),
    "pool inside a coroutine": (
        "from concurrent.futures import ThreadPoolExecutor\nasync def a():\n    with ThreadPoolExecutor() as p:\n"
        "        return list(p.map(meet, range(3)))\nreturn await a()"
    ),
    "threads": (
        "import threading\nout = []\ndef g(i):\n    out.append(meet(i))\nts = [threading.Thread(target=g, args=(i,)) for i in range(3)]\n"
        "for t in ts:\n    t.start()\nfor t in ts:\n    t.join()\nreturn sorted(out)"
    ),
    "threads of a class": (
        "import threading\nclass T(threading.Thread):\n    def __init__(self, i):\n        super().__init__()\n        self.i = i\n"
        "    def run(self):\n        self.out = meet(self.i)\nts = [T(i) for i in range(3)]\n"
        "for t in ts:\n    t.start()\nfor t in ts:\n    t.join()\nreturn [t.out for t in ts]"
    ),
    "call_tool": "import asyncio\nreturn await asyncio.gather(*[call_tool('meet', i=i) for i in range(3)])",
    "a helper that returns the call": "import asyncio\ndef g(i):\n    return MEET(i)\nreturn await asyncio.gather(*[g(i) for i in range(3)])",
    "a helper that returns a list of calls": (
        "import asyncio\ndef g():\n    return [MEET(i) for i in range(3)]\nreturn await asyncio.gather(*g())"
    ),
    "calls handed to a helper": (
        "import asyncio\nasync def every(*cs):\n    return await asyncio.gather(*cs)\nreturn await every(MEET(0), MEET(1), MEET(2))"
    ),
    "calls handed to a helper in a list": (
        "import asyncio\nasync def every(cs):\n    return await asyncio.gather(*cs)\nreturn await every([MEET(i) for i in range(3)])"
    ),
    "partial": "import asyncio, functools\nreturn await asyncio.gather(*[functools.partial(MEET, i)() for i in range(3)])",
    "gathered without await": "import asyncio\nloop = asyncio.get_event_loop()\nreturn loop.run_until_complete(asyncio.gather(*[meet(i) for i in range(3)]))",
    "a call in the background of a blocking one": "import asyncio\nt = asyncio.create_task(meet(0))\nu = meet(1) + meet_too(2)\nreturn [await t, u - 2, 2]",
}  # fmt: skip
"""Programs that have three calls in flight; MEET where CPython too would run a plain tool at once."""


TOGETHER_BY_KIND = [(way, "async") for way in TOGETHER] + [
    (way, "plain") for way in TOGETHER if "MEET" not in TOGETHER[way]
]


@pytest.mark.parametrize(("way", "kind"), TOGETHER_BY_KIND)
async def test_calls_that_start_together_run_together(sandbox: CodeSandbox, way: str, kind: str) -> None:
    code = TOGETHER[way]
    if "meet_too" in code:
        code = code.replace("meet_too(2)", "2")
        meeting = Meeting(kind, 2)
    else:
        meeting = Meeting(kind, 3)
    assert value(await sandbox.execute(code.replace("MEET", "meet"), tools=[meeting.tool])) == [0, 1, 2]


async def test_a_thousand_calls_are_in_flight_up_to_the_limit(sandbox: CodeSandbox) -> None:
    meeting = Meeting("async", 50)
    code = "import asyncio\nreturn sum(await asyncio.gather(*[meet(i) for i in range(1000)]))"
    result = await sandbox.execute(code, tools=[meeting.tool], limits=Limits(concurrency=50))
    assert value(result) == sum(range(1000))


# a forgotten await


@pytest.mark.parametrize(
    "code",
    [
        "f(1)\nreturn 5",
        "f(1)\nawait f(2)\nreturn 5",
        "f(1); f(2)\n5",
        "x = f(1)\n5",
        "x = [f(i) for i in range(2)]\nawait f(3)\n5",
        "async def g():\n    f(1)\nawait g()\n5",
        "async def g():\n    f(1)\ng()\n5",
        "async def g():\n    f(1)\ng()\nprint('end')",
        "async def g():\n    await f(1)\nasync def h():\n    g()\nawait h()\n5",
        "def g():\n    f(1)\ng()\nawait f(2)",
        "def g():\n    f(1)\ng()",
        "import asyncio\nasyncio.gather(f(1), f(2))\n5",
        "import asyncio\nasyncio.create_task(f(1)) if False else f(1)\nawait asyncio.sleep(0)",
        "g = lambda: f(1)\ng()\nawait f(2)",
        "t = f(1)\nawait f(2)\nreturn None",
        "d = {'a': f(1)}\nawait f(2)",
        "call_tool('f', 1)\n5",
        "async def main():\n    f(1)\nmain()",
        "async def main():\n    return await f(1)\nmain()\nprint('done')",
        "import asyncio\nasync def g(i):\n    await f(i)\nasync def main():\n    [g(i) for i in range(0)]\n    f(1)\nasyncio.run(main())",
    ],
)
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_forgotten_await_never_means_that_the_tool_did_not_run(
    sandbox: CodeSandbox, code: str, kind: str
) -> None:
    tools, calls = tools_of(kind)
    result = await sandbox.execute(code, tools=tools)
    value(result)
    assert len(calls) == len(result.calls) >= 1
    assert {call.status for call in result.calls} == {"ok"}


@pytest.mark.parametrize(
    "code",
    [
        "async def g():\n    await f(1)\nx = g()\n5",
        "async def g():\n    await f(1)\nxs = [g() for _ in range(2)]\nlen(xs)",
        "async def g():\n    await f(1)\ndef h():\n    g()\nh()\n5",
    ],
)
async def test_a_coroutine_that_never_ran_is_reported(sandbox: CodeSandbox, code: str) -> None:
    result = await sandbox.execute(code, tools=tools_of("async")[0])
    value(result)
    assert "coroutine 'g' was never awaited" in result.stderr


# errors


async def test_an_unobserved_failure_is_reported_and_costs_nothing_else(sandbox: CodeSandbox) -> None:
    code = "import asyncio\nt = asyncio.create_task(bad(7))\nawait f(1)\nawait f(2)\nreturn 5"
    result = await sandbox.execute(code, tools=tools_of("async")[0])
    assert value(result) == 5
    assert "KeyError" in result.stderr
    assert "no 7" in result.stderr


async def test_a_failure_in_a_thread_is_reported(sandbox: CodeSandbox) -> None:
    code = "import threading\nt = threading.Thread(target=bad, args=(7,))\nt.start()\nt.join()\nreturn 5"
    result = await sandbox.execute(code, tools=tools_of("plain")[0])
    assert value(result) == 5
    assert "KeyError" in result.stderr
    assert "no 7" in result.stderr


class QuotaError(Exception):
    """A tool's own error."""


class Late(TimeoutError):
    """A tool's own error with a builtin base."""


class Layout(UnicodeDecodeError):
    """A tool's own error with a builtin base that insists on five arguments."""


ERRORS = [
    KeyError("k"),
    ValueError("a", 2),
    ValueError(),
    LookupError("näme"),
    ZeroDivisionError("division by zero"),
    OSError(2, "No such file"),
    FileNotFoundError(2, "No such file", "x.txt"),
    PermissionError("no"),
    ConnectionError("lost"),
    TimeoutError("late"),
    RuntimeError("multi\nline"),
    AssertionError("no"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    IndexError("list index out of range"),
    AttributeError("x"),
    ImportError("no module"),
    MemoryError("much"),
    RecursionError("deep"),
    NotImplementedError("later"),
    QuotaError("used up", 3),
    Late("slow"),
    Layout("ascii", b"x", 0, 1, "why"),
    ExceptionGroup("several", [ValueError(1)]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: repr(error))
@pytest.mark.parametrize("call", ["await fail()", "fail()"])
async def test_a_tools_error_is_typed_and_worded_as_in_cpython(
    sandbox: CodeSandbox, error: Exception, call: str
) -> None:
    async def fail() -> None:
        raise error

    code = f"try:\n    {call}\nexcept ToolError as e:\n    return [type(e).__name__, str(e), isinstance(e, BASE), e.tool, e.retryable]"
    base = next(cls.__name__ for cls in type(error).__mro__ if cls.__module__ == "builtins")
    found = value(await sandbox.execute(code.replace("BASE", base), tools=[fail]))
    assert found[:2] == [type(error).__name__, str(error)]
    assert found[2] is (base != "ExceptionGroup")  # a group is made of others: it is caught by name
    assert found[3].endswith("fail")
    assert found[4] is isinstance(error, TimeoutError | ConnectionError)


@pytest.mark.parametrize(
    "error", [e for e in ERRORS if all(type(a) in (str, int) for a in e.args) and e.args], ids=repr
)
async def test_a_tools_error_carries_its_arguments(sandbox: CodeSandbox, error: Exception) -> None:
    def fail() -> None:
        raise error

    found = value(await sandbox.execute("try:\n    fail()\nexcept Exception as e:\n    return e.args", tools=[fail]))
    assert found == error.args


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize(
    "error", [StopIteration(3), StopAsyncIteration(3), asyncio.CancelledError("x"), SystemExit(3)], ids=repr
)
async def test_an_error_that_no_future_can_carry_still_ends_the_call(
    sandbox: CodeSandbox, error: BaseException, kind: str
) -> None:
    def fail() -> None:
        raise error

    async def afail() -> None:
        raise error

    code = "try:\n    await tool()\nexcept Exception as e:\n    return [isinstance(e, ToolError), type(e).__name__]"
    found = value(await sandbox.execute(code, tools={"tool": fail if kind == "plain" else afail}))
    assert found[0] is True
    assert found[1] in (type(error).__name__, "RuntimeError", "TypeError")  # Python itself words some of them anew


async def test_an_uncaught_tool_error_names_its_type_line_and_message(sandbox: CodeSandbox) -> None:
    result = await sandbox.execute("x = 1\nawait bad(3)\n", tools=tools_of("async")[0])
    assert result.error is not None
    assert (result.error.type, result.error.message, result.error.line) == ("KeyError", "'no 3'", 2)


async def test_a_failed_call_fails_again_at_each_use(sandbox: CodeSandbox) -> None:
    code = """
def start():
    return bad(1)
t = start
seen = 0
call = t()
for _ in range(2):
    try:
        call + 1
    except KeyError:
        seen += 1
await f(1)
return seen
"""
    assert value(await sandbox.execute(code, tools=tools_of("async")[0])) == 2


async def test_wrong_arguments_fail_inside_the_program_with_a_message(sandbox: CodeSandbox) -> None:
    code = """
out = []
for args, kwargs in [((), {}), ((1, 2, 3), {}), ((1,), {"z": 1}), (("text",), {})]:
    try:
        f(*args, **kwargs)
    except TypeError as e:
        out.append(type(e).__name__ + ": " + str(e))
return out
"""
    tools, calls = tools_of("plain")
    found = value(await sandbox.execute(code, tools=tools))
    assert len(found) == 4
    assert all("InvalidArguments" in text for text in found)
    assert "z" in found[2]
    assert calls == []


async def test_an_argument_that_is_no_data_is_refused_with_its_path(sandbox: CodeSandbox) -> None:
    result = await sandbox.execute("await take([1, {'a': (lambda: 1)}])", tools=[_take])
    assert result.error is not None
    assert "a" in str(result.error.path or result.error.message)
    assert result.calls == []


async def _take(x: Any) -> Any:
    return x


_take.__name__ = "take"


async def test_a_calls_value_is_data_as_an_argument_of_another_call(sandbox: CodeSandbox) -> None:
    code = "def g(i):\n    return f(i)\nreturn [await f(f(1)), await take([g(1), {'a': g(2)}]), take((g(3),)), await f(g(1), y=g(2))]"
    found = value(await sandbox.execute(code, tools=[*tools_of("async")[0], _take]))
    assert found == [100, [10, {"a": 20}], (30,), 120]


async def test_results_nested_in_containers_are_resolved_on_return(sandbox: CodeSandbox) -> None:
    code = "g = lambda i: f(i)\nawait f(0)\nreturn {'a': [g(1), (g(2), {g(3)})], 'b': {'c': g(4)}, g(5): 1}"
    found = value(await sandbox.execute(code, tools=tools_of("async")[0]))
    assert found == {"a": [10, (20, {30})], "b": {"c": 40}, 50: 1}


async def test_an_unawaited_value_acts_as_the_value_itself(sandbox: CodeSandbox) -> None:
    """The operators of a started call that nobody could see to be one give what the value gives."""
    code = """
import json, math
def start(g, *a):
    return g(*a)
n, s, l = start(take, 7), start(take, "text"), start(take, [3, 1, 2])
same = [
    (n + 1, 7 + 1), (1 + n, 1 + 7), (n / 2, 7 / 2), (2 ** n, 2 ** 7), (-n, -7), (~n, ~7), (divmod(n, 2), divmod(7, 2)),
    (n == 7.0, True), (7.0 == n, True), (n != 7, False), (n < 7.5, True), (n in [7], True), ({7: "x"}[n], "x"), (n << 1, 14),
    (s + "!", "text!"), ("!" + s, "!text"), (s * 2, "texttext"), (2 * s, "texttext"), (s % (), "text"), (s[1:], "ext"),
    (s.upper(), "TEXT"), (f"{s:>6}", "  text"), ("%s" % s, "text"), ("e" in s, True), (len(s), 4), (hash(s), hash("text")),
    (sorted(l), [1, 2, 3]), (l + [4], [3, 1, 2, 4]), ([0] + l, [0, 3, 1, 2]), (list(reversed(l)), [2, 1, 3]), (max(l), 3),
    ([*l], [3, 1, 2]), (l == [3, 1, 2], True), (bool(l), True), (math.floor(n), 7), (math.sqrt(n * n), 7.0), (float(n), 7.0),
    (int(n), 7), (range(n)[-1], 6), (json.dumps([n, l, s]), '[7, [3, 1, 2], "text"]'), (isinstance(n, int), True),
    (round(n, 1), 7), (str(n), "7"), (repr(s), "'text'"), (n.bit_length(), 3), ([1, 2, 3, 4, 5, 6, 7, 8][n], 8),
]
bad = [(i, a, b) for i, (a, b) in enumerate(same) if a != b or type(a) is not type(b)]
x, y = start(take, (1, 2))
await take(1)
return [bad, x, y]
"""
    assert value(await sandbox.execute(code, tools=[_take])) == [[], 1, 2]


# timeouts and cancelled calls


class Stuck:
    """A tool that never ends, and says when it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.started = 0

    async def stuck(self, x: int = 0) -> int:
        """Never ends."""
        self.started += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        return x


@pytest.mark.parametrize(
    "code",
    [
        "import asyncio\ntry:\n    await asyncio.wait_for(stuck(), 0.01)\nexcept asyncio.TimeoutError:\n    r = 'late'",
        "import asyncio\ntry:\n    await asyncio.wait_for(stuck(), timeout=0.01)\nexcept TimeoutError:\n    r = 'late'",
        "import asyncio\ntry:\n    async with asyncio.timeout(0.01):\n        await stuck()\nexcept TimeoutError:\n    r = 'late'",
        "import asyncio\ntry:\n    async with asyncio.timeout(0.01):\n        await asyncio.gather(stuck(), stuck())\nexcept TimeoutError:\n    r = 'late'",
        "import asyncio\nt = asyncio.create_task(stuck())\nawait asyncio.sleep(0.01)\nt.cancel()\ntry:\n    await t\nexcept asyncio.CancelledError:\n    r = 'late'",
        "import asyncio\ndone, pending = await asyncio.wait([asyncio.create_task(stuck())], timeout=0.01)\nfor t in pending:\n    t.cancel()\nr = 'late'",
        "import asyncio\nasync def g():\n    return await stuck()\ntry:\n    await asyncio.wait_for(g(), 0.01)\nexcept TimeoutError:\n    r = 'late'",
        (
            "import asyncio\nasync def g():\n    v = stuck()\n    return v\n"
            "try:\n    await asyncio.wait_for(g(), 0.01)\nexcept TimeoutError:\n    r = 'late'"
        ),
        (
            "import asyncio\nasync def fails():\n    await asyncio.sleep(0.01)\n    raise ValueError\n"
            "try:\n    async with asyncio.TaskGroup() as g:\n        g.create_task(stuck())\n        g.create_task(fails())\n"
            "except* ValueError:\n    r = 'late'"
        ),
    ],
)
async def test_a_call_that_nobody_waits_for_any_more_is_cancelled_at_the_host(sandbox: CodeSandbox, code: str) -> None:
    stuck = Stuck()
    result = await sandbox.execute(f"{code}\nawait f(1)\nreturn r", tools=[stuck.stuck, *tools_of("async")[0]])
    assert value(result) == "late"
    await asyncio.wait_for(stuck.cancelled.wait(), 5)
    assert {call.status for call in result.calls if call.tool.endswith("stuck")} == {"cancelled"}


async def test_a_shielded_call_goes_on_after_the_timeout(sandbox: CodeSandbox) -> None:
    gate = asyncio.Event()

    async def slow() -> int:
        await gate.wait()
        return 7

    async def open_gate() -> None:
        gate.set()

    code = """
import asyncio
t = asyncio.ensure_future(slow())
try:
    await asyncio.wait_for(asyncio.shield(t), 0.01)
except TimeoutError:
    await open_gate()
return await t
"""
    assert value(await sandbox.execute(code, tools=[slow, open_gate])) == 7


async def test_a_pool_result_times_out_and_the_call_goes_on(sandbox: CodeSandbox) -> None:
    gate = threading.Event()

    def slow() -> int:
        assert gate.wait(4)
        return 7

    def open_gate() -> None:
        gate.set()

    code = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor() as p:
    t = p.submit(slow)
    try:
        t.result(timeout=0.01)
    except TimeoutError:
        open_gate()
    return t.result()
"""
    assert value(await sandbox.execute(code, tools=[slow, open_gate])) == 7


async def test_waiting_for_what_can_never_happen_is_told(sandbox: CodeSandbox) -> None:
    for code in (
        "import asyncio\nawait asyncio.Event().wait()",
        "import threading\nthreading.Event().wait()",
        "import asyncio\nq = asyncio.Queue()\nawait q.get()",
        "import threading\nl = threading.Lock()\nl.acquire()\nl.acquire()",
        "import queue\nqueue.Queue().get()",
    ):
        result = await sandbox.execute(code)
        assert result.error is not None
        assert result.error.kind == "deadlock", code


async def test_the_record_names_each_call_its_line_and_outcome(sandbox: CodeSandbox) -> None:
    code = "\n\nimport asyncio\na = await f(1)\nb = f(\n    2,\n    y=3,\n)\ntry:\n    bad(4)\nexcept KeyError:\n    pass\n"
    result = await sandbox.execute(code, tools=tools_of("async")[0])
    value(result)
    rows = [(call.tool.split(".")[-1], call.line, call.status, call.arguments) for call in result.calls]
    assert rows == [("f", 4, "ok", {"x": 1}), ("f", 5, "ok", {"x": 2, "y": 3}), ("bad", 10, "error", {"x": 4})]


async def test_a_tool_says_what_it_is_and_shows_nothing_else(sandbox: CodeSandbox) -> None:
    code = "return [f.__name__, f.__doc__, repr(f), callable(f), str(json_safe(f))]"
    code = "def json_safe(t):\n    return [t.__name__]\n" + code
    found = value(await sandbox.execute(code, tools=tools_of("async")[0]))
    assert found[:4] == ["f", "Ten times x, plus y.", "<tool f>", True]
    json.dumps(found)


@pytest.mark.parametrize(
    "start",
    [
        "import threading\nthreading.Thread(target=work).start()",
        "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor().submit(work)",
    ],
)
async def test_a_thread_that_nobody_joins_runs_to_its_end(start: str) -> None:
    seen: list[int] = []

    async def act(i: int) -> int:
        seen.append(i)
        return i

    code = f"def work():\n    for i in range(3):\n        print('act', act(i))\n{start}\n'end'"
    async with CodeSandbox(tools=[act]) as sandbox:
        result = await sandbox.execute(code)
    assert (result.value, result.stdout, seen) == ("end", "act 0\nact 1\nact 2\n", [0, 1, 2])
