"""What to say of errors by their kind: what the value looked like, the nearest name, the smallest fix."""

from __future__ import annotations

import ast
import re
import types
from collections.abc import Callable, Iterable
from typing import Any

from toolchord_guest.calls import PendingCall, ToolError, ToolFunction
from toolchord_guest.names import near
from toolchord_guest.places import MISSING, Advice, Place, operands, says, shown, text_of, value_at
from toolchord_guest.shapes import described, is_dict, keys_of, looks_like_json, name_of
from toolchord_guest.typeadvice import of_one, quoted, type_error, unpack


def _key_error(error: BaseException, place: Place, tools: Iterable[str]) -> Advice | None:
    if type(error) is not KeyError or not error.args:
        return None
    key = error.args[0]
    if type(key) not in (str, int, float, bool, types.NoneType):  # to compare or show others would run the program
        return Advice(shown(place))
    node, holder = _holder(place, key)
    made_here = getattr(error, "obj", MISSING)
    if holder is MISSING and is_dict(made_here):
        holder = made_here
    return _missing_key(node, holder, key, f"[{key!r}]") if is_dict(holder) else None


def _holder(place: Place, key: Any) -> tuple[ast.AST | None, Any]:
    """The dict that lacks a key: what is subscripted there, or the one on that line which lacks it."""
    nodes = [place.node] if isinstance(place.node, ast.Subscript) else []
    if place.node is not None:
        nodes += [n for n in ast.walk(place.node) if isinstance(n, ast.Subscript)]
    for node in nodes:
        value = value_at(node.value, place.scope)
        if is_dict(value) and not _has(value, key):
            return node.value, value
    return (nodes[0].value if nodes else None), MISSING


def _has(value: Any, key: Any) -> bool:
    return any(type(one) is type(key) and one == key for one in keys_of(value))


def _missing_key(node: ast.AST | None, holder: Any, key: Any, written: str) -> Advice:
    name = text_of(node) or "the dict"
    keys = keys_of(holder)
    seen = f"{name} is {described(holder)}."
    if twin := next((k for k in keys if type(k) is not type(key) and str(k) == str(key)), None) or (
        key if type(key) is int and not keys else None
    ):
        return Advice(seen, f"the key is {type(twin).__name__} {twin!r}: write {name}[{twin!r}]")
    close = near(key, [k for k in keys if type(k) is str]) if type(key) is str else []
    if close:
        return Advice(seen, f"write {name}[{close[0]!r}] instead of {name}{written}")
    for outer in keys:
        inner = dict.get(holder, outer)
        if is_dict(inner) and _has(inner, key):
            return Advice(seen, f"it is one level deeper: write {name}[{outer!r}][{key!r}]")
        if type(inner) in (list, tuple) and inner and is_dict(inner[0]) and _has(inner[0], key):
            return Advice(seen, f"{name}[{outer!r}] is a list: write [item[{key!r}] for item in {name}[{outer!r}]]")
    if not keys:
        return Advice(seen, f"check that there is something in it, or write {name}.get({key!r})")
    return Advice(seen, f"use one of its keys, or {name}.get({key!r}) if it may be missing")


def _attribute_error(error: BaseException, place: Place, tools: Iterable[str]) -> Advice | None:
    if not isinstance(error, AttributeError) or isinstance(error, ToolError):
        return None
    holder, key = error.obj, error.name
    node = place.node.value if isinstance(place.node, ast.Attribute) else None
    if key is None and isinstance(place.node, ast.Attribute):  # a facade's, or a namespace's
        holder, key = value_at(node, place.scope), place.node.attr
    elif type(holder) is PendingCall:
        holder = value_at(node, place.scope)
    if key is None or holder is MISSING:
        return None
    name = text_of(node) or "it"
    if is_dict(holder):
        return _missing_key(node, holder, key, f".{key}")
    if isinstance(holder, ToolFunction):
        return Advice(f"{name} is a tool, a function.", f"call it first: (await {name}(...)).{key}")
    if type(holder) is types.CoroutineType:
        return Advice(f"{name} is a coroutine that was not awaited.", f"write (await {name}).{key}")
    if type(holder) in (list, tuple):
        return Advice(says(node, holder), of_one(name, holder, f".{key}"))
    if type(holder) is str and looks_like_json(holder):
        return Advice(says(node, holder), f"read it first: json.loads({name})[{key!r}]")
    if holder is None:
        return Advice(f"{name} is None.", f"find out why it is None, or check first: if {name} is not None")
    if type(holder) is types.ModuleType or name_of(holder) in ("Facade", "Namespace"):
        close = near(key, _public(holder))
        return Advice("", f"write {name}.{close[0]}") if close else None
    close = near(key, _public(holder))
    return Advice(says(node, holder), f"write {name}.{close[0]}" if close else "")


def _public(value: object) -> list[str]:
    """Attribute names of a value's class, and of a module or namespace itself."""
    found: dict[str, None] = {}
    for cls in type.__dict__["__mro__"].__get__(type(value)):
        found |= dict.fromkeys(type.__dict__["__dict__"].__get__(cls))
    own = getattr(value, "__dict__", None) if name_of(value) in ("Facade", "Namespace") else None
    found |= dict.fromkeys(own or ())
    return [name for name in found if isinstance(name, str) and not name.startswith(("_", "<"))]


def _name_error(error: BaseException, place: Place, tools: Iterable[str]) -> Advice | None:
    if isinstance(error, UnboundLocalError):
        name = getattr(error, "name", None) or quoted(str(error))
        return Advice(
            f"{name} is assigned in this function, so it is local to it from the first line on.",
            f"write `global {name}` (or `nonlocal {name}`) first in the function, or pass it in as an argument",
        )
    if not isinstance(error, NameError):
        return None
    name = error.name or quoted(str(error))
    builtins: Any = place.scope.get("__builtins__", {})
    known = [n for n in (*place.scope, *tools) if not n.startswith(("_", "<"))]
    known += [n for n in builtins if not n.startswith(("_", "<")) and n[0].isupper() == name[:1].isupper()]
    close = near(name, known)
    if name in _JAVASCRIPT:
        return Advice("", f"in Python it is {_JAVASCRIPT[name]}")
    if name in _IMPORTS:
        return Advice("", f"import it first: {_IMPORTS[name]}")
    return Advice("", f"write {close[0]}") if close else Advice("", f"assign {name} before it is used")


_JAVASCRIPT = {"true": "True", "false": "False", "null": "None", "undefined": "None", "nil": "None", "console": "print",
               "NaN": "float('nan')", "JSON": "json.loads or json.dumps"}  # fmt: skip
_IMPORTS = {name: f"import {name}" for name in
            "json math re asyncio itertools collections statistics random time functools operator csv uuid "
            "textwrap hashlib base64 string".split()} | {
    "defaultdict": "from collections import defaultdict", "Counter": "from collections import Counter",
    "datetime": "from datetime import datetime", "date": "from datetime import date",
    "timedelta": "from datetime import timedelta", "Decimal": "from decimal import Decimal",
    "dataclass": "from dataclasses import dataclass", "gather": "from asyncio import gather",
    "deque": "from collections import deque", "reduce": "from functools import reduce",
    "ThreadPoolExecutor": "from concurrent.futures import ThreadPoolExecutor", "mean": "from statistics import mean",
    "Optional": "from typing import Optional", "Any": "from typing import Any",
    "np": "statistics and math, for there is no numpy",
    "pd": "lists and dicts, for there is no pandas",
}  # fmt: skip


def _index_error(error: BaseException, place: Place, tools: Iterable[str]) -> Advice | None:
    if type(error) is not IndexError:
        return None
    node = place.node if isinstance(place.node, ast.Subscript) else None
    if node is None and place.node is not None:
        node = next((n for n in ast.walk(place.node) if isinstance(n, ast.Subscript)), None)
    holder = value_at(node.value, place.scope) if node is not None else MISSING
    if node is None or type(holder) not in (list, tuple, str):
        return Advice("", "check how many there are before")
    name = text_of(node.value)
    if not holder:
        return Advice(says(node.value, holder), f"check first: if {name}: …")
    return Advice(says(node.value, holder), f"its last item is {name}[{len(holder) - 1}], or {name}[-1]")


def _value_error(error: BaseException, place: Place, tools: Iterable[str]) -> Advice | None:
    if not isinstance(error, ValueError) or isinstance(error, ToolError):
        return None
    message = str(error)
    if name_of(error) == "JSONDecodeError":
        empty = operands(place) and not operands(place)[-1][1]
        fix = (
            "check that there is text in it first"
            if empty
            else "it is no JSON: use the text as it is, or clean it first"
        )
        return Advice(shown(place), fix)
    if match := re.search(r"(?:not enough|too many) values to unpack \(expected (?:at least )?(\d+)", message):
        return unpack(match, place)
    if "invalid literal for int()" in message:
        return Advice(shown(place), "write int(float(…)) for a decimal, and strip signs such as ',' or '$' first")
    if "could not convert string to float" in message:
        return Advice(shown(place), "strip signs such as ',' or '$' first: float(x.replace(',', ''))")
    if "does not match format" in message or "unconverted data remains" in message:
        return Advice(shown(place), "write datetime.fromisoformat(…), or a format that fits the text above")
    if "Invalid isoformat string" in message:
        return Advice(shown(place), "write datetime.strptime(…, format) with a format that fits the text above")
    if "empty" in message and re.search(r"\b(min|max)\(\)", message):
        return Advice(shown(place), "give a default: max(…, default=None)")
    if "is not in list" in message:
        return Advice(shown(place), "check with `in` first")
    seen = shown(place)
    return Advice(seen) if seen else None


def _others(error: BaseException, place: Place, tools: Iterable[str]) -> Advice | None:
    name = name_of(error)
    if isinstance(error, ZeroDivisionError):
        right = place.node.right if isinstance(place.node, ast.BinOp) else None
        divisor = text_of(right) or "the divisor"
        return Advice(f"{divisor} is 0.", f"check first: … if {divisor} else 0")
    if isinstance(error, StopIteration):
        return Advice("", "give a default: next(…, None)")
    if name == "StatisticsError":
        return Advice(shown(place), "check that there are values first: … if values else None")
    if isinstance(error, RecursionError):
        return Advice("", "give the function a case in which it does not call itself, or write a loop")
    if isinstance(error, AssertionError):
        return Advice(shown(place), "look at the values above, and assert only what you know")
    if isinstance(error, TimeoutError) and not isinstance(error, ToolError):
        return Advice("", "wait longer, or catch TimeoutError and go on without it")
    if name == "InvalidOperation":
        return Advice(shown(place), "Decimal takes clean digits: strip signs such as ',' or '$' first")
    return None


def _tool_error(error: BaseException, place: Place, tools: Iterable[str]) -> Advice | None:
    if not isinstance(error, ToolError):
        return None
    if name_of(error) in ("InvalidArguments", "ToolNotAvailable"):
        return Advice("", "call it as the message says")
    if name_of(error) == "CallDenied":
        return Advice("The call was refused and did not run.", "do without it; calling it again gets the same answer")
    if name_of(error) == "UnsupportedValue":
        return Advice("The tool gives what no program can take.", "use another tool; only its author can change that")
    again = " It may work if it is called again." if error.retryable else ""
    return Advice(
        f"The tool {error.tool.removeprefix('default.')} failed; the program itself is right.{again}",
        "call it with other arguments, or catch ToolError where one failure must not end everything",
    )


RULES: tuple[Callable[[BaseException, Place, Iterable[str]], Advice | None], ...] = (
    _tool_error, _key_error, _attribute_error, _name_error, _index_error, type_error, _value_error, _others,
)  # fmt: skip
