"""The names that a program has without importing anything."""

from __future__ import annotations

import builtins
import itertools
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from toolchord_guest import guards
from toolchord_guest.calls import ToolError, awaitable, blocker, settled, starter
from toolchord_guest.language import ATTRIBUTE, FORMAT, OWN, REFUSED_BUILTINS, TYPE
from toolchord_guest.modules import INTERNAL, clock_method
from toolchord_guest.placement import AWAIT, CLOCK, FUTURE, NOW, SETTLED
from toolchord_guest.program import END

_numbers: dict[int, tuple[int, object]] = {}
"""By id: an object's number, and what keeps the entry true: the object, or a reference that drops the entry with it."""

_count = itertools.count(1)


def number_of(value: object) -> int:
    """A number for an object that does not depend on where in memory it lies."""
    key = id(value)
    if key in _numbers:
        return _numbers[key][0]
    try:
        keeper: object = weakref.ref(value, lambda _: _numbers.pop(key, None))
    except TypeError:
        keeper = value
    number = next(_count)
    _numbers[key] = number, keeper
    return number


class Object:
    """What a program's classes derive from: hash and repr are the same in every replay."""

    __slots__ = ()

    def __hash__(self) -> int:
        return number_of(self)

    def __repr__(self) -> str:
        cls = type(self)
        return f"<{cls.__module__}.{cls.__qualname__} object at {number_of(self):#014x}>"


def build_class(function: Any, name: str, /, *bases: Any, **options: Any) -> Any:
    """`__build_class__`, with Object below classes whose hash would be an address."""
    plain: Any = object.__hash__
    if all(isinstance(base, type) and base.__hash__ is plain for base in bases) and Protocol not in bases:
        bases = (*(base for base in bases if base is not object), Object)
    return builtins.__build_class__(function, name, *bases, **options)


def checked_class(function: Any, name: str, /, *bases: Any, **options: Any) -> Any:
    """`__build_class__` of wall one: metaclasses derive from one that checks, and the class itself is looked at."""
    bases = tuple(guards.Meta if base is type else base for base in bases)
    return guards.check_class(build_class(function, name, *bases, **options), function.__code__.co_names)


END_VALUE = object()
"""What a program's main function returns where the program returns nothing."""

HELPERS: dict[str, Any] = {
    AWAIT: awaitable,
    CLOCK: clock_method,
    END: END_VALUE,
    FUTURE: starter,
    NOW: blocker,
    "__build_class__": build_class,
    SETTLED: settled,
}
"""What the compiler's rewriting calls, in both languages. No source can spell these names, or read this one."""

GUARDS: dict[str, Any] = {
    "__build_class__": checked_class,
    ATTRIBUTE: guards.attribute,
    FORMAT: guards.formatted,
    OWN: guards.own,
    TYPE: guards.make_type,
}

_SAFE = {
    "getattr": guards.safe_getattr,
    "hasattr": guards.safe_hasattr,
    "setattr": guards.safe_setattr,
    "delattr": guards.safe_delattr,
    "vars": guards.safe_vars,
    "dir": guards.safe_dir,
    "id": lambda value: number_of(settled(value)),
}


def restricted(facades: Mapping[str, Any]) -> dict[str, Any]:
    """The builtins of wall one."""
    names = {n: getattr(builtins, n) for n in dir(builtins) if not n.startswith("_") and n not in REFUSED_BUILTINS}
    names |= {"__debug__": True, "__name__": "builtins"}
    names |= {"__import__": importer(facades), "ToolError": ToolError}
    return names | _SAFE | HELPERS | GUARDS


def unrestricted() -> dict[str, Any]:
    """All of Python's builtins: wall two must hold alone."""
    return {**vars(builtins), **HELPERS, "ToolError": ToolError}


def importer(facades: Mapping[str, Any]) -> Callable[..., Any]:
    """`__import__` over the facades; the compiler has already refused all other names."""

    def import_(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if name in INTERNAL:  # a C function imports through the program's frame
            return builtins.__import__(name, None, None, fromlist or ("*",))
        facade = facades.get(name)
        if facade is None or level:
            raise ImportError(f"import of {name!r} is not allowed")
        return facade if fromlist else facades[name.partition(".")[0]]

    return import_
