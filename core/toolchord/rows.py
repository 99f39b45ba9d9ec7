"""Owns how the rows of a run are laid out in a store: small ones as they are, big ones in parts named by their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol, TypeVar

import msgspec

from toolchord.errors import JournalConflict, JournalUnreadable, LimitExceeded

PART = 256 << 10
"""Bytes from which a row is kept in parts, and of one part."""

_OVERHEAD = 64
"""Bytes that a row is counted for besides its data."""

_MARK = b"toolchord parts\x00"  # no row begins like this: they are msgpack maps and arrays, hashes and numbers


class JournalStore(Protocol):
    """Where runs are kept: named rows of bytes, each written once.

    `put` must have written the row for good when it returns. A store that can't refuse a row by fence says so in its
    documentation; with it two attempts that overlap may both run a call.
    """

    async def load(self, run: str) -> Mapping[str, bytes]:
        """All rows of a run by key; empty if there are none."""
        ...

    async def put(self, run: str, key: str, data: bytes, *, fence: int | None = None) -> bool:
        """Write a row unless there is one of that key; whether it was written.

        Args:
            run, key: which row.
            data: what it says.
            fence: the attempt that writes it. If a later one has claimed the run, nothing is written.

        Raises:
            JournalConflict: a later attempt has claimed the run: a row ``attempt/N`` with N above `fence` is there.
        """
        ...

    async def delete(self, run: str) -> None:
        """Forget a run; harmless if there is none."""
        ...


class MemoryStore:
    """Runs in this process's memory: for tests, and for hosts that only pause within one process."""

    def __init__(self) -> None:
        self._runs: dict[str, dict[str, bytes]] = {}

    async def load(self, run: str) -> Mapping[str, bytes]:
        """See `JournalStore`."""
        return dict(self._runs.get(run, {}))

    async def put(self, run: str, key: str, data: bytes, *, fence: int | None = None) -> bool:
        """See `JournalStore`."""
        rows = self._runs.setdefault(run, {})
        if fence is not None and latest_attempt(rows) > fence:
            raise JournalConflict(run, fence)
        if key in rows:
            return False
        rows[key] = data
        return True

    async def delete(self, run: str) -> None:
        """See `JournalStore`."""
        self._runs.pop(run, None)


class Codec(Protocol):
    """Turns rows into what is stored and back, such as an authenticated cipher. What `decode` raises means: altered."""

    def encode(self, data: bytes, place: str) -> bytes:
        """What is stored of `data`. `place` names run and row: bind it, so that nobody can put a row elsewhere."""
        ...

    def decode(self, data: bytes, place: str) -> bytes:
        """The row again; any exception if it was altered, or written with another key."""
        ...


class SealedStore:
    """A store whose rows pass through a codec: arguments, results and decisions are stored as it writes them.

    The names of runs and rows stay readable; they hold numbers and hashes.

    Args:
        store: where the rows go.
        codec: how they are written.
    """

    def __init__(self, store: JournalStore, codec: Codec) -> None:
        self._store = store
        self._codec = codec

    async def load(self, run: str) -> Mapping[str, bytes]:
        """See `JournalStore`; JournalUnreadable if the codec can't read a row."""
        rows = await self._store.load(run)
        return {key: self._opened(f"{run}/{key}", data, run) for key, data in rows.items()}

    async def put(self, run: str, key: str, data: bytes, *, fence: int | None = None) -> bool:
        """See `JournalStore`."""
        return await self._store.put(run, key, self._codec.encode(data, f"{run}/{key}"), fence=fence)

    async def delete(self, run: str) -> None:
        """See `JournalStore`."""
        await self._store.delete(run)

    def _opened(self, place: str, data: bytes, run: str) -> bytes:
        try:
            return self._codec.decode(data, place)
        except Exception as error:  # whatever a cipher raises
            raise JournalUnreadable(run, f"the codec can't read the row {place!r} ({type(error).__name__})") from error


class Rows:
    """The rows of one run.

    Args:
        store: where they are.
        run: whose they are.
        most: bytes that may be written. None for no bound.
    """

    def __init__(self, store: JournalStore, run: str, most: int | None = None) -> None:
        self.run = run
        self._store = store
        self._most = most
        self._size = 0

    async def load(self) -> dict[str, bytes]:
        """All rows, put together and checked."""
        stored = await self._store.load(self.run)
        self._size = sum(len(data) + _OVERHEAD for data in stored.values())
        rows = {key: data for key, data in stored.items() if not key.startswith("part/")}
        for key, data in rows.items():
            if data.startswith(_MARK):
                rows[key] = self._joined(key, data, stored)
        return rows

    def _joined(self, key: str, data: bytes, stored: Mapping[str, bytes]) -> bytes:
        digest, count = unpacked(self.run, data[len(_MARK) :], tuple[str, int])
        parts = [stored.get(f"part/{digest}/{number}", b"") for number in range(count)]
        whole = b"".join(parts)
        if hashlib.sha256(whole).hexdigest() != digest:
            raise JournalUnreadable(self.run, f"the parts of the row {key!r} are not what was written")
        return whole

    def make_room(self) -> None:
        """Raise LimitExceeded if the run has written all it may."""
        if self._most is not None and self._size >= self._most:
            message = f"the journal of this run holds {self._size:,} bytes; at most {self._most:,} are kept"
            raise LimitExceeded(message, limit="journal")

    async def put(self, key: str, data: bytes, *, fence: int | None = None) -> bool:
        """Write a row unless there is one; see `JournalStore.put`."""
        self._size += len(data) + _OVERHEAD
        if len(data) > PART:
            data = await self._divided(data, fence)
        return await self._store.put(self.run, key, data, fence=fence)

    async def _divided(self, data: bytes, fence: int | None) -> bytes:
        digest = hashlib.sha256(data).hexdigest()
        starts = range(0, len(data), PART)
        for number, start in enumerate(starts):
            await self._store.put(self.run, f"part/{digest}/{number}", data[start : start + PART], fence=fence)
        return _MARK + msgspec.msgpack.encode((digest, len(starts)))


T = TypeVar("T")


def unpacked(run: str, data: bytes, kind: type[T]) -> T:
    """A row's data as `kind`; JournalUnreadable if it is none."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JournalUnreadable(run, f"a row is no {getattr(kind, '__name__', kind)} ({error})") from error


def latest_attempt(rows: Mapping[str, bytes]) -> int:
    """The number of the last attempt that claimed a run, 0 if none has."""
    return max((int(key[8:]) for key in rows if key.startswith("attempt/")), default=0)
