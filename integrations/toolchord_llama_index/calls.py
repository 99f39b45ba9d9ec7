"""Owns one call of a LlamaIndex tool: it runs as LlamaIndex runs it, and gives its value as it is, not as content."""

from __future__ import annotations

import asyncio
import inspect
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypedDict

from llama_index.core.base.llms.types import (
    AudioBlock,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    VideoBlock,
)
from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    PydanticResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.schema import BaseNode, NodeWithScore
from llama_index.core.tools import AsyncBaseTool, BaseTool, FunctionTool, ToolOutput
from llama_index.core.workflow import Context
from pydantic import BaseModel

from toolchord.errors import CallPaused
from toolchord.tools import is_plain
from toolchord_llama_index.private import WaitingForEvent, has_async_code

_BLOCKS = (TextBlock, ImageBlock, AudioBlock, CitableBlock, CitationBlock, DocumentBlock, VideoBlock)

surrounding: ContextVar[Context[Any] | None] = ContextVar("toolchord_llama_index_context", default=None)
"""The `Context` of the workflow step around the program."""


class ToolError(Exception):
    """A tool's output says that it failed, and holds no exception of its own."""


class Passage(TypedDict):
    """A piece of a document, as a program gets it."""

    id: str
    text: str
    score: float | None
    metadata: dict[str, Any]


class Answer(TypedDict):
    """What a query engine says, and what it read for it."""

    response: Any
    source_nodes: list[Passage]
    metadata: dict[str, Any] | None


def runs_async(tool: BaseTool) -> bool:
    """Whether a tool has asynchronous code of its own."""
    return has_async_code(tool) if isinstance(tool, FunctionTool) else isinstance(tool, AsyncBaseTool)


def call(tool: BaseTool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a tool and give its value.

    Raises:
        ToolError: its output says that it failed, without an exception.
        Exception: whatever the tool raises, or its output holds.
    """
    method = tool.call if isinstance(tool, AsyncBaseTool) else tool.__call__
    return value_of(tool, method(*args, **kwargs))


async def acall(tool: AsyncBaseTool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same as `call`, on this event loop.

    Raises:
        CallPaused: the tool waits for an event of the workflow.
    """
    try:
        output = await tool.acall(*args, **kwargs)
    except WaitingForEvent as wait:
        raise CallPaused(wait) from None
    except NotImplementedError as error:
        if not _raised_at_once(tool, error.__traceback__):
            raise
        return await asyncio.to_thread(call, tool, args, kwargs)  # many tools have an `acall` that says nothing else
    raw = getattr(output, "raw_output", None)
    if isinstance(raw, AsyncStreamingResponse):
        output.raw_output = await raw.get_response()
    return value_of(tool, output)


def value_of(tool: BaseTool, output: Any) -> Any:
    """What a program gets; see docs/llama-index.md, "What a program gets"."""
    if not isinstance(output, ToolOutput):  # a tool of one's own may give anything
        return _data(output)
    if output.is_error:
        raise output.exception or ToolError(output.content or f"the tool {output.tool_name} failed")
    value = _data(output.raw_output)
    if isinstance(tool, FunctionTool) or (value is not None and is_plain(value)):
        return value
    return output.content or value


def _data(value: Any) -> Any:
    """Documents and answers without what only an index needs; text blocks as text; everything else as it is."""
    if isinstance(value, list) and value:
        if all(isinstance(one, TextBlock) for one in value):
            return "\n".join(one.text for one in value)
        if all(isinstance(one, NodeWithScore | BaseNode) for one in value):
            return [_passage(one) for one in value]
        return [_block(one) if isinstance(one, _BLOCKS) else one for one in value]
    if isinstance(value, TextBlock):
        return value.text
    if isinstance(value, _BLOCKS):
        return _block(value)
    if isinstance(value, NodeWithScore | BaseNode):
        return _passage(value)
    if isinstance(value, StreamingResponse):
        value = value.get_response()
    if isinstance(value, Response | PydanticResponse):
        said = value.response.model_dump() if isinstance(value.response, BaseModel) else value.response
        return Answer(
            response=said, source_nodes=[_passage(node) for node in value.source_nodes], metadata=value.metadata
        )
    return value


def _block(block: BaseModel) -> dict[str, Any]:
    """A picture, a recording or the like: its fields in JSON's terms, bytes as base64."""
    return block.model_dump(mode="json", exclude_none=True)


def _passage(node: NodeWithScore | BaseNode) -> Passage:
    score = node.score if isinstance(node, NodeWithScore) else None
    inner = node.node if isinstance(node, NodeWithScore) else node
    return Passage(id=inner.node_id, text=inner.get_content(), score=score, metadata=inner.metadata)


def _raised_at_once(tool: BaseTool, trace: TracebackType | None) -> bool:
    """Whether an error came from the tool's own `acall`, and from nothing below it."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    own = inspect.unwrap(type(tool).acall) if isinstance(tool, AsyncBaseTool) else None
    return trace is not None and trace.tb_frame.f_code is getattr(own, "__code__", None)
