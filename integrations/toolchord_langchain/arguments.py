"""Owns what a program sees of a LangChain tool's arguments, and what stays the host's."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from langchain_core.tools import BaseTool, InjectedToolCallId, Tool, create_schema_from_function
from langchain_core.utils.pydantic import get_fields
from pydantic import BaseModel
from pydantic.v1 import BaseModel as BaseModelV1

from toolchord.errors import RegistrationError
from toolchord_langchain.private import (
    call_id_parameters,
    config_parameters,
    field_hints,
    hints_of,
    implementations,
    injected_parameters,
    is_injected,
)

_RUNTIME = frozenset({"run_manager", "callbacks"})  # LangChain hands these to every function that has them


class Arguments(NamedTuple):
    """The arguments of one tool.

    Attributes:
        schema: JSON Schema of those that a program gives.
        injected: names of those that the host gives; `required` ones have no default.
        call_ids: those that take the call's id.
        refused: what a program can never give: the injected ones, their aliases, and LangChain's own.
        renamed: a field's name -> the alias by which its model wants it.
        checked: LangChain checks and coerces them by a model.
    """

    schema: dict[str, Any]
    injected: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    call_ids: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = MappingProxyType({})
    checked: bool = False


def arguments_of(tool: BaseTool, reserved: Collection[str] = ()) -> Arguments:
    """Read a tool's arguments. Those with `reserved` names are the host's, marked or not.

    Raises:
        RegistrationError: they have no JSON Schema.
    """
    marked = injected_parameters(tool)
    hidden = marked | config_parameters(tool) | frozenset(reserved)
    call_ids = call_id_parameters(tool)
    model = tool.args_schema
    if model is None:
        seen = Arguments(_own_schema(tool, hidden))
    elif isinstance(model, dict):
        seen = Arguments(model)
    else:
        seen = _of_model(tool, model)
    injected = marked | seen.injected
    refused = seen.refused | hidden
    properties = {name: sub for name, sub in seen.schema.get("properties", {}).items() if name not in refused}
    schema = {key: value for key, value in seen.schema.items() if key not in ("title", "description")}
    schema |= {"type": "object", "properties": properties}
    if "required" in schema:
        schema["required"] = [name for name in schema["required"] if name in properties]
    return seen._replace(
        schema=schema,
        injected=injected,
        required=(seen.required | _without_default(tool, marked)) - call_ids - seen.call_ids,
        call_ids=call_ids | seen.call_ids,
        refused=refused | (_RUNTIME - properties.keys()),
    )


def _own_schema(tool: BaseTool, hidden: frozenset[str]) -> dict[str, Any]:
    """The schema of a tool that has none: LangChain reads it from the function, and does not check it."""
    if isinstance(tool, Tool):  # its function takes one text, whatever the name
        return {"type": "object", "properties": tool.args, "required": list(tool.args)}
    function = tool._run
    if type(tool)._arun is not BaseTool._arun and not _named_parameters(function):
        function = tool._arun
    made = create_schema_from_function(tool.name, function, filter_args=[*_RUNTIME, *hidden])
    return _json_schema(tool, made)


def _named_parameters(function: Any) -> bool:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(p.kind not in kinds and p.name not in _RUNTIME for p in inspect.signature(function).parameters.values())


def _of_model(tool: BaseTool, model: type[BaseModel] | type[BaseModelV1]) -> Arguments:
    fields: dict[str, Any] = dict(get_fields(model))
    visible = tool.tool_call_schema
    assert isinstance(visible, type)
    schema = _json_schema(tool, visible)
    if _takes_extra(model):
        schema = {**schema, "additionalProperties": True}
    injected = frozenset(fields) - frozenset(get_fields(visible))
    by_name = _by_name(model)
    hints = field_hints(model)
    return Arguments(
        schema,
        injected,
        required=frozenset(name for name in injected if _is_required(fields[name])),
        call_ids=frozenset(name for name in injected if is_injected(hints.get(name), InjectedToolCallId)),
        refused=injected | {_head(alias) for name in injected for alias in _aliases(fields[name])},
        renamed={
            name: text
            for name, field in fields.items()
            if not by_name and (text := next((a for a in _aliases(field) if isinstance(a, str)), name)) != name
        },
        checked=True,
    )


def _json_schema(tool: BaseTool, model: Any) -> dict[str, Any]:
    try:
        return dict(model.model_json_schema() if issubclass(model, BaseModel) else model.schema())
    except Exception as error:  # pydantic raises many kinds for types that JSON can't say
        raise RegistrationError(f"the arguments of {tool.name!r} have no JSON Schema: {error}") from error


def _takes_extra(model: type[BaseModel] | type[BaseModelV1]) -> bool:
    if issubclass(model, BaseModel):
        return model.model_config.get("extra") == "allow"
    return str(getattr(model.__config__.extra, "value", "")) == "allow"


def _by_name(model: type[BaseModel] | type[BaseModelV1]) -> bool:
    if issubclass(model, BaseModel):
        return bool(model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name"))
    return bool(model.__config__.allow_population_by_field_name)


def _aliases(field: Any) -> list[Any]:
    """The texts and paths other than its own name by which a model takes a field, the preferred one first."""
    alias = getattr(field, "validation_alias", None) or getattr(field, "alias", None)
    return [] if alias is None else list(getattr(alias, "choices", [alias]))


def _head(alias: Any) -> str:
    """The argument in which an alias looks."""
    return alias if isinstance(alias, str) else str(alias.path[0])


def _is_required(field: Any) -> bool:
    return bool(field.is_required() if hasattr(field, "is_required") else field.required)


def _without_default(tool: BaseTool, names: frozenset[str]) -> frozenset[str]:
    """Injected parameters that a function can't do without."""
    found = set()
    for function in implementations(tool):
        hints = hints_of(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if name in names and parameter.default is parameter.empty and is_injected(hints.get(name)):
                found.add(name)
    return frozenset(found)
