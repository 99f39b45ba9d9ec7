"""Sessions that last: across processes that are killed, rows that were altered, and programs that mean harm."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.postgres import server as cluster
from toolchord import (
    CodeSandbox,
    Decision,
    ExecutionResult,
    Journal,
    JournalStore,
    LastingSessions,
    Limits,
    MemoryStore,
    Policy,
    SealedStore,
    SQLiteStore,
    ask,
)
from toolchord.errors import ConfigurationError, SessionUnreadable, SessionUnwritten
from toolchord.postgres import PostgresStore

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "correct horse battery staple"
OLDER = bytes(range(32))


class Door:
    """A tool that waits until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def wait(self) -> str:
        """Wait."""
        self.reached.set()
        await self.opened.wait()
        return "opened"


async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with cluster() as conninfo:
        yield conninfo


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox(tools=[pay], limits=Limits(wall_time=20)) as sandbox:
        yield sandbox


@pytest_asyncio.fixture(params=["memory", "sqlite", "postgres", "sealed"], loop_scope="module")
async def store(request: Any, tmp_path: Path) -> AsyncIterator[JournalStore]:
    async with AsyncExitStack() as stack:
        if request.param == "sqlite":
            yield await stack.enter_async_context(SQLiteStore(tmp_path / "s.db"))
        elif request.param == "postgres":
            yield await stack.enter_async_context(PostgresStore(request.getfixturevalue("database")))
        else:
            yield MemoryStore() if request.param == "memory" else SealedStore(MemoryStore(), Xor())


class Xor:
    """No cipher, but it makes other bytes of them."""

    def encode(self, data: bytes, place: str) -> bytes:
        return bytes(byte ^ 90 for byte in data)

    decode = encode


def value(result: ExecutionResult) -> Any:
    assert result.error is None, result.error
    return result.value


async def test_variables_of_a_key_last_and_those_of_another_one_are_not_there(
    sandbox: CodeSandbox, store: JournalStore
) -> None:
    sessions = LastingSessions(sandbox, store, secret=SECRET)
    big = "rows = [{'n': n, 'text': 'x' * 200} for n in range(900)]\n"  # kept in parts
    first = await sessions.execute("ann", big + "import math\ndef total():\n    return math.fsum(r['n'] for r in rows)")
    assert first.ok
    value(await sessions.execute("bob", "rows = [{'n': 7}]"))
    again = LastingSessions(sandbox, store, secret=SECRET)
    assert value(await again.execute("ann", "return total(), len(rows)")) == (404550.0, 900)
    assert value(await again.execute("bob", "return rows")) == [{"n": 7}]
    other = await again.execute("bob", "return total()")
    assert other.error is not None
    assert "total" in other.error.message
    assert (await again.variables("cat")).names == ()
    await again.forget("ann")
    assert (await again.variables("ann")).names == ()
    assert (await again.variables("bob")).names == ("rows",)
    value(await again.execute("ann", "rows = 1"))
    assert value(await again.execute("ann", "return rows")) == 1
    await again.forget("ann")
    await again.forget("bob")
    await again.forget("never there")


CHILD = """\
import asyncio, os, signal, sys
from toolchord import CodeSandbox, LastingSessions, SQLiteStore
from toolchord.postgres import PostgresStore
kind, place, program, end = sys.argv[1:]


async def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Dying:
    def __init__(self, store):
        self.store, self.load, self.delete = store, store.load, store.delete

    async def put(self, run, key, data, **options):
        if key.startswith(end):
            await die()
        return await self.store.put(run, key, data, **options)


async def main() -> None:
    store = SQLiteStore(place) if kind == "sqlite" else PostgresStore(place)
    async with store, CodeSandbox(tools=[die]) as sandbox:
        sessions = LastingSessions(sandbox, Dying(store) if end else store, secret="correct horse battery staple")
        result = await sessions.execute("ann", program)
        print(result.for_model())


asyncio.run(main())
"""


def child(kind: str, place: str, program: str, end: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CHILD, kind, place, program, end]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_they_last_from_process_to_process_and_one_that_is_killed_leaves_all_or_nothing(
    kind: str, tmp_path: Path, database: str, sandbox: CodeSandbox
) -> None:
    place = str(tmp_path / "s.db") if kind == "sqlite" else database

    async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(child, kind, place, *arguments)

    ended = await run("class Point:\n    x = 3\nn = 1\nreturn n")
    assert ended.stdout == "1\n", ended.stderr
    killed = await run("n = 2\nawait die()")
    assert killed.returncode == -signal.SIGKILL
    killed = await run("n = 3", "variables")
    assert killed.returncode == -signal.SIGKILL
    killed = await run("n = 4", "generation/")
    assert killed.returncode == -signal.SIGKILL
    ended = await run("n += 10\nreturn n, Point.x")
    assert ended.stdout == "[11, 3]\n", ended.stderr
    async with SQLiteStore(place) if kind == "sqlite" else PostgresStore(place) as store:
        sessions = LastingSessions(sandbox, store, secret=SECRET)
        assert value(await sessions.execute("ann", "return n")) == 11
        await sessions.forget("ann")


class Failing(MemoryStore):
    """Breaks off at one of its writes."""

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None

    def _count(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise ConnectionError("cut off")

    async def put(self, run: str, key: str, data: bytes, *, fence: int | None = None) -> bool:
        self._count()
        return await super().put(run, key, data, fence=fence)

    async def delete(self, run: str) -> None:
        self._count()
        await super().delete(run)


async def test_wherever_writing_is_cut_off_a_whole_generation_is_there_and_nothing_piles_up(
    sandbox: CodeSandbox,
) -> None:
    seen = set()
    for cut in range(6):
        store = Failing()
        sessions = LastingSessions(sandbox, store, secret=SECRET)
        await sessions.execute("ann", "n = 1\nblob = 'x' * 1000")
        store.left = cut
        failed = None
        try:
            await sessions.execute("ann", "n = 2\nreturn 'ran'")
        except SessionUnwritten as error:
            failed = error
        if failed is not None:  # what happened is not lost with its traces
            assert (failed.key, failed.result.value) == ("ann", "ran")
            assert isinstance(failed.__cause__, ConnectionError)
        assert failed is not None or cut > 2
        store.left = None
        sessions = LastingSessions(sandbox, store, secret=SECRET)
        n = value(await sessions.execute("ann", "n = n * 10\nreturn n"))
        seen.add((n, cut))
        value(await sessions.execute("ann", "n += 1"))
        assert len([run for run, rows in store._runs.items() if "variables" in rows]) == 1
        store.left = cut
        try:
            await sessions.forget("ann")
        except ConnectionError:
            store.left = None
            names = (await LastingSessions(sandbox, store, secret=SECRET).variables("ann")).names
            assert names == (() if cut else ("n", "blob"))
            await sessions.forget("ann")
        assert store._runs == {}
    assert {n for n, _ in seen} == {10, 20}


# two at once


async def test_programs_of_one_key_take_turns_and_those_of_others_do_not_wait(sandbox: CodeSandbox) -> None:
    sessions = LastingSessions(sandbox, MemoryStore(), secret=SECRET)
    await sessions.execute("ann", "n = 0")
    door = Door()
    slow = asyncio.create_task(sessions.execute("ann", "wait()\nn += 1", [door.wait]))
    await door.reached.wait()
    quick = [asyncio.create_task(sessions.execute("ann", "n += 1")) for _ in range(3)]
    value(await sessions.execute("bob", "n = 0"))
    assert not any(task.done() for task in (slow, *quick))
    door.opened.set()
    for result in await asyncio.gather(slow, *quick):
        value(result)
    assert value(await sessions.execute("ann", "return n")) == 4


async def test_a_program_that_another_process_was_faster_than_is_told_so(
    sandbox: CodeSandbox, store: JournalStore
) -> None:
    here, there = (LastingSessions(sandbox, store, secret=SECRET) for _ in range(2))
    for before in ("", "n = 0\nkept = 1"):  # a session that begins, and one that goes on
        await here.execute("ann", before)
        door = Door()
        slow = asyncio.create_task(here.execute("ann", "wait()\nn = 'slow'\nmine = 5\nreturn n", [door.wait]))
        await door.reached.wait()
        assert value(await there.execute("ann", "n = 'quick'\nreturn n")) == "quick"
        door.opened.set()
        result = await slow
        assert value(result) == "slow"
        assert result.variables is not None
        assert set(result.variables.lost) == {"n", "mine"}
        assert "mine (another program of this session ended while this one ran" in result.for_model()
        assert value(await here.execute("ann", "return n")) == "quick"
        gone = await here.execute("ann", "return mine")
        assert gone.error is not None
        await here.forget("ann")


async def test_a_program_that_changes_nothing_stands_in_nobodys_way(sandbox: CodeSandbox) -> None:
    store = MemoryStore()
    here, there = (LastingSessions(sandbox, store, secret=SECRET) for _ in range(2))
    await here.execute("ann", "n = 1")
    door = Door()
    slow = asyncio.create_task(here.execute("ann", "wait()\nreturn n", [door.wait]))
    await door.reached.wait()
    await there.execute("ann", "n = 2")
    rows = dict(store._runs)
    door.opened.set()
    result = await slow
    assert value(result) == 1
    assert "Not kept" not in result.for_model()
    assert store._runs == rows


@pytest.mark.parametrize("before", ["", "n = 1"])
@pytest.mark.parametrize("after", ["", "n = 2"])
async def test_what_was_forgotten_does_not_come_back(
    sandbox: CodeSandbox, store: JournalStore, before: str, after: str
) -> None:
    here, there = (LastingSessions(sandbox, store, secret=SECRET) for _ in range(2))
    await here.execute("ann", before)
    door = Door()
    slow = asyncio.create_task(here.execute("ann", "wait()\nsecret = 1", [door.wait]))
    await door.reached.wait()
    await there.forget("ann")
    value(await there.execute("ann", after))
    door.opened.set()
    result = await slow
    names = (await there.variables("ann")).names
    if before or after:
        assert result.variables is not None
        assert "secret" in result.variables.lost
        assert names == (("n",) if after else ())
    value(await there.execute("ann", "x = 1"))
    await there.forget("ann")
    if isinstance(store, MemoryStore):
        assert store._runs == {}


# trust


async def made(sandbox: CodeSandbox, secret: Any = SECRET) -> MemoryStore:
    """A store with a session of three generations, and another one."""
    store = MemoryStore()
    sessions = LastingSessions(sandbox, store, secret=secret)
    for n in range(3):
        value(await sessions.execute("ann", f"n = {n}\ndef f():\n    return n"))
    value(await sessions.execute("bob", "n = 'bob'"))
    return store


def copied(store: MemoryStore) -> MemoryStore:
    other = MemoryStore()
    other._runs = {run: dict(rows) for run, rows in store._runs.items()}
    return other


class Bits:
    """Data of the property test: made once, by the module's loop."""

    store: MemoryStore
    sandbox: CodeSandbox


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bits(sandbox: CodeSandbox) -> Bits:
    found = Bits()
    found.store, found.sandbox = await made(sandbox), sandbox
    return found


@settings(max_examples=250, deadline=None)
@given(st.data())
async def test_whatever_is_altered_is_noticed(bits: Bits, data: st.DataObject) -> None:
    store = copied(bits.store)
    sessions = LastingSessions(bits.sandbox, store, secret=SECRET)
    truth = (await LastingSessions(bits.sandbox, bits.store, secret=SECRET).variables("ann")).to_bytes()
    places = [(run, key) for run, rows in sorted(store._runs.items()) for key in sorted(rows)]
    run, key = data.draw(st.sampled_from(places))
    row = store._runs[run][key]
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "other", "delete", "move"]))
    if how == "flip" and row:
        at = data.draw(st.integers(0, len(row) - 1))
        row = row[:at] + bytes([row[at] ^ data.draw(st.integers(1, 255))]) + row[at + 1 :]
    elif how == "cut":
        row = row[: data.draw(st.integers(0, len(row)))]
    elif how == "grow":
        row += data.draw(st.binary(min_size=1, max_size=20))
    elif how == "other":
        other = data.draw(st.sampled_from(places))
        row = store._runs[other[0]][other[1]]
    if how in ("delete", "move"):
        del store._runs[run][key]
    if how == "move":
        target = data.draw(st.sampled_from(places))
        store._runs[target[0]][target[1]] = row
    elif how != "delete":
        store._runs[run][key] = row
    try:
        found = (await sessions.variables("ann")).to_bytes()
    except SessionUnreadable:
        return
    assert found == truth


FIELDS: list[Callable[[list[Any]], list[Any]]] = [
    lambda row: [b"x" * 12, *row[1:]],
    lambda row: [row[0], row[1] + 1.0, *row[2:]],
]
FIELDS += [lambda row: [*row[:2], row[2], bytes(32)], lambda row: [*row, b"more"], lambda row: row[:3]]


async def test_every_field_of_a_row_is_signed(sandbox: CodeSandbox) -> None:
    store = await made(sandbox)
    for change in FIELDS:
        broken = copied(store)
        ((run, key),) = [(r, k) for r, rows in broken._runs.items() for k in rows if k.startswith("generation/3")]
        broken._runs[run][key] = msgspec.msgpack.encode(change(msgspec.msgpack.decode(broken._runs[run][key])))
        sessions = LastingSessions(sandbox, broken, secret=SECRET)
        with pytest.raises(SessionUnreadable, match=r"'ann' can't be read: .*LastingSessions\.forget") as caught:
            await sessions.execute("ann", "return 1")
        assert caught.value.key == "ann"
        await sessions.forget("ann")
        assert value(await sessions.execute("ann", "return 1")) == 1


async def test_rows_do_not_fit_another_key(sandbox: CodeSandbox) -> None:
    store = await made(sandbox)
    heads = {len(rows): run for run, rows in store._runs.items() if "variables" not in rows}
    ann, bob = heads[6], heads[2]
    moved = MemoryStore()  # all that is of bob, as if it were ann's
    moved._runs = {run.replace(bob, ann): dict(rows) for run, rows in store._runs.items() if run.startswith(bob)}
    with pytest.raises(SessionUnreadable, match="signature does not fit"):
        await LastingSessions(sandbox, moved, secret=SECRET).variables("ann")
    moved._runs = {run.replace(ann, bob): dict(rows) for run, rows in moved._runs.items()}
    assert (await LastingSessions(sandbox, moved, secret=SECRET).variables("bob")).names == ("n",)


async def test_an_older_generation_is_noticed_by_who_has_seen_a_newer_one(sandbox: CodeSandbox) -> None:
    store = MemoryStore()
    sessions = LastingSessions(sandbox, store, secret=SECRET)
    await sessions.execute("ann", "n = 1")
    older = copied(store)
    await sessions.execute("ann", "n = 2")
    store._runs = older._runs
    with pytest.raises(SessionUnreadable, match="at generation 1, and was at 2"):
        await sessions.execute("ann", "return n")
    await sessions.forget("ann")
    await sessions.execute("ann", "n = 3")
    assert value(await sessions.execute("ann", "return n")) == 3


async def test_another_secret_reads_nothing_and_an_older_one_is_replaced(sandbox: CodeSandbox) -> None:
    store = await made(sandbox, OLDER)
    with pytest.raises(SessionUnreadable, match="signature does not fit"):
        await LastingSessions(sandbox, store, secret=SECRET).variables("ann")
    both = LastingSessions(sandbox, store, secret=[SECRET, OLDER])
    assert value(await both.execute("ann", "return f()")) == 2  # it leaves nothing new, but signs anew
    assert value(await LastingSessions(sandbox, store, secret=SECRET).execute("ann", "return f()")) == 2
    with pytest.raises(SessionUnreadable):
        await LastingSessions(sandbox, store, secret=OLDER).variables("ann")
    assert (await LastingSessions(sandbox, store, secret=OLDER).variables("bob")).names == ("n",)


async def test_what_a_codec_can_not_read_is_refused_and_can_be_forgotten(sandbox: CodeSandbox) -> None:
    class Checked(Xor):
        def decode(self, data: bytes, place: str) -> bytes:
            if data.startswith(b"broken"):
                raise ValueError("altered")
            return super().decode(data, place)

    inner = MemoryStore()
    sessions = LastingSessions(sandbox, SealedStore(inner, Checked()), secret=SECRET)
    for part in ("generation/", "variables"):
        await sessions.execute("ann", "n = 1")
        for rows in inner._runs.values():
            rows.update({key: b"broken" for key in rows if key.startswith(part)})
        with pytest.raises(SessionUnreadable, match="not what was written"):
            await sessions.execute("ann", "return n")
        await sessions.forget("ann")
        assert (await sessions.variables("ann")).names == ()


async def test_to_look_while_a_program_writes_is_no_sign_of_an_older_generation(sandbox: CodeSandbox) -> None:
    store = MemoryStore()
    sessions = LastingSessions(sandbox, store, secret=SECRET)
    await sessions.execute("ann", "n = 0")

    async def look() -> None:
        for _ in range(300):
            assert (await sessions.variables("ann")).names == ("n",)
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    for _ in range(5):
        value(await sessions.execute("ann", "n += 1"))
    await looking
    assert value(await sessions.execute("ann", "return n")) == 5


# bounds


async def test_it_expires_and_the_model_is_told(sandbox: CodeSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("toolchord.lasting.time", SimpleNamespace(time=lambda: now))
    store = MemoryStore()
    sessions = LastingSessions(sandbox, store, secret=SECRET, expires=60)
    await sessions.execute("ann", "old = 1\nother = 2")
    now = 1059.0
    assert value(await sessions.execute("ann", "return old")) == 1  # to be used is to be kept
    now = 1118.0
    assert value(await sessions.execute("ann", "return old")) == 1
    now = 1178.0
    assert (await sessions.variables("ann")).names == ()
    result = await sessions.execute("ann", "other = 3\nreturn other")
    assert value(result) == 3
    assert result.for_model().endswith("old (kept for 60 s at most, and they are over)")
    assert not any(b"old" in data for rows in store._runs.values() for data in rows.values())
    assert (await sessions.variables("ann")).names == ("other",)


async def test_what_is_kept_is_bounded_when_it_is_left_and_when_it_is_found(sandbox: CodeSandbox) -> None:
    sessions = LastingSessions(sandbox, MemoryStore(), secret=SECRET)
    few = Limits(wall_time=20, variables=1000)
    result = await sessions.execute("ann", "big = 'x' * 2000\nsmall = 1", limits=few)
    assert "big (2,003 bytes; at most 1,000 are kept in all)" in result.for_model()
    assert (await sessions.variables("ann")).names == ("small",)
    await sessions.execute("ann", "big = 'x' * 2000")
    result = await sessions.execute("ann", "return len(big)", limits=few)
    assert value(result) == 2000
    assert "big (2,003 bytes" in result.for_model()
    assert (await sessions.variables("ann")).names == ("small",)


async def test_a_program_that_is_cut_off_or_fails_early_changes_nothing(sandbox: CodeSandbox) -> None:
    sessions = LastingSessions(sandbox, MemoryStore(), secret=SECRET)
    await sessions.execute("ann", "n = 1")
    cut = await sessions.execute("ann", "n = 2\nwhile True: pass", limits=Limits(wall_time=20, cpu_time=0.3))
    assert cut.error is not None
    unread = await sessions.execute("ann", "n = 3 " + "#" * 2000, limits=Limits(source=1000))
    assert unread.error is not None
    assert unread.variables is not None
    assert value(await sessions.execute("ann", "return n")) == 1


async def test_a_program_that_waits_for_an_answer_goes_on(sandbox: CodeSandbox) -> None:
    sessions = LastingSessions(sandbox, MemoryStore(), secret=SECRET)
    await sessions.execute("ann", "n = 5")
    code, policy = "n += 1\ndone = pay(n)\nreturn done", Policy(ask("pay"))
    paused = await sessions.execute("ann", code, policy=policy)
    assert paused.record is not None
    journal = Journal.continuing(paused.record)
    assert journal.answer(paused.pending[0].pause.reason.id, Decision.approve())  # type: ignore[union-attr]
    assert value(await sessions.execute("ann", code, policy=policy, journal=journal)) == "paid 6"
    assert value(await sessions.execute("ann", "return n, done")) == (6, "paid 6")


# programs that mean harm

HOSTILE = {
    "it never ends": "def f(x=[0 for _ in iter(int, 1)] if again else 0): pass",
    "it never ends in C": "def f(x=sum(iter(int, 1)) if again else 0): pass",
    "it takes all memory": "class F:\n    if again:\n        x = 'x' * (1 << 40)",
    "it grows": "class F:\n    if again:\n        x = []\n        while True:\n            x.append(x[:] + [0] * 1000)",
    "it prints for ever": "class F:\n    if again:\n        while True:\n            print('x' * 1000)",
    "it exits": "class F:\n    if again:\n        raise SystemExit(3)",
    "it is interrupted": "class F:\n    if again:\n        raise KeyboardInterrupt",
    "it waits": "import time\nclass F:\n    if again:\n        time.sleep(1000)",
    "it calls a tool": "class F:\n    if again:\n        pay(99)",
    "it recurses": "def g(n):\n    return g(n + 1)\nclass F:\n    if again:\n        g(0)",
    "its garbage never ends": (
        "class Bad:\n    def __del__(self):\n        while True: pass\n"
        "class F:\n    if again:\n        a = Bad()\n        a.me = a\n        del a"
    ),
    "it begins a task": (
        "import asyncio\nasync def w():\n    while True:\n        try:\n            await asyncio.sleep(9)\n"
        "        except BaseException: pass\nclass F:\n    if again:\n        asyncio.run(w())"
    ),
    "it fails": "class F:\n    if again:\n        raise ValueError('no')",
    "its error can't be told": (
        "class E(Exception):\n    def __str__(self):\n        raise SystemExit\n"
        "class F:\n    if again:\n        raise E"
    ),
    "all of them": "\n".join(f"def f{n}(x=[0 for _ in iter(int, 1)] if again else 0): pass" for n in range(30)),
}


@pytest.mark.parametrize("how", HOSTILE)
async def test_a_session_is_never_beyond_help(sandbox: CodeSandbox, how: str) -> None:
    limits = Limits(wall_time=20, cpu_time=1.5, memory=64 << 20)
    sessions = LastingSessions(sandbox, MemoryStore(), secret=SECRET)
    code = "again = False\n" + HOSTILE[how] + "\nfrom math import sqrt\nagain = True"
    first = await sessions.execute("ann", code, limits=limits)
    assert first.error is None, first.error
    next_one = await sessions.execute("ann", "return again, pay(1)", limits=limits)
    assert value(next_one) == (True, "paid 1")
    assert [call.arguments for call in next_one.calls] == [{"amount": 1}]
    assert "of an earlier program could not be restored: " in next_one.for_model()
    assert next_one.duration < 20
    after = await sessions.execute("ann", "return again", limits=limits)
    assert value(after) is True
    assert after.stderr == ""
    assert next_one.record is not None
    assert value(await sandbox.replay(next_one.record)) == (True, "paid 1")


async def test_what_escapes_no_wall_when_it_is_written_escapes_none_when_it_is_restored(sandbox: CodeSandbox) -> None:
    sessions = LastingSessions(sandbox, MemoryStore(), secret=SECRET)
    await sessions.execute("bob", "secret = 'of bob'")
    programs = [
        "def f():\n    return ().__class__.__base__.__subclasses__()",
        "import os",
        "from toolchord_guest import worker",
        "globals()['f'] = 1",
        "def f(x=open('/etc/passwd')): pass",
        "__builtins__ = {}",
    ]
    for program in programs:
        result = await sessions.execute("ann", program)
        assert result.error is not None
        assert (await sessions.variables("ann")).names == ()
    value(await sessions.execute("ann", "x = 1"))
    for name in ("secret", "_run", "guest"):
        failed = await sessions.execute("ann", f"return {name}")
        assert failed.error is not None
        assert failed.error.type in ("NameError", "ProgramRefused"), failed.error


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"secret": "short"}, "a secret of 5 bytes is too short"),
        ({"secret": []}, "at least one"),
        ({"secret": [SECRET, 5]}, "not int"),
        ({"secret": SECRET, "expires": 0}, "positive number of seconds"),
        ({"secret": SECRET, "expires": True}, "positive number of seconds"),
    ],
)
async def test_bad_arguments_are_told(sandbox: CodeSandbox, options: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        LastingSessions(sandbox, MemoryStore(), **options)


@pytest.mark.parametrize("key", ["", "x" * 1001, 5, None])
async def test_a_key_is_text(sandbox: CodeSandbox, key: Any) -> None:
    sessions = LastingSessions(sandbox, MemoryStore(), secret=SECRET)
    with pytest.raises(ConfigurationError, match="a session's key is text"):
        await sessions.execute(key, "return 1")
    with pytest.raises(ConfigurationError, match="takes a CodeSandbox first"):
        LastingSessions(MemoryStore(), sandbox, secret=SECRET)  # type: ignore[arg-type]


async def test_any_text_is_a_key_of_its_own(sandbox: CodeSandbox) -> None:
    sessions = LastingSessions(sandbox, MemoryStore(), secret=SECRET)
    keys = ["a", "A", "a ", "a/../b", "generation/1", "ä", "\ud800", "\0", "run/1"]
    for number, key in enumerate(keys):
        value(await sessions.execute(key, f"n = {number}"))
    for number, key in enumerate(keys):
        assert value(await sessions.execute(key, "return n")) == number
