"""A hostile guest says whatever it likes: the host answers with a documented outcome, and soon."""

from __future__ import annotations

import asyncio
import collections
import random
import socket
import time
from typing import Any

import msgpack
import pytest

from toolchord.catalogue import Catalogue
from toolchord.channel import Channel
from toolchord.dispatch import Dispatcher
from toolchord.journal import Journal
from toolchord.limits import Limits
from toolchord.results import ExecutionResult
from toolchord.run import Run
from toolchord_guest import wire
from toolchord_guest.values import Encoder

CONVERSATIONS = 4000
KINDS = {"program", "syntax", "refused", "limit", "value", "deadlock", "died", "protocol"}
LIMITS = Limits(wall_time=0.3, cpu_time=0.3, tool_calls=20, output=5000, result=200_000)

CODES = [None, 0, 1, -9, -11, -31, -24, -50, -64]
"""Of the guest process: none, an exit, a signal, one without a name."""

forbidden_calls = 0


def echo(x: Any = None) -> Any:
    return x


def forbidden() -> None:
    global forbidden_calls
    forbidden_calls += 1


class HostileGuest:
    """Stands in for a guest process: what it says is in its socket already."""

    failure = None

    def __init__(self, data: socket.socket, code: int | None) -> None:
        self.data = data
        self._code = code
        self.data.setblocking(False)

    def cpu_time(self) -> float:
        return 0.0

    def exit_code(self, timeout: float = 1.0) -> int | None:
        return self._code

    def kill(self) -> None:
        self.data.close()


async def converse(said: bytes, *, hang_up: bool, code: int | None = 0) -> tuple[ExecutionResult, float]:
    """Play one conversation: its result, and the seconds it took."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    dispatcher = Dispatcher(Catalogue.of([echo]), {}, 4)
    channel = await Channel.open(HostileGuest(ours, code))  # type: ignore[arg-type]
    run = Run(channel, dispatcher, Journal(), LIMITS)
    loop = asyncio.get_running_loop()

    async def speak() -> None:
        try:
            await loop.sock_sendall(theirs, said)
            if hang_up:
                theirs.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(theirs, 1 << 16):
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass

    began = time.perf_counter()
    speaker = asyncio.create_task(speak())
    try:
        result = await run.go(wire.Start(b"\xc0"), [])
        return result, time.perf_counter() - began
    finally:
        channel.close()
        speaker.cancel()
        await asyncio.gather(speaker, return_exceptions=True)
        theirs.close()


BODY = Encoder().encode([[1], {}])
TIDY: list[list[Any]] = [
    [6],
    [1, 1, "echo", 1, BODY],
    [1, 2, "echo", 2, Encoder().encode([[], {"x": {"a": [1, "b", None]}}])],
    [1, 1, "forbidden", 1, Encoder().encode([[], {}])],
    [0, 1, "list", b"\x91\x01"],
    [0, 2, "str", b"text"],
    [0, 3, "dict", b"\x81\xa1a\x01"],
    [2, 1],
    [3, "stdout", "hello\n"],
    [3, "stderr", "x" * 300],
    [4, None],
    [4, 0.01],
    [5, b"\x01", None, True],
    [5, Encoder().encode({"a": [1, 2, 3], "t": (1, 2), "s": {1, 2}}), None, True],
    [5, b"", ["program", "ValueError", "no", 3, "Traceback", ""], False],
    [5, b"", ["memory", "MemoryError", "", 0, "", ""], False],
    [10, ""],
    [10, None],
]
STRANGE: list[Any] = [
    None, True, -1, 0, 1, 2, 2**63, -(2**63), 1e308, -1e308, float("nan"), float("inf"), "", "echo", "__class__",
    "forbidden", "\0", "x" * 5000, b"", b"\xc1", b"\xff" * 50, [], {}, [[]] * 3, {"a": {}}, b"\x91" * 2000,
    b"\xc7\x04\x08\x00\x00\x00\x01", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
]  # fmt: skip
EXTENSIONS = [bytes([0xD4 + n, code]) + b"\xff" * (1 << n) for n in range(5) for code in range(16)]
EXTENSIONS += [
    msgpack.packb(msgpack.ExtType(code, payload))
    for code in range(16)
    for payload in (
        b"", b"\x90", b"\x92\x90\x90", b"\x92\x01\x01", b"\xc0", b"1e999999999", b"nan", b"sNaN",
        b"\x93\xa1a\xc3\xa3Foo",
        b"\x93\xab2020-01-01T0\x00\xaa../../etc/",
        b"\x93\xb32020-01-01T00:00:00\x00\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
        b"\x93\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00", b"\x00\x00\x00\x01", b"\x91" * 300, b"9" * 10_000,
    )
]  # fmt: skip


def frame(body: bytes, length: int | None = None) -> bytes:
    return (len(body) if length is None else length).to_bytes(4, "big") + body


def mutated(choice: random.Random, shape: list[Any]) -> list[Any]:
    """A frame with up to three fields changed, dropped or added."""
    fields = list(shape)
    for _ in range(choice.randint(0, 3)):
        match choice.random():
            case r if r < 0.2 and fields:
                fields.pop(choice.randrange(len(fields)))
            case r if r < 0.3:
                fields.insert(choice.randint(0, len(fields)), choice.choice(STRANGE))
            case _ if fields:
                fields[choice.randrange(len(fields))] = choice.choice(STRANGE)
    return fields


def conversation(choice: random.Random) -> bytes:
    """Some frames, most of them nearly right."""
    said = frame(b"\x91\x06") if choice.random() < 0.9 else b""
    number = 0
    for _ in range(choice.randint(1, 6)):
        shape = choice.choice(TIDY)
        if shape[0] == 1:  # often in turn
            number += 1
            shape = [1, number, *shape[2:]]
        if shape[0] in (1, 5) and choice.random() < 0.3:
            hostile = choice.choice(EXTENSIONS)
            body = choice.choice([hostile, b"\x92\x91" + hostile + b"\x80", b"\x92\x90\x81\xa1x" + hostile])
            shape = [*shape[:4], body] if shape[0] == 1 else [5, body, None, True]
        packed = msgpack.packb(mutated(choice, shape) if choice.random() < 0.6 else shape)
        match choice.random():
            case r if r < 0.7:
                said += frame(packed)
            case r if r < 0.8:
                garbled = bytearray(packed)
                for _ in range(choice.randint(1, 6)):
                    garbled[choice.randrange(len(garbled))] = choice.randrange(256)
                said += frame(bytes(garbled))
            case r if r < 0.88:
                said += frame(
                    packed, choice.choice([0, 1, 1 << 20, (1 << 20) + 1, 1 << 31, (1 << 32) - 1, len(packed) + 5])
                )
            case r if r < 0.94:
                said += choice.randbytes(choice.randint(0, 60))
            case _:
                said += frame(b"\x91" * choice.choice([10, 2000, 100_000]))
    return said


@pytest.mark.slow
async def test_mutated_conversations_have_only_documented_outcomes_and_end_in_time() -> None:
    choice = random.Random(7)
    outcomes: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))

    async def play(said: bytes, hang_up: bool, code: int | None) -> None:
        nonlocal slowest
        try:
            result, took = await converse(said, hang_up=hang_up, code=code)
        except Exception as error:
            raise AssertionError(f"the host raised {error!r} after {said[:300]!r}") from error
        outcomes[result.error.kind if result.error is not None else "value"] += 1
        slowest = max(slowest, took)
        result.for_model()

    for _ in range(CONVERSATIONS // 50):
        await asyncio.gather(
            *(play(conversation(choice), choice.random() < 0.8, choice.choice(CODES)) for _ in range(50))
        )
    assert outcomes.keys() <= KINDS, outcomes
    assert sum(outcomes.values()) == CONVERSATIONS
    assert all(outcomes[kind] > 20 for kind in ("value", "protocol", "died", "limit", "program")), outcomes
    assert forbidden_calls == 0
    assert slowest < 10
    assert problems == []


CALL = [1, 1, "echo", 1, BODY]
HOSTILE: dict[str, tuple[list[list[Any]], str]] = {
    "it waits for nothing": ([[4, None]], "protocol"),
    "it waits twice": ([CALL, [4, None], [4, None]], "protocol"),
    "a call out of turn": ([[1, 2, "echo", 1, BODY]], "protocol"),
    "a call without arguments": ([[1, 1, "echo", 1, b"\xc0"]], "protocol"),
    "a call with keywords that are no text": ([[1, 1, "echo", 1, Encoder().encode([[], {1: 2}])]], "protocol"),
    "a frame of the host's": ([[8, 0.0, []]], "protocol"),
    "a reference to no part": ([[5, b"\xd6\x08\x00\x00\x00\x01", None, True]], "protocol"),
    "a part that nothing refers to": ([[0, 1, "str", b"x"], [5, b"\x01", None, True]], "protocol"),
    "a list that contains itself": (
        [[0, 1, "list", b"\x91\xd6\x08\x00\x00\x00\x01"], [5, b"\xd6\x08\x00\x00\x00\x01", None, True]],
        "protocol",
    ),
    "an array of four thousand million items": ([[5, b"\xdd\xff\xff\xff\xff", None, True]], "protocol"),
    "a nest of arrays": ([[5, b"\x91" * 100_000, None, True]], "protocol"),
    "an unhashable key": ([[5, b"\xc7\x02\x02\x91\x90", None, True]], "protocol"),
    "too large a value": ([[0, 1, "bytes", b"x" * 150_000], [0, 1, "bytes", b"x" * 150_000]], "limit"),
    "a flood of parts": ([[0, n, "str", b""] for n in range(30_000)], "limit"),
    "a flood of empty output": ([[3, "stdout", ""]] * 10_000, "limit"),
    "a flood of calls": ([[1, n, "echo", 1, BODY] for n in range(1, 100)], "limit"),
    "an end after the end": ([[5, b"\x01", None, True], [5, b"\x02", None, True]], "value"),
    "a call while variables are restored": ([[10, "x"], CALL], "protocol"),
    "waiting while variables are restored": ([[10, "x"], [4, 0.01]], "protocol"),
    "variables that are restored after a call": ([CALL, [10, "x"]], "protocol"),
    "variables that are restored twice": ([[10, ""], [10, None], [10, ""]], "protocol"),
    "restoring without an end": ([[10, "x"]] * 10_000, "limit"),
    "silence": ([[6]], "limit"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_guest_that_says_something_hostile_is_ended_with_the_right_kind(name: str) -> None:
    frames, kind = HOSTILE[name]
    said = b"".join(frame(msgpack.packb(shape)) for shape in frames)
    result, took = await converse(said, hang_up=False)
    assert (result.error.kind if result.error is not None else "value") == kind, result.error
    assert took < 10


@pytest.mark.parametrize("cut", range(1, 60))
async def test_a_conversation_that_is_cut_anywhere_ends_as_a_death(cut: int) -> None:
    said = b"".join(frame(msgpack.packb(shape)) for shape in (CALL, [3, "stdout", "x" * 20], [5, b"\x01", None, True]))
    assert cut < len(said)
    result, _ = await converse(said[:cut], hang_up=True)
    assert result.error is not None
    assert result.error.kind == "died"
