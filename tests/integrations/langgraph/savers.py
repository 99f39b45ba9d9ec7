"""Checkpointers of every kind that the tests run against."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

KINDS = ("memory", "sqlite", "postgres")


@asynccontextmanager
async def saver(kind: str, how: str, *, path: Path, postgres: str) -> AsyncIterator[Any]:
    """A checkpointer for graphs that run this way; those of one path or server see the same threads."""
    if kind == "memory":
        yield InMemorySaver()
    elif how == "sync":
        with blocking_saver(kind, path=path, postgres=postgres) as made:
            yield made
    elif kind == "sqlite":
        async with AsyncSqliteSaver.from_conn_string(str(path)) as sqlite:
            yield sqlite
    else:
        async with AsyncPostgresSaver.from_conn_string(postgres) as server:
            await server.setup()
            yield server


@contextmanager
def blocking_saver(kind: str, *, path: Path, postgres: str) -> Iterator[Any]:
    """A checkpointer for synchronous graphs."""
    if kind == "sqlite":
        with SqliteSaver.from_conn_string(str(path)) as sqlite:
            yield sqlite
    else:
        with PostgresSaver.from_conn_string(postgres) as server:
            server.setup()
            yield server
