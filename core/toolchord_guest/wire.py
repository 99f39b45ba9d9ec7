"""The frames that cross the wall: their shapes, their bounds, and how they are cut from a stream.

A frame is a big-endian u32 length and one msgpack array, checked against the Structs below by msgspec. The guest is
hostile to the host: nothing here unpickles, evaluates or allocates by a length that was not bounded first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

MAX_FRAME = 1 << 20
"""Bytes in one frame at the most; larger values travel as a run of `Part` frames."""

_LENGTH = struct.Struct(">I")


class WireError(Exception):
    """The other side broke the protocol."""


class Frame(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The root of all frames."""


class Part(Frame, tag=0, frozen=True):
    """A piece of a large value: the container or text numbered `ref` grows by `data`."""

    ref: int
    kind: Literal["list", "dict", "str", "bytes"]
    data: bytes


class Call(Frame, tag=1, frozen=True):
    """Guest: run a tool. `body` is the encoded pair [positional, keywords]."""

    id: int
    tool: str
    line: int
    body: bytes


class Cancel(Frame, tag=2, frozen=True):
    """Guest: nobody waits for this call any more."""

    id: int


class Out(Frame, tag=3, frozen=True):
    """Guest: text that the program printed."""

    stream: Literal["stdout", "stderr"]
    text: str


class Wait(Frame, tag=4, frozen=True):
    """Guest: nothing is runnable; send the next event, or wake me at `until` (seconds since the start)."""

    until: float | None


class Failure(Frame, frozen=True):
    """What ended a program, in plain words.

    kind: program, syntax, refused, value, memory, deadlock. `line` counts from 1, 0 is unknown. `hint` says how to
    repair it.
    """

    kind: str
    type: str
    message: str
    line: int
    traceback: str
    path: str = ""
    hint: str = ""


class Done(Frame, tag=5, frozen=True):
    """Guest: the program ended with a value (`body`) or a failure."""

    body: bytes
    failure: Failure | None
    returned: bool


class Kept(Frame, tag=9, frozen=True):
    """Guest: what the program leaves for the next one, encoded; see `keeping.keep`. Comes before Done."""

    body: bytes


class Restoring(Frame, tag=10, frozen=True):
    """Guest: the definition of this name is about to be restored; empty before the data, None when all is restored."""

    name: str | None


class Ready(Frame, tag=6, frozen=True):
    """Guest: confined, waiting for a program."""


class Outcome(Frame, frozen=True):
    """How one call ended: a value, or an error with its type's name, builtin base and arguments."""

    id: int
    ok: bool
    body: bytes


class Start(Frame, tag=7, frozen=True):
    """Host: run this program. `body` is an encoded dict, see `worker.Program`."""

    body: bytes


class Event(Frame, tag=8, frozen=True):
    """Host: the next event: it is `now` seconds since the start, and these calls have ended."""

    now: float
    outcomes: list[Outcome]


FromGuest = Part | Call | Cancel | Out | Wait | Kept | Restoring | Done | Ready
FromHost = Part | Start | Event

_encode = msgspec.msgpack.Encoder().encode
_from_guest: msgspec.msgpack.Decoder[FromGuest] = msgspec.msgpack.Decoder(FromGuest)
_from_host: msgspec.msgpack.Decoder[FromHost] = msgspec.msgpack.Decoder(FromHost)


def pack(frame: Frame) -> bytes:
    """The bytes of one frame, its length first."""
    body = _encode(frame)
    if len(body) > MAX_FRAME:
        raise WireError(f"a frame of {len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


class Cutter:
    """Cuts a byte stream into frames."""

    def __init__(self, source: Literal["guest", "host"]) -> None:
        self._decode: Any = (_from_guest if source == "guest" else _from_host).decode
        self._buffer = bytearray()

    @property
    def rest(self) -> int:
        """Bytes that wait for the end of their frame, or for a reader."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield the frames that `data` completes; WireError if one is too long or of no known shape."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= 4:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > MAX_FRAME:
                    raise WireError(f"a frame of {length} bytes")
                end = start + 4 + length
                if len(buffer) < end:
                    break
                try:
                    frame = self._decode(memoryview(buffer)[start + 4 : end].tobytes())
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise WireError(f"a malformed frame ({type(error).__name__})") from None
                start = end
                yield frame
        finally:
            del buffer[:start]
