"""Which values may cross the wall, and how they are written down.

Plain data only: None, bool, int of any size, float, str, bytes, list, tuple, set, frozenset, dict with scalar keys,
datetime, date, time, timedelta, Decimal, UUID; Enum by value; dataclasses and pydantic models as dicts. The format is
msgpack, with an extension type for what msgpack can't tell apart. A value larger than `CHUNK` is spilled into `Part`
frames, so that neither side ever handles more than a small piece at a time.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import itertools
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgpack

from toolchord_guest.reading import (
    CHUNK,
    DATE,
    DATETIME,
    DECIMAL,
    DELTA,
    FROZENSET,
    INT,
    LONG,
    MAX_DEPTH,
    NAMED,
    PAIRS,
    REF,
    SET,
    TIME,
    TUPLE,
    UUID_,
    Decoder,
    TooLarge,
)
from toolchord_guest.wire import Part

__all__ = ["CHUNK", "MAX_DEPTH", "REF", "Decoder", "Encoder", "TooLarge", "Unsupported", "packed", "unsupported"]

_FLAT = frozenset({type(None), bool, int, float})
_SCALARS = _FLAT | {str, bytes}
_STR = frozenset({str})
_RUN = 1024
_KEYS = (str, bytes, int, float, type(None), Decimal, UUID, dt.date, dt.time, dt.timedelta, enum.Enum)


class Unsupported(Exception):
    """A value that may not cross. `path` says where it is, outermost step first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []

    @property
    def path(self) -> str:
        return "$" + "".join(self.steps)

    def __str__(self) -> str:
        return f"{self.reason} (at {self.path})"


def _default(value: object) -> msgpack.ExtType:
    if isinstance(value, int):  # wider than 64 bits
        return msgpack.ExtType(INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    raise TypeError(type(value).__name__)


_packer = msgpack.Packer(strict_types=True, default=_default, unicode_errors="surrogatepass", autoreset=True)


def packed(value: object) -> bytes | None:
    """Bytes to compare a value by, at the packer's own speed; None if it holds more than plain lists and dicts."""
    try:
        plain: bytes = _packer.pack(value)
    except (TypeError, ValueError, OverflowError):  # a set, a date, a depth that the packer does not go to
        _packer.reset()
        return None
    return plain


def _ext(code: int, payload: bytes) -> bytes:
    packed: bytes = _packer.pack(msgpack.ExtType(code, payload))
    return packed


def _array_header(n: int) -> bytes:
    return bytes((0x90 | n,)) if n < 16 else b"\xdd" + n.to_bytes(4, "big")


def _map_header(n: int) -> bytes:
    return bytes((0x80 | n,)) if n < 16 else b"\xdf" + n.to_bytes(4, "big")


class Encoder:
    """Writes values down; `emit` is called with each `Part` of a large one.

    Args:
        emit: takes the parts in order; they must reach the reader before the bytes that `encode` returns.
        resolve: gives the value that stands behind another one, or that value itself.
        refs: numbers for the large pieces, shared between encoders whose values travel together.
    """

    def __init__(
        self,
        emit: Callable[[Part], None] | None = None,
        *,
        resolve: Callable[[Any], Any] | None = None,
        refs: Iterator[int] | None = None,
    ) -> None:
        self._emit = emit
        self._resolve = resolve
        self._refs = itertools.count(1) if refs is None else refs

    def encode(self, value: object, depth: int = 0) -> bytes:
        """The bytes of `value`; Unsupported names the path to what may not cross."""
        kind = type(value)
        if kind in _FLAT:
            packed: bytes = _packer.pack(value)
            return packed if len(packed) <= CHUNK else self._long(value)  # type: ignore[arg-type]
        if kind is str or kind is bytes:
            return self._text(value)  # type: ignore[arg-type]
        if depth >= MAX_DEPTH:
            raise Unsupported(f"nested deeper than {MAX_DEPTH} levels, or a container that contains itself")
        if kind is list:
            return self._list(value, depth)  # type: ignore[arg-type]
        if kind is dict:
            return self._dict(value, depth)  # type: ignore[arg-type]
        return self._other(value, depth)

    def _text(self, value: str | bytes) -> bytes:
        if len(value) <= CHUNK // 4 or self._emit is None:
            packed: bytes = _packer.pack(value)
            return packed
        kind = "str" if isinstance(value, str) else "bytes"
        raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        ref = self._new_ref()
        for start in range(0, len(raw), CHUNK):
            self._emit(Part(ref, kind, raw[start : start + CHUNK]))  # type: ignore[arg-type]
        return _ext(REF, ref.to_bytes(4, "big"))

    def _long(self, value: int) -> bytes:
        """An integer of more than a million digits or so."""
        raw = value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
        return _ext(LONG, self._text(raw)) if self._emit is not None else _ext(INT, raw)

    def _new_ref(self) -> int:
        return next(self._refs)

    def _list(self, items: list[Any], depth: int) -> bytes:
        if len(items) <= 1024 and _FLAT.issuperset(map(type, items)):
            packed: bytes = _packer.pack(items)
            if len(packed) <= CHUNK:  # its integers are of ordinary size
                return packed
        return self._items(items, depth)

    def _items(self, items: Iterable[Any], depth: int) -> bytes:
        return self._pieces(self._runs(items if isinstance(items, list) else list(items), depth + 1))

    def _runs(self, items: list[Any], depth: int) -> Iterator[tuple[int, bytes]]:
        """Encoded items with their number; plain numbers by the thousand, since one by one they take the most time."""
        for start in range(0, len(items), _RUN):
            run = items[start : start + _RUN]
            if len(run) == _RUN and _FLAT.issuperset(map(type, run)):
                packed: bytes = _packer.pack(run)[3:]  # without the header of an array of this length
                if len(packed) <= CHUNK:
                    yield _RUN, packed
                    continue
            for item in run:
                yield 1, self.encode(item, depth)

    def _pieces(self, pieces: Iterable[tuple[int, bytes]]) -> bytes:
        """A list of encoded items."""
        encoded: list[bytes] = []
        size = count = ref = total = 0
        try:
            for number, piece in pieces:
                total += number
                encoded.append(piece)
                size += len(piece)
                count += number
                if size > CHUNK and self._emit is not None:
                    ref = ref or self._new_ref()
                    self._emit(Part(ref, "list", _array_header(count) + b"".join(encoded)))
                    encoded, size, count = [], 0, 0
        except Unsupported as error:
            error.steps.insert(0, f"[{total}]")
            raise
        rest = _array_header(count) + b"".join(encoded)
        if not ref:
            return rest
        assert self._emit is not None
        self._emit(Part(ref, "list", rest))
        return _ext(REF, ref.to_bytes(4, "big"))

    def _dict(self, value: dict[Any, Any], depth: int) -> bytes:
        if not _STR.issuperset(map(type, value)):
            return self._pairs(value, depth)
        values = value.values()
        if len(value) <= 64 and _FLAT.issuperset(map(type, values)):
            packed: bytes = _packer.pack(value)
            if len(packed) <= CHUNK:
                return packed
        encoded: list[bytes] = []
        size = count = ref = 0
        pack, encode = _packer.pack, self.encode
        key = ""
        depth += 1
        try:
            for key, item in value.items():
                if len(key) > CHUNK // 4:
                    raise Unsupported(f"a dict key of {len(key):,} characters")
                piece = pack(key) + encode(item, depth)
                encoded.append(piece)
                size += len(piece)
                count += 1
                if size > CHUNK and self._emit is not None:
                    ref = ref or self._new_ref()
                    self._emit(Part(ref, "dict", _map_header(count) + b"".join(encoded)))
                    encoded, size, count = [], 0, 0
        except Unsupported as error:
            error.steps.insert(0, f".{key}" if key.isidentifier() and len(key) <= 100 else f"[{key[:100]!r}]")
            raise
        rest = _map_header(count) + b"".join(encoded)
        if not ref:
            return rest
        assert self._emit is not None
        self._emit(Part(ref, "dict", rest))
        return _ext(REF, ref.to_bytes(4, "big"))

    def _pairs(self, value: dict[Any, Any], depth: int) -> bytes:
        for key in value:
            if not isinstance(key, _KEYS):
                raise Unsupported(f"a dict key of type {type(key).__name__}; keys must be scalars such as str or int")
        if any(isinstance(key, enum.Enum) for key in value):
            plain = [key.value if isinstance(key, enum.Enum) else key for key in value]
            for key in plain:
                if not isinstance(key, _KEYS):
                    raise Unsupported(f"a dict key that is an Enum of type {type(key).__name__}; keys must be scalars")
            if len(set(plain)) < len(plain):
                raise Unsupported("two dict keys of the same value: an Enum member crosses as its value")
        if all(isinstance(key, str) and not isinstance(key, enum.Enum) for key in value):
            return self._dict({str.__str__(key): item for key, item in value.items()}, depth)
        flat = [x for pair in value.items() for x in pair]
        return _ext(PAIRS, self._items(flat, depth))

    def _other(self, value: object, depth: int) -> bytes:
        if self._resolve is not None and (resolved := self._resolve(value)) is not value:
            return self.encode(resolved, depth)
        if isinstance(value, enum.Enum):
            return self.encode(value.value, depth + 1)
        if isinstance(value, tuple):
            fields = getattr(type(value), "_fields", None)
            if isinstance(fields, tuple) and self._resolve is None:
                return _ext(NAMED, self._items([type(value).__name__, list(fields), *value], depth))
            return _ext(TUPLE, self._items(value, depth))
        if isinstance(value, set | frozenset):
            members = ((1, piece) for piece in self._members(value, depth + 1))
            return _ext(SET if isinstance(value, set) else FROZENSET, self._pieces(members))
        simple = _simple(value)
        if simple is not None:
            return simple
        return self.encode(self._record(value), depth)

    def _members(self, items: set[Any] | frozenset[Any], depth: int) -> list[bytes]:
        """A set's items in an order of their own: the reader's set must not depend on ours."""
        small = Encoder(resolve=self._resolve)
        try:
            rows = sorted((small.encode(item, depth), n, item) for n, item in enumerate(items))
            if self._emit is None:
                return [_hashable(piece, item) for piece, _, item in rows]
            return [
                _hashable(piece, item) if len(piece) <= CHUNK else self.encode(item, depth) for piece, _, item in rows
            ]
        except Unsupported as error:
            error.steps.insert(0, "{...}")
            raise

    def _record(self, value: object) -> object:
        """A value of a base type that says the same, for subclasses and records."""
        if isinstance(value, bool):
            return bool(value)
        for base in (str, int, float, bytes, list, dict):
            if isinstance(value, base):
                return _exact(value, base)
        if isinstance(value, bytearray):
            return bytes(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        pydantic = sys.modules.get("pydantic")
        if pydantic is not None and isinstance(value, pydantic.BaseModel):
            return {**{name: getattr(value, name) for name in type(value).model_fields}, **(value.model_extra or {})}
        raise unsupported(value)


def _hashable(encoded: bytes, item: object) -> bytes:
    """The bytes of a set's item, if what a reader makes of them can be in a set."""
    if type(item) not in _SCALARS:
        try:
            hash(Decoder(named=True).decode(encoded))
        except (TypeError, ValueError):
            name = type(item).__name__
            raise Unsupported(f"a {name} crosses as data that can't be in a set: use a list of them") from None
    return encoded


def unsupported(value: object) -> Unsupported:
    """The refusal of a value, with what to write instead."""
    name = type(value).__name__
    if name in {"generator", "map", "filter", "zip", "range", "dict_keys", "dict_values", "dict_items", "deque"}:
        hint = "write list(...) around it"
    elif name in {"coroutine", "async_generator"}:
        hint = "await it first"
    elif callable(value):
        hint = "call it, or name it by a string"
    else:
        hint = "turn it into plain data (dict, list, str, numbers) first"
    return Unsupported(f"{name} is not plain data: {hint}")


def _exact(value: Any, base: type) -> Any:
    """The plain `base` value inside a subclass's instance, without running the subclass's code."""
    if base is str:
        return str.__str__(value)
    if base is list:
        return list.copy(value)
    if base is dict:
        return dict(OrderedDict.items(value) if isinstance(value, OrderedDict) else dict.items(value))
    if base is bytes:
        return bytes.join(b"", (value,))
    return base.__pos__(value)  # type: ignore[operator]


def _simple(value: object) -> bytes | None:
    if isinstance(value, dt.datetime):
        naive = value.replace(tzinfo=None, fold=0)
        return _ext(DATETIME, _packer.pack([dt.datetime.isoformat(naive), value.fold, _zone(value)]))
    if isinstance(value, dt.date):
        return _ext(DATE, dt.date.isoformat(value).encode())
    if isinstance(value, dt.time):
        if value.tzinfo is not None and _zone(value) is None:
            raise Unsupported("a time whose zone has no fixed offset and no name: use a datetime")
        naive_time = value.replace(tzinfo=None, fold=0)
        return _ext(TIME, _packer.pack([dt.time.isoformat(naive_time), value.fold, _zone(value)]))
    if isinstance(value, dt.timedelta):
        return _ext(DELTA, _packer.pack([value.days, value.seconds, value.microseconds]))
    if isinstance(value, Decimal):
        text = Decimal.__str__(value)
        if len(text) > CHUNK:
            raise Unsupported(f"a Decimal of {len(text):,} digits")
        return _ext(DECIMAL, text.encode())
    if isinstance(value, UUID):
        return _ext(UUID_, value.bytes)
    return None


def _zone(value: dt.datetime | dt.time) -> str | float | None:
    """A zone's name, else its offset in seconds."""
    key = getattr(value.tzinfo, "key", None)
    if isinstance(key, str) and type(value.tzinfo).__name__ == "ZoneInfo":
        return key
    offset = value.utcoffset()
    return None if offset is None else offset.total_seconds()
