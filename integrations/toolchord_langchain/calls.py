"""Owns one call of a LangChain tool: it runs as LangChain runs it, and gives its value as it is, not as a message.

`call` and `acall` do it alone. Where somebody else runs the tool, such as a graph's tool node, a `Capture` gives him a
view of the tool, and afterwards knows what the tool's own code returned.
"""

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
from toolchord.tools import is_plain, waited
from toolchord_langchain.outbound import ToolchordTool

_NOTHING: Any = object()


class ArgumentsRefused(Exception):
    """LangChain refused the arguments before the tool began; `lines` say why."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__(*lines)
        self.lines = lines


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
    capture = Capture(tool)
    try:
        answer = capture.view.invoke(request)
    except (ValidationError, ValidationErrorV1) as error:
        raise capture.refused(error, hidden) from None
    return capture.value(answer)


async def acall(tool: BaseTool, request: ToolCall, hidden: frozenset[str]) -> Any:
    """The same as `call`, on this event loop."""
    capture = Capture(tool)
    try:
        answer = await capture.view.ainvoke(request)
    except (ValidationError, ValidationErrorV1) as error:
        raise capture.refused(error, hidden) from None
    if tool.response_format == "content_and_artifact":  # whether an artifact is plain takes a walk through it
        return await asyncio.to_thread(capture.value, answer)
    return capture.value(answer)


class Capture:
    """One call of a tool: what its own code returned, before LangChain made a message of it.

    Attributes:
        view: the tool for this one call. Its errors are raised, it runs synchronously and asynchronously whatever the
            tool can, and its code runs on the original, which may keep state.
    """

    def __init__(self, tool: BaseTool) -> None:
        self._tool = tool
        self._returned: Any = _NOTHING
        self._begun = False
        self.view = tool.model_copy(update={"handle_tool_error": False, "handle_validation_error": False})
        # In the copy's own dict, where they hide the class's methods.
        object.__setattr__(self.view, "_run", self._noting())
        object.__setattr__(self.view, "_arun", self._noting_async())

    def value(self, answer: Any) -> Any:
        """What a program gets, where LangChain made `answer` of it; see docs/langchain.md, "What a program gets"."""
        return _chosen(self._tool, answer if self._returned is _NOTHING else self._returned)

    def refused(self, error: ValidationError | ValidationErrorV1, hidden: frozenset[str]) -> Exception:
        """The error to raise instead of one of pydantic's: the tool's own one, or an ArgumentsRefused."""
        return error if self._begun else ArgumentsRefused(_problems(error, hidden))

    def _noting(self) -> Callable[..., Any]:
        tool = self._tool

        @functools.wraps(tool._run)
        def noted(*args: Any, **kwargs: Any) -> Any:
            self._begun = True
            try:
                self._returned = tool._run(*args, **kwargs)
            except NotImplementedError as error:
                if not runs_async(tool) or not _raised_at_once(error.__traceback__):
                    raise
                self._returned = waited(tool._arun(*args, **kwargs))
            return self._returned

        return noted

    def _noting_async(self) -> Callable[..., Any]:
        tool = self._tool

        @functools.wraps(tool._arun)
        async def noted(*args: Any, **kwargs: Any) -> Any:
            self._begun = True
            try:
                self._returned = await tool._arun(*args, **kwargs)
            except NotImplementedError as error:
                if not _raised_at_once(error.__traceback__):
                    raise
                # Many tools have an `_arun` that says nothing else: LangChain's own runs `_run` in a thread.
                self._returned = await BaseTool._arun(tool, *args, **kwargs)
            return self._returned

        return noted


def _raised_at_once(trace: TracebackType | None) -> bool:
    """Whether an error came from the very function that was called, and from nothing below it."""
    return trace is not None and trace.tb_next is not None and trace.tb_next.tb_next is None


def _chosen(tool: BaseTool, value: Any) -> Any:
    if isinstance(tool, ToolchordTool) and isinstance(value, tuple):
        return value[1]  # the value itself, which may well be None
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
