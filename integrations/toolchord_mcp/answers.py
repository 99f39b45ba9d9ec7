"""Owns what a program gets from an answer of a server; the rule is in docs/mcp.md, "What a program gets"."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from itertools import islice
from typing import Any

from mcp.types import CallToolResult, TextContent

from toolchord.schema import problems
from toolchord_mcp.errors import BadAnswer, ToolFailed

_LINES = 5
_LONGEST_MESSAGE = 20_000
WRAPPED = "x-fastmcp-wrap-result"
"""FastMCP's mark on a schema: the value was no object, and was put into one under ``result``."""


def value_of(tool: str, result: CallToolResult, schema: Mapping[str, Any] | None, *, server: str) -> Any:
    """The value of a tool's answer.

    Args:
        tool: the tool's name.
        result: the answer.
        schema: the tool's `outputSchema`, or None.
        server: for errors.

    Raises:
        ToolFailed: the tool says that it failed.
        BadAnswer: the answer is not what the schema says.
    """
    if result.isError:
        text = _text(result)
        message = text if isinstance(text, str) and text.strip() else f"the tool {tool} failed and does not say why"
        raise ToolFailed(message[:_LONGEST_MESSAGE], server=server, details=result.structuredContent)
    value = result.structuredContent
    if schema is not None:
        _check(tool, value, schema, server)
        if value is not None and schema.get(WRAPPED) is True and value.keys() == {"result"}:
            return value["result"]
    return _text(result) if value is None else value


def _check(tool: str, value: Any, schema: Mapping[str, Any], server: str) -> None:
    if value is None:
        raise BadAnswer(f"{tool} promises structured content, but its answer has none", server=server)
    try:
        wrong = list(islice(problems(value, schema), _LINES))
    except RecursionError:
        wrong = ["the schema leads back to itself without end"]
    if wrong:
        raise BadAnswer(f"the answer of {tool} is not what its output schema says: {'; '.join(wrong)}", server=server)


def _text(result: CallToolResult) -> Any:
    """The content: None if there is none, text if it is text only, else a list of blocks. Text stays text."""
    if not result.content:
        return None
    if all(isinstance(block, TextContent) for block in result.content):
        return "\n".join(block.text for block in result.content if isinstance(block, TextContent))
    return [_block(block.model_dump(mode="json", by_alias=True, exclude_none=True)) for block in result.content]


def _block(block: dict[str, Any]) -> dict[str, Any]:
    """A block as data, with bytes in place of base64 text."""
    for holder, name in ((block, "data"), (block.get("resource"), "blob")):
        if isinstance(holder, dict) and isinstance(holder.get(name), str):
            try:
                holder[name] = base64.b64decode(holder[name], validate=True)
            except (binascii.Error, ValueError) as error:
                raise BadAnswer(f"{block.get('type')} content that is no base64: {error}") from None
    return block
