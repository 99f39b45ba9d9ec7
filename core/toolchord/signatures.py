"""Reads an implementation: how arguments reach it, what checks them, and which schemas describe it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
import operator
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired

from pydantic import BaseModel, ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema, to_jsonable_python
from typing_extensions import TypedDict

from toolchord.errors import RegistrationError
from toolchord.models.validated_tool import ValidatedTool, model_of
from toolchord.schema import accepts_object, final_keys, problems

_P = inspect.Parameter
LINES = 10  # of one error message


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
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


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """What inspecting an implementation brings to light."""

    form: Form
    validate: Callable[[dict[str, Any]], dict[str, Any]] | None
    run: Callable[[dict[str, Any]], Any]
    is_async: bool
    schemas: dict[str, Any]
    result: Any  # the declared result type
    plain_types: bool = False  # types alone decide whether arguments fit
    final_keys: dict[str, Any] | None = None  # of a result that the tool's own model makes


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


def from_validated(instance: ValidatedTool) -> Parts:
    cls = type(instance)
    execute = getattr(instance, "_execute", None)
    if execute is None:
        raise RegistrationError(f"{cls.__name__} has no _execute(); write one that takes the fields of Arguments")
    inner = from_callable(execute, None)
    finish = instance.validate_result
    result = model_of(cls, "Result")

    async def run_async(arguments: dict[str, Any]) -> Any:
        return finish(await inner.run(arguments))

    def run(arguments: dict[str, Any]) -> Any:
        return finish(inner.run(arguments))

    parts = dataclasses.replace(inner, run=run_async if inner.is_async else run)
    if result is not None:
        schema = result.model_json_schema(mode="serialization", schema_generator=_JsonSchema)
        parts = dataclasses.replace(
            parts,
            result=result,
            schemas={**parts.schemas, "result_schema": schema},
            final_keys=_keys_of(result),
        )
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
    plain = has_plain_types(model.__pydantic_core_schema__)
    return dataclasses.replace(parts, form=schema_form(schema), validate=validate, schemas=schemas, plain_types=plain)


def _keys_of(result: type[BaseModel]) -> dict[str, Any] | None:
    """The keys of a result that its model makes: it crosses by its fields' names, whatever serialises them."""
    if not has_plain_types(result.__pydantic_core_schema__):
        return None
    schema = result.model_json_schema(mode="validation", by_alias=False, schema_generator=_JsonSchema)
    return final_keys(schema, closed=True)


_PLAIN_TYPES = frozenset(
    "any none bool int float decimal str bytes date time datetime timedelta literal enum list tuple set frozenset dict "
    "nullable union tagged-union typed-dict typed-dict-field dataclass dataclass-args dataclass-field model "
    "model-fields model-field default definitions definition-ref".split()
)
"""Of pydantic's core schemas, those that run no code of the tool's own."""

_CHANGING = ("missing", "coerce_numbers_to_str", "from_attributes", "custom_init", "str_strip_whitespace")


def has_plain_types(core_schema: Any) -> bool:
    """Whether a pydantic schema checks by types alone: nothing of the tool's own changes what is given."""
    stack = [core_schema]
    while stack:
        node = stack.pop()
        if isinstance(node, Mapping):
            kind = node.get("type")
            if (isinstance(kind, str) and kind not in _PLAIN_TYPES) or any(map(node.get, _CHANGING)):
                return False
            stack.extend(value for key, value in node.items() if key not in ("metadata", "serialization"))
        elif isinstance(node, list | tuple):
            stack.extend(node)
    return True


def schema_form(schema: Mapping[str, Any]) -> Form:
    names = tuple(schema.get("properties", {}))
    first = schema["properties"][names[0]] if names else None
    return Form(
        names=names,
        required=frozenset(schema.get("required", ())),
        positional=names,
        # Unlike JSON Schema, an argument that is not declared is refused unless the schema asks for more.
        open_ended=schema.get("additionalProperties", not names) not in (False, None),
        dict_is_value=bool(names) and accepts_object(first, schema),
        known=frozenset(names),
    )


def from_callable(function: Callable[..., Any], schema: dict[str, Any] | None) -> Parts:
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
        check = functools.partial(_checked, schema)
        return Parts(schema_form(schema), check, run, is_async, schemas, result, plain_types=True)
    for p in parameters:
        if isinstance(p.default, FieldInfo):
            raise RegistrationError(f"parameter {p.name!r}: write Annotated[type, Field(...)] = default instead")
    adapter = _adapter(parameters, hints)
    own_schema = _argument_schema(adapter, parameters)
    form = _signature_form(parameters, own_schema, hints)
    typed = any(p.name in hints for p in parameters)
    schemas["argument_schema"] = own_schema
    plain = has_plain_types(adapter.core_schema)
    return Parts(form, adapter.validate_python if typed else None, run, is_async, schemas, result, plain)


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


class Misfit(ValueError):
    """Arguments that break a JSON Schema; `args` are the lines that say how."""


def _checked(schema: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    if wrong := list(itertools.islice(problems(arguments, schema), LINES)):
        raise Misfit(*wrong)
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
    wanted = {*signature.parameters, "return"}
    return {name: _portable(hint) for name, hint in hints.items() if name in wanted}


def _portable(hint: Any) -> Any:
    """The hint with each `typing.TypedDict` in the form that pydantic asks for before Python 3.12."""
    if sys.version_info >= (3, 12):
        return hint
    if typing.is_typeddict(hint) and type(hint).__module__ == "typing":
        optional: Any = NotRequired
        fields = {
            name: _portable(inner) if name in hint.__required_keys__ else optional[_portable(inner)]
            for name, inner in typing.get_type_hints(hint, include_extras=True).items()
        }
        make: Any = TypedDict
        return make(hint.__name__, fields)
    arguments = typing.get_args(hint)
    if not arguments or typing.get_origin(hint) in (typing.Literal, typing.Annotated):
        return hint
    changed = tuple(_portable(argument) for argument in arguments)
    if changed == arguments:
        return hint
    if isinstance(hint, types.UnionType):
        return functools.reduce(operator.or_, changed)
    return hint.copy_with(changed) if hasattr(hint, "copy_with") else types.GenericAlias(hint.__origin__, changed)


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
) -> Form:
    named = [p for p in parameters if p.kind not in (_P.VAR_POSITIONAL, _P.VAR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is _P.VAR_POSITIONAL), None)
    first = parameters[0] if parameters else None
    names = tuple(p.name for p in named)
    return Form(
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


def list_field_of(result: Any) -> str | None:
    if not (isinstance(result, type) and issubclass(result, BaseModel)) or len(result.model_fields) != 1:
        return None
    name, field = next(iter(result.model_fields.items()))
    return name if (typing.get_origin(field.annotation) or field.annotation) is list and name != "root" else None
