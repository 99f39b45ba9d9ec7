"""Keys that a program reads from a tool's result though the declared result can't have them.

A shape is ``{"keys": {name: shape}}`` for a dict with these keys and no others, ``{"items": shape}`` for a list, or
None where nothing is known. A variable has a shape if the whole program binds it once. A key counts as ruled out only
if the program names it nowhere else, so that no statement can have put it there.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from toolchord_guest.names import bindings, near

_DEPTH = 12
_FRESH = frozenset({"dict", "list", "set", "defaultdict", "Counter", "OrderedDict", "deque"})
_CHANGING = frozenset({"update", "setdefault", "__setitem__", "__ior__", "setitem", "setattr", "__dict__", "vars"})
_SAME = frozenset({"sorted", "list", "tuple", "reversed"})
_APPLYING = frozenset({"sorted", "max", "min", "filter", "map"})
_METHODS = frozenset(dir(dict))
_SHOWN = 20

ShapeOf = Callable[[ast.Call], tuple[str, Any, str | None] | None]
"""Of a call: the tool's name, the shape of its result, and the field that iteration goes over; None if unknown."""


class Reads:
    """Judges the reads of one program. `hidden` holds functions of earlier programs, of which nothing is known."""

    def __init__(self, tree: ast.Module, shape_of: ShapeOf, hidden: Collection[str] = ()) -> None:
        self._shape_of = shape_of
        self._counts = bindings(tree)
        self._origins: dict[str, list[tuple[str, ast.expr]]] = {}
        self._named = Counter[str]()
        for node in ast.walk(tree):
            self._note_origins(node)
            self._note_mentions(node)
        self._blind = any(self._hides(node, hidden) for node in ast.walk(tree))

    def problem(self, node: ast.Subscript | ast.Attribute) -> str | None:
        """Why a read can't work, or None."""
        key = _key(node)
        if key is None or self._blind or not isinstance(node.ctx, ast.Load) or self._named[key]:
            return None
        if isinstance(node, ast.Attribute) and (key in _METHODS or key.startswith("__")):
            return None
        shape = self._shape(node.value)
        if shape is None or "keys" not in shape or key in shape["keys"]:
            return None
        text = f"{ast.unparse(node.value)[:80]} has no key {key!r}"
        if "tool" in shape:
            text = f"the result of {shape['tool']} has no key {key!r}"
        return f"{text}; {_advice(node, key, shape)}"

    # what each node says

    def _note_origins(self, node: ast.AST) -> None:
        """Where the value of a name comes from, if one node tells: it is that value, or an item of it."""
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.NamedExpr(target=ast.Name(id=name), value=value)
            ):
                self._note(name, "value", value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self._note(name, "value", value)
            case (
                ast.For(target=ast.Name(id=name), iter=value) | ast.comprehension(target=ast.Name(id=name), iter=value)
            ):
                self._note(name, "item", value)
            case ast.Call(args=[first, *rest], keywords=keywords) if _called(node) in _APPLYING:
                for part in (first, *(k.value for k in keywords if k.arg == "key")):
                    match part:
                        case ast.Lambda(args=ast.arguments(args=[ast.arg(arg=name)])) if part is not first or rest:
                            self._note(name, "item", rest[0] if part is first else first)

    def _note(self, name: str, how: str, value: ast.expr) -> None:
        self._origins.setdefault(name, []).append((how, value))

    def _note_mentions(self, node: ast.AST) -> None:
        """Count each text by which the program could have put a key somewhere, or looked whether it is there."""
        match node:
            case ast.Constant(value=str(text)):
                self._named[text] += 1
            case ast.Subscript(slice=ast.Constant(value=str(text)), ctx=ast.Load()):
                self._named[text] -= 1  # what is read
            case ast.Dict(keys=keys):
                for written in keys:  # of another dict
                    if isinstance(written, ast.Constant) and isinstance(written.value, str):
                        self._named[written.value] -= 1
            case ast.Attribute(attr=text, ctx=ast.Store() | ast.Del()):
                self._named[text] += 1

    def _hides(self, node: ast.AST, hidden: Collection[str]) -> bool:
        """Whether a node may put a key somewhere that nobody can tell from the text."""
        match node:
            case ast.Subscript(value=base, slice=key, ctx=ast.Store()) if not isinstance(key, ast.Constant):
                return not self._is_fresh(base)
            case ast.AugAssign(op=ast.BitOr(), target=target):
                return not self._is_fresh(target)
            case ast.Attribute(attr=name, value=base) if name in _CHANGING:
                return not self._is_fresh(base)
            case ast.Name(id=name, ctx=ast.Load()):
                return name in ("setattr", "vars", "setitem") or name in hidden
        return False

    def _is_fresh(self, base: ast.expr) -> bool:
        """Whether a container was made by the program itself, whatever bound its name."""
        if not isinstance(base, ast.Name):
            return False
        origins = self._origins.get(base.id, [])
        return len(origins) == self._counts[base.id] > 0 and all(how == "value" and _makes(v) for how, v in origins)

    # shapes

    def _shape(self, node: ast.expr, depth: int = 0) -> Any:
        if depth > _DEPTH:
            return None
        deeper = depth + 1
        match node:
            case ast.Await(value=inner) | ast.NamedExpr(value=inner):
                return self._shape(inner, deeper)
            case ast.Name(id=name):
                match self._origins.get(name) if self._counts[name] == 1 else None:
                    case [("value", value)]:
                        return self._shape(value, deeper)
                    case [("item", value)]:
                        return self._item(self._shape(value, deeper))
            case ast.Call(args=[inner, *_]) if _called(node) in _SAME and isinstance(node.func, ast.Name):
                shape = self._shape(inner, deeper) if not self._counts[node.func.id] else None
                item = self._item(shape)
                return {"items": item} if item is not None else None
            case ast.Call():
                found = self._shape_of(node)
                if found is not None:
                    tool, shape, field = found
                    return {**shape, "tool": tool, "field": field}
            case ast.Subscript(value=inner, slice=ast.Slice()):
                item = self._item(self._shape(inner, deeper))
                return {"items": item} if item is not None else None
            case ast.Subscript(value=inner, slice=key) if _is_index(key):
                return self._item(self._shape(inner, deeper))
            case ast.Subscript(value=inner) | ast.Attribute(value=inner) if (text := _key(node)) is not None:
                shape = self._shape(inner, deeper)
                method = isinstance(node, ast.Attribute) and text in _METHODS
                return shape["keys"].get(text) if shape is not None and "keys" in shape and not method else None
        return None

    def _item(self, shape: Any) -> Any:
        if shape is None:
            return None
        if shape.get("field"):
            shape = shape["keys"].get(shape["field"]) if "keys" in shape else None
        return shape.get("items") if shape is not None else None


def _makes(value: ast.expr) -> bool:
    if isinstance(value, ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp | ast.SetComp):
        return True
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in _FRESH


def _called(node: ast.expr) -> str:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _is_index(node: ast.expr) -> bool:
    inner = node.operand if isinstance(node, ast.UnaryOp) else node
    return isinstance(inner, ast.Constant) and type(inner.value) is int


def _key(node: ast.AST) -> str | None:
    match node:
        case ast.Subscript(slice=ast.Constant(value=str(key))) | ast.Attribute(attr=key):
            return key
    return None


def _advice(node: ast.Subscript | ast.Attribute, key: str, shape: Any) -> str:
    """The keys that there are, and the one that was meant."""
    keys = shape["keys"]
    shown = ", ".join(map(repr, list(keys)[:_SHOWN])) + (", …" if len(keys) > _SHOWN else "")
    close = near(key, keys)
    if close:
        return f"did you mean {close[0]!r}? Its keys are {shown}"
    for outer, inner in keys.items():
        item = inner.get("items") if inner else None
        if item and key in item.get("keys", ()):
            return f"its {outer!r} is a list of dicts that have it: loop over [{outer!r}]. Its keys are {shown}"
    return f"its keys are {shown}"
