"""Owns what is kept of a program in the workflow's `Context`: plain JSON data, which is serialised with it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from llama_index.core.workflow import Context

from toolchord.errors import ConfigurationError, JournalConflict
from toolchord.rows import latest_attempt

_ROOT = "toolchord"
_ENDED_KEPT = 16
"""Ended programs whose text is kept, in case the step that gave it has to be repeated."""


class Kept:
    """One program's entry in a Context's store, and the `JournalStore` of its run.

    The store is a part of the Context's snapshot and no database: two processes that go on from the same snapshot are
    two runs, and neither knows of the other.

    Args:
        store: the Context's.
        program: what tells the program from every other one of this Context.
    """

    def __init__(self, store: Any, program: str) -> None:
        self.run = hashlib.sha256(program.encode()).hexdigest()[:24]
        self._store = store
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Make room for a program, unless it is there."""
        if await self._store.get(_ROOT, default=None) is None:
            try:
                await self._store.set(_ROOT, {})
            except Exception as error:  # a state of the user's own type, which raises what it likes
                raise ConfigurationError(
                    f"the workflow's state has no room for what is kept of a program; "
                    f"give its type a field: {_ROOT}: dict = {{}}"
                ) from error
        if await self._store.get(self._path(), default=None) is None:
            await self._store.set(self._path(), {"rows": {}, "asked": {}, "answers": {}, "printed": {}})

    async def read(self, name: str) -> Any:
        """A part of the entry; None if there is none."""
        return await self._store.get(self._path(name), default=None)

    async def write(self, name: str, value: Any) -> None:
        """Replace a part of the entry; names may be paths, such as ``answers.3``."""
        await self._store.set(self._path(name), value)

    async def questions(self) -> dict[str, dict[str, Any]]:
        """What a person was asked, by the number of the call."""
        return await self.read("asked") or {}

    async def end(self, output: dict[str, Any]) -> None:
        """The program has ended: its calls need not be kept any more."""
        entries = dict(await self._store.get(_ROOT))
        entries.pop(self.run)
        ended = [run for run, entry in entries.items() if "ended" in entry]
        for run in ended[: max(0, len(ended) - _ENDED_KEPT + 1)]:
            del entries[run]
        asked = bool(await self.read("asked"))
        await self._store.set(_ROOT, {**entries, self.run: {"ended": output, "paused": asked}})

    def _path(self, name: str = "") -> str:
        return f"{_ROOT}.{self.run}.{name}".rstrip(".")

    # the journal's rows

    async def load(self, run: str) -> Mapping[str, bytes]:
        """See `JournalStore`."""
        rows: dict[str, str] = await self.read("rows") or {}
        return {key: base64.b64decode(text) for key, text in rows.items()}

    async def put(self, run: str, key: str, data: bytes, *, fence: int | None = None) -> bool:
        """See `JournalStore`."""
        async with self._turn:  # a store may really wait between the two
            rows: dict[str, bytes] = await self.read("rows") or {}  # their texts are not looked at
            if fence is not None and latest_attempt(rows) > fence:
                raise JournalConflict(run, fence)
            if key in rows:
                return False
            await self.write(f"rows.{key}", base64.b64encode(data).decode())
        return True

    async def delete(self, run: str) -> None:
        """See `JournalStore`."""
        await self.write("rows", {})


class Seat:
    """Who runs a program in this process: one at a time, and the one that was started last goes on.

    A workflow starts a step again for each answer, even while the step still runs. Each start knows only of what had
    arrived by then, so the latest one takes over when the one before it stops.

    Attributes:
        ended: the program has given its result.
        reading: held while answers are read.
        read: how many events had been received when answers were last read.
    """

    def __init__(self) -> None:
        self.ended = False
        self.reading = asyncio.Lock()
        self.read = 0
        self._taken = False
        self._next: asyncio.Future[bool] | None = None

    @property
    def awaited(self) -> bool:
        """Whether another one waits to go on."""
        return self._next is not None

    async def take(self) -> bool:
        """Wait for one's turn; False if the program has ended, or a later start will go on instead."""
        if self.ended or not self._taken:
            self._taken = True
            return not self.ended
        if self._next is not None:
            self._next.set_result(False)
        mine = self._next = asyncio.get_running_loop().create_future()
        try:
            goes_on: bool = await mine
            return goes_on
        finally:
            if self._next is mine:
                self._next = None

    def leave(self) -> None:
        """Let the next one go on."""
        following, self._next = self._next, None
        self._taken = following is not None and not self.ended
        if following is not None:
            following.set_result(not self.ended)


async def open_questions(ctx: Context[Any]) -> list[dict[str, Any]]:
    """The fields of each question that programs have for a person and that is not answered yet.

    For a process that goes on from a serialised Context: it has not seen the events. One that has expired is among
    them: an answer to it comes too late, but lets the program go on, which gets a CallDenied.
    """
    entries = await ctx.store.get(_ROOT, default=None) or {}
    return [
        question
        for entry in entries.values()
        for number, question in entry.get("asked", {}).items()
        if number not in entry["answers"]
    ]


def is_over(question: Mapping[str, Any]) -> bool:
    """Whether an answer to it comes too late."""
    return question["expires"] is not None and question["expires"] <= time.time()


_SEATS: WeakKeyDictionary[Any, dict[str, Seat]] = WeakKeyDictionary()


def seat_of(store: Any, run: str) -> Seat:
    """The seat of a program of the Context with this store."""
    return _SEATS.setdefault(store, {}).setdefault(run, Seat())
