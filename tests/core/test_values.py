"""What may cross the wall: every plain value arrives as it was sent, and no bytes can hurt a reader."""

from __future__ import annotations

import datetime as dt
import enum
import math
import os
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from toolchord import CodeSandbox, Session
from toolchord_guest import reading, values, wire
from toolchord_guest.values import Decoder, Encoder, TooLarge, Unsupported
from toolchord_guest.wire import Cutter, Part, WireError


def named(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The same values, from a strategy whose repr is short."""

    @st.composite
    def drawn(draw: st.DrawFn) -> Any:
        return draw(strategy)

    return drawn()


ZONES = st.sampled_from([None, dt.UTC, ZoneInfo("Europe/Berlin"), dt.timezone(dt.timedelta(hours=-5, minutes=-30))])
TEXT = st.text(st.characters(), max_size=40)  # lone surrogates too
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    TEXT,
    st.binary(max_size=40),
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.times(timezones=ZONES),
    st.timedeltas(),
    st.decimals(),
    st.uuids(),
)
KEYS = st.one_of(TEXT, st.integers(), st.binary(max_size=10), st.dates(), st.none(), st.booleans(), st.uuids())
SCALARS = named(SCALARS)
KEYS = named(KEYS)
HASHABLE = st.recursive(
    st.one_of(KEYS, st.timedeltas()),
    lambda inner: named(st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=4))),
)
HASHABLE = named(HASHABLE)
PLAIN = st.recursive(
    st.one_of(SCALARS, st.sets(HASHABLE, max_size=5), st.frozensets(HASHABLE, max_size=5)),
    lambda inner: named(
        st.one_of(
            st.lists(inner, max_size=6),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(TEXT, inner, max_size=6),
            st.dictionaries(KEYS, inner, max_size=4),
        )
    ),
    max_leaves=25,
)
PLAIN = named(PLAIN)


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, of the same types, in the same order, with NaN equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return bool(struct.pack(">d", a) == struct.pack(">d", b) or (math.isnan(a) and math.isnan(b)))
    if isinstance(a, Decimal):
        return bool(a.compare_total(b) == 0)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    if isinstance(a, dt.datetime | dt.time):
        return bool(a.isoformat() == b.isoformat() and a.fold == b.fold and a.utcoffset() == b.utcoffset())
    return bool(a == b)


def through(value: Any, *, spill: bool = True) -> Any:
    parts: list[Part] = []
    body = Encoder(parts.append if spill else None).encode(value)
    decoder = Decoder()
    for part in parts:
        decoder.add(part)
    return decoder.decode(body)


def nested(levels: int, code: int = reading.TUPLE) -> bytes:
    body: bytes = msgpack.packb(1)
    for _ in range(levels):
        body = msgpack.packb(msgpack.ExtType(code, b"\x91" + body))
    return body


# Round trips


@given(PLAIN)
def test_a_plain_value_arrives_as_it_was_sent(value: Any) -> None:
    assert same(through(value), value)
    assert same(through(value, spill=False), value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PLAIN)
def test_a_value_that_travels_in_many_small_parts_arrives_as_it_was_sent(
    monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    monkeypatch.setattr(values, "CHUNK", 512)
    rows = [value, {"again": value, "text": "ü" * 1000, "raw": b"x" * 1000, "many": list(range(400))}]
    assert same(through(rows), rows)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.sets(st.text(max_size=300), min_size=3, max_size=30))
def test_a_set_larger_than_a_part_arrives_as_it_was_sent(monkeypatch: pytest.MonkeyPatch, value: set[str]) -> None:
    monkeypatch.setattr(values, "CHUNK", 1500)
    outer = {frozenset(value), ("x" * 2000, *value)}
    assert through(value) == value
    assert through(outer) == outer


def test_large_values_travel_in_frames_that_fit() -> None:
    big = {
        "text": "ü" * 2_000_000,
        "raw": os.urandom(3_000_000),
        "rows": [{"n": n, "name": f"row {n}"} for n in range(50_000)],
        "set": {"y" * 1_500_000, *map(str, range(50_000))},
        "keys": {n: str(n) for n in range(50_000)},
        "int": 1 << 9_000_000,
        "tuple": tuple(range(200_000)),
    }
    parts: list[Part] = []
    body = Encoder(parts.append).encode(big)
    assert max(len(wire.pack(part)) for part in parts) < wire.MAX_FRAME
    assert len(body) < values.CHUNK
    decoder = Decoder()
    for part in parts:
        decoder.add(part)
    assert decoder.decode(body) == big


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class User:
    name: str
    born: dt.date


class Order(BaseModel):
    id: int
    lines: list[int]


class Name(str):
    __slots__ = ()


def _moved() -> OrderedDict[str, int]:
    order = OrderedDict(a=1, b=2)
    order.move_to_end("a")
    return order


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Color.RED, "red"),
        (Level.LOW, 1),
        ({Color.RED: 1, Level.LOW: 2}, {"red": 1, 1: 2}),
        (User("Ada", dt.date(1815, 12, 10)), {"name": "Ada", "born": dt.date(1815, 12, 10)}),
        (Order(id=1, lines=[1, 2]), {"id": 1, "lines": [1, 2]}),
        (Point(1, 2), (1, 2)),
        (Name("x"), "x"),
        (True, True),
        (bytearray(b"ab"), b"ab"),
        (Counter("aab"), {"a": 2, "b": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (_moved(), {"b": 2, "a": 1}),
    ],
)
def test_a_richer_value_arrives_as_the_plain_one_that_says_the_same(value: Any, plain: Any) -> None:
    assert same(through(value), plain)


def test_a_named_tuple_keeps_its_fields_on_the_way_to_a_guest() -> None:
    arrived = Decoder(named=True).decode(Encoder().encode([Point(1, 2)]))
    assert arrived == [(1, 2)]
    assert (type(arrived[0]).__name__, arrived[0]._fields, arrived[0].y) == ("Point", ("x", "y"), 2)


def test_what_only_looks_like_a_named_tuple_arrives_as_a_tuple() -> None:
    class Odd(tuple[int, ...]):
        _fields = ("a", "class", "_b")

    assert Decoder(named=True).decode(Encoder().encode(Odd((1, 2)))) == (1, 2)


@dataclass(frozen=True)
class Frozen:
    x: int


class Listed(enum.Enum):
    A = [1]  # noqa: RUF012


class Same(enum.Enum):
    A = "a"


@pytest.mark.parametrize(
    ("value", "path", "says"),
    [
        ({"rows": [{"owner": object()}]}, "$.rows[0].owner", "plain data"),
        ([1, (2, {"a b": print})], "$[1][1]['a b']", "call it"),
        ({"x": iter([])}, "$.x", "plain data"),
        ({"x": (str(n) for n in range(1))}, "$.x", "list(...)"),
        ([range(3)], "$[0]", "list(...)"),
        ({(1, 2): 3}, "$", "keys must be scalars"),
        ({"s": {Frozen(1)}}, "$.s{...}", "use a list"),
        ({"s": {Listed.A}}, "$.s{...}", "use a list"),
        ({Listed.A: 1}, "$", "keys must be scalars"),
        ({Same.A: 1, "a": 2}, "$", "two dict keys"),
        ({"x": 1j}, "$.x", "complex"),
        ({"d": Decimal("1" * 200_000)}, "$.d", "Decimal of 200,000 digits"),
        ({"k" * 200_000: 1}, "$", "dict key of 200,000 characters"),
        ([dt.time(1, tzinfo=type("Z", (dt.tzinfo,), {"utcoffset": lambda s, d: None})())], "$[0]", "datetime"),
    ],
)
def test_what_may_not_cross_names_its_place_and_what_to_do(value: Any, path: str, says: str) -> None:
    with pytest.raises(Unsupported) as caught:
        Encoder().encode(value)
    assert caught.value.path.startswith(path)
    assert says in str(caught.value)


def test_a_container_that_contains_itself_is_refused_at_a_depth() -> None:
    ring: list[Any] = []
    ring.append({"again": ring})
    with pytest.raises(Unsupported, match="contains itself"):
        Encoder().encode(ring)


@pytest.mark.parametrize("kind", [list, tuple, frozenset])
def test_a_nest_of_99_levels_crosses_and_one_of_101_is_refused(kind: Any) -> None:
    deep: Any = 1
    for _ in range(99):
        deep = kind([deep])
    assert through(deep) == deep
    for _ in range(2):
        deep = kind([deep])
    with pytest.raises(Unsupported, match="deeper than 100"):
        Encoder().encode(deep)


@given(st.lists(HASHABLE, max_size=8), st.randoms())
def test_a_set_is_written_in_the_same_order_however_it_was_made(items: list[Any], random: Any) -> None:
    before = set(items)
    random.shuffle(items)
    assert Encoder().encode(set(items)) == Encoder().encode(before)


# Hostile bytes


@pytest.mark.parametrize("size", [0, 1, 500])
def test_a_message_at_its_limit_is_read_and_one_byte_more_is_too_large(size: int) -> None:
    body = Encoder().encode(b"x" * size)
    assert Decoder(limit=len(body)).decode(body) == b"x" * size
    with pytest.raises(TooLarge, match=f"more than {len(body) - 1} bytes"):
        Decoder(limit=len(body) - 1).decode(body)


def test_parts_count_towards_the_limit_even_if_they_are_empty() -> None:
    decoder = Decoder(limit=10_000)
    parts = [Part(ref, "str", b"") for ref in range(10_000)]
    with pytest.raises(TooLarge):
        list(map(decoder.add, parts))


def test_a_message_that_failed_leaves_nothing_to_the_next_one() -> None:
    decoder = Decoder(limit=1000)
    decoder.add(Part(1, "bytes", b"x" * 700))
    with pytest.raises(ValueError, match="nothing refers to"):
        decoder.decode(b"\xc0")
    assert decoder.decode(Encoder().encode(b"y" * 700)) == b"y" * 700


@settings(max_examples=300)
@given(PLAIN, st.data())
def test_mutated_bytes_give_a_value_or_a_value_error(value: Any, data: st.DataObject) -> None:
    body = bytearray(Encoder().encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        action = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if action == "flip":
            body[at] = data.draw(st.integers(0, 255))
        elif action == "cut":
            del body[at:]
            body = body or bytearray(b"\xc1")
        else:
            body[at:at] = data.draw(st.binary(min_size=1, max_size=6))
    try:
        Decoder(limit=1 << 20).decode(bytes(body))
    except (ValueError, TooLarge):
        pass


@given(st.binary(max_size=60), st.integers(0, 20))
def test_any_bytes_in_any_extension_give_a_value_or_a_value_error(payload: bytes, code: int) -> None:
    try:
        Decoder(limit=1 << 20).decode(msgpack.packb(msgpack.ExtType(code, payload)))
    except (ValueError, TooLarge):
        pass


@pytest.mark.parametrize("levels", [101, 200, 450, 1000])
@pytest.mark.parametrize("code", [reading.TUPLE, reading.FROZENSET, reading.SET, reading.PAIRS, reading.LONG])
def test_extensions_within_extensions_are_read_to_a_bounded_depth(levels: int, code: int) -> None:
    with pytest.raises(ValueError, match=r"nested|malformed|not a list|argument"):
        Decoder().decode(nested(levels + 100, code))


@pytest.mark.parametrize("levels", [1100, 5000, 500_000])
def test_arrays_within_arrays_beyond_the_format_are_refused(levels: int) -> None:
    with pytest.raises(ValueError, match="malformed"):
        Decoder().decode(b"\x91" * levels + b"\xc0")


COLLIDING = [n * (2**61 - 1) for n in range(20_000)]


def hostile_keys() -> dict[str, bytes]:
    pack, ext = Encoder().encode, msgpack.ExtType
    listed = pack(COLLIDING)
    mixed = pack([*range(30_000), *COLLIDING])
    small = [msgpack.ExtType(reading.SET, pack(COLLIDING[:900])) for _ in range(200)]
    flat = pack([x for key in COLLIDING for x in (key, 0)])
    return {
        "set": msgpack.packb(ext(reading.SET, listed)),
        "frozenset": msgpack.packb(ext(reading.FROZENSET, listed)),
        "dict": msgpack.packb(ext(reading.PAIRS, flat)),
        "a third of them honest": msgpack.packb(ext(reading.SET, mixed)),
        "many small sets": msgpack.packb(small),
    }


@pytest.mark.parametrize("form", sorted(hostile_keys()))
def test_keys_that_were_made_to_collide_are_refused(form: str) -> None:
    with pytest.raises(ValueError, match="colliding keys"):
        Decoder(limit=16 << 20).decode(hostile_keys()[form])


def test_honest_keys_with_few_hashes_are_read() -> None:
    powers = {2**n for n in range(3000)}  # 61 hashes in all
    assert through(powers) == powers
    assert through(dict.fromkeys(powers, 1)) == dict.fromkeys(powers, 1)


def test_nested_sets_are_written_in_time_that_grows_with_their_size() -> None:
    deep: frozenset[Any] = frozenset([1])
    for n in range(60):  # writing each level twice would take longer than the universe has
        deep = frozenset([deep, n])
    assert through({deep}) == {deep}
    assert through(deep) == deep


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        ([], msgpack.packb(msgpack.ExtType(reading.REF, b"\0\0\0\1"))),
        ([Part(1, "list", b"\x90"), Part(1, "dict", b"\x80")], b"\xc0"),
        ([Part(1, "str", b"a"), Part(1, "bytes", b"b")], b"\xc0"),
        ([Part(1, "str", b"a"), Part(1, "list", b"\x90")], b"\xc0"),
        ([Part(1, "list", b"\x90"), Part(1, "str", b"a")], b"\xc0"),
        ([Part(1, "list", b"\x80")], b"\xc0"),
        ([Part(1, "dict", b"\x91\xc0")], b"\xc0"),
        ([Part(1, "list", b"\xc1")], b"\xc0"),
        ([Part(1, "list", b"")], b"\xc0"),
        ([Part(1, "str", b"\xff\xfe")], msgpack.packb(msgpack.ExtType(reading.REF, b"\0\0\0\1"))),
        ([Part(1, "list", b"\x90")], b"\xc0"),
        ([Part(1, "list", b"\x90")], msgpack.packb([msgpack.ExtType(reading.REF, b"\1")] * 2)),
        ([Part(-1, "bytes", b"")], msgpack.packb(msgpack.ExtType(reading.REF, b"\xff\xff\xff\xff"))),
        ([], b""),
        ([], b"\xc0\xc0"),
        ([], b"\x82\x01\x02\x03\x04"),
        ([], b"\xdd\xff\xff\xff\xff"),
        ([], b"\xdf\xff\xff\xff\xff"),
        ([], b"\xc6\xff\xff\xff\xff"),
        ([], msgpack.packb(msgpack.ExtType(99, b""))),
        ([], msgpack.packb(msgpack.ExtType(reading.PAIRS, msgpack.packb([1, 2, 3])))),
        ([], msgpack.packb(msgpack.ExtType(reading.SET, msgpack.packb([[1]])))),
        ([], msgpack.packb(msgpack.ExtType(reading.NAMED, msgpack.packb([])))),
        ([], msgpack.packb(msgpack.ExtType(reading.UUID_, b"short"))),
        ([], msgpack.packb(msgpack.ExtType(reading.DECIMAL, b"one"))),
        ([], msgpack.packb(msgpack.ExtType(reading.DELTA, msgpack.packb([10**18, 0, 0])))),
        ([], msgpack.packb(msgpack.ExtType(reading.DATETIME, msgpack.packb(["2024-01-01", 0, "../../etc/passwd"])))),
        ([], msgpack.packb(msgpack.ExtType(reading.DATETIME, msgpack.packb(["2024-01-01", 0, "/etc/passwd"])))),
        ([], msgpack.packb(msgpack.ExtType(reading.DATETIME, msgpack.packb(["2024-01-01", 7, None])))),
        ([], msgpack.packb(msgpack.ExtType(reading.DATETIME, msgpack.packb(["2024-01-01", 0, float("nan")])))),
        ([], msgpack.packb(msgpack.ExtType(reading.TIME, msgpack.packb(["25:00", 0, None])))),
        ([], msgpack.packb(msgpack.ExtType(reading.LONG, msgpack.packb(5)))),
    ],
)
def test_a_malformed_message_is_a_value_error_that_says_something(parts: list[Part], body: bytes) -> None:
    decoder = Decoder(limit=1 << 20)

    def read() -> Any:
        for part in parts:
            decoder.add(part)
        return decoder.decode(body)

    with pytest.raises(ValueError, match=r"\w"):
        read()


# Frames

FRAMES = [
    wire.Ready(),
    wire.Out("stdout", "ü" * 300),
    wire.Call(1, "sales.get", 3, b"\x92\x90\x80"),
    wire.Part(1, "list", b"\x90"),
    wire.Wait(1.5),
    wire.Wait(None),
    wire.Cancel(1),
    wire.Done(b"\xc0", None, True),
    wire.Done(b"", wire.Failure("program", "ValueError", "no", 3, ""), False),
]


@given(st.lists(st.sampled_from(FRAMES), max_size=12), st.lists(st.integers(1, 40), max_size=30))
def test_frames_come_out_the_same_however_the_stream_is_cut(frames: list[Any], cuts: list[int]) -> None:
    stream = b"".join(map(wire.pack, frames))
    cutter = Cutter("guest")
    got: list[Any] = []
    at = 0
    for cut in cuts:
        got += cutter.feed(stream[at : at + cut])
        at += cut
    got += cutter.feed(stream[at:])
    assert got == frames


@settings(max_examples=300)
@given(st.lists(st.sampled_from(FRAMES), min_size=1, max_size=4), st.data())
def test_mutated_frames_give_frames_or_a_wire_error(frames: list[Any], data: st.DataObject) -> None:
    stream = bytearray(b"".join(map(wire.pack, frames)))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    try:
        for frame in Cutter("guest").feed(bytes(stream)):
            assert isinstance(frame, wire.Frame)
    except WireError:
        pass


@pytest.mark.parametrize("length", [wire.MAX_FRAME + 1, 2**31, 2**32 - 1])
def test_a_frame_that_is_too_long_is_refused_before_its_bytes_arrive(length: int) -> None:
    with pytest.raises(WireError, match=f"a frame of {length} bytes"):
        list(Cutter("guest").feed(struct.pack(">I", length)))


def test_a_frame_of_the_host_is_none_of_a_guests() -> None:
    with pytest.raises(WireError, match="malformed"):
        list(Cutter("guest").feed(wire.pack(wire.Start(b""))))


def test_no_frame_longer_than_the_bound_is_written() -> None:
    with pytest.raises(WireError, match="a frame of"):
        wire.pack(wire.Out("stdout", "x" * wire.MAX_FRAME))


# Through a real guest


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session() -> AsyncIterator[Session]:
    def echo(value: Any) -> Any:
        return value

    async with CodeSandbox(tools={"echo": echo}) as sandbox, sandbox.session() as session:
        yield session


@pytest.mark.asyncio(loop_scope="module")
async def test_a_plain_value_goes_through_a_guest_and_its_tools_unchanged(session: Session) -> None:
    examples: list[Any] = []
    collect = settings(max_examples=40, database=None)(given(PLAIN)(lambda value: examples.append(value)))
    collect()
    result = await session.execute("[await echo(value) for value in given]", inputs={"given": examples})
    assert result.error is None
    assert same(result.value, examples)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "value",
    [
        "ü" * 1_000_000,
        b"\0" * 2_000_000,
        list(range(100_000)),
        {n: [n] for n in range(30_000)},
        [{"a": n, "b": str(n)} for n in range(30_000)],
        {str(n) for n in range(50_000)},
        10**6000,
        float("-inf"),
        -0.0,
        "\ud800",
        dt.time(1, 2, tzinfo=ZoneInfo("Europe/Berlin")),
        UUID(int=5),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_large_or_odd_value_goes_through_a_guest_unchanged(session: Session, value: Any) -> None:
    result = await session.execute("await echo(value=given)", inputs={"given": value})
    assert result.error is None
    assert same(result.value, value)
