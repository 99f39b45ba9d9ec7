"""Owns the shapes of results that tools did not declare: seen as they pass, kept as types, never as values.

A shape is a JSON Schema of what was seen so far. Of a dict, keys that look like names are kept; keys that look like
data (ids, addresses, credentials, or very many) are told as ``dict[str, ...]``, so no content gets into a prompt.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import re
import tempfile
import threading
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from toolchord.errors import ConfigurationError
from toolchord.redact import redact
from toolchord.tools import Tool

__all__ = ["ShapeStore"]

FORMAT = 1
_DEPTH = 4
_KEYS = 40
_ITEMS = (1, 2, 3, 6, 20)  # of a list that are looked at, by the depth that is left
_KINDS = 4
_TOOLS = 5000
_LONGEST_KEY = 40
_SETTLED = 200  # results of one tool that are looked at; later ones change little
_NAME = re.compile(r"[A-Za-z][A-Za-z]*(?:[_\- .]?[A-Za-z]+)*\d{0,2}")
_SCALARS: dict[type, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: {"type": "string", "format": "binary"},
    type(None): {"type": "null"},
    dt.datetime: {"type": "string", "format": "date-time"},
    dt.date: {"type": "string", "format": "date"},
    dt.time: {"type": "string", "format": "time"},
    dt.timedelta: {"type": "string", "format": "duration"},
    Decimal: {"type": "string", "format": "decimal"},
    UUID: {"type": "string", "format": "uuid"},
}

Shape = dict[str, Any]


class ShapeStore:
    """Shapes by tool, in memory, and in a small file if a path is given.

    Args:
        path: a JSON file; read at once, written by `save`. None: the shapes live as long as this object.

    Raises:
        ConfigurationError: the file is none of ours.

    Examples:
        >>> from toolchord import CodeSandbox, create_registry, format_tools_for_llm
        >>> registry, shapes = create_registry(), ShapeStore()
        >>> tool = registry.add(lambda: {"id": 7, "name": "Ann"}, "get_user")
        >>> with CodeSandbox(registry, shapes=shapes) as sandbox:
        ...     result = sandbox.execute_sync("return get_user().name")
        >>> print(format_tools_for_llm(registry, shapes=shapes).split("\\n\\n")[1])
        class GetUserObserved(TypedDict):
            id: int
            name: str
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = None if path is None else Path(path)
        self._shapes: dict[str, Shape] = {}
        self._seen: dict[str, int] = {}
        self._lock = threading.Lock()
        self._changed = False
        if self._path is not None and self._path.exists():
            self._shapes = _read(self._path)

    def observe(self, tool: Tool, value: Any) -> None:
        """Note what a tool gave, if it did not declare it."""
        name = tool.full_name
        if tool.metadata.result_schema is not None or self._seen.get(name, 0) >= _SETTLED:
            return
        seen = _shape_of(value, _DEPTH)
        with self._lock:
            self._seen[name] = self._seen.get(name, 0) + 1
            known = self._shapes.get(name)
            if known is None and len(self._shapes) >= _TOOLS:
                return
            merged = seen if known is None else _merged(known, seen, _DEPTH)
            if merged != known:
                self._shapes[name] = merged
                self._changed = True

    def shape(self, tool: Tool) -> Shape | None:
        """What was seen of a tool's results, as JSON Schema; None if nothing was, or if it declares them."""
        if tool.metadata.result_schema is not None:
            return None
        return self._shapes.get(tool.full_name)

    def forget(self, tool: str | None = None) -> None:
        """Forget one tool by its full name, or all of them."""
        with self._lock:
            for name in list(self._shapes) if tool is None else [tool]:
                self._changed = self._shapes.pop(name, None) is not None or self._changed
                self._seen.pop(name, None)

    def save(self) -> None:
        """Write the file if something has changed, in one step: a reader never sees half of it."""
        if self._path is None or not self._changed:
            return
        with self._lock:
            text = json.dumps({"format": FORMAT, "shapes": self._shapes}, indent=1, sort_keys=True)
            self._changed = False
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(name, self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _read(path: Path) -> dict[str, Shape]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"{path.name} holds no shapes ({error}); delete it, or give another path") from None
    if not isinstance(held, dict) or held.get("format") != FORMAT or not isinstance(held.get("shapes"), dict):
        raise ConfigurationError(f"{path.name} holds no shapes of format {FORMAT}; delete it, or give another path")
    shapes: dict[str, Shape] = held["shapes"]
    if not all(isinstance(name, str) and isinstance(shape, dict) for name, shape in shapes.items()):
        raise ConfigurationError(f"{path.name} holds something else than shapes; delete it, or give another path")
    return shapes


# shapes of values


def _shape_of(value: Any, depth: int) -> Shape:
    kind = type(value)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return _shape_of_dict(value, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return _shape_of_items(value, depth)
    base = next((base for base in (bool, int, float, str, bytes) if isinstance(value, base)), None)
    return _SCALARS[base] if base is not None else {}


def _shape_of_dict(value: Mapping[Any, Any], depth: int) -> Shape:
    if depth <= 0:
        return {"type": "object"}
    if len(value) > _KEYS or not all(isinstance(key, str) and _is_name(key) for key in value):
        inner: Shape | None = None
        for item, _ in zip(value.values(), range(_ITEMS[depth]), strict=False):
            seen = _shape_of(item, depth - 1)
            inner = seen if inner is None else _merged(inner, seen, depth - 1)
        return {"type": "object", "additionalProperties": inner or {}}
    properties = {key: _shape_of(item, depth - 1) for key, item in value.items()}
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _is_name(key: str) -> bool:
    """Whether a key is a field's name rather than data: words, no long digits, nothing that `redact` would mask."""
    return len(key) <= _LONGEST_KEY and _NAME.fullmatch(key) is not None and redact(key) == key


def _shape_of_items(value: Any, depth: int) -> Shape:
    outer: Shape = {"type": "array"}
    if isinstance(value, set | frozenset):
        outer["uniqueItems"] = True
    if depth <= 0:
        return outer
    items: Shape | None = None
    for item, _ in zip(value, range(_ITEMS[depth]), strict=False):
        seen = _shape_of(item, depth - 1)
        items = seen if items is None else _merged(items, seen, depth - 1)
    return {**outer, "items": items} if items is not None else outer


# what two of them have in common


def _merged(one: Shape, other: Shape, depth: int) -> Shape:
    if one == other:
        return one
    kinds: list[Shape] = []
    for shape in (*one.get("anyOf", [one]), *other.get("anyOf", [other])):
        for position, known in enumerate(kinds):
            if _alike(known, shape):
                kinds[position] = _joined(known, shape, depth)
                break
        else:
            kinds.append(shape)
    kinds.sort(key=lambda shape: (shape.get("type") == "null", str(shape.get("type")), str(shape.get("format"))))
    if {} in kinds or len(kinds) > _KINDS:
        return {}
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _alike(one: Shape, other: Shape) -> bool:
    numbers = {one.get("type"), other.get("type")} <= {"integer", "number"}
    return numbers or (one.get("type") == other.get("type") and one.get("format") == other.get("format"))


def _joined(one: Shape, other: Shape, depth: int) -> Shape:
    kind = one.get("type")
    if kind != other.get("type"):
        return {"type": "number"}
    if kind == "array":
        known = [shape["items"] for shape in (one, other) if "items" in shape]
        items = _merged(known[0], known[-1], depth - 1) if known else None
        unique = one.get("uniqueItems") and other.get("uniqueItems")
        return {"type": "array", **({"uniqueItems": True} if unique else {}), **({"items": items} if known else {})}
    if kind != "object":
        return one
    if "properties" in one and "properties" in other:
        first, second = one["properties"], other["properties"]
        names = [*first, *(name for name in second if name not in first)]
        if len(names) <= _KEYS:
            fields = {
                name: _merged(first.get(name, second.get(name)), second.get(name, first.get(name)), depth - 1)
                for name in names
            }
            always = sorted(set(one.get("required", ())) & set(other.get("required", ())))
            return {"type": "object", "properties": fields, "required": always}
    inner = [*_values(one), *_values(other)]
    joined: Shape = {}
    if inner:
        joined = inner[0]
        for shape in inner[1:]:
            joined = _merged(joined, shape, depth - 1)
    return {"type": "object", "additionalProperties": joined}


def _values(shape: Shape) -> list[Shape]:
    if "properties" in shape:
        return list(shape["properties"].values())
    return [shape["additionalProperties"]] if "additionalProperties" in shape else []
