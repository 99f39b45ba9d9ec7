"""The helpers behind wall one: what the compiler could not decide is decided here, when it happens."""

from __future__ import annotations

import functools
import itertools
import linecache
import string
import traceback
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from toolchord_guest.calls import FILENAME, settled
from toolchord_guest.language import CHECKED, CLOCK_METHODS, attribute_problem

_parse = string.Formatter().parse


class ProgramRefused(Exception):
    """The language policy said no while the program ran."""


class State:
    """What the helpers know of the running program."""

    defined: ClassVar[set[str]] = set()
    clock_method: Callable[[Any, str], Any] = getattr
    """Reads `now`, `today` and `utcnow`; set by `modules`."""


def _plain(name: object) -> str:
    """The text itself, whatever a subclass of str says of it."""
    if not isinstance(name, str):
        raise TypeError(f"attribute name must be string, not {type(name).__name__!r}")
    return str.__str__(name)


def check_attribute(name: str) -> None:
    """Raise ProgramRefused if an attribute of that name may not be read."""
    problem = attribute_problem(name, State.defined)
    if problem is not None and name not in CHECKED:
        raise ProgramRefused(problem)


def _own(value: object) -> bool:
    """Whether an object, or a class, is the program's own."""
    cls = value if isinstance(value, type) else type(value)
    return cls.__dict__.get("__module__") == "__main__"


def attribute(value: Any, name: str) -> Any:
    """An attribute that says much of its object: allowed where it says nothing of ours."""
    value = settled(value)
    if name == "__class__":
        return value.__class__
    if name == "__dict__":
        if _own(value) and not isinstance(value, type):
            return value.__dict__
        raise ProgramRefused("the attribute '__dict__' is available on objects of the program's own classes only")
    if name == "__getattr__":
        return value.__getattr__

    def change(*arguments: Any) -> None:
        target, key, *rest = arguments if isinstance(value, type) else (value, *arguments)
        _check_target(target, _plain(key))
        getattr(value, name)(*([target] if isinstance(value, type) else []), key, *rest)

    return change


def _check_target(target: object, name: str) -> None:
    if name.startswith("_") and not _own(target):
        raise ProgramRefused(f"the attribute {name!r} can't be changed here")
    check_attribute(name)


def safe_getattr(value: Any, name: Any, *default: Any) -> Any:
    """getattr, for the attributes that a program may read."""
    name = _plain(name)
    if name in CHECKED:
        return attribute(value, name)
    check_attribute(name)
    if name in CLOCK_METHODS and hasattr(settled(value), name):
        return State.clock_method(settled(value), name)
    return getattr(settled(value), name, *default)


def safe_hasattr(value: Any, name: Any) -> bool:
    """hasattr, for the attributes that a program may read."""
    name = _plain(name)
    check_attribute(name)
    return hasattr(settled(value), name)


def safe_setattr(value: Any, name: Any, new: Any) -> None:
    """setattr, on public names or the program's own objects."""
    State.defined.add(_plain(name)) if _own(value) and not _plain(name).startswith("__") else None
    _check_target(value, _plain(name))
    setattr(value, _plain(name), new)


def safe_delattr(value: Any, name: Any) -> None:
    """delattr, on public names or the program's own objects."""
    _check_target(value, _plain(name))
    delattr(value, _plain(name))


def safe_vars(value: Any) -> Any:
    """vars of one of the program's own objects."""
    return attribute(value, "__dict__")


def safe_dir(value: Any) -> list[str]:
    """dir, without what a program may not read."""
    return [name for name in dir(settled(value)) if attribute_problem(name, State.defined) is None]


def make_type(*arguments: Any, **options: Any) -> Any:
    """type(...) with other than one argument."""
    if len(arguments) != 3:
        return type(*arguments, **options)
    name, bases, namespace = arguments
    for key in namespace:
        problem = attribute_problem(_plain(key), State.defined | {_plain(key)})
        if problem is not None:
            raise ProgramRefused(problem)
    return type(name, bases, {"__module__": "__main__", **namespace}, **options)


# text that reads attributes


def check_field(field: str) -> None:
    """Judge the attributes in a replacement field such as ``0.name[key]``."""
    _, rest = _split(field)
    for is_attribute, name in rest:
        if is_attribute:
            problem = attribute_problem(str(name), State.defined)
            if problem is not None or str(name) in CHECKED:
                raise ProgramRefused(problem or f"the attribute {name!r} is not available in a format")


def _split(field: str) -> tuple[Any, Iterable[tuple[bool, Any]]]:
    import _string  # type: ignore[import-not-found]

    first, rest = _string.formatter_field_name_split(field)
    return first, rest


def _check_template(template: str, depth: int = 2) -> None:
    for _, field, spec, _ in _parse(template):
        if field:
            check_field(field)
        if spec and depth:
            _check_template(spec, depth - 1)


def formatted(value: Any, name: str) -> Any:
    """`value.format` or `value.format_map`: of text with its fields judged, else the attribute itself."""
    value = settled(value)
    if isinstance(value, str):
        template = _plain(value)

        def format_(*args: Any, **kwargs: Any) -> str:
            _check_template(template)
            result: str = getattr(template, name)(*args, **kwargs)
            return result

        return format_
    if isinstance(value, type) and issubclass(value, str):
        return lambda template, *args, **kwargs: formatted(template, name)(*args, **kwargs)
    return getattr(value, name)


class attrgetter:
    """operator.attrgetter, for the attributes that a program may read."""

    def __init__(self, attr: str, /, *attrs: str) -> None:
        self._paths = [_plain(path).split(".") for path in (attr, *attrs)]
        for name in itertools.chain(*self._paths):
            check_attribute(name)
            if name in CHECKED:
                raise ProgramRefused(f"the attribute {name!r} is not available here")

    def __call__(self, value: Any, /) -> Any:
        found = tuple(functools.reduce(safe_getattr, path, value) for path in self._paths)
        return found if len(found) > 1 else found[0]


def methodcaller(name: str, /, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    """operator.methodcaller, for the methods that a program may read."""

    def call(value: Any) -> Any:
        method = formatted(value, name) if name in ("format", "format_map") else safe_getattr(value, name)
        return method(*args, **kwargs)

    check_attribute(_plain(name))
    return call


# errors


def program_line(error: BaseException, filename: str) -> int:
    """The last line of the program that an error passed through, 0 if none."""
    line = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == filename:
            line = trace.tb_lineno
        trace = trace.tb_next
    if not line and isinstance(error, SyntaxError) and error.filename == filename:
        line = error.lineno or 0
    return line


def format_error(error: BaseException | None, limit: int = 12) -> str:
    """A traceback of the program's own lines only."""
    if error is None:
        return "NoneType: None\n"
    summary = traceback.TracebackException.from_exception(error, limit=-200, compact=True)
    seen: set[int] = set()
    layer: traceback.TracebackException | None = summary
    while layer is not None and id(layer) not in seen:
        seen.add(id(layer))
        frames = [frame for frame in layer.stack if frame.filename.startswith(FILENAME) and frame.lineno]
        for frame in frames:
            frame.name = "program" if frame.name == "<main>" else frame.name
        layer.stack[:] = frames[-limit:]
        layer = layer.__cause__ or layer.__context__
    return "".join(summary.format(chain=True))


def remember_source(filename: str, source: str) -> None:
    """Let tracebacks show the program's lines."""
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
