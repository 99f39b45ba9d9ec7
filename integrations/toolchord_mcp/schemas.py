"""Owns the check of a server's schemas: whether they are schemas, and whether reading them comes to an end.

One that refers to itself is fine where each round takes a step into the data. One that turns in a circle, or whose
alternatives unfold into thousands at one place, would hold the host up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator, SchemaError
from jsonschema.validators import validator_for

from toolchord.errors import RegistrationError

_LARGEST = 256 << 10
_DEEPEST = 60
_LEVELS = 6  # of data, to which stubs are written out
_MOST = 5_000
_IN_PLACE = ("anyOf", "oneOf", "allOf")


def check_schema(name: str, schema: dict[str, Any]) -> None:
    """Check an object schema.

    Args:
        name: what it is called in the error.
        schema: plain JSON.

    Raises:
        RegistrationError: it is no JSON Schema of an object, too large, too deep, or without end.
    """
    if schema.get("type", "object") != "object":
        raise RegistrationError(f"its {name} must be of type 'object', not {schema['type']!r:.100}")
    if len(json.dumps(schema)) > _LARGEST:
        raise RegistrationError(f"its {name} is larger than {_LARGEST:,} bytes")
    if _depth(schema) > _DEEPEST:
        raise RegistrationError(f"its {name} is nested deeper than {_DEEPEST} levels")
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        where = ".".join(map(str, error.absolute_path))
        raise RegistrationError(f"its {name} is no JSON Schema: {where or name}: {error.message:.200}") from None
    unfolding = _Unfolding(schema)
    unfolding.count(schema, _LEVELS)
    if unfolding.count(schema, 1) > _MOST:  # of its arguments
        raise RegistrationError(f"its {name} unfolds into more than {_MOST:,} alternatives")
    if unfolding.circle:
        raise RegistrationError(f"its {name} turns in a circle: a $ref leads back to where it is, with no step between")


def _depth(value: Any) -> int:
    """How deep a value is nested; json.dumps has passed it, so that recursion is safe."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, children), default=0)


class _Unfolding:
    """How many types a schema is made of where each reference is written out.

    Attributes:
        circle: it has references that lead back to themselves at the same place in the data.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self.circle = False
        self._root = root
        self._counts: dict[tuple[int, int], int] = {}
        self._open: set[tuple[int, int]] = set()

    def count(self, schema: Any, levels: int) -> int:
        """The types of a schema, down to some levels of data."""
        if not isinstance(schema, dict):
            return 1
        key = (id(schema), levels)
        if key in self._open:
            self.circle = True
            return 1
        if key not in self._counts:
            self._open.add(key)
            same = sum(self.count(child, levels) for child in self._same_place(schema))
            below = sum(self.count(child, levels - 1) for child in _below(schema)) if levels else 0
            self._counts[key] = min(1 + same + below, _MOST + 1)
            self._open.discard(key)
        return self._counts[key]

    def _same_place(self, schema: dict[str, Any]) -> Iterator[Any]:
        """What says more of the same place in the data."""
        if isinstance(ref := schema.get("$ref"), str):
            yield self._target(ref)
        for keyword in _IN_PLACE:
            if isinstance(branches := schema.get(keyword), list):
                yield from branches

    def _target(self, ref: str) -> Any:
        """What one reference points to, itself perhaps a reference."""
        target: Any = self._root
        for part in ref.removeprefix("#").strip("/").split("/"):
            if part:
                part = part.replace("~1", "/").replace("~0", "~")
                target = target.get(part, {}) if isinstance(target, dict) else {}
        return target


def _below(schema: dict[str, Any]) -> Iterator[Any]:
    """What says something of the places below."""
    for keyword in ("items", "additionalProperties"):
        yield schema.get(keyword)
    if isinstance(prefix := schema.get("prefixItems"), list):
        yield from prefix
    if isinstance(properties := schema.get("properties"), dict):
        yield from properties.values()
