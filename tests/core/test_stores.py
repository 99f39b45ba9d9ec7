"""What every store promises: rows written once, a fence that holds across processes, big rows in parts, sealed ones."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg_pool import AsyncConnectionPool

from tests.postgres import server as cluster
from toolchord import (
    Approvals,
    CodeSandbox,
    Decision,
    DurableJournal,
    JournalStore,
    Limits,
    MemoryStore,
    Policy,
    SealedStore,
    SQLiteStore,
    ask,
)
from toolchord.errors import ConfigurationError, JournalConflict, JournalUnreadable
from toolchord.postgres import PostgresStore
from toolchord.rows import PART, Rows


class Cipher:
    """AES-GCM, bound to the row's place."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def encode(self, data: bytes, place: str) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._cipher.encrypt(nonce, data, place.encode())

    def decode(self, data: bytes, place: str) -> bytes:
        return self._cipher.decrypt(data[:12], data[12:], place.encode())


KEY = bytes(range(32))


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with cluster() as conninfo:
        yield conninfo


def make(kind: str, path: Path, database: str) -> Any:
    if kind == "memory":
        return MemoryStore()
    return SQLiteStore(path / "journal.db") if kind == "sqlite" else PostgresStore(database)


@pytest.fixture(params=["memory", "sqlite", "postgres", "sealed"])
async def store(request: Any, tmp_path: Path, database: str) -> AsyncIterator[JournalStore]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield MemoryStore()
        elif request.param == "postgres":
            yield await stack.enter_async_context(PostgresStore(database))
        else:
            inner = await stack.enter_async_context(SQLiteStore(tmp_path / "journal.db"))
            yield SealedStore(inner, Cipher(KEY)) if request.param == "sealed" else inner


@pytest.fixture
def run(request: Any) -> str:
    return str(request.node.name)


async def test_a_row_is_written_once_and_kept(store: JournalStore, run: str) -> None:
    assert await store.load(run) == {}
    assert await store.put(run, "call/1", b"\x00first\xff")
    assert not await store.put(run, "call/1", b"second")
    assert await store.put(run, "call/2", b"")
    assert await store.put("another " + run, "call/1", b"other")
    assert await store.load(run) == {"call/1": b"\x00first\xff", "call/2": b""}
    await store.delete(run)
    await store.delete(run)
    assert await store.load(run) == {}
    assert await store.load("another " + run) == {"call/1": b"other"}


async def test_a_later_attempt_shuts_an_earlier_one_out(store: JournalStore, run: str) -> None:
    assert await store.put(run, "before", b"", fence=1)  # nobody has claimed the run
    assert await store.put(run, "attempt/9", b"a", fence=9)
    assert await store.put(run, "start/1", b"", fence=9)
    assert not await store.put(run, "start/1", b"", fence=9)
    assert await store.put(run, "attempt/10", b"b", fence=10)  # by number, not by text
    for key in ("start/2", "start/1", "attempt/9"):
        with pytest.raises(JournalConflict) as conflict:
            await store.put(run, key, b"", fence=9)
        assert (conflict.value.run, conflict.value.attempt) == (run, 9)
    assert not await store.put(run, "attempt/10", b"c", fence=10)
    assert await store.put(run, "call/1", b"a fact")
    assert await store.put(run, "start/2", b"", fence=10)
    rows = await store.load(run)
    assert set(rows) == {"before", "attempt/9", "attempt/10", "start/1", "start/2", "call/1"}
    assert rows["attempt/10"] == b"b"


async def test_one_of_many_wins(store: JournalStore, run: str) -> None:
    won = await asyncio.gather(*(store.put(run, "attempt/1", bytes([n]), fence=1) for n in range(20)))
    assert sum(won) == 1
    assert (await store.load(run))["attempt/1"] == bytes([won.index(True)])


async def test_big_rows_are_kept_in_parts_and_checked(store: JournalStore, run: str) -> None:
    data = os.urandom(PART * 2 + 17)
    rows = Rows(store, run)
    assert await rows.put("call/1", data)
    assert await rows.put("call/2", data)
    assert not await rows.put("call/1", b"x" * (PART + 1))
    assert await rows.load() == {"call/1": data, "call/2": data}
    stored = await store.load(run)
    parts = [key for key in stored if key.startswith("part/")]
    assert all(len(stored[key]) <= PART for key in stored)
    assert len(parts) == 3 + 2  # the two equal rows share theirs; the row that came too late left some
    changed = MemoryStore()
    broken = f"part/{hashlib.sha256(data).hexdigest()}/1"
    for key, row in stored.items():
        await changed.put(run, key, row[:-1] if key == broken else row)
    with pytest.raises(JournalUnreadable, match="not what was written"):
        await Rows(changed, run).load()


def claim(kind: str, path: Path, database: str, run: str, gate: Any, answers: Any) -> None:
    """In a process of its own: claim one attempt after another, and write under the fence until somebody else has."""

    async def go() -> list[str]:
        written: list[str] = []
        async with make(kind, path, database) as store:
            gate.wait()
            while len(await store.load(run)) < 300:
                attempt = 1 + max((int(key[8:]) for key in await store.load(run) if key[:8] == "attempt/"), default=0)
                seen = None
                try:
                    if not await store.put(run, f"attempt/{attempt}", b"", fence=attempt):
                        continue
                    seen = set(await store.load(run))
                    for n in range(10):
                        key = f"row/{attempt}/{n}"
                        assert await store.put(run, key, b"", fence=attempt)
                        written.append(key)
                except JournalConflict:
                    if seen is None:
                        continue
                # What earlier attempts wrote was there when this one had claimed the run.
                later = await store.load(run)
                late = [k for k in later.keys() - seen if k.startswith("row/") and int(k.split("/")[1]) < attempt]
                assert not late, late
        return written

    try:
        answers.put(asyncio.run(go()))
    except BaseException as error:
        answers.put(repr(error))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_fence_holds_between_processes(kind: str, tmp_path: Path, database: str) -> None:
    context = multiprocessing.get_context("spawn")
    gate, answers = context.Barrier(4), context.Queue()
    run = f"fence {kind}"
    crowd = [context.Process(target=claim, args=(kind, tmp_path, database, run, gate, answers)) for _ in range(4)]
    for process in crowd:
        process.start()
    found = [answers.get(timeout=60) for _ in crowd]
    for process in crowd:
        process.join()
    assert all(isinstance(one, list) for one in found), found
    keys = [key for one in found for key in one]
    assert len(keys) == len(set(keys)) > 100


async def test_a_sqlite_file_serves_threads_and_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "a.db") as first, SQLiteStore(tmp_path / "a.db") as second:
        assert await asyncio.to_thread(asyncio.run, first.put("r", "k", b"1"))
        assert await second.load("r") == {"k": b"1"}
    with pytest.raises(ConfigurationError, match="closed"):
        await first.load("r")
    (tmp_path / "b.db").write_bytes(b"no database at all, just text" * 100)
    with pytest.raises(ConfigurationError, match=r"b\.db' can't be opened"):
        SQLiteStore(tmp_path / "b.db")
    with pytest.raises(ConfigurationError, match="can't be opened"):
        SQLiteStore(tmp_path / "nowhere" / "c.db")
    with pytest.raises(ConfigurationError, match="MemoryStore"):
        SQLiteStore(":memory:")
    mode = sqlite3.connect(tmp_path / "a.db")
    assert mode.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    mode.close()


async def test_a_pool_of_the_hosts_serves_too_and_stays_open(database: str) -> None:
    async with AsyncConnectionPool(database, min_size=1, open=False) as pool:  # not even autocommit
        async with PostgresStore(pool) as store, PostgresStore(pool) as other:
            assert await store.put("pool", "attempt/1", b"", fence=1)
            assert await other.put("pool", "attempt/2", b"", fence=2)
            with pytest.raises(JournalConflict):
                await store.put("pool", "row", b"", fence=1)
            assert set(await other.load("pool")) == {"attempt/1", "attempt/2"}
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")
    with pytest.raises(ConfigurationError, match="connection string"):
        PostgresStore(5)  # type: ignore[arg-type]


async def test_what_a_database_can_not_do_is_told(database: str, tmp_path: Path) -> None:
    for wrong in (f"host={tmp_path} user=nobody dbname=x", "this is no connection string"):
        with pytest.raises(ConfigurationError, match="no connection"):
            await PostgresStore(wrong).__aenter__()
    store = PostgresStore(database)
    with pytest.raises(ConfigurationError, match="not open"):
        await store.load("r")
    async with store:
        with pytest.raises(ConfigurationError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, store.load("r"))
    with pytest.raises(ConfigurationError, match="not open"):
        await store.put("r", "k", b"")


async def test_names_and_answers_that_are_none_are_told() -> None:
    store = MemoryStore()
    for name in ("", "a\0b", 5):
        with pytest.raises(ConfigurationError, match="name"):
            await DurableJournal.open(store, name)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="repair itself"):
        await DurableJournal.open(store, "r", repairs="r")
    with pytest.raises(ConfigurationError, match=r"Decision\.approve"):
        await Approvals(store).answer("r", "1:a", True)  # type: ignore[arg-type]


async def test_a_sealed_run_shows_nothing_and_takes_no_other_key(tmp_path: Path) -> None:
    def pay(to: str) -> str:
        """Pay."""
        return f"paid-{to}"

    code = "return [pay(to='secret-anna'), pay(to='secret-bert')]"
    path = tmp_path / "journal.db"
    async with SQLiteStore(path) as inner, CodeSandbox(tools=[pay], limits=Limits(wall_time=20)) as sandbox:
        store = SealedStore(inner, Cipher(KEY))
        policy = Policy(ask("pay"))
        for name in ("anna", "bert"):
            result = await sandbox.execute(code, journal=await DurableJournal.open(store, "r"), policy=policy)
            (request,) = await Approvals(store).pending("r")
            assert result.pending
            assert request.id == result.pending[0].pause.reason.id  # type: ignore[union-attr]
            assert getattr(request, "arguments", None) == {"to": f"secret-{name}"}
            assert await Approvals(store).answer("r", request.id, Decision.approve(by="secret-carl"))
        result = await sandbox.execute(code, journal=await DurableJournal.open(store, "r"), policy=policy)
        assert result.value == ["paid-secret-anna", "paid-secret-bert"]
        for wrong in (SealedStore(inner, Cipher(KEY[::-1])), inner):
            with pytest.raises(JournalUnreadable, match="'r' can't be read"):
                await DurableJournal.open(wrong, "r")
        # A row in another place is as good as altered.
        rows = await inner.load("r")
        await inner.put("r", "call/7", rows["call/1"])
        with pytest.raises(JournalUnreadable, match="call/7"):
            await store.load("r")
    content = b"".join(file.read_bytes() for file in sorted(tmp_path.iterdir()))  # noqa: ASYNC240
    assert b"secret" not in content
    assert len(content) > 4096
