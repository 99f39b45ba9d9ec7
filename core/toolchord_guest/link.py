"""The guest's end of the wall: blocking frames over the one descriptor, and the run's clock."""

from __future__ import annotations

import os
from typing import Any

from toolchord_guest import wire
from toolchord_guest.values import Decoder, Encoder


class Record(dict):  # type: ignore[type-arg]
    """A dict whose keys read as attributes too; a dict's own methods win."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            pass
        keys = ", ".join(map(repr, list(self)[:20]))
        raise AttributeError(f"the record has no {name!r}; its keys are {keys or 'none'}", name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __missing__(self, key: Any) -> Any:
        error: Any = KeyError(key)
        error.obj = self  # so that the error's explanation can say which keys there are
        raise error

    def copy(self) -> Record:
        return Record(self)


Record.__name__ = Record.__qualname__ = "dict"


class Rows(Record):
    """A record whose one declared field is a list: it iterates, counts and slices as that list."""

    def __init__(self, record: dict[str, Any], field: str) -> None:
        super().__init__(record)
        _fields[id(self)] = field

    def _list(self) -> list[Any]:
        rows: list[Any] = dict.__getitem__(self, _fields[id(self)])
        return rows

    def __iter__(self) -> Any:
        return iter(self._list())

    def __len__(self) -> int:
        return len(self._list())

    def __getitem__(self, key: Any) -> Any:
        return self._list()[key] if isinstance(key, int | slice) else dict.__getitem__(self, key)

    def __reversed__(self) -> Any:
        return reversed(self._list())

    def __contains__(self, item: object) -> bool:
        return (isinstance(item, str) and dict.__contains__(self, item)) or item in self._list()


Rows.__name__ = Rows.__qualname__ = "dict"
_fields: dict[int, str] = {}  # by id: a Rows keeps no attribute that a program could trip over


class Link:
    """Sends and receives frames; blocks; ends the process when the host is gone."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self._cutter = wire.Cutter("host")
        self._frames: list[Any] = []
        self._held = bytearray()

    def hold(self, frame: wire.Frame) -> None:
        """Write a frame together with the next one: each write wakes the host."""
        self._held += wire.pack(frame)

    def send(self, frame: wire.Frame) -> None:
        """Write one frame, after those that were held."""
        data = memoryview(bytes(self._held) + wire.pack(frame))
        self._held.clear()
        while data:
            data = data[os.write(self._fd, data) :]

    def receive(self) -> Any:
        """The next frame that is no part, and the decoder that holds the parts before it."""
        decoder = Decoder(record=Record, named=True)
        while True:
            while self._frames:
                frame = self._frames.pop(0)
                if not isinstance(frame, wire.Part):
                    return frame, decoder
                decoder.add(frame)
            data = os.read(self._fd, 1 << 18)
            if not data:
                os._exit(0)
            self._frames.extend(self._cutter.feed(data))

    def encode(self, value: object, resolve: Any = None) -> bytes:
        """Write a value's large pieces to the host at once; the bytes that refer to them."""
        return Encoder(self.send, resolve=resolve).encode(value)


class Clock:
    """The run's own time: that of the last event, and a microsecond more at every look."""

    def __init__(self) -> None:
        self.epoch = 0.0
        self._now = 0.0

    def reset(self, epoch: float) -> None:
        """A new program: its time starts at zero, `epoch` seconds after 1970."""
        self.epoch = epoch
        self._now = 0.0

    def advance(self, now: float) -> None:
        """An event came at `now`."""
        self._now = max(self._now, now)

    def read(self) -> float:
        """Seconds since the start; never the same twice, so that loops that watch the clock end."""
        self._now += 1e-6
        return self._now

    @property
    def now(self) -> float:
        return self._now
