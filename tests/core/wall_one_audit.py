"""Which offered library functions read attributes by a computed name, or evaluate text: found in their source."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import tokenize
import types
from typing import Any

from toolchord_guest import modules

_REFLECTIVE = {"getattr", "setattr", "delattr", "eval", "exec", "__import__", "vars"}

VERDICTS: dict[str, str] = {
    "collections.OrderedDict": "pickles itself: its own attributes",
    "collections.UserDict": "copies itself",
    "collections.UserList": "copies itself",
    "collections.namedtuple": "evaluates names that it has checked to be identifiers",
    "copy.copy": "mended: a program's `__reduce_ex__` may change objects of its own class only",
    "copy.deepcopy": "mended, as copy.copy",
    "dataclasses.dataclass": "mended: field names must be identifiers; types in text are only compared",
    "dataclasses.fields": "mended: a fixed name, and its fields are judged",
    "dataclasses.asdict": "goes through the mended fields",
    "dataclasses.astuple": "goes through the mended fields",
    "dataclasses.make_dataclass": "goes through the mended dataclass",
    "dataclasses.replace": "mended: its fields are judged",
    "enum.EnumType": "members of its own class; `_convert_` is private, global_enum not offered",
    "enum.EnumMeta": "as enum.EnumType",
    "enum.Enum": "members of its own class",
    "typing.SupportsInt": "a protocol of one method (3.13 shows another class's source for it)",
    "typing.SupportsRound": "as typing.SupportsInt",
    "typing.SupportsAbs": "as typing.SupportsInt",
    "typing.SupportsBytes": "as typing.SupportsInt",
    "typing.SupportsComplex": "as typing.SupportsInt",
    "typing.SupportsFloat": "as typing.SupportsInt",
    "typing.SupportsIndex": "as typing.SupportsInt",
    "typing.runtime_checkable": "whether members are methods (3.13); gives no values",
    "enum.property": "the member of its own name, in its own class (3.12)",
    "enum.EnumCheck": "members of a class of the program",
    "functools.total_ordering": "comparison methods only",
    "functools.cache": "goes through the mended update_wrapper",
    "functools.lru_cache": "goes through the mended update_wrapper",
    "functools.partial": "pickles itself",
    "functools.singledispatch": "update_wrapper is mended; annotations in text are judged by the mended ForwardRef",
    "functools.singledispatchmethod": "as functools.singledispatch",
    "functools.cached_property": "writes an object's dict under one name, reads nothing of it but that",
    "pprint.PrettyPrinter": "prints the fields of dataclasses, through the mended fields",
    "typing.Generic": "looks for annotations among its own bases",
    "typing.Protocol": "whether members exist; gives no values",
    "typing.no_type_check": "marks functions and classes, gives no values",
    "typing.no_type_check_decorator": "as typing.no_type_check",
    "string.Template": "its own class's pattern",
    "pydantic.BaseModel": "its own fields; from_attributes is refused",
    "logging.Logger": "writes into its own record",
}
"""What was found, and why it is harmless or what stands in its way."""


def reflective() -> dict[str, set[str]]:
    """By name of what a facade offers: the reflective means that it, or a function it uses of its module, uses."""
    found: dict[str, set[str]] = {}
    for name, facade in modules.build().items():
        for n, thing in vars(facade).items():
            if isinstance(thing, type | types.FunctionType) and not thing.__module__.startswith("toolchord_guest"):
                used = _uses(thing, set())
                if used:
                    found[f"{name}.{n}"] = used
    return found


def _uses(thing: Any, seen: set[Any]) -> set[str]:
    seen.add(thing)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (
        OSError,
        TypeError,
        SyntaxError,
        tokenize.TokenError,
    ):  # no Python source, or (3.13) none that is found right
        return set()
    found: set[str] = set()
    home = vars(sys.modules.get(thing.__module__, types))
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "delattr"), args=[_, ast.Constant(), *_]):
                pass  # a fixed name
            case ast.Call(func=ast.Name(id=name)) if name in _REFLECTIVE:
                found.add(name)
            case ast.Attribute(attr="__dict__"):
                found.add("__dict__")
            case ast.Attribute(attr="modules", value=ast.Name(id="sys" | "_sys")):
                found.add("sys.modules")
            case ast.Name(id=name):
                helper = home.get(name)
                if type(helper) is types.FunctionType and helper.__module__ == thing.__module__ and helper not in seen:
                    found |= _uses(helper, seen)
    return found
