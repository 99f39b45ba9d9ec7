"""The helpers behind wall one: what the compiler could not decide is decided here, when it happens."""

from __future__ import annotations

import functools
import gc
import itertools
import linecache
import string
import traceback
import types
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from toolchord_guest.calls import FILENAME, PendingCall, settled
from toolchord_guest.language import (
    CHECKED,
    CLOCK_METHODS,
    FORMATS,
    RUNTIME,
    attribute_problem,
    class_problem,
    is_private,
)

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


# whose objects


def _names(code: types.CodeType) -> Iterable[str]:
    """The names with an underscore in front that a function uses, also those that it holds as text."""
    for name in (*code.co_names, *code.co_consts):
        if isinstance(name, types.CodeType):
            yield from _names(name)
        for part in name if isinstance(name, tuple) else (name,):
            if isinstance(part, str) and part.startswith("_") and part.isidentifier():
                yield part


_dict_of: Callable[[type], Any] = type.__dict__["__dict__"].__get__
_mro_of: Callable[[type], Any] = type.__dict__["__mro__"].__get__


def collect() -> None:
    """Note every name with an underscore in front that code which is loaded uses. Once, before there are programs."""
    for thing in gc.get_objects():
        if type(thing) is types.FunctionType:
            RUNTIME.update(_names(thing.__code__))
        elif isinstance(thing, type):
            RUNTIME.update(name for name in _dict_of(thing) if isinstance(name, str) and name.startswith("_"))
    RUNTIME.discard("_")


@functools.lru_cache(4096)  # of classes that are not the program's
def _privates(cls: type) -> frozenset[str]:
    """The names with an underscore in front that a class and its methods use."""
    found = set()
    for name, value in _dict_of(cls).items():
        found.add(name)
        for part in (value, *(getattr(value, n, None) for n in ("__func__", "__wrapped__", "fget", "fset"))):
            if isinstance(part, types.FunctionType):
                found.update(_names(part.__code__))
    return frozenset(name for name in found if isinstance(name, str) and is_private(name))


def _is_own(cls: type) -> bool:
    return bool(_dict_of(cls).get("__module__") == "__main__")


def _own(value: object) -> bool:
    """Whether an object, or a class, is the program's own."""
    return _is_own(value if isinstance(value, type) else type(value))


def _uses(cls: type, name: str) -> bool:
    """Whether a private name means something to a class above the program's own."""
    return any(name in _privates(base) for base in _mro_of(cls) if not _is_own(base))


_verdicts: dict[tuple[int, str], type] = {}
"""Classes (kept, so that their ids stay theirs) whose objects a name may be used on."""


def own(value: Any, name: str) -> Any:
    """The value itself, if it is the program's own and `name` is no business of a class above."""
    cls = type(value)
    if (id(cls), name) in _verdicts:
        return value
    if cls is PendingCall:
        return own(settled(value), name)
    if type.__subclasscheck__(type, cls):
        allowed = _is_own(value) and not _uses(value, name) and not _uses(cls, name)
    else:
        allowed = _is_own(cls) and not _uses(cls, name)
        if allowed:
            _verdicts[id(cls), name] = cls
    if not allowed:
        raise ProgramRefused(f"the attribute {name!r} is private to what defines it")
    return value


def check_class(cls: Any, names: Iterable[str]) -> Any:
    """A new class of the program, if none of the names that it binds itself means something to the runtime."""
    bound = _dict_of(cls)
    for name in names:
        if name not in bound or name in _ADDED:
            continue
        problem = class_problem(_plain(name), bound[name])
        if problem is None and is_private(name) and name in RUNTIME and _uses(cls, name):
            problem = f"the attribute {name!r} is private to a class above"
        if problem is not None:
            raise ProgramRefused(problem)
    return cls


# attributes


def attribute(value: Any, name: str) -> Any:
    """An attribute that says much of its object: allowed where it says nothing of ours."""
    value = settled(value)
    if name == "__class__":
        return value.__class__
    if name == "__new__":
        return _new_class if value.__new__ is type.__new__ else value.__new__
    if name == "__dict__":
        return _variables(value)
    if name == "__getattr__":
        return _checked_getattr(value)

    def change(*arguments: Any) -> None:
        target, key, *rest = arguments if isinstance(value, type) else (value, *arguments)
        _check_target(target, _plain(key))
        getattr(value, name)(*([target] if isinstance(value, type) else []), key, *rest)

    return change


def _checked_getattr(value: Any) -> Callable[..., Any]:
    found = value.__getattr__

    def read(*arguments: Any) -> Any:
        check_attribute(_plain(arguments[-1]))
        if arguments[-1] in CHECKED or (is_private(arguments[-1]) and arguments[-1] in RUNTIME and not _own(value)):
            raise ProgramRefused(f"the attribute {arguments[-1]!r} is not available here")
        return found(*arguments)

    return read


def _variables(value: Any) -> Any:
    """The dict behind a plain object; of one whose class is derived from a library's, what is public in it."""
    if type(value) is types.SimpleNamespace:
        return value.__dict__
    if not _own(value) or isinstance(value, type):
        raise ProgramRefused("the attribute '__dict__' is available on objects of the program's own classes only")
    if all(_is_own(base) or not _privates(base) or base.__module__ in _PLAIN for base in _mro_of(type(value))):
        return value.__dict__
    return {name: item for name, item in value.__dict__.items() if not name.startswith("_")}


_PLAIN = frozenset(
    {"builtins", "typing", "abc", "enum", "collections.abc", "pydantic.main", "toolchord_guest.builtins"}
)
_ADDED = frozenset(
    "__module__ __qualname__ __doc__ __abstractmethods__ __parameters__ __orig_bases__ "
    "__static_attributes__ __firstlineno__ __classcell__ __classdictcell__ __annotate__ __annotate_func__ "
    "__annotations_cache__ __type_params__".split()
)
"""What the compiler and metaclasses put into a class."""


def _check_target(target: object, name: str) -> None:
    if name.startswith(("_", "<")) and not _own(target):
        raise ProgramRefused(f"the attribute {name!r} can't be changed here")
    check_attribute(name)
    if name.startswith("_"):
        problem = class_problem(name) if name.startswith("__") and name.endswith("__") else None
        if problem is not None:
            raise ProgramRefused(problem)
        if is_private(name) and name in RUNTIME:
            own(target, name)


def safe_getattr(value: Any, name: Any, *default: Any) -> Any:
    """getattr, for the attributes that a program may read."""
    name = _plain(name)
    if name in CHECKED:
        return attribute(value, name)
    check_attribute(name)
    value = settled(value)
    if name.startswith("<") or (is_private(name) and name in RUNTIME):
        own(value, name)
    if name in CLOCK_METHODS and hasattr(value, name):
        return State.clock_method(value, name)
    if name in FORMATS:
        return formatted(value, name, *default)
    return getattr(value, name, *default)


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


def safe_dir(*values: Any) -> list[str]:
    """dir, without what a program may not read."""
    if not values:
        raise ProgramRefused("dir() without an argument is not available here: keep the values in a dict of your own")
    (value,) = values
    return [name for name in dir(settled(value)) if attribute_problem(name, State.defined) is None]


def make_type(*arguments: Any, **options: Any) -> Any:
    """type(...) with other than one argument."""
    if len(arguments) != 3:
        return type(*arguments, **options)
    name, bases, namespace = arguments
    return _new_class(type, name, bases, namespace, **options)


def _new_class(metaclass: Any, name: str, bases: Any, namespace: Any, **options: Any) -> Any:
    """type.__new__, for the names that a class body may bind."""
    namespace = {**namespace, "__module__": "__main__"}
    for key, value in namespace.items():
        problem = class_problem(_plain(key), value) if key not in _ADDED else None
        if problem is not None:
            raise ProgramRefused(problem)
    if metaclass is type:
        return check_class(type(name, bases, namespace, **options), namespace)
    return check_class(type.__new__(metaclass, name, bases, namespace, **options), namespace)


class Meta(type):
    """What a program's metaclasses derive from instead of `type`: it checks what a class may bind."""

    def __new__(metaclass, name: str, bases: Any, namespace: Any, **options: Any) -> Any:
        return _new_class(metaclass, name, bases, namespace, **options)


# text that reads attributes


def check_field(field: str) -> bool:
    """Judge the attributes in a replacement field such as ``0.name[key]``; whether it depends on whose they are."""
    depends = False
    for is_attribute, name in _split(field)[1]:
        if is_attribute:
            problem = attribute_problem(str(name), State.defined)
            if problem is not None or str(name) in CHECKED:
                raise ProgramRefused(problem or f"the attribute {name!r} is not available in a format")
            depends = depends or (is_private(str(name)) and str(name) in RUNTIME) or str(name) in FORMATS
    return depends


def _split(field: str) -> tuple[Any, Iterable[tuple[bool, Any]]]:
    import _string  # type: ignore[import-not-found]

    first, rest = _string.formatter_field_name_split(field)
    return first, rest


class Fields(string.Formatter):
    """A formatter whose fields may not reach where a program may not."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        check_field(field_name)
        first, rest = _split(field_name)
        value = self.get_value(first, args, kwargs)
        for is_attribute, name in rest:
            value = safe_getattr(value, name) if is_attribute else value[name]
        return value, first


def _check_template(template: str, depth: int = 2) -> bool:
    """Judge a template's fields; whether it must be formatted with `Fields`."""
    depends = False
    for _, field, spec, _ in _parse(template):
        if field:
            depends = check_field(field) or depends
        if spec and depth:
            depends = _check_template(spec, depth - 1) or depends
    return depends


def formatted(value: Any, name: str, *default: Any) -> Any:
    """`value.format` or `value.format_map`: of text with its fields judged, else the attribute itself."""
    found = getattr(settled(value), name, *default)
    if type(found) is types.BuiltinMethodType and isinstance(found.__self__, str):
        template = _plain(found.__self__)

        def format_(*args: Any, **kwargs: Any) -> str:
            if _check_template(template):
                return Fields().vformat(template, args, kwargs if name == "format" else args[0])
            result: str = getattr(template, name)(*args, **kwargs)
            return result

        return format_
    if type(found) is types.MethodDescriptorType and found.__objclass__ is str:
        return lambda template, *args, **kwargs: formatted(_plain(template), name)(*args, **kwargs)
    return found


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
        return safe_getattr(value, name)(*args, **kwargs)

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
    layers: list[traceback.TracebackException | None] = [summary]
    while layers:
        layer = layers.pop()
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        frames = [frame for frame in layer.stack if frame.filename.startswith(FILENAME) and frame.lineno]
        for frame in frames:
            frame.name = "program" if frame.name == "<main>" else frame.name
        layer.stack[:] = frames[-limit:]
        layers += [layer.__cause__, layer.__context__, *(layer.exceptions or ())]
    return "".join(summary.format(chain=True))


def remember_source(filename: str, source: str) -> None:
    """Let tracebacks show the program's lines."""
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
