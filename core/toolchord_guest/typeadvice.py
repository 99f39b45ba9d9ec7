"""What to say of a TypeError: its message says what the types were, the source and the frame say of what."""

from __future__ import annotations

import ast
import re
import types
from collections.abc import Callable, Iterable
from typing import Any

from toolchord_guest.places import MISSING, Advice, Place, operands, says, shown, suspects, text_of, value_at
from toolchord_guest.shapes import looks_like_json, name_of


def of_one(name: str, several: Any, written: str) -> str:
    """How to read an item's key where there are several items."""
    if not several:
        return f"{name} is empty: check that before"
    return f"take one of them, {name}[0]{written}, or all: [item{written} for item in {name}]"


def quoted(message: str) -> str:
    """The first thing that a message puts into quotes."""
    found = re.search(r"'([^']+)'", message)
    return found[1] if found else ""


_TypeRule = Callable[[re.Match[str], Place], Advice]


def _indices(match: re.Match[str], place: Place) -> Advice:
    node = place.node if isinstance(place.node, ast.Subscript) else None
    holder = value_at(node.value, place.scope) if node is not None else MISSING
    name = text_of(node.value) if node is not None else "it"
    key = f"[{text_of(node.slice)}]" if node is not None else "[…]"
    seen = says(node.value, holder) if node is not None else ""
    if match[1] == "string":
        if type(holder) is str and looks_like_json(holder):
            return Advice(seen, f"read it first: json.loads({name}){key}")
        return Advice(seen or f"{name} is text.", f"{name} is text, not a dict: leave {key} out, or loop over dicts")
    if type(holder) in (list, tuple):
        return Advice(seen, of_one(name, holder, key))
    return Advice(seen or f"{name} is a {match[1]}.", f"take one item of it first: {name}[0]{key}")


def _no_subscript(match: re.Match[str], place: Place) -> Advice:
    kind = match[1]
    node = place.node.value if isinstance(place.node, ast.Subscript) else place.node
    name = text_of(node) or "it"
    if kind == "coroutine":
        return Advice(f"{name} is a coroutine that was not awaited.", f"write (await {name})")
    if kind == "NoneType":
        return Advice(f"{name} is None.", f"find out why it is None, or check first: if {name} is not None")
    if kind in ("ToolFunction", "function", "method", "builtin_function_or_method"):
        return Advice(f"{name} is a function.", f"call it: {name}(...)")
    return Advice(f"{name} is {'an' if kind[0] in 'aeiou' else 'a'} {kind}.", f"use {name} itself; it holds nothing")


def _not_iterable(match: re.Match[str], place: Place) -> Advice:
    parts = suspects(place, lambda value: name_of(value) in (match[1], "None"))
    node = parts[0][0] if parts else None
    name = text_of(node) or "it"
    if match[1] == "NoneType":
        return Advice(f"{name} is None.", f"find out why it is None, or write {name} or []")
    if match[1] == "coroutine":
        return Advice(f"{name} is a coroutine that was not awaited.", f"write await before {name}")
    if match[1] in ("function", "ToolFunction", "method"):
        return Advice(f"{name} is a function.", f"call it: {name}(...)")
    return Advice(
        f"{name} is {'an' if match[1][0] in 'aeiou' else 'a'} {match[1]}.", f"write [{name}], or range({name})"
    )


def _operation(match: re.Match[str], place: Place) -> Advice:
    left, right = match[2], match[3]
    kinds = {left, right}
    seen = (
        shown(place, lambda value: name_of(value) in (*kinds, "None", "dict", "list"))
        or f"One side is {left}, the other {right}."
    )
    if "NoneType" in kinds:
        default = "''" if "str" in kinds else "0"
        fix = f"check for None first, or use a default: (x or {default})"
    elif "coroutine" in kinds:
        fix = "write await before the call"
    elif "str" in kinds and kinds & {"int", "float", "Decimal"}:
        fix = "convert one side: int(…) or float(…) of the text, or str(…) of the number"
    elif kinds == {"Decimal", "float"}:
        fix = "make both the same: Decimal(str(x)) or float(x)"
    elif kinds & {"dict", "list"}:
        fix = "take the item that you mean out of it first"
    else:
        fix = f"convert one side, so that both are {left} or both are {right}"
    return Advice(seen, fix)


def _concatenate(match: re.Match[str], place: Place) -> Advice:
    if match[1] == "str":
        fix = "use an f-string, f'{…}', or str(…)"
    else:
        fix = f"make both a {match[1]}: [*a, *b]" if match[1] == "list" else f"make both a {match[1]}"
    return Advice(shown(place) or f"One side is {match[1]}, the other {match[2]}.", fix)


def _unhashable(match: re.Match[str], place: Place) -> Advice:
    fix = {
        "dict": "use one of its values, such as item['id'], as the key",
        "list": "use tuple(…) of it",
        "set": "use frozenset(…) of it",
    }.get(match[1], "use something else as the key")
    return Advice(shown(place, lambda value: name_of(value) in (match[1], "list", "dict")), fix)


def _json_input(match: re.Match[str], place: Place) -> Advice:
    parts = [(p, v) for p, v in operands(place) if name_of(v) == match[1]]
    name = text_of(parts[0][0]) if parts else "the value"
    return Advice(says(*parts[0]) if parts else "", f"it is data already: use {name} without json.loads")


def _to_json(match: re.Match[str], place: Place) -> Advice:
    return Advice(
        shown(place), f"return the value itself (a {match[1]} may be returned), or json.dumps(…, default=str)"
    )


def _arguments(match: re.Match[str], place: Place) -> Advice:
    name = match[1].rpartition(".")[2]
    function = place.scope.get(name)
    if type(function) is types.FunctionType:
        code = function.__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        return Advice(f"{name} takes ({', '.join(names)}).", f"call it with these: {name}({', '.join(names)})")
    return Advice("", f"look at how {name} is defined")


def _not_callable(match: re.Match[str], place: Place) -> Advice:
    node = place.node.func if isinstance(place.node, ast.Call) else place.node
    name = text_of(node) or "it"
    hidden = isinstance(node, ast.Name) and node.id in place.scope
    seen = says(node, value_at(node, place.scope)) or f"{name} is a {match[1]}."
    if hidden and match[1] not in ("module",):
        return Advice(seen, f"{name} was assigned before: give that variable another name, or leave the () out")
    return Advice(seen, f"leave the () out: {name}")


def _awaited(match: re.Match[str], place: Place) -> Advice:
    return Advice("", "leave await out: it is a value already")


def _format(match: re.Match[str], place: Place) -> Advice:
    values = [v for v in ast.walk(place.node) if isinstance(v, ast.FormattedValue)] if place.node else []
    said = [says(v.value, value_at(v.value, place.scope)) for v in values]
    return Advice(" ".join(text for text in said if text), "check for None first, or convert it: float(…)")


def unpack(match: re.Match[str], place: Place) -> Advice:
    """Too few or too many names for the items."""
    return Advice(shown(place), "unpack as many names as there are items, or loop over them")


_TYPE_RULES: list[tuple[str, _TypeRule]] = [
    (r"^(list|tuple|string) indices must be integers", _indices),
    (r"^'(\w+)' object is not subscriptable", _no_subscript),
    (r"^'(\w+)' object (?:is not iterable|does not support the (?:asynchronous )?)", _not_iterable),
    (r"^object of type '(\w+)' has no len", _not_iterable),
    (r"^argument of type '(\w+)' is not iterable", _not_iterable),
    (r"^cannot unpack non-iterable (\w+) object", _not_iterable),
    (r"unsupported operand type\(s\) for ([^:]+): '(\w+)' and '(\w+)'", _operation),
    (r"^'([^']+)' not supported between instances of '(\w+)' and '(\w+)'", _operation),
    (r"can only concatenate (\w+) \(not \"(\w+)\"\)", _concatenate),
    (r"sequence item \d+: expected (str) instance, (\w+) found", _concatenate),
    (r"unhashable type: '(\w+)'", _unhashable),
    (r"the JSON object must be str, bytes or bytearray, not (\w+)", _json_input),
    (r"Object of type (\w+) is not JSON serializable", _to_json),
    (r"^([\w.<>]+)\(\) (?:missing|takes|got)", _arguments),
    (r"^'(\w+)' object is not callable", _not_callable),
    (r"object (\w+) can't be used in 'await' expression", _awaited),
    (r"unsupported format string passed to (\w+)", _format),
]


def type_error(error: BaseException, place: Place, tools: Iterable[str]) -> Advice | None:
    """See `advice.RULES`."""
    if type(error) is not TypeError:
        return None
    message = str(error)
    for pattern, rule in _TYPE_RULES:
        if (match := re.search(pattern, message)) is not None:
            return rule(match, place)
    seen = shown(place)
    return Advice(seen) if seen else None
