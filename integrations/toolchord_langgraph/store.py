"""Owns the rows of runs that are kept in a graph's own checkpointer, beside the checkpoint that they belong to.

They are pending writes of tasks that the graph does not have, so they follow the checkpoint: a fork does not see them,
and they go when the thread is deleted.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping

from langgraph.checkpoint.base import CheckpointTuple

from toolchord import JournalStore
from toolchord.errors import ConfigurationError, JournalConflict
from toolchord.rows import latest_attempt
from toolchord_langgraph.private import Location

_NAMESPACE = uuid.UUID("5f0f9d1e-6d0c-4b66-9a51-0d8e7e3c2a41")
_PATIENCE = 10.0
"""Seconds within which a checkpoint that is being written must be there."""


class CheckpointStore:
    """A `JournalStore` in a checkpointer.

    A row is there for good when `put` returns. Whether it was the first of its key, and whether a later attempt has
    claimed the run, is looked up afterwards where it matters: for a row that claims the run or begins a call. So two
    attempts at once never both run a call that acts. With ``durability="exit"`` the checkpoint itself is written only
    when the graph stops: until then rows are looked up in this process, and attempts of others are not told apart.

    Args:
        location: the checkpoint.
        memory: keeps what can't be looked up yet; None where everything can.
        blocking: the graph runs synchronously, so the checkpointer is asked in a thread.
    """

    def __init__(self, location: Location, memory: JournalStore | None, *, blocking: bool) -> None:
        self._saver, self._config, _ = location
        self._memory = memory
        self._blocking = blocking
        self._attempt = 0
        self._claim = ("", b"")

    async def load(self, run: str) -> Mapping[str, bytes]:
        """See `JournalStore`."""
        rows = self._rows(await self._get(), run)
        return rows if self._memory is None else {**rows, **await self._memory.load(run)}

    async def put(self, run: str, key: str, data: bytes, *, fence: int | None = None) -> bool:
        """See `JournalStore`."""
        if self._memory is not None and not await self._memory.put(run, key, data, fence=fence):
            return False
        if key.startswith("attempt/"):
            self._attempt, self._claim = int(key[8:]), (key, data)
        name = f"{self._attempt}/{key}"
        writes, task = [(self._channel(run) + name, data)], str(uuid.uuid5(_NAMESPACE, f"{run}/{name}"))
        if self._blocking:
            await asyncio.to_thread(self._saver.put_writes, self._config, writes, task)
        else:
            await self._saver.aput_writes(self._config, writes, task)
        if fence is None or self._memory is not None or not key.startswith(("attempt/", "start/")):
            return True
        rows = await self._written(run, key)
        if key == self._claim[0]:
            return latest_attempt(rows) == fence and rows[key] == data
        if latest_attempt(rows) > fence or rows.get(self._claim[0]) != self._claim[1]:  # some savers write over rows
            raise JournalConflict(run, fence)
        return rows[key] == data

    async def delete(self, run: str) -> None:
        """See `JournalStore`. Nothing is done: the rows go with their thread."""

    async def _written(self, run: str, key: str) -> Mapping[str, bytes]:
        """The rows once this one is among them; its checkpoint may still be on its way."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while key not in (rows := await self.load(run)):
            if asyncio.get_running_loop().time() > deadline:
                raise ConfigurationError(
                    f"the checkpointer {type(self._saver).__name__} does not give back the pending writes that it was "
                    f"given for a checkpoint; calls can't be kept in it"
                )
            await asyncio.sleep(0.002)
        return rows

    async def _get(self) -> CheckpointTuple | None:
        if self._blocking:
            return await asyncio.to_thread(self._saver.get_tuple, self._config)
        return await self._saver.aget_tuple(self._config)

    def _rows(self, found: CheckpointTuple | None, run: str) -> dict[str, bytes]:
        prefix = self._channel(run)
        newest: dict[str, tuple[int, bytes]] = {}
        for _, channel, data in (found.pending_writes or []) if found is not None else []:
            if channel.startswith(prefix):
                attempt, _, key = channel[len(prefix) :].partition("/")
                newest[key] = max(newest.get(key, (0, b"")), (int(attempt), data))
        # Where a later attempt has gone on, the events that an earlier one went on with never happened.
        count, known = 0, newest.get("header", (0, b""))[0]
        while newest.get(f"event/{count}", (-1, b""))[0] >= known:
            known = newest[f"event/{count}"][0]
            count += 1
        return {key: data for key, (_, data) in newest.items() if not key.startswith("event/") or int(key[6:]) < count}

    @staticmethod
    def _channel(run: str) -> str:
        return f"toolchord/{run}/"
