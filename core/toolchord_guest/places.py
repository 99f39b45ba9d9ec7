"""Where a program failed: the expression, and what its names mean there.

The expression is found by its place in the source, its values in the frame that failed. Nothing of the program's runs
here: only the runtime's own containers are read, by the keys that the source spells out.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from toolchord_guest.calls import PendingCall
from toolchord_guest.program import parse
from toolchord_guest.shapes import described, is_dict

MISSING: Any = object()
"""A value that can't be told."""


_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp)


class Place(NamedTuple):
    """Where a program failed: the expression if it can be told, the statement, and what names mean there."""

    node: ast.AST | None
    statement: ast.stmt | None
    line: int
    scope: dict[str, Any]


class Advice(NamedTuple):
    """What the value looked like, and what to write instead; either may be empty."""

    value: str = ""
    fix: str = ""


def place_of(error: BaseException, source: str, filename: str) -> Place:
    frame, line, position = None, 0, None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == filename:
            frame, line = trace.tb_frame, trace.tb_lineno
            position = _position(frame.f_code, trace.tb_lasti)
        trace = trace.tb_next
    if frame is None:
        return Place(None, None, 0, {})
    try:
        tree: ast.AST | None = parse(source, filename)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    scope = {**frame.f_globals, **frame.f_locals}
    node, statement = _node_at(tree, line, position) if tree is not None else (None, None)
    return Place(node or statement, statement, line, scope)


def _position(code: types.CodeType, last: int) -> tuple[int | None, ...] | None:
    for index, position in enumerate(code.co_positions()):
        if index == last // 2:
            return position
    return None


def _node_at(
    tree: ast.AST, line: int, position: tuple[int | None, ...] | None
) -> tuple[ast.expr | None, ast.stmt | None]:
    """The expression at a place, and the innermost statement of that line."""
    wanted = position if position and None not in position else None
    statement: ast.stmt | None = None
    found: ast.expr | None = None
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            statement = node
        elif isinstance(node, ast.expr) and found is None and _span(node) == wanted:
            found = node.value if isinstance(node, ast.Await) else node
    return found, statement


def _span(node: ast.expr) -> tuple[int | None, ...]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


# reading values


def value_at(node: ast.AST | None, scope: dict[str, Any]) -> Any:
    """What an expression means, as far as names and written keys lead; `MISSING` if that is not far enough."""
    match node:
        case ast.Name(id=name):
            value = scope.get(name, MISSING)
        case ast.Constant(value=value):
            pass
        case ast.Subscript(value=inner, slice=key):
            value = _item(value_at(inner, scope), value_at(key, scope))
        case ast.Attribute(value=inner, attr=key):
            held = value_at(inner, scope)
            value = _item(held, key) if is_dict(held) else MISSING
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as number)):
            value = -number
        case ast.Await(value=inner):
            value = value_at(inner, scope)
        case _:
            value = MISSING
    return MISSING if type(value) is PendingCall else value


def _item(container: Any, key: Any) -> Any:
    if container is MISSING or key is MISSING:
        return MISSING
    try:
        if is_dict(container) and type(key) in (str, int, float, bool, types.NoneType):
            return dict.get(container, key, MISSING)
        if type(container) in (list, tuple) and type(key) is int:
            return container[key]
    except (IndexError, TypeError):
        pass
    return MISSING


def text_of(node: ast.AST | None, limit: int = 80) -> str:
    if node is None:
        return ""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def says(node: ast.AST | None, value: Any) -> str:
    """``order is a dict with keys …``"""
    name = text_of(node) if node is not None else ""
    return f"{name or 'it'} is {described(value)}." if value is not MISSING else ""


def operands(place: Place) -> list[tuple[ast.expr, Any]]:
    """The written parts of the failing operation with their values, as far as they can be read."""
    match place.node:
        case ast.BinOp(left=left, right=right):
            parts = [left, right]
        case ast.Compare(left=left, comparators=others):
            parts = [left, *others]
        case ast.AugAssign(target=target, value=value):
            parts = [target, value]
        case ast.Call(func=func, args=args, keywords=keywords):
            method = [func.value] if isinstance(func, ast.Attribute) else []
            parts = [*method, *args, *(keyword.value for keyword in keywords)]
            parts += [g.iter for a in args if isinstance(a, _COMPREHENSIONS) for g in a.generators]
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp() as inner:
            held = [inner.key, inner.value] if isinstance(inner, ast.DictComp) else [inner.elt]
            parts = [*held, *(generator.iter for generator in inner.generators)]
        case ast.Dict(keys=keys):
            parts = [key for key in keys if key is not None]
        case ast.Set(elts=items):
            parts = [*items]
        case ast.Subscript(value=inner, slice=key):
            parts = [inner, key]
        case ast.expr() as node:
            parts = [node]
        case _:
            parts = []
    return _read(place, parts)


def _parts_of(statement: ast.stmt | None) -> list[ast.expr]:
    """What a statement reads, but not what the statements inside of it read."""
    match statement:
        case ast.For(iter=head) | ast.AsyncFor(iter=head) | ast.If(test=head) | ast.While(test=head):
            roots: list[ast.AST] = [head]
        case ast.With(items=items) | ast.AsyncWith(items=items):
            roots = [*items]
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Try() | None:
            roots = []
        case _:
            roots = [statement]
    return [n for root in roots for n in ast.walk(root)
            if isinstance(n, ast.Subscript | ast.Name) and isinstance(n.ctx, ast.Load)]  # fmt: skip


def shown(place: Place, wanted: Callable[[Any], bool] = lambda value: True) -> str:
    """What the operands look like; where none can be read, what the statement reads."""
    return " ".join(list(dict.fromkeys(says(part, value) for part, value in suspects(place, wanted)))[:3])


def suspects(place: Place, wanted: Callable[[Any], bool] = lambda value: True) -> list[tuple[ast.expr, Any]]:
    """The operands that an error may be about; where none can be read, what the statement reads."""
    for pairs in (operands(place), _read(place, _parts_of(place.statement))):
        found = [
            (part, value)
            for part, value in pairs
            if wanted(value) and not isinstance(part, ast.Constant) and not callable(value)
        ]
        if found:
            return found
    return []


def _read(place: Place, parts: list[ast.expr]) -> list[tuple[ast.expr, Any]]:
    return [(part, value) for part in parts if (value := value_at(part, place.scope)) is not MISSING]
