"""Owns the way in: how a server's description of a tool becomes a tool of Toolchord."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from mcp import types
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

import toolchord
from toolchord import Tool, ToolCapability
from toolchord.errors import RegistrationError
from toolchord_mcp.answers import WRAPPED
from toolchord_mcp.schemas import check_schema

Call: TypeAlias = Callable[[types.Tool, dict[str, Any]], Awaitable[Any]]
"""Calls a tool with JSON arguments and gives its value."""

_LONGEST_NAME = 128


def described(entry: Any) -> types.Tool:
    """An entry of ``tools/list``, checked.

    Raises:
        RegistrationError: it is no description of a tool, or a schema of it is wrong.
    """
    try:
        tool = types.Tool.model_validate(entry)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise RegistrationError(f"its description can't be read: {lines}") from None
    if not 0 < len(tool.name) <= _LONGEST_NAME:
        raise RegistrationError(f"a tool's name has 1 to {_LONGEST_NAME} characters, not {len(tool.name)}")
    check_schema("inputSchema", tool.inputSchema)
    if tool.outputSchema is not None:
        check_schema("outputSchema", tool.outputSchema)
    return tool


def capabilities(hints: types.ToolAnnotations | None) -> frozenset[ToolCapability]:
    """What the server says of a tool's effects. A hint that is not given says nothing; a reader destroys nothing."""
    if hints is None:
        return frozenset()
    said = {
        ToolCapability.READ_ONLY: hints.readOnlyHint,
        ToolCapability.DESTRUCTIVE: hints.destructiveHint and not hints.readOnlyHint,
        ToolCapability.IDEMPOTENT: hints.idempotentHint,
        ToolCapability.OPEN_WORLD: hints.openWorldHint,
    }
    return frozenset(capability for capability, value in said.items() if value)


def tool_from(tool: types.Tool, call: Call, *, namespace: str, server: str, **metadata: Any) -> Tool:
    """Make a tool of a server's description of one.

    Args:
        tool: the description, see `described`.
        call: runs it.
        namespace: the namespace.
        server: the server's name.
        **metadata: fields of `ToolMetadata`, instead of what the server says.

    Raises:
        RegistrationError: its name can't be used, or a field is unknown.
    """

    async def run(**arguments: Any) -> Any:
        return await call(tool, _as_json(made, arguments))

    title = tool.title or (tool.annotations.title if tool.annotations else None)
    given = {
        "name": tool.name,
        "namespace": namespace,
        "argument_schema": {**tool.inputSchema, "type": "object"},
        "result_schema": _result(tool.outputSchema),
        "description": tool.description or title or "",
        "capabilities": capabilities(tool.annotations),
        "source": "mcp",
        "source_name": server,
        **metadata,
    }
    made = toolchord.tool_from(run, **given)
    return made


def _result(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    """The schema of what a program gets."""
    if schema is None or schema.get(WRAPPED) is not True:
        return schema
    inner = schema.get("properties", {}).get("result", {})
    kept: dict[str, Any] = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    return {**kept, **inner} if isinstance(inner, dict) else None


def _as_json(tool: Tool, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments as JSON has them: dates as ISO text, sets as lists, bytes as base64."""
    try:
        plain: dict[str, Any] = to_jsonable_python(arguments, bytes_mode="base64", inf_nan_mode="constants")
        json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, PydanticSerializationError) as error:
        raise tool.invalid([f"the server takes JSON: {error}"]) from None
    return plain
