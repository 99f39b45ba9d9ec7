"""Functions of the standard library that read attributes or evaluate text by a name they are given: our own, or mended.

What a program calls is replaced in its facade. What other library code calls on the program's behalf (`dataclasses`,
`typing`, `copy`, `logging`, `pydantic`) is mended in place, once, before there are programs.
"""

from __future__ import annotations

import builtins
import copy
import dataclasses
import functools
import logging
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from toolchord_guest import guards
from toolchord_guest.guards import ProgramRefused
from toolchord_guest.language import CHECKED, attribute_problem, text_problem

# facades

_update_wrapper = functools.update_wrapper


def update_wrapper(wrapper: Any, wrapped: Any, assigned: Any = None, updated: Any = None) -> Any:
    """functools.update_wrapper, which copies what is usually copied and nothing else."""
    for given, usual in ((assigned, functools.WRAPPER_ASSIGNMENTS), (updated, functools.WRAPPER_UPDATES)):
        plain = type(given) in (tuple, list) and all(type(n) is str and n in usual for n in given or ())
        if given is not None and not plain:
            raise ProgramRefused("update_wrapper copies the usual attributes here, no others")
    assigned = functools.WRAPPER_ASSIGNMENTS if assigned is None else assigned
    updated = functools.WRAPPER_UPDATES if updated is None else updated
    if type(wrapped) is not types.FunctionType:
        updated = ()  # what another object's dict holds is its own business
    return _update_wrapper(wrapper, wrapped, assigned, updated)


def wraps(wrapped: Any, assigned: Any = None, updated: Any = None) -> Callable[[Any], Any]:
    """functools.wraps."""
    return lambda wrapper: update_wrapper(wrapper, wrapped, assigned, updated)


class Formatter:
    """string.Formatter whose fields may not reach where a program may not. `super` finds no other."""

    def format(self, format_string: str, /, *args: Any, **kwargs: Any) -> str:
        return self.vformat(format_string, args, kwargs)

    def vformat(self, format_string: str, args: Any, kwargs: Any) -> str:
        fields = guards.Fields()
        mine = type(self)
        for name in ("get_value", "convert_field", "format_field", "check_unused_args", "get_field", "parse"):
            if getattr(mine, name) is not getattr(Formatter, name):
                setattr(fields, name, getattr(self, name))
        return fields.vformat(format_string, args, kwargs)

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        fields: Any = guards.Fields()
        fields.get_value = self.get_value
        return fields.get_field(field_name, args, kwargs)

    def get_value(self, key: Any, args: Any, kwargs: Any) -> Any:
        return guards.Fields().get_value(key, args, kwargs)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        return guards.Fields().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> Any:
        return guards.Fields().format_field(value, format_spec)

    def check_unused_args(self, used_args: Any, args: Any, kwargs: Any) -> None:
        pass

    def parse(self, format_string: str) -> Any:
        return guards.Fields().parse(format_string)


def _redirect(stream: str) -> type:
    """contextlib.redirect_stdout or its like: which stream it is, is not the program's choice."""
    olds: dict[int, list[Any]] = {}

    class Redirect:
        def __init__(self, new_target: Any) -> None:
            self._new_target = new_target

        def __enter__(self) -> Any:
            olds.setdefault(id(self), []).append(getattr(sys, stream))
            setattr(sys, stream, self._new_target)
            return self._new_target

        def __exit__(self, *error: object) -> None:
            setattr(sys, stream, olds[id(self)].pop())

    Redirect.__name__ = Redirect.__qualname__ = f"redirect_{stream}"
    return Redirect


redirect_stdout, redirect_stderr = _redirect("stdout"), _redirect("stderr")

# in place


def mend(now: Callable[[], float]) -> None:
    """Mend what the library's own code calls. `now` gives the run's time in seconds since 1970."""
    functools.update_wrapper = update_wrapper
    _mend_dataclasses()
    _mend_typing()
    _mend_copy()
    _mend_logging(now)
    _mend_pydantic()


def _check_names(names: Any) -> None:
    for name in names:
        if type(name) is not str or not name.isidentifier():
            raise ProgramRefused(f"{name!r} is no name for a field")
        problem = attribute_problem(name, {name})
        if problem is not None or name in CHECKED or (name.startswith("__") and name.endswith("__")):
            raise ProgramRefused(problem or f"{name!r} is no name for a field")


def _check_fields(cls: Any) -> None:
    """The fields that a dataclass is said to have."""
    for base in type.__dict__["__mro__"].__get__(cls):
        fields = type.__dict__["__dict__"].__get__(base).get("__dataclass_fields__", {})
        if type(fields) is not dict or any(type(field) is not dataclasses.Field for field in fields.values()):
            raise ProgramRefused("'__dataclass_fields__' can't be defined here")
        _check_names([*fields, *(field.name for field in fields.values())])


def _mend_dataclasses() -> None:
    real: Any = dataclasses
    process, fields, replace = real._process_class, real.fields, real.replace

    def process_class(cls: Any, *args: Any, **kwargs: Any) -> Any:
        annotations = type.__dict__["__dict__"].__get__(cls).get("__annotations__", {})
        if type(annotations) is not dict:
            raise ProgramRefused("the annotations of a dataclass must be a dict")
        _check_names(annotations)
        _check_fields(cls)
        return process(cls, *args, **kwargs)

    def checked_fields(class_or_instance: Any) -> Any:
        _check_fields(class_or_instance if isinstance(class_or_instance, type) else type(class_or_instance))
        return fields(class_or_instance)

    def checked_replace(obj: Any, /, **changes: Any) -> Any:
        _check_fields(type(obj))
        return replace(obj, **changes)

    real._process_class, real.fields, real.replace = process_class, checked_fields, checked_replace


def _mend_typing() -> None:
    """Text that stands for a type is judged, and its names mean classes and other types only."""
    reference: Any = typing.ForwardRef
    init, evaluate = vars(reference)["__init__"], vars(reference).get("_evaluate")

    def __init__(self: Any, arg: Any, *args: Any, **kwargs: Any) -> None:
        _check_text(arg)
        init(self, arg, *args, **kwargs)

    def _evaluate(self: Any, globalns: Any, localns: Any, *args: Any, **kwargs: Any) -> Any:
        _check_text(self.__forward_arg__)
        if self.__forward_module__ not in (None, "__main__"):
            raise ProgramRefused("a type is not looked up in another module here")
        scope = localns if type(localns) is _Scope else _Scope(localns, globalns)
        return evaluate(self, {"__builtins__": {}}, scope, *args, **kwargs)

    reference.__init__ = __init__
    if evaluate is not None:
        reference._evaluate = _evaluate


def _check_text(text: Any) -> None:
    if isinstance(text, str):
        problem = "text of a class of its own" if type(text) is not str else text_problem(text)
        if problem is not None:
            raise ProgramRefused(problem)


class _Scope(dict[str, Any]):
    """Names in text that stands for a type: no modules and functions, and of the builtins the classes."""

    def __init__(self, *scopes: Any) -> None:
        super().__init__()
        self["<scopes>"] = scopes

    def __missing__(self, name: str) -> Any:
        for scope in self["<scopes>"]:
            if isinstance(scope, Mapping) and name in scope:
                if not isinstance(scope[name], _NO_TYPES):
                    return scope[name]
                break
        value = getattr(builtins, name, None)
        if isinstance(value, type):
            return value
        raise KeyError(name)


_NO_TYPES = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.FrameType)


def _mend_copy() -> None:
    """`__reduce_ex__` may make an object of its own class again, and change nothing else."""
    real: Any = copy
    reconstruct = real._reconstruct

    def _reconstruct(x: Any, memo: Any, func: Any, args: Any, state: Any = None, *rest: Any, **kwargs: Any) -> Any:
        if "__main__" in (getattr(type(x), "__module__", None),) and state is not None:
            made: list[Any] = []

            def once(*given: Any) -> Any:
                made.append(func(*given))
                if type(made[0]) is not type(x):
                    raise ProgramRefused("a copy must be of the same class")
                return made[0]

            slots = state[1] if isinstance(state, tuple) and len(state) == 2 and state[1] else {}
            if any(type(name) is not str or name.startswith("__") for name in slots):
                raise ProgramRefused("a copy can't set such attributes")
            return reconstruct(x, memo, once, args, state, *rest, **kwargs)
        return reconstruct(x, memo, func, args, state, *rest, **kwargs)

    real._reconstruct = _reconstruct


def _mend_logging(now: Callable[[], float]) -> None:
    """No format that reads attributes; the run's clock; the process and the thread are always the first."""
    real: Any = logging
    real._STYLES.pop("{", None)

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made: Any = logging.LogRecord(*args, **kwargs)
        made.created = now()
        made.msecs = int((made.created - int(made.created)) * 1000) + 0.0
        made.relativeCreated = 0.0
        made.process = made.thread = 1
        made.processName, made.threadName = "MainProcess", "MainThread"
        return made  # type: ignore[no-any-return]

    logging.setLogRecordFactory(record)
    real.time = types.SimpleNamespace(
        **{n: getattr(real.time, n) for n in dir(real.time) if not n.startswith("_")} | {"time": now}
    )


def _mend_pydantic() -> None:
    """`from_attributes` reads attributes by any alias: refused."""
    pydantic: Any = sys.modules.get("pydantic")
    if pydantic is None:
        return
    from pydantic._internal import _config

    wrapper: Any = _config.ConfigWrapper
    core_config = wrapper.core_config
    validate = pydantic.BaseModel.model_validate.__func__
    message = "from_attributes is not available here: validate a dict"

    def checked_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.config_dict.get("from_attributes"):
            raise ProgramRefused(message)
        return core_config(self, *args, **kwargs)

    def model_validate(cls: Any, obj: Any, **options: Any) -> Any:
        if options.get("from_attributes"):
            raise ProgramRefused(message)
        return validate(cls, obj, **options)

    wrapper.core_config = checked_config
    pydantic.BaseModel.model_validate = classmethod(model_validate)  # type: ignore[arg-type]
