"""Owns what a program sees of a LlamaIndex tool's arguments, what stays the host's, and what checks them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from llama_index.core.tools import BaseTool, FunctionTool, ToolMetadata
from llama_index.core.workflow import Context
from pydantic import BaseModel

from toolchord.errors import RegistrationError
from toolchord.schema import dereference


class Arguments(NamedTuple):
    """The arguments of one tool.

    Attributes:
        schema: JSON Schema of those that a program gives.
        context: names of the parameters that take the workflow's `Context`.
        hidden: what a program can never give: those, and what `partial_params` fills in.
        check: gives the arguments to run with, or raises pydantic's ValidationError; None if only the schema is known.
        single: the only argument goes by position, as LlamaIndex gives it.
    """

    schema: dict[str, Any]
    context: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    check: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    single: bool = False


def arguments_of(tool: BaseTool) -> Arguments:
    """Read a tool's arguments.

    Raises:
        RegistrationError: they have no JSON Schema of an object.
    """
    schema = _schema_of(tool)
    context = _context_parameters(tool) if isinstance(tool, FunctionTool) else frozenset()
    hidden = context | (tool.partial_params.keys() if isinstance(tool, FunctionTool) else frozenset())
    model = tool.metadata.fn_schema
    properties = {name: sub for name, sub in schema["properties"].items() if name not in hidden}
    schema |= {"properties": properties}
    if "required" in schema:
        schema["required"] = [name for name in schema["required"] if name in properties]
    checked = model is not None and not hidden & (model.model_fields.keys() | _schema_of(tool)["properties"].keys())
    return Arguments(
        schema,
        context,
        hidden,
        _check_of(tool, model) if checked and model is not None else None,
        len(properties) == 1 and _takes_one_by_position(tool, next(iter(properties))),
    )


def hints_of(function: Any) -> dict[str, Any]:
    """Resolved annotations of a function; none where they can't be resolved."""
    while hasattr(function, "func"):  # a partial
        function = function.func
    try:
        return typing.get_type_hints(function)
    except Exception:  # any error may come out of evaluating an annotation
        return dict(getattr(function, "__annotations__", {}))


def _schema_of(tool: BaseTool) -> dict[str, Any]:
    name, model = tool.metadata.name, tool.metadata.fn_schema
    if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise RegistrationError(
            f"the fn_schema of {name!r} is no pydantic model but {model!r:.80}; give it a BaseModel class, or None"
        )
    try:
        if model is None or type(tool.metadata).get_parameters_dict is not ToolMetadata.get_parameters_dict:
            schema = dict(tool.metadata.get_parameters_dict())
        else:  # LlamaIndex leaves out the fields of a model that holds itself
            schema = model.model_json_schema()
            schema = {**dereference(schema, schema), **{key: schema[key] for key in ("$defs",) if key in schema}}
            schema = {key: value for key, value in schema.items() if key not in ("title", "description")}
    except Exception as error:  # pydantic raises many kinds for types that JSON can't say
        raise RegistrationError(
            f"the arguments of {name!r} have no JSON Schema: {error}; give the tool an fn_schema"
        ) from error
    properties = schema.setdefault("properties", {})
    if schema.setdefault("type", "object") != "object" or not isinstance(properties, dict):
        raise RegistrationError(
            f"the arguments of {name!r} are no object but {schema['type']!r}; give the tool an fn_schema with fields"
        )
    if not properties and not (model is not None and model.model_config.get("extra") == "allow"):
        schema["additionalProperties"] = False
    return schema


def _context_parameters(tool: FunctionTool) -> frozenset[str]:
    """LlamaIndex sees a `Context` only where the annotation is no text; a program must see none at all."""
    hints = {**hints_of(tool.real_fn)}
    found = {name for name, hint in hints.items() if name != "return" and _is_context(hint)}
    return frozenset(found | ({tool.ctx_param_name} if tool.ctx_param_name else set()))


def _is_context(hint: Any) -> bool:
    if isinstance(hint, str):
        return hint.partition("[")[0].rpartition(".")[2] == "Context"
    return hint is Context or typing.get_origin(hint) is Context or Context in typing.get_args(hint)


def _check_of(tool: BaseTool, model: type[BaseModel]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Check by the tool's model. LlamaIndex itself hands the arguments over as they came.

    A function whose parameter has the very type of the model's field gets the value in that type; every other one gets
    what the program gave, because its code expects plain data.
    """
    hints = hints_of(tool.real_fn) if isinstance(tool, FunctionTool) else {}
    typed = {name for name, field in model.model_fields.items() if name in hints and hints[name] == field.annotation}

    def check(given: dict[str, Any]) -> dict[str, Any]:
        valid = model.model_validate(given)
        return {name: getattr(valid, name) if name in typed else value for name, value in given.items()}

    return check


def _takes_one_by_position(tool: BaseTool, name: str) -> bool:
    """Whether LlamaIndex gives a tool's only argument by position: it does not know the name that the schema has."""
    if isinstance(tool, FunctionTool):
        return not _binds(tool.real_fn, **{name: None})
    return _binds(getattr(tool, "call", tool), None)


def _binds(function: Any, *args: Any, **kwargs: Any) -> bool:
    try:
        inspect.signature(function).bind_partial(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # it has no signature
        return bool(kwargs)
    return True
