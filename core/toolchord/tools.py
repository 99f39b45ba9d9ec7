"""Owns what a tool is: one callable with metadata, bound to its parameters and types.

Longer than its siblings: the second half reads signatures and type hints, which has no other user.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired

from pydantic import (
    BaseModel,
    ConfigDict,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema, to_jsonable_python
from typing_extensions import TypedDict

from toolchord.errors import InvalidArguments, RegistrationError
from toolchord.models.tool_spec import CALLERS, RateLimit, ToolCapability, ToolMetadata, ToolSpec, open_to
from toolchord.models.validated_tool import ValidatedTool, model_of, short
from toolchord.schema import TypeWriter, accepts_object, brief, parameter_list, problems
from toolchord.search import near

__all__ = [
    "CALLERS",
    "RateLimit",
    "Tool",
    "ToolCapability",
    "ToolMetadata",
    "ToolSpec",
    "ValidatedTool",
    "open_to",
    "tool_from",
]

_P = inspect.Parameter
_LINES = 10  # of one error message


@dataclasses.dataclass(frozen=True, slots=True)
class _Form:
    """How arguments reach an implementation; computed once, read on every call."""

    names: tuple[str, ...] = ()
    required: frozenset[str] = frozenset()
    positional: tuple[str, ...] = ()
    rest: str | None = None  # the name of *args
    open_ended: bool = False  # there is **kwargs
    dict_is_value: bool = False  # a single dict is the first parameter's value, not the keywords
    untyped_first: bool = False
    known: frozenset[str] = frozenset()

    def takes_as_keywords(self, value: Any) -> bool:
        """Whether a single positional argument holds the keywords, as programs for Anthropic's container write it."""
        if not isinstance(value, dict) or self.dict_is_value:
            return False
        if not self.names:
            return self.rest is None and (self.open_ended or not value) and all(isinstance(key, str) for key in value)
        # An empty dict may be the value of a first parameter that says nothing of its type.
        return value.keys() <= set(self.names) if value else not (self.untyped_first and self.required)


@dataclasses.dataclass(frozen=True, slots=True, eq=False, repr=False)
class Tool:
    """One callable tool. Made by `tool_from`.

    Attributes:
        metadata: what is known about it.
        implementation: the object that was registered.
        aliases: other names it answers to: `GetSalesDataTool` is also ``get_sales_data``.
        list_field: the field that iteration goes over, when the declared result model is one list; else None.
    """

    metadata: ToolMetadata
    implementation: Any
    aliases: tuple[str, ...]
    list_field: str | None
    _form: _Form
    _validate: Callable[[dict[str, Any]], dict[str, Any]] | None
    _run: Callable[[dict[str, Any]], Any]
    _load: Callable[[], Tool] | None = None

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
                close = near(name, form.names, 1) if len(wrong) < _LINES else ()
                hint = "".join(f" (did you mean {other!r}?)" for other in close)
                wrong.append(f"unexpected argument {brief(name)}{hint}")
            bound[name] = value
        wrong += [f"missing argument {name!r}" for name in form.names if name in form.required and name not in bound]
        if wrong:
            raise self._invalid(wrong)
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
            raise self._invalid(short(error)) from None
        except _Misfit as error:
            raise self._invalid(error.args) from None

    def call(self, arguments: dict[str, Any]) -> Any:
        """Run the implementation with validated arguments; gives an awaitable when `is_async`."""
        return self._run(arguments)

    async def execute(self, **arguments: Any) -> Any:
        """Bind, validate and run in one step, on this event loop."""
        tool = self.load()
        value = tool.call(tool.validate(tool.bind((), arguments)))
        return await value if inspect.isawaitable(value) else value

    def _invalid(self, wrong: Sequence[str]) -> InvalidArguments:
        shown = wrong if len(wrong) <= _LINES else [*wrong[:_LINES], f"… and {len(wrong) - _LINES} more"]
        lines = wrong[0] if len(wrong) == 1 else "".join(f"\n- {line}" for line in shown)
        return InvalidArguments(f"{self.name}: {lines}\nIt is called as {self.signature}", tool=self.name)


def tool_from(obj: Any, *, name: str | None = None, namespace: str = "default", **metadata: Any) -> Tool:
    """Make a tool of a function, a bound method, a `ValidatedTool`, or any object with `execute(**kw)`.

    Args:
        obj: the implementation; async or not. A `Tool` is copied with the changes that are asked for.
        name: the name to register; by default the function's or class's own. ``"web.fetch"`` sets the namespace too.
        namespace: the namespace.
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
        return dataclasses.replace(obj, metadata=ToolMetadata(**changed), aliases=() if name else obj.aliases)
    instance = _instance(obj) if isinstance(obj, type) else obj
    if isinstance(instance, ValidatedTool) and type(instance).execute is ValidatedTool.execute:
        parts = _from_validated(instance)
    else:
        parts = _from_callable(_entry(instance), given.get("argument_schema"))
    own_name, aliases = _name_of(instance)
    chosen = name or own_name
    if not chosen:
        raise RegistrationError(f"{obj!r:.80} has no name of its own; pass name=")
    seen = {**parts.schemas, "description": inspect.getdoc(_documented(instance)) or ""}
    return Tool(
        metadata=ToolMetadata(**{**seen, **given, "name": chosen, "is_async": parts.is_async}),
        implementation=obj,
        aliases=() if name else aliases,
        list_field=_list_field(parts.result),
        _form=parts.form,
        _validate=parts.validate,
        _run=parts.run,
    )


def split_name(name: str | None, namespace: str) -> tuple[str | None, str]:
    """Name and namespace; a dotted name brings its own namespace unless one is given."""
    if name and namespace == "default" and "." in name.strip("."):
        namespace, _, name = name.rpartition(".")
    return name, namespace


def placeholder(metadata: ToolMetadata, load: Callable[[], Tool]) -> Tool:
    """A tool that is known by its metadata only and imported by `load` when it is first needed."""

    def run(arguments: dict[str, Any]) -> Any:
        return load().call(arguments)

    form = _schema_form(metadata.argument_schema) if metadata.argument_schema else _Form(open_ended=True)
    return Tool(metadata, None, (), None, form, None, run, load)


@dataclasses.dataclass(frozen=True, slots=True)
class _Parts:
    """What inspecting an implementation brings to light."""

    form: _Form
    validate: Callable[[dict[str, Any]], dict[str, Any]] | None
    run: Callable[[dict[str, Any]], Any]
    is_async: bool
    schemas: dict[str, Any]
    result: Any  # the declared result type


class _JsonSchema(GenerateJsonSchema):
    """Schemas without invented titles, that tell Decimal from text and leave other Python objects open."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def field_is_required(self, field: Any, total: bool) -> bool:
        if self.mode == "serialization" and field["type"] != "typed-dict-field":
            return True  # a model that is a result has all of its fields
        return super().field_is_required(field, total)

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        if self.mode == "validation":
            return super().decimal_schema(schema)
        return {"type": "string", "format": "decimal"}

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        return {}


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


def _from_validated(instance: ValidatedTool) -> _Parts:
    cls = type(instance)
    execute = getattr(instance, "_execute", None)
    if execute is None:
        raise RegistrationError(f"{cls.__name__} has no _execute(); write one that takes the fields of Arguments")
    inner = _from_callable(execute, None)
    finish = instance.validate_result
    result = model_of(cls, "Result")

    async def run_async(arguments: dict[str, Any]) -> Any:
        return finish(await inner.run(arguments))

    def run(arguments: dict[str, Any]) -> Any:
        return finish(inner.run(arguments))

    parts = dataclasses.replace(inner, run=run_async if inner.is_async else run)
    if result is not None:
        schema = result.model_json_schema(mode="serialization", schema_generator=_JsonSchema)
        parts = dataclasses.replace(parts, result=result, schemas={**parts.schemas, "result_schema": schema})
    model = model_of(cls, "Arguments")
    if model is None:
        return parts
    schema = model.model_json_schema(schema_generator=_JsonSchema)
    schema = {key: value for key, value in schema.items() if key not in ("title", "description")}
    schema.setdefault("properties", {})

    def validate(arguments: dict[str, Any]) -> dict[str, Any]:
        valid = model.model_validate(arguments)
        return {**{name: getattr(valid, name) for name in model.model_fields}, **(valid.model_extra or {})}

    schemas = {**parts.schemas, "argument_schema": schema}
    return dataclasses.replace(parts, form=_schema_form(schema), validate=validate, schemas=schemas)


def _schema_form(schema: Mapping[str, Any]) -> _Form:
    names = tuple(schema.get("properties", {}))
    first = schema["properties"][names[0]] if names else None
    return _Form(
        names=names,
        required=frozenset(schema.get("required", ())),
        positional=names,
        # Unlike JSON Schema, an argument that is not declared is refused unless the schema asks for more.
        open_ended=schema.get("additionalProperties", not names) not in (False, None),
        dict_is_value=bool(names) and accepts_object(first, schema),
        known=frozenset(names),
    )


def _from_callable(function: Callable[..., Any], schema: dict[str, Any] | None) -> _Parts:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some builtins have none
        signature = inspect.Signature([_P("args", _P.VAR_POSITIONAL), _P("kwargs", _P.VAR_KEYWORD)])
    parameters = list(signature.parameters.values())
    hints = _hints(function, signature)
    schemas: dict[str, Any] = {}
    if (result := hints.get("return", Any)) is not Any and (found := _result_schema(result)):
        schemas["result_schema"] = found
    spread = any(p.kind in (_P.POSITIONAL_ONLY, _P.VAR_POSITIONAL) for p in parameters)
    run = functools.partial(_spread, function, signature) if spread else _keywords(function)
    is_async = inspect.iscoroutinefunction(_unwrapped(function))
    if schema is not None and all(p.kind is _P.VAR_KEYWORD for p in parameters):
        # The caller knows more about the arguments than the signature does: an adapter, most often.
        return _Parts(_schema_form(schema), functools.partial(_checked, schema), run, is_async, schemas, result)
    for p in parameters:
        if isinstance(p.default, FieldInfo):
            raise RegistrationError(f"parameter {p.name!r}: write Annotated[type, Field(...)] = default instead")
    adapter = _adapter(parameters, hints)
    own_schema = _argument_schema(adapter, parameters)
    form = _signature_form(parameters, own_schema, hints)
    typed = any(p.name in hints for p in parameters)
    schemas["argument_schema"] = own_schema
    return _Parts(form, adapter.validate_python if typed else None, run, is_async, schemas, result)


def _unwrapped(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else getattr(type(function), "__call__", function)  # noqa: B004


def _keywords(function: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda arguments: function(**arguments)


def _spread(function: Callable[..., Any], signature: inspect.Signature, arguments: dict[str, Any]) -> Any:
    """Call a function that has parameters which can't be given by keyword."""
    bound = inspect.BoundArguments(signature, {})
    left = dict(arguments)
    for p in signature.parameters.values():
        if p.kind is _P.VAR_KEYWORD:
            bound.arguments[p.name] = left
        elif p.name in left:
            value = left.pop(p.name)
            bound.arguments[p.name] = tuple(value) if p.kind is _P.VAR_POSITIONAL else value
    bound.apply_defaults()
    return function(*bound.args, **bound.kwargs)


class _Misfit(ValueError):
    """Arguments that break a JSON Schema; `args` are the lines that say how."""


def _checked(schema: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    if wrong := list(itertools.islice(problems(arguments, schema), _LINES)):
        raise _Misfit(*wrong)
    return arguments


def _hints(function: Any, signature: inspect.Signature) -> dict[str, Any]:
    """Resolved annotations; one that can't be resolved counts as none."""
    target = _unwrapped(function)
    try:
        hints = typing.get_type_hints(target, include_extras=True)
    except Exception:  # any error may come out of evaluating an annotation
        scope = getattr(inspect.unwrap(target), "__globals__", {})
        hints = {}
        for name, annotation in getattr(target, "__annotations__", {}).items():
            try:
                hints |= typing.get_type_hints(
                    types.SimpleNamespace(__annotations__={name: annotation}), scope, include_extras=True
                )
            except Exception:
                continue
    return {name: hint for name, hint in hints.items() if name in signature.parameters or name == "return"}


def _adapter(parameters: Sequence[inspect.Parameter], hints: Mapping[str, Any]) -> TypeAdapter[dict[str, Any]]:
    """One validator for all arguments: a TypedDict, so that an omitted one stays omitted."""
    fields: dict[str, Any] = {}
    optional: Any = NotRequired
    for p in parameters:
        hint = hints.get(p.name, Any)
        if p.kind is _P.VAR_POSITIONAL:
            fields[p.name] = optional[types.GenericAlias(list, (hint,))]
        elif p.default is not _P.empty:
            fields[p.name] = optional[_or_none(hint) if p.default is None else hint]
        elif p.kind is not _P.VAR_KEYWORD:
            fields[p.name] = hint
    open_ended = any(p.kind is _P.VAR_KEYWORD for p in parameters)
    make: Any = TypedDict
    form = make("Arguments", fields)
    form.__pydantic_config__ = ConfigDict(arbitrary_types_allowed=True, extra="allow" if open_ended else "forbid")
    try:
        return TypeAdapter(form)
    except (PydanticUserError, PydanticSchemaGenerationError) as error:
        raise RegistrationError(f"the type hints can't be understood: {error.message}") from error


def _or_none(hint: Any) -> Any:
    """The type with None, for the old habit of ``x: int = None``; what Annotated says stays on top."""
    if typing.get_origin(hint) is typing.Annotated:
        inner, *notes = typing.get_args(hint)
        return typing.Annotated[(inner | None, *notes)] if type(None) not in typing.get_args(inner) else hint
    return typing.Optional[hint]  # noqa: UP045 - the hint may be something that has no |


def _argument_schema(adapter: TypeAdapter[Any], parameters: Sequence[inspect.Parameter]) -> dict[str, Any]:
    schema = adapter.json_schema(schema_generator=_JsonSchema)
    schema.pop("title", None)
    schema.setdefault("properties", {})
    for p in parameters:
        if p.default is not _P.empty and p.name in schema["properties"]:
            with contextlib.suppress(Exception):  # a default that JSON can't say is left out
                schema["properties"][p.name]["default"] = to_jsonable_python(p.default)
    return schema


def _result_schema(hint: Any) -> dict[str, Any] | None:
    if hint is None:
        hint = type(None)
    try:
        return TypeAdapter(hint).json_schema(mode="serialization", schema_generator=_JsonSchema) or None
    except Exception:  # a return type that pydantic doesn't know is a result without a declared shape
        return None


def _signature_form(
    parameters: Sequence[inspect.Parameter], schema: Mapping[str, Any], hints: Mapping[str, Any]
) -> _Form:
    named = [p for p in parameters if p.kind not in (_P.VAR_POSITIONAL, _P.VAR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is _P.VAR_POSITIONAL), None)
    first = parameters[0] if parameters else None
    names = tuple(p.name for p in named)
    return _Form(
        names=names,
        required=frozenset(p.name for p in named if p.default is _P.empty),
        positional=tuple(p.name for p in named if p.kind is not _P.KEYWORD_ONLY),
        rest=rest,
        open_ended=any(p.kind is _P.VAR_KEYWORD for p in parameters),
        dict_is_value=first is not None
        and first.name in schema["properties"]
        and (first.name == rest or (first.name in hints and accepts_object(schema["properties"][first.name], schema))),
        untyped_first=first is not None and first.name not in hints,
        known=frozenset(names if rest is None else (*names, rest)),
    )


def _list_field(result: Any) -> str | None:
    if not (isinstance(result, type) and issubclass(result, BaseModel)) or len(result.model_fields) != 1:
        return None
    name, field = next(iter(result.model_fields.items()))
    return name if (typing.get_origin(field.annotation) or field.annotation) is list and name != "root" else None
