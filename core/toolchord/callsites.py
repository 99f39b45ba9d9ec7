"""Owns what a guest is told of its tools, and what it checks a program's uses of them with before it runs.

Only what is certain is told. A result's keys are final if the tool's own model makes the result, or its schema says
``additionalProperties: false``; a written argument is judged if nothing but types decides whether it fits.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from toolchord.catalogue import Catalogue, identifier_for
from toolchord.schema import dereference
from toolchord.tools import Tool

_DEPTH = 5
_FIELDS = 100
_VALUES = 100
_WORD = re.compile(r"\w+")


def stubs_of(catalogue: Catalogue, code: str) -> list[dict[str, Any]]:
    """What a guest is told of its tools; more of those that the program's text could mean."""
    named = {**catalogue.names}
    for space, members in catalogue.namespaces.items():
        registered = {e.tool.name: e for e in members.values() if e.tool.name.isidentifier()}
        named.update({f"{space}.{name}": exposed for name, exposed in {**registered, **members}.items()})
    words, spellings = spoken_of(catalogue, code)
    stubs = []
    for name, exposed in named.items():
        tool = exposed.tool
        stub = {
            "name": name,
            "tool": tool.full_name,
            "doc": tool.metadata.description,
            "async": tool.is_async,
            "list_field": tool.list_field,
        }
        if spoken := spellings.get(tool.full_name, []):
            stub["spellings"] = spoken
        if (spoken or name.rpartition(".")[2] in words) and (check := check_of(tool)) is not None:
            stub["check"] = check
        stubs.append(stub)
    for name, why in closed_of(catalogue, words):
        stubs.append({"name": name, "tool": name, "closed": why, "spellings": [name]})
    return stubs


def check_of(tool: Tool) -> dict[str, Any] | None:
    """What is known of a tool's call for certain, as plain data; None if nothing is."""
    return _check_of(tool) if tool.is_loaded else None


@functools.lru_cache(8192)
def _check_of(tool: Tool) -> dict[str, Any]:
    form = tool.form
    schema = tool.metadata.argument_schema or {}
    properties = schema.get("properties", {})
    types = {name: _type(sub, schema, 0) for name, sub in properties.items()} if tool.plain_types else {}
    return {
        "names": list(form.names),
        "required": [name for name in form.names if name in form.required],
        "positional": list(form.positional),
        "rest": form.rest,
        "open": form.open_ended,
        "dict": form.dict_is_value,
        "untyped": form.untyped_first,
        "types": {name: spec for name, spec in types.items() if spec is not None and name != form.rest},
        "call": tool.signature[:600],
        "returns": tool.final_keys,
    }


def spoken_of(catalogue: Catalogue, code: str) -> tuple[set[str], dict[str, list[str]]]:
    """A program's words, and by full name of a tool the spellings of it that they could make up."""
    words = set(_WORD.findall(code))
    found: dict[str, list[str]] = {}
    for spelling, full_name, parts in _spellings(catalogue):
        if parts <= words:
            found.setdefault(full_name, []).append(spelling)
    return words, found


def closed_of(catalogue: Catalogue, words: set[str]) -> list[tuple[str, str]]:
    """The spellings of tools that are not open to programs, as far as a program's words could make them up, and why."""
    return [(name, catalogue.explain(name)) for name, parts in _closed_spellings(catalogue) if parts <= words]


@functools.lru_cache(16)
def _closed_spellings(catalogue: Catalogue) -> tuple[tuple[str, frozenset[str]], ...]:
    open_names = {name for name, _ in catalogue.spellings()}
    names: dict[str, None] = {}
    for tool in catalogue.closed:
        for name in (identifier_for(tool), tool.name, *tool.aliases):
            names |= {name: None, f"{tool.namespace}.{name}": None}
    return tuple((name, frozenset(_WORD.findall(name))) for name in names if name not in open_names)


@functools.lru_cache(16)
def _spellings(catalogue: Catalogue) -> tuple[tuple[str, str, frozenset[str]], ...]:
    return tuple(
        (name, exposed.tool.full_name, frozenset(_WORD.findall(name))) for name, exposed in catalogue.spellings()
    )


def _type(schema: Any, root: Mapping[str, Any], depth: int) -> dict[str, Any] | None:
    """A JSON Schema as what a written value is compared with, or None if it leaves the value open."""
    schema = dereference(schema, root)
    if not isinstance(schema, Mapping) or depth > _DEPTH or "allOf" in schema or "not" in schema:
        return None
    branches = schema.get("anyOf") or schema.get("oneOf")
    kind = schema.get("type")
    if isinstance(kind, list):
        branches = [{**schema, "type": one} for one in kind]
    if branches:
        specs = [_type(branch, root, depth + 1) for branch in branches]
        return None if None in specs else {"any": specs}
    if "enum" in schema or "const" in schema:
        values = list(schema.get("enum", [schema.get("const")]))
        plain = all(value is None or type(value) in (str, int, float, bool) for value in values)
        return {"values": values} if plain and len(values) <= _VALUES else None
    if kind not in ("string", "integer", "number", "boolean", "array", "object", "null"):
        return None
    spec: dict[str, Any] = {"type": kind}
    if schema.get("format"):
        spec["format"] = True
    if kind == "array" and "prefixItems" not in schema and (items := _type(schema.get("items"), root, depth + 1)):
        spec["items"] = items
    if kind == "object":
        fields = list(schema.get("properties", {}).items())[:_FIELDS]
        inner = {name: one for name, sub in fields if (one := _type(sub, root, depth + 1)) is not None}
        if inner:
            spec["fields"] = inner
    return spec
