"""How values are read back from the wall: bounded in depth, size and the work that hostile bytes can cause."""

from __future__ import annotations

import datetime as dt
import functools
from collections import Counter, namedtuple
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack

from toolchord_guest.wire import Part

CHUNK = 128 << 10
"""Bytes of a value past which it travels in parts."""

MAX_DEPTH = 100

TUPLE, SET, FROZENSET, PAIRS, INT, DATETIME, DATE, TIME, DELTA, DECIMAL, UUID_, REF, NAMED, LONG = range(1, 15)
"""Extension types, for what msgpack can't tell apart."""

_ON_STACK = 8
"""Nested `unpackb` calls, of 40 KB of C stack each, before an `Unpacker` on the heap takes over."""

_PART_COST = _CONTAINER_COST = 64
"""Bytes that a part, a list or a dict counts for besides its data: empty ones must end too."""

_MAX_COLLISIONS = 500_000
"""Comparisons that the keys of one message may cost."""

_OPTIONS: dict[str, Any] = {"unicode_errors": "surrogatepass", "strict_map_key": True}


class TooLarge(Exception):
    """A message is larger than its limit."""


class Decoder:
    """Reads values back. Parts are added as they come; one `decode` uses them up.

    Args:
        record: makes the dicts of the decoded value (the guest's own kind), or None for plain ones.
        limit: bytes of one message, parts included; each list and dict counts for what it takes in memory.
        named: rebuild named tuples; only towards a guest, since it defines a class.
    """

    def __init__(
        self, *, record: Callable[[dict[str, Any]], Any] | None = None, limit: int | None = None, named: bool = False
    ) -> None:
        self._options = dict(_OPTIONS, ext_hook=self._ext, object_hook=record)
        if limit is not None:
            self._options |= {"object_hook": self._charge, "list_hook": self._charge}
        self._record = record
        self._limit = limit
        self._named = named
        self._parts: dict[int, Any] = {}
        self._size = 0
        self._depth = 0
        self._collisions = 0

    @property
    def size(self) -> int:
        """Bytes of the parts that wait for their message."""
        return self._size

    def add(self, part: Part) -> None:
        """Take one piece of the next message."""
        self._grow(len(part.data) + _PART_COST)
        held = self._parts.get(part.ref)
        if part.kind in ("str", "bytes"):
            if held is None:
                held = self._parts[part.ref] = (part.kind, [])
            if not isinstance(held, tuple) or held[0] != part.kind:
                raise ValueError("parts of two kinds")
            held[1].append(part.data)
            return
        piece = self._unpack(part.data)
        wanted = list if part.kind == "list" else dict
        if not isinstance(piece, wanted):
            raise ValueError("a part of another kind")
        if held is None:
            self._parts[part.ref] = piece
        elif isinstance(held, list) and isinstance(piece, list):
            held.extend(piece)
        elif isinstance(held, dict) and isinstance(piece, dict):
            held.update(piece)
        else:
            raise ValueError("parts of two kinds")

    def decode(self, body: bytes, *, more: bool = False) -> Any:
        """The value; ValueError if the bytes are malformed, TooLarge past the limit.

        With `more`, parts that are left belong to a value that is decoded next.
        """
        self._grow(len(body))
        try:
            value = self._unpack(body)
            if self._parts and not more:
                raise ValueError("a part that nothing refers to")
            return value
        finally:
            if not more:
                self._parts.clear()
                self._size = self._collisions = 0

    def _grow(self, n: int) -> None:
        self._size += n
        if self._limit is not None and self._size > self._limit:
            raise TooLarge(f"more than {self._limit} bytes")

    def _charge(self, container: Any) -> Any:
        """A byte on the wire can be an empty container: without this it would cost the host seventy times as much."""
        self._grow(_CONTAINER_COST)
        return container

    def _unpack(self, data: bytes) -> Any:
        if self._depth > MAX_DEPTH + 8:
            raise ValueError("nested too deeply")
        self._depth += 1
        try:
            # Each `unpackb` takes 40 KB of the C stack; an `Unpacker` costs more time and keeps them on the heap.
            if self._depth <= _ON_STACK:
                return msgpack.unpackb(data, **self._options)
            unpacker = msgpack.Unpacker(max_buffer_size=len(data) or 1, **self._options)
            unpacker.feed(data)
            value = unpacker.unpack()
            if unpacker.tell() != len(data):
                raise ValueError("bytes after a value")
            return value
        except TooLarge:
            raise
        except ValueError as error:
            if str(error):
                raise
            raise ValueError(f"malformed value ({type(error).__name__})") from None
        except Exception as error:  # msgpack's own classes, RecursionError, bad numbers and dates
            raise ValueError(f"malformed value ({type(error).__name__})") from None
        finally:
            self._depth -= 1

    def _ext(self, code: int, data: bytes) -> Any:
        if code == REF:
            return self._take(int.from_bytes(data, "big"))
        if code == LONG:
            return int.from_bytes(self._unpack(data), "big", signed=True)
        if code in (TUPLE, SET, FROZENSET, PAIRS, NAMED):
            return self._container(code, self._unpack(data))
        reader = _READERS.get(code)
        if reader is None:
            raise ValueError(f"extension {code}")
        return reader(data)

    def _take(self, ref: int) -> Any:
        held = self._parts.pop(ref, None)
        if held is None:
            raise ValueError("a reference to no part")
        if isinstance(held, tuple):
            raw = b"".join(held[1])
            return raw if held[0] == "bytes" else raw.decode("utf-8", "surrogatepass")
        return held

    def _container(self, code: int, items: Any) -> Any:
        if not isinstance(items, list):
            raise ValueError("not a list of items")
        if code == TUPLE:
            return tuple(items)
        if code == NAMED:
            name, fields, *values = items
            try:
                return namedtuple(name, fields)(*values) if self._named else tuple(values)
            except (TypeError, ValueError):  # a class that only looks like a named tuple
                return tuple(values)
        keys = items[::2] if code == PAIRS else items
        # Hashes of numbers are no secret: refuse the sets and dicts that were made to collide.
        if len(keys) > 8:
            self._collisions += sum(n * n for n in Counter(map(hash, keys)).values() if n > 1)
            if self._collisions > _MAX_COLLISIONS:
                raise ValueError("colliding keys")
        if code == PAIRS:
            pairs = dict(zip(keys, items[1::2], strict=True))
            return self._record(pairs) if self._record is not None else pairs
        return set(items) if code == SET else frozenset(items)


def _read_datetime(data: bytes) -> dt.datetime:
    text, fold, zone = msgpack.unpackb(data)
    return dt.datetime.fromisoformat(text).replace(fold=int(fold), tzinfo=_read_zone(zone))


def _read_time(data: bytes) -> dt.time:
    text, fold, zone = msgpack.unpackb(data)
    return dt.time.fromisoformat(text).replace(fold=int(fold), tzinfo=_read_zone(zone))


@functools.lru_cache(1024)  # ZoneInfo's own cache is small, and a guest could make it read files all day
def _read_zone(zone: Any) -> dt.tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        return ZoneInfo(zone)
    offset = dt.timedelta(seconds=zone)
    return dt.timezone(offset) if offset else dt.UTC


_READERS: dict[int, Callable[[bytes], Any]] = {
    INT: lambda data: int.from_bytes(data, "big", signed=True),
    DATETIME: _read_datetime,
    DATE: lambda data: dt.date.fromisoformat(data.decode()),
    TIME: _read_time,
    DELTA: lambda data: dt.timedelta(*msgpack.unpackb(data)),
    DECIMAL: lambda data: Decimal(data.decode()),
    UUID_: lambda data: UUID(bytes=data),
}
