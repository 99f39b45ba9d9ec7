"""Tools as a program sees them: functions whose calls may be awaited, gathered, or simply used."""

from __future__ import annotations

import builtins
import math
import operator
import sys
from collections.abc import Callable
from typing import Any

from toolchord_guest.hub import Hub
from toolchord_guest.link import Rows

FILENAME = "<program>"


class ToolError(Exception):
    """A tool failed. Caught too by the builtin class that the tool's own error derives from.

    Attributes:
        tool: the tool's name.
        retryable: whether the same call may work later.
    """

    tool: str = ""
    retryable: bool = False


_ALONE = (Exception, StopIteration, StopAsyncIteration, ExceptionGroup)
"""Errors that no future can carry, or that are made of others: these are caught by name only."""

_error_types: dict[tuple[str, str], type[ToolError]] = {}


def tool_error(details: dict[str, Any]) -> ToolError:
    """The exception for a failed call, of a class named like the tool's own."""
    name, base_name = details["type"], details["base"]
    cls = _error_types.get((name, base_name))
    if cls is None:
        base = getattr(builtins, base_name, Exception)
        bases: tuple[type, ...] = (ToolError,)
        if isinstance(base, type) and issubclass(base, Exception) and base not in _ALONE:
            bases = (ToolError, base)
        try:
            cls = type(name, bases, {"__module__": "builtins"})
        except TypeError:  # a builtin class with a layout of its own
            cls = type(name, (ToolError,), {"__module__": "builtins"})
        _error_types[name, base_name] = cls
    try:
        error = cls(*details["args"])
    except TypeError:  # a builtin class that insists on certain arguments
        error = cls.__new__(cls, details["message"])
        error.args = (details["message"],)
    if str(error) != details["message"]:
        error = _worded(cls, details["message"], error.args)
    error.tool = details["tool"]
    error.retryable = details["retryable"]
    return error


def _worded(cls: type[ToolError], message: str, args: tuple[Any, ...]) -> ToolError:
    """An error that says exactly `message`, whatever its class makes of its arguments."""
    worded: Any = type(cls.__name__, (cls,), {"__module__": "builtins", "__str__": lambda self: message})
    error: ToolError = worded.__new__(worded, message)
    error.args = args
    return error


class PendingCall:
    """A call that has started. Awaiting it waits; so does any other use, which then sees the value itself."""

    __slots__ = ("__weakref__", "_future", "_hub")
    _future: Any

    def __init__(self, hub: Hub, future: Any) -> None:
        object.__setattr__(self, "_hub", hub)
        object.__setattr__(self, "_future", future)

    def __await__(self) -> Any:
        return self._future.__await__()

    @property
    def __class__(self) -> type:  # isinstance sees the value
        return type(value_of(self))

    @__class__.setter
    def __class__(self, cls: type) -> None:
        raise TypeError("the class of a call's value can't be changed")


def value_of(pending: PendingCall) -> Any:
    """Wait for a call here and now; its value, or its error raised."""
    future = object.__getattribute__(pending, "_future")
    if not future.done():
        object.__getattribute__(pending, "_hub").block(future.done)
    return future.result()


def future_of(value: Any) -> Any:
    """The future behind a started call; anything else as it is."""
    return object.__getattribute__(value, "_future") if type(value) is PendingCall else value


def settled(value: Any) -> Any:
    """The value of a started call; anything else as it is."""
    return value_of(value) if type(value) is PendingCall else value


def _forward(function: Callable[..., Any]) -> Callable[..., Any]:
    """A method that does with the value what `function` does with its first argument."""
    return lambda self, *args: function(value_of(self), *map(settled, args))


def _reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: function(settled(other), value_of(self))


_ARITHMETIC = "add sub mul matmul truediv floordiv mod pow lshift rshift and_ or_ xor".split()
_OPERATORS = "eq ne lt le gt ge neg pos abs invert index contains getitem setitem delitem".split()
_BUILTINS = "len iter next hash bool str repr format int float complex bytes round reversed".split()
_METHODS: dict[str, Callable[..., Any]] = {
    **{n: getattr(operator, n) for n in _OPERATORS},
    **{n: getattr(builtins, n) for n in _BUILTINS},
    **{n: getattr(math, n) for n in ["trunc", "floor", "ceil"]},
    "divmod": divmod,
    "getattr": getattr,
    "setattr": setattr,
    "call": lambda value, *args, **kwargs: value(*args, **kwargs),
}  # fmt: skip
for _name, _function in _METHODS.items():
    setattr(PendingCall, f"__{_name}__", _forward(_function))
for _name in _ARITHMETIC:
    setattr(PendingCall, f"__{_name.strip('_')}__", _forward(getattr(operator, _name)))
    setattr(PendingCall, f"__r{_name.strip('_')}__", _reflected(getattr(operator, _name)))


Start = Callable[[tuple[Any, ...], dict[str, Any]], PendingCall]

START, BLOCKS = "<start>", "<blocks>"
"""What a tool keeps, under names that a program can't read or assign."""


class ToolFunction:
    """One tool. Called plainly it blocks, or starts if the tool is asynchronous and the program is too."""

    def __init__(self, hub: Hub, stub: dict[str, Any], start: Start | None = None) -> None:
        self.__name__ = self.__qualname__ = stub["name"]
        self.__doc__ = stub["doc"]
        self.__dict__[START] = start or _start(hub, stub["tool"], stub.get("list_field"))
        self.__dict__[BLOCKS] = not stub["async"]

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        pending = self.__dict__[START](args, kwargs)
        return value_of(pending) if self.__dict__[BLOCKS] or style.sync else pending

    def __repr__(self) -> str:
        return f"<tool {self.__name__}>"

    def __get__(self, instance: object, owner: type | None = None) -> ToolFunction:
        return self  # like a builtin, no method when it is put into a class


def _start(hub: Hub, tool: str, field: str | None) -> Start:
    """What starts calls of a tool: a closure, for no attribute leads from a tool to the hub."""

    def start(args: tuple[Any, ...], kwargs: dict[str, Any]) -> PendingCall:
        future = hub.loop.create_future()
        pending = PendingCall(hub, future)

        def finish(ok: bool, value: Any) -> None:
            if future.done():
                return
            if ok:
                future.set_result(Rows(value, field) if field and isinstance(value, dict) else value)
            else:
                future.set_exception(tool_error(value))

        number = hub.start(tool, _line(), [list(args), kwargs], settled, finish)
        future.add_done_callback(lambda f: hub.cancel(number) if f.cancelled() else None)
        return pending

    return start


class _Style:
    sync = True
    """Whether the running program has no asynchronous construct at all."""


style = _Style()


def starter(function: Any) -> Any:
    """`function` in a place where its result is awaited later: a tool only starts."""
    if isinstance(function, ToolFunction):
        return lambda *args, **kwargs: function.__dict__[START](args, kwargs)
    return function


def blocker(function: Any) -> Any:
    """`function` in a place where its result is used at once: a tool blocks."""
    if isinstance(function, ToolFunction):
        return lambda *args, **kwargs: value_of(function.__dict__[START](args, kwargs))
    return function


def awaitable(value: Any) -> Any:
    """What `await` takes: a started call's future, an awaitable, or a value that is already there."""
    if type(value) is PendingCall:
        return future_of(value)
    if hasattr(type(value), "__await__") or hasattr(value, "cr_await") or hasattr(value, "gi_yieldfrom"):
        return value
    return _Here(value)


class _Here:
    """A value that a forgetful program awaits though it is no awaitable: the result of a blocking tool."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Any:
        return self._value
        yield


def _line() -> int:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(FILENAME):
            return frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return 0


class Namespace:
    """Tools that are reached as `name.tool(...)`."""

    def __init__(self, name: str, tools: dict[str, ToolFunction]) -> None:
        self.__name__ = name
        self.__dict__.update(tools)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = ", ".join(n for n in self.__dict__ if n != "__name__")
        raise AttributeError(f"{self.__name__} has no tool {name!r}; it has {known}")

    def __repr__(self) -> str:
        return f"<tools {self.__name__}>"
