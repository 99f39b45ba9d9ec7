"""Owns the embedded store: runs in one SQLite file, shared by any number of processes on one machine."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from toolchord.errors import ConfigurationError, JournalConflict

_SCHEMA = """\
CREATE TABLE IF NOT EXISTS toolchord_journal (
    run TEXT NOT NULL, key TEXT NOT NULL, attempt INTEGER, data BLOB NOT NULL, PRIMARY KEY (run, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS toolchord_attempts ON toolchord_journal (run, attempt) WHERE attempt IS NOT NULL;
"""

_PUT = """\
INSERT INTO toolchord_journal (run, key, attempt, data) SELECT :run, :key, :attempt, :data
WHERE :fence IS NULL OR NOT EXISTS (SELECT 1 FROM toolchord_journal WHERE run = :run AND attempt > :fence)
ON CONFLICT DO NOTHING
"""

_FENCED = "SELECT 1 FROM toolchord_journal WHERE run = ? AND attempt > ?"

T = TypeVar("T")


class SQLiteStore:
    """Runs in a SQLite file; fences. A row is on the disk when `put` returns.

    Safe from several processes, threads and event loops, on a local file system. Close it, or use it as a context
    manager, asynchronous or not.

    Args:
        path: the file; made if it is not there. Its folder must be.
        wait: seconds to wait while other processes write.

    Raises:
        ConfigurationError: the file can't be opened, or is no database.
    """

    def __init__(self, path: str | os.PathLike[str], *, wait: float = 30.0) -> None:
        self._path = os.fspath(path)
        if self._path == ":memory:":
            raise ConfigurationError("a journal in memory outlives nothing; use MemoryStore, or give a path")
        # One thread owns the connection: a commit waits for the disk, which must not stall an event loop.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="toolchord-sqlite")
        try:
            self._connection = self._thread.submit(self._connect, wait).result()
        except sqlite3.Error as error:
            self._thread.shutdown()
            raise ConfigurationError(f"the journal {self._path!r} can't be opened: {error}") from error

    def _connect(self, wait: float) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=wait, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            future = self._thread.submit(work)
        except RuntimeError:
            raise ConfigurationError(f"the store of {self._path!r} is closed; open a new one") from None
        return await asyncio.wrap_future(future)

    async def load(self, run: str) -> Mapping[str, bytes]:
        """See `JournalStore`."""
        query = "SELECT key, data FROM toolchord_journal WHERE run = ?"
        return dict(await self._do(lambda: self._connection.execute(query, (run,)).fetchall()))

    async def put(self, run: str, key: str, data: bytes, *, fence: int | None = None) -> bool:
        """See `JournalStore`."""
        attempt = int(key[8:]) if key.startswith("attempt/") else None
        row = {"run": run, "key": key, "attempt": attempt, "data": data, "fence": fence}

        def write() -> bool:
            if self._connection.execute(_PUT, row).rowcount:
                return True
            if fence is not None and self._connection.execute(_FENCED, (run, fence)).fetchone():
                raise JournalConflict(run, fence)
            return False

        return await self._do(write)

    async def delete(self, run: str) -> None:
        """See `JournalStore`."""
        await self._do(lambda: self._connection.execute("DELETE FROM toolchord_journal WHERE run = ?", (run,)))

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._thread.shutdown()
        self._connection.close()

    def __enter__(self) -> SQLiteStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> SQLiteStore:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)
