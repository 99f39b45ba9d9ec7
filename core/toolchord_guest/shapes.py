"""What a value looks like, in words: its type, its keys and their types, how many; never what it holds.

Only the runtime's own types are looked into, so none of a program's code runs here.
"""

from __future__ import annotations

import types
from typing import Any

from toolchord_guest.link import Record, Rows

DICTS = (dict, Record, Rows)
_KEYS = 12
_NESTED = 6
_NAMES = {Record: "dict", Rows: "dict", types.NoneType: "None"}
_SEEN = 50


def is_dict(value: object) -> bool:
    """Whether a value is a dict of the runtime's own making."""
    return type(value) in DICTS


def keys_of(value: Any) -> list[Any]:
    """The keys of a dict, in order."""
    return list(dict.keys(value))


def name_of(value: object) -> str:
    """The name of a value's type."""
    cls = type(value)
    return _NAMES.get(cls) or str(type.__dict__["__name__"].__get__(cls))


def described(value: Any, depth: int = 2) -> str:
    """A value in words, such as ``a list of 3 dicts with keys 'id' (int), 'name' (str)``."""
    if is_dict(value):
        return f"a dict {_keys(value, depth)}" if dict.__len__(value) else "an empty dict"
    if type(value) in (list, tuple, set, frozenset):
        return _several(value, depth)
    if value is None:
        return "None"
    if type(value) is str:
        text = f"text of {len(value)} characters" if value else "empty text"
        return f"{text} that holds JSON" if looks_like_json(value) else text
    name = name_of(value)
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


def looks_like_json(text: str) -> bool:
    """Whether text is a JSON object or array, by its ends."""
    ends = text.strip()[:1] + text.strip()[-1:]
    return ends in ("{}", "[]") and len(text) > 1


def _keys(value: Any, depth: int) -> str:
    keys = keys_of(value)
    limit = _KEYS if depth > 1 else _NESTED
    shown = [f"{_short(key)} ({_kind(dict.__getitem__(value, key), depth - 1)})" for key in keys[:limit]]
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return f"with {'key' if len(keys) == 1 else 'keys'} {', '.join(shown)}{more}"


def _kind(value: Any, depth: int) -> str:
    """A value's type for a list of keys; what is inside of it too, if `depth` allows."""
    if type(value) in (list, tuple, set, frozenset) and depth > 0 and len(value):
        return _several(value, 1).partition(" ")[2]
    return name_of(value)


def _several(value: Any, depth: int) -> str:
    kind, count = name_of(value), len(value)
    if not count:
        return f"an empty {kind}"
    items = [item for item, _ in zip(value, range(_SEEN), strict=False)]
    names = list(dict.fromkeys(map(name_of, items)))
    if len(names) > 1:
        return f"a {kind} of {count} items ({', '.join(names[:4])}{', …' if len(names) > 4 else ''})"
    plural = names[0] if count == 1 or names[0] == "None" else f"{names[0]}s"
    inner = f" {_keys(items[0], depth)}" if is_dict(items[0]) and depth > 0 and dict.__len__(items[0]) else ""
    return f"a {kind} of {count} {plural}{inner}"


def _short(key: Any) -> str:
    text = repr(key) if type(key) in (str, int, float, bool, types.NoneType) else name_of(key)
    return text if len(text) <= 60 else text[:58] + "…"
