"""Owns one call of a LangChain tool: it runs as LangChain runs it, and gives its value as it is, not as a message."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.messages.tool import ToolOutputMixin
from langchain_core.tools import BaseTool, StructuredTool, Tool, ToolException
from pydantic import ValidationError
from pydantic.v1 import BaseModel as BaseModelV1
from pydantic.v1 import ValidationError as ValidationErrorV1

from toolchord.errors import ConfigurationError
from toolchord.schema import brief
from toolchord.tools import is_plain

_NOTHING: Any = object()


class ArgumentsRefused(Exception):
    """LangChain refused the arguments before the tool began; `lines` say why."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__(*lines)
        self.lines = lines


class _Seen:
    """What the tool's own code returned, before LangChain made a message of it."""

    def __init__(self) -> None:
        self.value: Any = _NOTHING
        self.begun = False


def runs_async(tool: BaseTool) -> bool:
    """Whether a tool has asynchronous code of its own."""
    if isinstance(tool, StructuredTool | Tool):
        return tool.coroutine is not None
    return type(tool)._arun is not BaseTool._arun


def call(tool: BaseTool, request: ToolCall, hidden: frozenset[str]) -> Any:
    """Run a tool and give its value.

    Args:
        tool: the tool.
        request: the call; its arguments hold the injected ones too.
        hidden: arguments that an error message must not show.

    Raises:
        ArgumentsRefused: the arguments don't fit.
        Exception: whatever the tool raises, its `handle_tool_error` notwithstanding.
    """
    seen = _Seen()
    try:
        answer = _view(tool, seen).invoke(request)
    except (ValidationError, ValidationErrorV1) as error:
        if seen.begun:
            raise
        raise ArgumentsRefused(_problems(error, hidden)) from None
    return _chosen(tool, seen, answer)


async def acall(tool: BaseTool, request: ToolCall, hidden: frozenset[str]) -> Any:
    """The same as `call`, on this event loop."""
    seen = _Seen()
    try:
        answer = await _view(tool, seen).ainvoke(request)
    except (ValidationError, ValidationErrorV1) as error:
        if seen.begun:
            raise
        raise ArgumentsRefused(_problems(error, hidden)) from None
    if tool.response_format == "content_and_artifact":  # whether an artifact is plain takes a walk through it
        return await asyncio.to_thread(_chosen, tool, seen, answer)
    return _chosen(tool, seen, answer)


def _view(tool: BaseTool, seen: _Seen) -> BaseTool:
    """The tool for one call: its errors are raised, and what its code returns is noted.

    A copy, for a tool serves many calls at once; its code runs on the original, which may keep state.
    """
    view = tool.model_copy(update={"handle_tool_error": False, "handle_validation_error": False})
    # In the copy's own dict, where they hide the class's methods.
    object.__setattr__(view, "_run", _noting(tool._run, seen))
    object.__setattr__(view, "_arun", _noting_async(tool, seen))
    return view


def _noting(method: Callable[..., Any], seen: _Seen) -> Callable[..., Any]:
    @functools.wraps(method)
    def noted(*args: Any, **kwargs: Any) -> Any:
        seen.begun = True
        seen.value = method(*args, **kwargs)
        return seen.value

    return noted


def _noting_async(tool: BaseTool, seen: _Seen) -> Callable[..., Any]:
    @functools.wraps(tool._arun)
    async def noted(*args: Any, **kwargs: Any) -> Any:
        seen.begun = True
        try:
            seen.value = await tool._arun(*args, **kwargs)
        except NotImplementedError as error:
            if not _raised_at_once(error.__traceback__):
                raise
            # Many tools have an `_arun` that says nothing else: LangChain's own runs `_run` in a thread.
            seen.value = await BaseTool._arun(tool, *args, **kwargs)
        return seen.value

    return noted


def _raised_at_once(trace: TracebackType | None) -> bool:
    """Whether an error came from the very function that was called, and from nothing below it."""
    return trace is not None and trace.tb_next is not None and trace.tb_next.tb_next is None


def _chosen(tool: BaseTool, seen: _Seen, answer: Any) -> Any:
    """What a program gets; see docs/langchain.md, "What a program gets"."""
    value = answer if seen.value is _NOTHING else seen.value  # a tool may have an `invoke` of its own
    message = value if isinstance(value, ToolMessage) else None
    if message is None and _is_output(value):
        kind = type(value[0] if isinstance(value, list) else value).__name__
        raise ConfigurationError(
            f"the tool {tool.name} returned a {kind}, which is meant for the graph around it; a program can't use it"
        )
    if message is not None:
        if message.status == "error":
            raise ToolException(str(message.text))
        content, artifact = message.content, message.artifact
    elif tool.response_format == "content_and_artifact" and isinstance(value, tuple) and len(value) == 2:
        content, artifact = value
    else:
        return _data(value)
    if isinstance(artifact, dict) and artifact.keys() == {"structured_content"}:  # langchain-mcp-adapters
        artifact = artifact["structured_content"]
    artifact = _data(artifact)
    return artifact if artifact is not None and is_plain(artifact) else _text(content)


def _is_output(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, ToolOutputMixin) for one in value)
    return isinstance(value, ToolOutputMixin)


def _data(value: Any) -> Any:
    """Models of pydantic's first version as dicts; they don't cross as they are."""
    if isinstance(value, BaseModelV1):
        return value.dict()
    if isinstance(value, list) and any(isinstance(one, BaseModelV1) for one in value):
        return [_data(one) for one in value]
    return value


def _text(content: Any) -> Any:
    """Message content that is text only, as text."""
    blocks = content if isinstance(content, list) else []
    if blocks and all(isinstance(block, dict) and block.get("type") == "text" for block in blocks):
        return "\n".join(str(block.get("text", "")) for block in blocks)
    return _data(content)


def _problems(error: ValidationError | ValidationErrorV1, hidden: frozenset[str]) -> list[str]:
    """One line for each problem with an argument of the program; the host's values are not shown."""
    found = error.errors()
    lines = [_problem(one) for one in found if not (one["loc"] and one["loc"][0] in hidden)]
    if not lines:
        names = sorted({str(one["loc"][0]) for one in found})
        raise ConfigurationError(f"the host's value of {', '.join(names)} does not fit the tool's schema") from None
    return lines


def _problem(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"] if part != "__root__")
    if not where:  # its input would be all arguments, with the injected ones
        return str(problem["msg"])
    got = problem.get("input", _NOTHING)
    shown = "" if got is _NOTHING or problem["type"] == "missing" else f" (got {type(got).__name__} {brief(got)})"
    return f"{where}: {problem['msg']}{shown}"
