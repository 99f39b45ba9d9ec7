"""Owns what a program leaves for the next one, in another process: its data, and the text of its definitions.

Data is kept where it comes back as exactly what it was. Of functions, classes and imports the statement is kept, and
run again. Everything else is lost, and named with the reason.
"""

from __future__ import annotations

import ast
import datetime as dt
import types
from collections.abc import Callable, Container, Iterable, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from toolchord_guest.link import Record
from toolchord_guest.values import Encoder, Unsupported

_ATOMS = (type(None), bool, int, float, str, bytes, dt.datetime, dt.date, dt.time, dt.timedelta, Decimal, UUID)
_NODES = 1_000_000


def definitions(body: Iterable[ast.stmt], rebound: Container[str] = ()) -> dict[str, str]:
    """The statements of the top level that define a name, by name, in the order of the text.

    Names that are `rebound` in another way have none: what they are in the end, no statement says.
    """
    found: dict[str, str] = {}
    for node in body:
        for name in names_defined(node):
            found.pop(name, None)  # a later one stands later
            found[name] = "" if name in rebound else ast.unparse(node)
    return found


def names_defined(node: ast.stmt) -> list[str]:
    """The names that a statement defines, if running it again gives them again."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Import() | ast.ImportFrom():
            return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Lambda()):
            return [name]
    return []


def keep(variables: Mapping[str, Any], known: Mapping[str, str], hidden: Container[str], limit: int) -> dict[str, Any]:
    """A program's variables as plain data.

    Args:
        variables: all of them.
        known: the statements that define functions, classes and imports.
        hidden: names that are not the program's: tools and what else is there from the start.
        limit: bytes of all that is kept.

    Returns:
        ``data``: name -> encoded value; ``definitions``: name -> statement; ``lost``: name -> why it is not kept.
    """
    data: dict[str, bytes] = {}
    lost: dict[str, str] = {}
    defined: set[str] = set()
    room = limit
    for name, value in variables.items():
        if name in hidden or name.startswith(("__", "<")):
            continue
        if name in known and not _exact(value, [_NODES]):
            defined.add(name)
            room -= len(known[name])
            continue
        reason, encoded = _encoded(value)
        if reason:
            lost[name] = reason
        elif len(encoded) > room:
            lost[name] = f"{len(encoded):,} bytes; at most {limit:,} are kept in all"
        else:
            data[name] = encoded
            room -= len(encoded)
    kept = {name: text for name, text in known.items() if name in defined}
    if room < 0:
        lost |= dict.fromkeys(kept, "more text than is kept")
        kept = {}
    return {"data": data, "definitions": kept, "lost": lost}


def _encoded(value: Any) -> tuple[str, bytes]:
    if not _exact(value, [_NODES]):
        return _reason(value), b""
    try:
        return "", Encoder().encode(value)
    except Unsupported as error:
        return error.reason, b""


def _reason(value: Any) -> str:
    if isinstance(value, types.FunctionType):
        return "a function that no one statement defines as it is; define it with def"
    if isinstance(value, type):
        return "a class that no one statement defines as it is; define it with class"
    if type(value) in (list, tuple, set, frozenset, dict, Record):
        return f"a {type(value).__name__} that holds more than plain data"
    return f"a {type(value).__name__}"


def _exact(value: Any, left: list[int]) -> bool:
    """Whether a value comes back as what it was."""
    left[0] -= 1
    kind = type(value)
    if kind in _ATOMS:
        return True
    if left[0] <= 0:
        return False
    try:
        if kind in (list, tuple, set, frozenset):
            return all(_exact(item, left) for item in value)
        if kind in (dict, Record):
            return all(_exact(key, left) and _exact(item, left) for key, item in dict.items(value))
    except RecursionError:
        pass
    return False


def restore(
    known: Mapping[str, str], run: Callable[[str], None], tell: Callable[[str], None] = lambda name: None
) -> dict[str, str]:
    """Run definitions again, after the data is there; those that fail, with the reason.

    `tell` is called with a name before its definition runs, so that somebody knows which one never ends.
    """
    lost: dict[str, str] = {}
    done: set[str] = set()
    for name, text in known.items():
        if text in done:
            continue
        done.add(text)  # one import may bind several names
        tell(name)
        try:
            run(text)
        except BaseException as error:  # SystemExit too: it must not end every later program
            lost[name] = _said(error)
    return lost


def _said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except BaseException as worse:  # the program's own class
        return f"{type(error).__name__} (its text could not be had: {type(worse).__name__})"
