"""Checks a request against the types that an SDK declares for it, as the provider's own server does: nothing extra."""

from __future__ import annotations

import collections.abc
import datetime as dt
import functools
import types
import typing
from collections.abc import Iterator
from typing import Any

import typing_extensions

_WRAPPERS: tuple[Any, ...] = (typing.Annotated, typing_extensions.Required, typing_extensions.NotRequired)
_ATOMS: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    bool: (bool,),
    type(None): (type(None),),
    dt.datetime: (str,),
}


def misfits(value: Any, hint: Any, path: str = "") -> Iterator[str]:
    """What is wrong with a JSON value that should be of an SDK's parameter type, as ``path: problem``."""
    origin = typing.get_origin(hint)
    if origin in _WRAPPERS:
        yield from misfits(value, typing.get_args(hint)[0], path)
    elif hint in (Any, object):
        return
    elif origin in (typing.Union, types.UnionType):
        yield from _of_union(value, typing.get_args(hint), path)
    elif origin is typing.Literal:
        if value not in typing.get_args(hint):
            yield f"{path}: Input should be {' or '.join(map(repr, typing.get_args(hint)))}"
    elif typing_extensions.is_typeddict(hint):
        yield from _of_record(value, hint, path)
    elif hint in _ATOMS:
        fits = isinstance(value, _ATOMS[hint]) and (hint is bool or not isinstance(value, bool))
        if not fits:
            yield f"{path}: Input should be a valid {hint.__name__}"
    elif origin in (dict, collections.abc.Mapping):
        if not isinstance(value, dict):
            yield f"{path}: Input should be a valid dictionary"
            return
        for key, item in value.items():
            yield from misfits(item, typing.get_args(hint)[1], f"{path}.{key}")
    elif origin is not None:  # lists under their many names
        if not isinstance(value, list):
            yield f"{path}: Input should be a valid list"
            return
        for number, item in enumerate(value):
            yield from misfits(item, typing.get_args(hint)[0], f"{path}.{number}")
    elif hint is dict:
        if not isinstance(value, dict):
            yield f"{path}: Input should be a valid dictionary"
    else:
        yield f"{path}: Input should be a JSON value"  # an alternative for the SDK's objects and files: JSON has none


@functools.cache
def _fields(record: Any) -> tuple[dict[str, Any], frozenset[str], bool]:
    hints = typing_extensions.get_type_hints(record, include_extras=True)
    required = frozenset(name for name, hint in hints.items() if typing.get_origin(hint) in _WRAPPERS[1:2])
    extra = getattr(record, "__pydantic_config__", {}).get("extra") == "allow"
    return hints, required, extra


def _of_record(value: Any, record: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: Input should be an object"
        return
    hints, required, extra = _fields(record)
    for name in sorted(required - value.keys()):
        yield f"{path}.{name}: Field required"
    for name, item in value.items():
        if name in hints:
            yield from misfits(item, hints[name], f"{path}.{name}")
        elif not extra:
            yield f"{path}.{name}: Extra inputs are not permitted"


def _tag(record: Any, name: str) -> tuple[Any, ...]:
    hint = _fields(record)[0].get(name)
    while typing.get_origin(hint) in (typing_extensions.Required, typing.Annotated):
        hint = typing.get_args(hint)[0]
    found: list[Any] = []
    for part in typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,):
        found.extend(typing.get_args(part) if typing.get_origin(part) is typing.Literal else ())
    return tuple(found)


def _flat(branches: tuple[Any, ...]) -> Iterator[Any]:
    for branch in branches:
        if typing.get_origin(branch) in (typing.Union, types.UnionType):
            yield from _flat(typing.get_args(branch))
        elif typing.get_origin(branch) is typing.Annotated:
            yield from _flat(typing.get_args(branch)[:1])
        else:
            yield branch


def _of_union(value: Any, branches: tuple[Any, ...], path: str) -> Iterator[str]:
    candidates = list(_flat(branches))
    if isinstance(value, dict):
        for name in ("type", "role"):
            tagged = [b for b in candidates if typing_extensions.is_typeddict(b) and value.get(name) in _tag(b, name)]
            if tagged:
                candidates = tagged
                break
    found = [list(misfits(value, branch, path)) for branch in candidates]
    if all(found):
        yield from min(found, key=len)
