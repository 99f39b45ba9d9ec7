"""Owns the store for many machines: runs in a PostgreSQL database, through psycopg. Extra: ``postgres``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from toolchord.errors import ConfigurationError, JournalConflict, MissingExtraError

try:
    from psycopg import AsyncConnection, OperationalError, ProgrammingError
    from psycopg_pool import AsyncConnectionPool
except ImportError as error:
    raise MissingExtraError("PostgresStore", "postgres") from error

__all__ = ["PostgresStore"]

_SCHEMA = """\
CREATE TABLE IF NOT EXISTS toolchord_run (run text PRIMARY KEY, attempt integer NOT NULL);
CREATE TABLE IF NOT EXISTS toolchord_journal (
    run text NOT NULL, key text NOT NULL, data bytea NOT NULL, PRIMARY KEY (run, key)
);
"""

_ONE_AT_A_TIME = 0x746F6F6C63686F72  # of an advisory lock: CREATE TABLE IF NOT EXISTS may collide with itself

_PUT = """\
INSERT INTO toolchord_journal (run, key, data) VALUES (%(run)s, %(key)s, %(data)s) ON CONFLICT DO NOTHING
"""

# The share lock waits for a claim that is being made, and sees what it wrote; a claim waits for rows being written.
# So no row of an earlier attempt appears after a later one has loaded the run.
_PUT_FENCED = """\
WITH mine AS (SELECT 1 FROM toolchord_run WHERE run = %(run)s AND attempt <= %(fence)s FOR SHARE)
INSERT INTO toolchord_journal (run, key, data) SELECT %(run)s, %(key)s, %(data)s FROM mine ON CONFLICT DO NOTHING
"""

_CLAIM = """\
WITH mine AS (
    INSERT INTO toolchord_run (run, attempt) VALUES (%(run)s, %(attempt)s)
    ON CONFLICT (run) DO UPDATE SET attempt = excluded.attempt WHERE toolchord_run.attempt < excluded.attempt
    RETURNING 1
)
INSERT INTO toolchord_journal (run, key, data) SELECT %(run)s, %(key)s, %(data)s FROM mine ON CONFLICT DO NOTHING
"""


class PostgresStore:
    """Runs in a PostgreSQL database; fences. An asynchronous context manager, which makes its two tables if need be.

    Args:
        database: a connection string, or a psycopg_pool.AsyncConnectionPool of the host's, which stays open.

    Everything is one statement under autocommit, so a pool behind pgbouncer will do. A store belongs to the event loop
    on which it was entered.

    Raises:
        ConfigurationError: on entering, if there is no connection; and where a store is used that is not open.
    """

    def __init__(self, database: str | AsyncConnectionPool[Any]) -> None:
        self._own = database if isinstance(database, str) else None
        if isinstance(database, str):
            database = AsyncConnectionPool(database, min_size=1, max_size=4, open=False, kwargs={"autocommit": True})
        if not isinstance(database, AsyncConnectionPool):
            kind = type(database).__name__
            raise ConfigurationError(f"PostgresStore takes a connection string or an AsyncConnectionPool, not {kind}")
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] = database
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> PostgresStore:
        if self._own is not None:
            try:  # a pool would go on trying
                await (await AsyncConnection.connect(self._own)).close()
            except (OperationalError, ProgrammingError) as error:
                raise ConfigurationError(f"no connection to the journal's database: {error}") from error
            await self._pool.open(wait=True)
        self._loop = asyncio.get_running_loop()
        async with self._connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_ONE_AT_A_TIME,))
            await connection.execute(_SCHEMA)
        return self

    def _connection(self) -> AbstractAsyncContextManager[AsyncConnection[Any]]:
        if self._loop is None:
            raise ConfigurationError("the store is not open: async with PostgresStore(...) as store")
        if asyncio.get_running_loop() is not self._loop:
            raise ConfigurationError("the store belongs to another event loop; open one on this loop")
        return self._pool.connection()

    async def __aexit__(self, *error: object) -> None:
        self._loop = None
        if self._own is not None:
            await self._pool.close()

    async def load(self, run: str) -> Mapping[str, bytes]:
        """See `JournalStore`."""
        async with self._connection() as connection:
            found = await connection.execute(
                "SELECT key, data FROM toolchord_journal WHERE run = %s", (run,), binary=True
            )
            return dict(await found.fetchall())

    async def put(self, run: str, key: str, data: bytes, *, fence: int | None = None) -> bool:
        """See `JournalStore`."""
        row = {"run": run, "key": key, "data": data, "fence": fence}
        async with self._connection() as connection:
            if key.startswith("attempt/"):
                row["attempt"] = int(key[8:])
                return await self._claimed(connection, row)
            statement = _PUT if fence is None else _PUT_FENCED
            if (await connection.execute(statement, row)).rowcount:
                return True
            if fence is None:
                return False
            known = await connection.execute("SELECT attempt FROM toolchord_run WHERE run = %s", (run,))
            attempt = await known.fetchone()
            if attempt is None:  # nobody has claimed the run
                await connection.execute("INSERT INTO toolchord_run VALUES (%s, 0) ON CONFLICT DO NOTHING", (run,))
            elif attempt[0] > fence:
                raise JournalConflict(run, fence)
            else:
                return False
        return await self.put(run, key, data, fence=fence)

    async def _claimed(self, connection: AsyncConnection[Any], row: dict[str, Any]) -> bool:
        if (await connection.execute(_CLAIM, row)).rowcount:
            return True
        known = await connection.execute("SELECT attempt FROM toolchord_run WHERE run = %(run)s", row)
        attempt = await known.fetchone()
        if row["fence"] is not None and attempt is not None and attempt[0] > row["fence"]:
            raise JournalConflict(row["run"], row["fence"])
        return False

    async def delete(self, run: str) -> None:
        """See `JournalStore`."""
        async with self._connection() as connection, connection.transaction():
            await connection.execute("DELETE FROM toolchord_journal WHERE run = %s", (run,))
            await connection.execute("DELETE FROM toolchord_run WHERE run = %s", (run,))
