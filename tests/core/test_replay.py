# ruff: noqa: E501  (a program is kept on one line)
"""What already happened is never done twice: a recorded run replays to the same result with no tool run."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolchord import CodeSandbox, ExecutionResult, Limits, RunRecord
from toolchord.errors import ConfigurationError, ReplayDivergence
from toolchord.journal import Journal

pytestmark = pytest.mark.asyncio(loop_scope="module")


class World:
    """Tools with an effect that can be counted: each call is noted, the answers depend on their order."""

    def __init__(self, seed: int = 0) -> None:
        self.ledger: list[tuple[str, Any]] = []
        self._random = random.Random(seed)
        self._stuck = asyncio.Event()

    async def get(self, x: Any) -> Any:
        """A value that depends on how many calls there were before."""
        self.ledger.append(("get", x))
        count = len(self.ledger)
        for _ in range(self._random.randrange(6)):
            await asyncio.sleep(0)
        return {"x": x, "count": count}

    def plain(self, x: Any) -> Any:
        """As get, blocking."""
        self.ledger.append(("plain", x))
        return {"x": x, "count": len(self.ledger)}

    async def fail(self, x: Any) -> Any:
        """Fails, with a message of its own each time."""
        self.ledger.append(("fail", x))
        raise ValueError(f"failure {len(self.ledger)}", x)

    async def flaky(self) -> int:
        """Fails twice, then works."""
        self.ledger.append(("flaky", None))
        if len(self.ledger) < 3:
            raise ConnectionError("try again")
        return len(self.ledger)

    async def stuck(self, x: Any = 0) -> Any:
        """Never ends."""
        self.ledger.append(("stuck", x))
        await self._stuck.wait()

    async def big(self, n: int) -> Any:
        """A large result."""
        self.ledger.append(("big", n))
        return {"rows": [{"id": i, "name": f"name {i}", "data": b"\x00\xff" * 8} for i in range(n)], "text": "ü" * n}

    @property
    def tools(self) -> list[Callable[..., Any]]:
        return [self.get, self.plain, self.fail, self.flaky, self.stuck, self.big]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox(limits=Limits(wall_time=20)) as sandbox:
        yield sandbox


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forbidden() -> AsyncIterator[CodeSandbox]:
    """A sandbox with the same tools, which must not run."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        pytest.fail("a tool ran during a replay")

    names = ("get", "plain", "fail", "flaky", "stuck", "big")
    async with CodeSandbox(
        tools={name: _named(refuse, name) for name in names}, limits=Limits(wall_time=20)
    ) as sandbox:
        yield sandbox


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def tool(x: Any = None, n: Any = None) -> Any:
        return function(x, n)

    tool.__name__ = tool.__qualname__ = name
    return tool


def told(result: ExecutionResult) -> Any:
    """Everything that a program can be seen by, comparable."""
    error = result.error
    failure = None if error is None else (error.type, error.message, error.line, error.kind, error.traceback)
    calls = [(c.tool.rpartition(".")[2], c.line, c.status, c.error) for c in result.calls]
    return result.value, result.stdout, result.stderr, failure, calls


async def recorded(sandbox: CodeSandbox, code: str, world: World, **options: Any) -> ExecutionResult:
    result = await sandbox.execute(code, tools=world.tools, **options)
    assert result.record is not None
    return result


def copy_of(result: ExecutionResult) -> RunRecord:
    """The run's record after a way through JSON."""
    assert result.record is not None
    return RunRecord.from_json(result.record.to_json())


PROGRAMS = {
    "nothing": "1 + 1",
    "one call": "r = await get(1)\nprint(r)\nr",
    "plain calls": "r = [plain(i) for i in range(4)]\nprint(r)\nr",
    "gather": "import asyncio\nr = await asyncio.gather(*[get(i) for i in range(8)])\nprint(r)\nr",
    "gather of plain": "import asyncio\nr = await asyncio.gather(*[plain(i) for i in range(8)])\nprint(r)\nr",
    "TaskGroup": (
        "import asyncio\nout = []\nasync def one(i):\n    v = await get(i)\n    out.append((i, v['count']))\n"
        "async with asyncio.TaskGroup() as g:\n    for i in range(8):\n        g.create_task(one(i))\nout"
    ),
    "as_completed": "import asyncio\nout = []\nfor c in asyncio.as_completed([get(i) for i in range(8)]):\n    out.append(await c)\nout",
    "as_completed of tasks": (
        "import asyncio\nasync def one(i):\n    return (await get(i))['x'], (await get(-i))['count']\n"
        "return [await c for c in asyncio.as_completed({asyncio.create_task(one(i)) for i in range(8)})]"
    ),
    "wait, first completed": (
        "import asyncio\npending = {asyncio.create_task(get(i)) for i in range(6)}\nout = []\nwhile pending:\n"
        "    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)\n"
        "    out.append([t.result()['x'] for t in done])\nout"
    ),
    "wait_for that expires": (
        "import asyncio\ntry:\n    await asyncio.wait_for(stuck(), 0.02)\nexcept TimeoutError:\n    r = 'late'\nr, await get(1)"
    ),
    "wait_for that does not": "import asyncio\nr = [await asyncio.wait_for(get(i), 5) for i in range(3)]\nr",
    "wait_for that may": (
        "import asyncio\nasync def one(i):\n    try:\n        return await asyncio.wait_for(get(i), 0.0001)\n    except TimeoutError:\n        return 'late'\n"
        "await asyncio.gather(*[one(i) for i in range(20)])"
    ),
    "timeout over many": (
        "import asyncio\nout = []\ntry:\n    async with asyncio.timeout(0.03):\n        async for_ = None\nexcept TimeoutError:\n    pass\nout"
    ).replace("        async for_ = None\n", "        out += await asyncio.gather(get(1), get(2))\n        await stuck()\n"),
    "sleep": (
        "import asyncio, time\nt = time.time()\nout = []\nasync def one(i):\n    await asyncio.sleep(0.001 * (5 - i))\n    out.append(i)\n    return await get(i)\n"
        "r = await asyncio.gather(*[one(i) for i in range(5)])\ntime.sleep(0.002)\nprint(time.time() - t, time.monotonic(), asyncio.get_running_loop().time())\nout, r"
    ),
    "sleep sort with calls": (
        "import asyncio\nout = []\nasync def one(i):\n    v = await get(i)\n    await asyncio.sleep(0.001 * (v['count'] % 3))\n    out.append((i, v['count']))\n"
        "await asyncio.gather(*[one(i) for i in range(9)])\nout"
    ),
    "thread pool": (
        "from concurrent.futures import ThreadPoolExecutor, as_completed\nlog = []\ndef one(i):\n    v = get(i)\n    log.append(i)\n    return v['count'] + plain(i)['count']\n"
        "with ThreadPoolExecutor(3) as p:\n    fs = {p.submit(one, i): i for i in range(8)}\n    out = [(fs[f], f.result()) for f in as_completed(fs)]\n    out += list(p.map(one, range(3)))\nout, log"
    ),
    "threads and locks": (
        "import threading, time\nlock = threading.Lock()\nout = []\ndef one(i):\n    v = plain(i)\n    with lock:\n        time.sleep(0.001)\n        out.append((i, v['count']))\n"
        "ts = [threading.Thread(target=one, args=(i,)) for i in range(5)]\n[t.start() for t in ts]\n[t.join() for t in ts]\nout, time.time()"
    ),
    "to_thread": "import asyncio\ndef one(i):\n    return plain(i)['count'] + get(i)['count']\nawait asyncio.gather(*[asyncio.to_thread(one, i) for i in range(6)])",
    "chance": (
        "import random, uuid\nr = [random.random(), random.randint(1, 10**9), random.sample(range(100), 5), random.Random().random(), "
        "random.SystemRandom().random(), str(uuid.uuid4()), str(uuid.uuid1())]\nrandom.seed()\nr.append(random.random())\n"
        "l = list(range(20))\nrandom.shuffle(l)\nprint(r, l)\nr, l, await get(1), random.gauss(0, 1), uuid.uuid4()"
    ),
    "time": (
        "import time, datetime\nfrom datetime import datetime as dt, date\nr = [time.time(), time.time_ns(), time.monotonic(), time.perf_counter(), time.process_time(), time.ctime(), "
        "time.strftime('%Y-%m-%d %H:%M:%S'), tuple(time.gmtime()), tuple(time.localtime())]\nawait get(1)\n"
        "r += [dt.now(), datetime.datetime.now(), dt.utcnow(), dt.now(datetime.timezone.utc), date.today(), datetime.date.today(), dt.today(), time.time()]\nprint(r)\nr"
    ),
    "time of own classes and aliases": (
        "import datetime as d\nnow = d.datetime.now\nr = [now(), d.datetime.today(), getattr(d.datetime, 'now')(), getattr(d.date, 'today')()]\n"
        "class D(d.datetime):\n    pass\nr.append(D.now().isoformat())\nr.append(list(map(lambda f: f(), [d.datetime.now, d.datetime.utcnow])))\n"
        "import operator\nr.append(operator.methodcaller('now')(d.datetime))\nr.append(operator.attrgetter('now')(d.datetime)())\nr"
    ),
    "hash order": (
        "class A:\n    def __init__(self, i):\n        self.i = i\nobjects = {A(i) for i in range(200)}\nwords = {f'word {i}' for i in range(200)}\n"
        "import collections\nprint([a.i for a in objects], list(words), hash('text'), hash((1, 'a')), hash(b'x'))\n"
        "print(A(1), object.__repr__ if False else '', repr(A(2)), id(A(3)) > 0)\n"
        "d = {a: a.i for a in objects}\nawait get(1)\n[a.i for a in objects], list(words), list(d.values()), list(frozenset(words)), list({str(i).encode() for i in range(50)})"
    ),
    "hash order of other things": (
        "import enum, dataclasses, fractions, collections\nclass E(enum.Enum):\n    A = 1\n    B = 2\n    C = 3\n"
        "import abc, typing\nT = typing.TypeVar('T')\nclass B(abc.ABC):\n    def __init__(self, i):\n        self.i = i\n"
        "class G(typing.Protocol):\n    pass\nclass H(G):\n    __slots__ = ('i',)\n    def __init__(self, i):\n        self.i = i\n@dataclasses.dataclass(frozen=True)\nclass P:\n    x: int\n    s: str\n"
        "@dataclasses.dataclass(eq=False)\nclass Q:\n    x: int\n"
        "class Err(Exception):\n    def __init__(self, i):\n        self.i = i\n"
        "r = [[e.name for e in set(E)], [p.x for p in {P(i, str(i)) for i in range(30)}], [q.x for q in {Q(i) for i in range(200)}], "
        "[e.i for e in {Err(i) for i in range(200)}], [b.i for b in {B(i) for i in range(200)}], [h.i for h in {H(i) for i in range(200)}]]\nprint(r)\nr"
    ),
    "hash order of objects that come and go": (
        "class A:\n    def __init__(self, i):\n        self.i = i\nclass S:\n    __slots__ = ('i',)\nfor n in range(300):\n    hash(A(n)), hash(S())\n    if n % 7 == 0:\n        await get(n)\n"
        "xs = {A(i) for i in range(100)}\n[x.i for x in xs], [hash(A(1)) for _ in range(3)], id(A(1)), repr(S())"
    ),
    "addresses": (
        "class A:\n    def m(self): pass\nclass B(A): pass\nprint(repr(A()), str(A()), f'{A()}', [A(), {1: B()}], repr(A().m), repr(A), id(A()), id([]), hash(A()))"
    ),
    "retries": (
        "import asyncio, random\nr = None\nfor n in range(5):\n    try:\n        r = await flaky()\n        break\n    except ConnectionError as e:\n"
        "        print(n, e)\n        await asyncio.sleep(0.001 * random.random())\nr"
    ),
    "tool errors": (
        "import asyncio\nr = [repr(e) for e in await asyncio.gather(*[fail(i) for i in range(5)], return_exceptions=True)]\ntry:\n    await fail(9)\nexcept ValueError as e:\n    r.append(e.args)\nprint(r)\nr"
    ),
    "an error that ends the run": "import asyncio\nprint('before')\nawait get(1)\nawait asyncio.gather(get(2), fail(3), get(4))",
    "an error of its own": "r = await get(1)\nprint(r)\nr['nothing']",
    "cancelled calls": (
        "import asyncio\nts = [asyncio.create_task(stuck(i)) for i in range(3)]\nr = await asyncio.gather(*[get(i) for i in range(3)])\nfor t in ts:\n    t.cancel()\n"
        "r.append([type(e).__name__ for e in await asyncio.gather(*ts, return_exceptions=True)])\nr"
    ),
    "the first of several": (
        "import asyncio\nts = [asyncio.create_task(get(0)), asyncio.create_task(stuck(1))]\ndone, pending = await asyncio.wait(ts, return_when=asyncio.FIRST_COMPLETED)\n"
        "for t in pending:\n    t.cancel()\n[t.result() for t in done]"
    ),
    "a forgotten call": "get(1)\nget(2)\nawait get(3)\n5",
    "a left-over task": "import asyncio\nt = asyncio.create_task(asyncio.sleep(1000))\nawait get(1)",
    "large results": "r = await big(30_000)\nprint(len(r['rows']), r['rows'][-1])\n[len(r.rows), r.rows[20_000], r.text[-3:], (await big(5)).rows[0].data]",
    "large results together": "import asyncio\nrs = await asyncio.gather(*[big(n) for n in (20_000, 1, 30_000)])\n[[len(r['rows']), len(r['text'])] for r in rs]",
    "large arguments": "r = await get(['x' * 300_000, list(range(50_000))])\nlen(r['x'][0]), len(r['x'][1])",
    "values of every kind": (
        "import datetime, decimal, uuid\nv = [None, True, 2**200, float('inf'), 'ü', b'\\xff', (1, 2), {1, 2}, {'a': 1, 2: 3}, datetime.datetime(2024, 1, 2), decimal.Decimal('1.50'), uuid.UUID(int=5)]\n"
        "r = await get(v)\nr['x'] == v, r"
    ),
    "polling": (
        "import asyncio\nt = asyncio.create_task(get(1))\nn = 0\nwhile not t.done():\n    n += 1\n    await asyncio.sleep(0)\nn > 0, t.result()"
    ),
    "the clock as a condition": (
        "import time\nend = time.time() + 0.005\nn = 0\nwhile time.time() < end:\n    n += 1\n    await get(n)\nn"
    ),
    "workers on a queue": (
        "import asyncio\nq = asyncio.Queue()\nfor i in range(12):\n    q.put_nowait(i)\nout = []\nasync def worker(w):\n    while not q.empty():\n        i = q.get_nowait()\n        out.append((w, i, (await get(i))['count']))\n"
        "await asyncio.gather(*[worker(w) for w in range(4)])\nprint(out)\nout"
    ),
    "synchronisation": (
        "import asyncio\ns, e, c = asyncio.Semaphore(2), asyncio.Event(), asyncio.Condition()\nout = []\nasync def one(i):\n    async with s:\n        out.append((i, (await get(i))['count']))\n    if len(out) == 6:\n        e.set()\n"
        "async def waiter(n):\n    await e.wait()\n    out.append(('waiter', n))\nawait asyncio.gather(*[one(i) for i in range(6)], *[waiter(n) for n in range(3)])\nout"
    ),
    "asyncio.run twice": "import asyncio\nasync def main(n):\n    return await asyncio.gather(*[get(i) for i in range(n)])\n[asyncio.run(main(3)), asyncio.run(main(2))]",
    "search": "r = await search_tools('large result')\nprint(r)\nr, await describe_tool('big')",
    "a call of an unknown tool": "try:\n    await call_tool('nothing', x=1)\nexcept ToolError as e:\n    r = str(e)\nprint(r)\nr",
    "wrong arguments": "try:\n    await get(1, 2, 3)\nexcept TypeError as e:\n    r = str(e)\nprint(r)\nr",
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_recorded_run_replays_with_no_tool_run(sandbox: CodeSandbox, forbidden: CodeSandbox, name: str) -> None:
    world = World(1)
    first = await recorded(sandbox, PROGRAMS[name], world)
    fine = name.startswith("an error")
    assert first.error is None or fine, first.error
    calls = len(world.ledger)
    for replayer in (forbidden, sandbox):  # tools that must not run, and no tools at all
        again = await replayer.replay(copy_of(first))
        assert told(again)[:4] == told(first)[:4]
        assert [c.line for c in again.calls] == [c.line for c in first.calls]
    assert len(world.ledger) == calls


async def test_two_runs_of_one_seed_and_events_are_equal_and_other_seeds_differ(sandbox: CodeSandbox) -> None:
    code = "import random, uuid\n[random.random(), uuid.uuid4().hex]"
    runs = [await sandbox.execute(code, journal=Journal(seed=seed, epoch=0.0)) for seed in (1, 1, 2)]
    assert runs[0].value == runs[1].value
    assert runs[0].value[0] != runs[2].value[0]
    assert runs[0].value[1] != runs[2].value[1]


async def test_the_clock_starts_at_the_recorded_time(sandbox: CodeSandbox) -> None:
    code = "import time, datetime\n[int(time.time()), datetime.datetime.now(datetime.timezone.utc).year]"
    assert (await sandbox.execute(code, journal=Journal(epoch=86_400.0 * 365 * 30))).value == [946_080_000, 1999]


async def test_inputs_are_part_of_the_record(sandbox: CodeSandbox) -> None:
    world = World()
    first = await recorded(sandbox, "await get(data['k'])", world, inputs={"data": {"k": [1, (2, 3)]}})
    assert (await sandbox.replay(copy_of(first))).value == first.value


async def test_a_replay_in_a_fresh_process_gives_the_same(sandbox: CodeSandbox) -> None:
    names = (
        "gather",
        "hash order",
        "hash order of other things",
        "hash order of objects that come and go",
        "addresses",
        "chance",
        "time",
        "thread pool",
        "wait, first completed",
    )
    for name in names:
        first = await recorded(sandbox, PROGRAMS[name], World(2))
        assert first.error is None, (name, first.error)
        assert first.record is not None
        script = """
            import sys
            from toolchord import CodeSandbox, RunRecord
            import asyncio
            async def main():
                async with CodeSandbox() as sandbox:
                    result = await sandbox.replay(RunRecord.from_json(sys.stdin.read()))
                    print(repr(result.value), result.stdout, result.error, sep="|", end="")
            asyncio.run(main())
        """
        command = [sys.executable, "-c", textwrap.dedent(script)]
        process = await asyncio.to_thread(
            subprocess.run, command, input=first.record.to_json(), capture_output=True, text=True, check=True
        )
        assert process.stdout == f"{first.value!r}|{first.stdout}|None", name


# divergence


BASE = "import asyncio\na = await get(1)\nb = await get(2)\nc = await asyncio.gather(get(3), get(4))\nreturn [a, b, c]"

CHANGED = {
    "another argument": ("get(2)", "get(22)", 1),
    "another type of argument": ("get(2)", "get('2')", 1),
    "another tool": ("b = await get(2)", "b = await plain(2)", 1),
    "a call less": ("b = await get(2)", "b = 0", 1),
    "a call less at the end": ("c = await asyncio.gather(get(3), get(4))", "c = 0", 2),
    "calls swapped": ("gather(get(3), get(4))", "gather(get(4), get(3))", 2),
    "a call more": ("return [a, b, c]", "d = await get(5)\nreturn [a, b, c, d]", 3),
    "a sleep more": ("return [a, b, c]", "await asyncio.sleep(1)\nreturn [a, b, c]", 3),
    "one of several more": ("get(3), get(4)", "get(3), get(4), get(5)", None),
}


@pytest.mark.parametrize("change", CHANGED)
async def test_a_program_that_goes_another_way_diverges_with_a_position(
    sandbox: CodeSandbox, forbidden: CodeSandbox, change: str
) -> None:
    old, new, position = CHANGED[change]
    assert old in BASE
    first = await recorded(sandbox, BASE, World(3))
    record = copy_of(first)
    record.code = BASE.replace(old, new)
    result = await forbidden.replay(record)
    assert result.error is not None
    assert (result.error.type, result.error.kind) == ("ReplayDivergence", "divergence")
    if position == 1 or position is None:
        assert result.error.position is not None
    with pytest.raises(ReplayDivergence) as caught:
        result.raise_for_error()
    assert caught.value.position == result.error.position
    assert str(result.error.position) in result.error.message
    if position is not None:
        assert position <= caught.value.position <= len(record.events)


async def test_a_changed_argument_is_told_with_its_line(sandbox: CodeSandbox) -> None:
    first = await recorded(sandbox, BASE, World(3))
    record = copy_of(first)
    record.code = BASE.replace("get(2)", "get(22)")
    result = await sandbox.replay(record)
    assert result.error is not None
    assert result.error.line == 3
    assert "get" in result.error.message


async def test_a_truncated_record_diverges_when_it_is_only_replayed(sandbox: CodeSandbox) -> None:
    first = await recorded(sandbox, BASE, World(3))
    for length in range(len(copy_of(first).events)):
        record = copy_of(first)
        record.events = record.events[:length]
        result = await sandbox.replay(record)
        assert result.error is not None
        assert result.error.type == "ReplayDivergence"
        assert result.error.position == length


async def test_an_event_twice_diverges_and_never_gives_a_wrong_value(sandbox: CodeSandbox) -> None:
    first = await recorded(sandbox, BASE, World(3))
    record = copy_of(first)
    for events in (
        [*record.events[:1], *record.events],
        [*record.events, record.events[-1]],
        record.events[::-1],
        record.events[1:],
    ):
        changed = copy_of(first)
        changed.events = events
        result = await sandbox.replay(changed)
        assert result.error is not None, events
        assert result.error.type == "ReplayDivergence"


async def test_text_that_is_no_record_is_refused() -> None:
    for text in ("", "{}", "[]", "null", '{"code": 1}', "x" * 100, '{"format": 99}'):
        with pytest.raises(ConfigurationError):
            RunRecord.from_json(text)


# continuing


CONTINUED = [
    "one call",
    "plain calls",
    "gather",
    "gather of plain",
    "TaskGroup",
    "as_completed",
    "thread pool",
    "threads and locks",
    "chance",
    "retries",
    "workers on a queue",
    "sleep sort with calls",
    "tool errors",
    "large results together",
]


@pytest.mark.parametrize("name", CONTINUED)
async def test_a_truncated_record_is_continued_and_only_what_is_missing_runs(sandbox: CodeSandbox, name: str) -> None:
    world = World(4)
    first = await recorded(sandbox, PROGRAMS[name], world)
    assert first.error is None
    record = copy_of(first)
    for length in range(len(record.events) + 1):
        answered = {outcome.call for event in record.events[:length] for outcome in event.outcomes}
        ledger: list[tuple[str, Any]] = []
        rest = World(5)
        rest.ledger = ledger
        before = len(answered)
        ledger.extend([("before", n) for n in range(before)])  # answers count on where they left
        journal = Journal(record.events[:length], seed=record.seed, epoch=record.epoch)
        result = await sandbox.execute(record.code, tools=rest.tools, journal=journal)
        assert result.error is None, result.error
        assert result.record is not None
        ran = len(ledger) - before
        assert ran == len([c for c in result.calls if not c.replayed])
        assert {c.id for c in result.calls if c.replayed} == answered
        again = await sandbox.replay(RunRecord.from_json(result.record.to_json()))
        assert told(again)[:4] == told(result)[:4]
    assert ran == 0
    assert told(result)[:2] == told(first)[:2]


async def test_the_record_of_a_run_that_reached_a_limit_can_be_continued(sandbox: CodeSandbox) -> None:
    world = World(6)
    code = "import asyncio\na = await get(1)\nif FLAG:\n    await stuck()\nb = await get(2)\n[a['count'], b['count']]".replace(
        "FLAG", "a['count'] == 1"
    )
    first = await sandbox.execute(code, tools=world.tools, limits=Limits(wall_time=0.5))
    assert first.error is not None
    assert first.error.limit == "wall_time"
    record = copy_of(first)
    world._stuck.set()
    second = await sandbox.execute(
        code, tools=world.tools, journal=Journal(record.events, seed=record.seed, epoch=record.epoch)
    )
    assert second.error is None, second.error
    assert [name for name, _ in world.ledger] == ["get", "stuck", "stuck", "get"]  # what had no answer ran again
    assert second.calls[0].replayed
    assert told(await sandbox.replay(copy_of(second)))[:4] == told(second)[:4]


async def test_a_continued_run_that_diverges_runs_nothing_more(sandbox: CodeSandbox) -> None:
    first = await recorded(sandbox, BASE, World(3))
    record = copy_of(first)
    world = World(3)
    journal = Journal(record.events, seed=record.seed, epoch=record.epoch)
    result = await sandbox.execute(BASE.replace("get(2)", "get(22)"), tools=world.tools, journal=journal)
    assert result.error is not None
    assert result.error.type == "ReplayDivergence"
    assert world.ledger == []


# any program


@st.composite
def concurrent_programs(draw: st.DrawFn) -> str:
    """A coroutine body over `get`, `plain`, `fail`, sleeps, timeouts, groups, pools, chance and sets."""
    lines = [
        "import asyncio, random, uuid, time",
        "from concurrent.futures import ThreadPoolExecutor",
        "log = []",
        "class A: pass",
    ]
    lines += [
        "async def leaf(i):",
        "    log.append(i)",
        "    v = await get(i)",
        "    log.append((i, v['count']))",
        "    return v['count']",
    ]
    lines += ["def work(i):", "    v = plain(i)['count'] + get(i)['count']", "    log.append(v)", "    return v"]
    steps = draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=5))
    for number, step in enumerate(steps):
        n = draw(st.integers(1, 6))
        lines += step.replace("@", str(number)).replace("#", str(n)).splitlines()
    chosen = draw(st.booleans())
    if chosen:
        body = "\n".join(f"    {line}" for line in lines[4:])
        lines = [*lines[:4], "async def main():", body, "    return log", "print(asyncio.run(main()))"]
    return "\n".join([*lines, "print(len(log), random.random())", "log"])


STEPS = [
    "log.append(await asyncio.gather(*[leaf(i) for i in range(#)]))",
    "log.append(await asyncio.gather(*[get(i) for i in range(#)], return_exceptions=True))",
    "log.append([repr(e) for e in await asyncio.gather(*[fail(i) for i in range(#)], leaf(9), return_exceptions=True)])",
    "for c in asyncio.as_completed([leaf(i) for i in range(#)]):\n    log.append(await c)",
    "done, pending = await asyncio.wait({asyncio.create_task(leaf(i)) for i in range(#)}, return_when=asyncio.FIRST_COMPLETED)\nlog.append([t.result() for t in done])\nlog.append(len(pending))\nfor t in pending:\n    t.cancel()",
    "async with asyncio.TaskGroup() as g@:\n    ts@ = [g@.create_task(leaf(i)) for i in range(#)]\nlog.append([t.result() for t in ts@])",
    "try:\n    async with asyncio.timeout(0.0005):\n        log.append(await asyncio.gather(*[leaf(i) for i in range(#)]))\nexcept TimeoutError:\n    log.append('late')",
    "try:\n    log.append(await asyncio.wait_for(leaf(#), 0.0002))\nexcept TimeoutError:\n    log.append('late')",
    "await asyncio.sleep(0.0003 * #)\nlog.append(time.time())",
    "async def nap@(i):\n    await asyncio.sleep(0.0002 * (i % 3))\n    return await leaf(i)\nlog.append(await asyncio.gather(*[nap@(i) for i in range(#)]))",
    "with ThreadPoolExecutor(2) as p@:\n    log.append(list(p@.map(work, range(#))))",
    "log.append(await asyncio.gather(*[asyncio.to_thread(work, i) for i in range(#)]))",
    "log.append([random.randrange(100), str(uuid.uuid4()), random.sample(range(50), #)])",
    "objects@ = {A(): i for i in range(#)}\nlog.append([i for i in objects@.values()])\nlog.append(list({str(i) for i in range(10 * #)}))",
    "back@ = asyncio.create_task(leaf(#))\nlog.append(await get('front'))",
    "try:\n    await fail(#)\nexcept ValueError as e:\n    log.append(e.args)",
    "get(#)\nlog.append(plain(#)['count'])",
    "q@ = asyncio.Queue()\nasync def producer@():\n    for i in range(#):\n        await q@.put(await leaf(i))\nlog.append([await q@.get() if i else await producer@() for i in range(# + 1)])",
]  # fmt: skip


@given(code=concurrent_programs(), seed=st.integers(0, 2**16))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_any_concurrent_program_replays_to_the_same(code: str, seed: int, sandbox: CodeSandbox) -> None:
    world = World(seed)
    first = await recorded(sandbox, code, world)
    assert first.error is None, f"{first.error}\n{code}"
    again = await sandbox.replay(copy_of(first))
    assert told(again)[:4] == told(first)[:4], code
