"""Owns when two calls are the same, however a program has written them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from toolchord_guest.values import Encoder, packed

_COMPARED = 1 << 20
"""Bytes of plain arguments past which it takes too long to compare calls that are written differently."""

_SORTED = 64 << 10
"""Bytes of arguments past which the keys of dicts must come in the same order, to be quick."""

LARGE = 256 << 10
"""Bytes of arguments past which they are not copied for the tool."""


def _ordered(value: Any) -> Any:
    """The value with the keys of its dicts in order: two that are equal are written alike."""
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value, key=lambda key: (type(key).__name__, repr(key)))}
    if isinstance(value, list | tuple):
        return type(value)(map(_ordered, value))
    return value


def _as_it_is(value: Any) -> Any:
    return value


def sameness(tool: str, arguments: Mapping[str, Any], size: int) -> str:
    """A digest of tool and arguments, the same for ``f(1)`` and ``f(x=1)``; empty where it takes too long."""
    if size > _COMPARED:
        return ""
    digest = hashlib.sha256(tool.encode())
    ordered = _ordered if size <= _SORTED else _as_it_is
    for name in sorted(arguments):
        key, body = name.encode("utf-8", "surrogatepass"), packed(ordered(arguments[name]))
        if body is None:
            if size > LARGE:
                return ""
            body = b"~" + Encoder().encode(ordered(arguments[name]))
        digest.update(b" %d %s %d " % (len(key), key, len(body)))
        digest.update(body)
    return digest.hexdigest()
