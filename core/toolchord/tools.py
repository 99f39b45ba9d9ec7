"""Owns what a tool is: one callable with metadata, bound to its parameters and types."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import functools
import inspect
import re
import types
import typing
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import (
    ValidationError,
)

from toolchord.errors import InvalidArguments, RegistrationError
from toolchord.identity import current_call
from toolchord.models.tool_spec import (
    CALLERS,
    Breaker,
    RateLimit,
    Retry,
    ToolCapability,
    ToolMetadata,
    ToolSpec,
    open_to,
)
from toolchord.models.validated_tool import ValidatedTool, short
from toolchord.schema import TypeWriter, brief, final_keys, parameter_list
from toolchord.search import near
from toolchord.signatures import LINES, Form, Misfit, Parts, from_callable, from_validated, list_field_of, schema_form
from toolchord_guest.values import Encoder, Unsupported

__all__ = [
    "CALLERS",
    "Breaker",
    "RateLimit",
    "Retry",
    "Tool",
    "ToolCapability",
    "ToolMetadata",
    "ToolSpec",
    "ValidatedTool",
    "around",
    "is_plain",
    "open_to",
    "tool_from",
    "waited",
]


@dataclasses.dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Tool:
    """One callable tool. Made by `tool_from`.

    Attributes:
        metadata: what is known about it.
        implementation: the object that was registered.
        aliases: other names it answers to: `GetSalesDataTool` is also ``get_sales_data``.
        list_field: the field that iteration goes over, when the declared result model is one list; else None.
        compensate: undoes a call, given its arguments by name and what it gave; see `compensate`.
        plain_types: nothing but the types in the argument schema decides whether an argument fits.
        final_keys: the keys that its result can have, see `toolchord.schema.final_keys`; None if others may come.
    """

    metadata: ToolMetadata
    implementation: Any
    aliases: tuple[str, ...]
    list_field: str | None
    _form: Form
    _validate: Callable[[dict[str, Any]], dict[str, Any]] | None
    _run: Callable[[dict[str, Any]], Any]
    _load: Callable[[], Tool] | None = None
    compensate: Callable[[dict[str, Any], Any], Any] | None = None
    plain_types: bool = False
    final_keys: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<Tool {self.full_name}({', '.join(self.parameter_texts())})>"

    @property
    def name(self) -> str:
        """The registered name."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The namespace, ``"default"`` if none was given."""
        return self.metadata.namespace

    @property
    def full_name(self) -> str:
        """Namespace and name, such as ``sales.get_orders``."""
        return f"{self.metadata.namespace}.{self.metadata.name}"

    @property
    def is_async(self) -> bool:
        """Whether `call` returns an awaitable."""
        return self.metadata.is_async

    @property
    def is_loaded(self) -> bool:
        """Whether it is imported already."""
        return self._load is None

    @property
    def form(self) -> Form:
        """How arguments reach it."""
        return self._form

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the declared parameters in order, without ``*args`` and ``**kwargs``."""
        return self._form.names

    @property
    def signature(self) -> str:
        """The call as text, such as ``search(query: str, limit: int = 5)``."""
        name = self.aliases[0] if self.aliases else self.name
        return f"{name}({', '.join(self.parameter_texts())})"

    def parameter_texts(self, writer: TypeWriter | None = None, name: str = "Arguments") -> list[str]:
        """Each parameter as Python text; see `toolchord.schema.parameter_list`."""
        return parameter_list(self.metadata.argument_schema or {}, writer, name=name, rest=self._form.rest)

    def load(self) -> Tool:
        """This tool, imported first if it was registered by import path only."""
        return self if self._load is None else self._load()

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arrange a call's arguments by parameter name; types are not looked at.

        A single dict without keywords is taken as the keywords, unless the first parameter could be a dict itself.
        Arguments for ``*args`` are listed under its name.

        Raises:
            InvalidArguments: an argument is missing, unexpected or given twice.
        """
        form = self._form
        if not args:
            if form.required <= kwargs.keys() and kwargs.keys() <= form.known and form.rest is None:
                return dict(kwargs)
        elif len(args) == 1 and not kwargs and form.takes_as_keywords(args[0]):
            return self.bind((), args[0])
        bound = dict(zip(form.positional, args, strict=False))
        wrong = []
        if extra := list(args[len(form.positional) :]):
            if form.rest is None:
                wrong.append(f"takes {len(form.positional)} positional arguments, {len(args)} were given")
            else:
                bound[form.rest] = extra
        for name, value in kwargs.items():
            if name in bound:
                wrong.append(f"two values for {name!r}")
            elif name == form.rest and not isinstance(value, list | tuple):
                wrong.append(f"{name!r} must be a list")
            elif name not in form.known and not form.open_ended:
                # A program may give thousands: the host looks for the nearest name of the first few only.
                close = near(name, form.names, 1) if len(wrong) < LINES else ()
                hint = "".join(f" (did you mean {other!r}?)" for other in close)
                wrong.append(f"unexpected argument {brief(name)}{hint}")
            bound[name] = value
        wrong += [f"missing argument {name!r}" for name in form.names if name in form.required and name not in bound]
        if wrong:
            raise self.invalid(wrong)
        return bound

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Check and coerce bound arguments to the declared types, as pydantic does by default.

        Raises:
            InvalidArguments: with one line for each problem.
        """
        if self._validate is None:
            return arguments
        try:
            return self._validate(arguments)
        except ValidationError as error:
            raise self.invalid(short(error)) from None
        except Misfit as error:
            raise self.invalid(error.args) from None

    def call(self, arguments: dict[str, Any]) -> Any:
        """Run the implementation with validated arguments; gives an awaitable when `is_async`."""
        return self._run(arguments)

    async def execute(self, **arguments: Any) -> Any:
        """Bind, validate and run in one step, on this event loop."""
        tool = self.load()
        value = tool.call(tool.validate(tool.bind((), arguments)))
        return await value if inspect.isawaitable(value) else value

    def execute_sync(self, **arguments: Any) -> Any:
        """`execute` for code that is not asynchronous; works inside a running event loop too (and blocks it)."""
        tool = self.load()
        value = tool.call(tool.validate(tool.bind((), arguments)))
        return waited(value) if inspect.isawaitable(value) else value

    def invalid(self, wrong: Sequence[str]) -> InvalidArguments:
        """The error that says what is wrong with a call, one line for each problem, and how to call it instead."""
        shown = wrong if len(wrong) <= LINES else [*wrong[:LINES], f"… and {len(wrong) - LINES} more"]
        lines = wrong[0] if len(wrong) == 1 else "".join(f"\n- {line}" for line in shown)
        return InvalidArguments(f"{self.name}: {lines}\nIt is called as {self.signature}", tool=self.name)


def tool_from(
    obj: Any,
    *,
    name: str | None = None,
    namespace: str = "default",
    check: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    compensate: Callable[[dict[str, Any], Any], Any] | None = None,
    **metadata: Any,
) -> Tool:
    """Make a tool of a function, a bound method, a `ValidatedTool`, or any object with `execute(**kw)`.

    Args:
        obj: the implementation; async or not. A `Tool` is copied with the changes that are asked for.
        name: the name to register; by default the function's or class's own. ``"web.fetch"`` sets the namespace too.
        namespace: the namespace.
        check: for adapters: takes the arguments by name and returns those to run with, instead of the check that is
            made of type hints or `argument_schema`. It raises pydantic's ValidationError where they don't fit.
        compensate: a function that undoes a call; it gets the call's arguments by name and what the call gave.
        **metadata: fields of `ToolMetadata`, such as `description`, `tags`, `capabilities`, `allowed_callers`.

    Raises:
        RegistrationError: it is no tool, has no usable name, or the metadata has an unknown field.
    """
    name, namespace = split_name(name, namespace)
    given = {**metadata, "namespace": namespace}
    if isinstance(obj, Tool):
        changed = {**dict(obj.metadata), **metadata, **({"name": name} if name else {})}
        if namespace != "default":
            changed["namespace"] = namespace
        aliases = () if name else obj.aliases
        return dataclasses.replace(
            obj,
            metadata=ToolMetadata(**changed),
            aliases=aliases,
            _validate=check or obj._validate,
            compensate=compensate or obj.compensate,
            plain_types=obj.plain_types and check is None and "argument_schema" not in metadata,
            final_keys=_declared_keys(metadata, obj.final_keys),
        )
    instance = _instance(obj) if isinstance(obj, type) else obj
    parts = _parts(instance, given)
    own_name, own_aliases = _name_of(instance)
    chosen = name or own_name
    own = given.get("argument_schema", parts.schemas.get("argument_schema"))
    if not chosen:
        raise RegistrationError(f"{obj!r:.80} has no name of its own; pass name=")
    seen = {**parts.schemas, "description": inspect.getdoc(_documented(instance)) or ""}
    return Tool(
        metadata=ToolMetadata(**{**seen, **given, "name": chosen, "is_async": parts.is_async}),
        implementation=obj,
        aliases=() if name else own_aliases,
        list_field=list_field_of(parts.result),
        _form=parts.form,
        _validate=check or parts.validate,
        _run=parts.run,
        compensate=compensate,
        plain_types=parts.plain_types and check is None and parts.schemas.get("argument_schema") in (None, own),
        final_keys=_declared_keys(given, parts.final_keys),
    )


def _parts(instance: Any, given: Mapping[str, Any]) -> Parts:
    """What an implementation says of its parameters and result."""
    key = given.get("idempotency_key")
    if isinstance(instance, ValidatedTool) and type(instance).execute is ValidatedTool.execute:
        if key:
            raise RegistrationError("a ValidatedTool has no parameter for the key; read current_call().key in _execute")
        return from_validated(instance)
    entry = _entry(instance)
    return from_callable(keyed(entry, key) if key else entry, given.get("argument_schema"))


def keyed(function: Callable[..., Any], parameter: str) -> Callable[..., Any]:
    """The function without a parameter, which gets the idempotency key of the call that is served.

    Outside of a run, where nothing is repeated, every call has a key of its own.

    Raises:
        RegistrationError: it has no such parameter.
    """
    signature = inspect.signature(function)
    found = signature.parameters.get(parameter)
    if found is None or found.kind not in (found.POSITIONAL_OR_KEYWORD, found.KEYWORD_ONLY):
        raise RegistrationError(f"{function!r:.80} has no parameter {parameter!r} for the idempotency key")

    def with_key(arguments: dict[str, Any]) -> dict[str, Any]:
        call = current_call()
        return {**arguments, parameter: uuid.uuid4().hex if call is None else call.key}

    if inspect.iscoroutinefunction(function):

        async def run_async(*args: Any, **arguments: Any) -> Any:
            return await function(*args, **with_key(arguments))

        run: Callable[..., Any] = run_async
    else:

        def run_sync(*args: Any, **arguments: Any) -> Any:
            return function(*args, **with_key(arguments))

        run = run_sync
    run = functools.wraps(function)(run)
    visible = [one for name, one in signature.parameters.items() if name != parameter]
    run.__signature__ = signature.replace(parameters=visible)  # type: ignore[attr-defined]
    run.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if name != parameter}
    return run


def around(tool: Tool, make: Callable[[Tool], Callable[[dict[str, Any]], Any]]) -> Tool:
    """The same tool, whose calls are run by what `make` gives for it; for adapters that hold calls back or watch them.

    That function takes the checked arguments. It is asynchronous if the tool is, and runs the call by ``tool.call``.
    A deferred tool is still imported only when it is needed.
    """
    load = tool._load
    if load is None:
        return dataclasses.replace(tool, _run=make(tool))

    def loaded() -> Tool:
        return around(load(), make)

    return dataclasses.replace(tool, _run=lambda arguments: loaded().call(arguments), _load=loaded)


def _declared_keys(metadata: Mapping[str, Any], made: dict[str, Any] | None) -> dict[str, Any] | None:
    """The keys of a result: as the tool's model makes it, else as a schema says that somebody wrote for it."""
    schema = metadata.get("result_schema")
    return made if made is not None or schema is None else final_keys(schema, closed=False)


def split_name(name: str | None, namespace: str) -> tuple[str | None, str]:
    """Name and namespace; a dotted name brings its own namespace unless one is given."""
    if name and namespace == "default" and "." in name.strip("."):
        namespace, _, name = name.rpartition(".")
    return name, namespace


def is_plain(value: Any) -> bool:
    """Whether a value is data that may cross into a program; for adapters that have a choice of values."""
    try:
        Encoder(lambda part: None).encode(value)
    except Unsupported:
        return False
    return True


def placeholder(metadata: ToolMetadata, load: Callable[[], Tool]) -> Tool:
    """A tool that is known by its metadata only and imported by `load` when it is first needed."""

    def run(arguments: dict[str, Any]) -> Any:
        return load().call(arguments)

    form = schema_form(metadata.argument_schema) if metadata.argument_schema else Form(open_ended=True)
    return Tool(metadata, None, (), None, form, None, run, load)


def waited(value: Awaitable[Any]) -> Any:
    """What an awaitable gives, on an event loop of its own; for adapters whose framework asks without one."""

    async def wait() -> Any:
        return await value

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    with ThreadPoolExecutor(1, thread_name_prefix="toolchord-sync") as thread:
        return thread.submit(contextvars.copy_context().run, asyncio.run, wait()).result()


def _instance(cls: type) -> Any:
    if not callable(getattr(cls, "execute", None)):
        raise RegistrationError(
            f"{cls.__name__} is a class without execute(); derive it from ValidatedTool, or register a function"
        )
    try:
        return cls()
    except TypeError as error:
        raise RegistrationError(f"{cls.__name__}() needs arguments ({error}); register an instance") from error


def _entry(instance: Any) -> Callable[..., Any]:
    """What to call: `execute` where an object has it, else the object itself."""
    entry = getattr(instance, "execute", None)
    if callable(entry) and not isinstance(instance, types.ModuleType):
        return typing.cast(Callable[..., Any], entry)
    if callable(instance):
        return typing.cast(Callable[..., Any], instance)
    raise RegistrationError(
        f"{type(instance).__name__} is no tool; give a function, a ValidatedTool, or an object with execute(**kwargs)"
    )


def _name_of(instance: Any) -> tuple[str | None, tuple[str, ...]]:
    while isinstance(instance, functools.partial):
        instance = instance.func
    if isinstance(own := getattr(instance, "__name__", None), str):
        return (None if own == "<lambda>" else own), ()
    own = type(instance).__name__
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", own).lower()
    alias = snake.removesuffix("_tool").strip("_") or snake
    return own, (alias,) if alias != own else ()


def _documented(instance: Any) -> Any:
    """Where the docstring is: partials and callable objects show their own class's otherwise."""
    while isinstance(instance, functools.partial):
        instance = instance.func
    if inspect.isroutine(instance):
        return instance
    cls = type(instance)
    if isinstance(instance, ValidatedTool):
        return cls if cls.__doc__ else cls._execute
    return cls if cls.__doc__ else getattr(cls, "execute", None) or getattr(cls, "__call__", None)  # noqa: B004
