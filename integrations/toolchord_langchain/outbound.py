"""Owns the way out: Toolchord's tools as tools of LangChain, and the one tool that runs a program."""

from __future__ import annotations

from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, Field, PrivateAttr
from pydantic_core import to_json

from toolchord import Catalogue, CodeSandbox, ExecutionResult, Limits, Tool, format_tools_for_llm
from toolchord.catalogue import Source
from toolchord.errors import ProgramError
from toolchord.prompt import PROGRAMS

_SEARCH = 'Find tools with `await search_tools("words")`; `await describe_tool("name")` tells how to call one.'


class ToolchordTool(BaseTool):
    """A tool of Toolchord as LangChain sees it. Made by `langchain_tools`.

    A message carries the result as JSON text and, as its artifact, the value itself. What a model can repair, such as
    arguments that don't fit, is raised as a ToolException.
    """

    _wrapped: Tool = PrivateAttr()

    def __init__(self, wrapped: Tool, **fields: Any) -> None:
        """Wrap a tool; `fields` are those of BaseTool."""
        super().__init__(**fields)
        self._wrapped = wrapped

    @property
    def wrapped(self) -> Tool:
        """The tool behind it."""
        return self._wrapped

    def _run(self, **arguments: Any) -> tuple[str, Any]:
        try:
            return _answer(self._wrapped.execute_sync(**arguments))
        except ProgramError as error:
            raise ToolException(str(error)) from error

    async def _arun(self, **arguments: Any) -> tuple[str, Any]:
        if not self._wrapped.load().is_async:
            answer: tuple[str, Any] = await super()._arun(**arguments)  # in a thread
            return answer
        try:
            return _answer(await self._wrapped.execute(**arguments))
        except ProgramError as error:
            raise ToolException(str(error)) from error


def langchain_tools(tools: Source) -> list[BaseTool]:
    """The tools that are open to direct calls, as LangChain's.

    Args:
        tools: a registry, or whatever else a `Catalogue` is made of. Deferred tools are left out.

    Returns:
        For a tool that came from LangChain unchanged, and needs nothing injected, that very tool; a `ToolchordTool`
        for every other one. A name that several namespaces have gets its namespace in front: ``sales_get_orders``.
    """
    catalogue = Catalogue.of(tools, caller="direct")
    found: list[BaseTool] = []
    names: set[str] = set()
    for exposed in catalogue.tools:
        if exposed.tool in catalogue.unlisted:
            continue
        path = catalogue.path(exposed)
        tool = _original(exposed.tool) if "." not in path else None
        if tool is None:
            name = wanted = path.replace(".", "_")
            number = 2
            while name in names:
                name, number = f"{wanted}_{number}", number + 1
            tool = _wrapped(exposed.tool, name)
        names.add(tool.name)
        found.append(tool)
    return found


def code_tool(
    sandbox: CodeSandbox,
    tools: Source = None,
    *,
    name: str = "run_code",
    description: str | None = None,
    limits: Limits | None = None,
    max_chars: int = 20_000,
) -> BaseTool:
    """The tool with which a model runs a program.

    The message's text is `ExecutionResult.for_model()`, its artifact the `ExecutionResult`. A failed program is an
    answer too, not an exception: the text says what to repair, and `artifact.ok` is False.

    Args:
        sandbox: where programs run.
        tools: what they may call, described to the model; None: the sandbox's own choice, which the model searches.
        name: the tool's name.
        description: what the model is told; None: how to write a program, with a typed stub of each tool, as they are
            now.
        limits: what a program may spend; None: the sandbox's own.
        max_chars: the length of the text at most.
    """

    def answer(result: ExecutionResult) -> tuple[str, ExecutionResult]:
        return result.for_model(max_chars), result

    def run(code: str) -> tuple[str, ExecutionResult]:
        return answer(sandbox.execute_sync(code, _some(tools), limits=limits))

    async def arun(code: str) -> tuple[str, ExecutionResult]:
        return answer(await sandbox.execute(code, _some(tools), limits=limits))

    if description is None:
        description = f"{PROGRAMS}\n\n{_SEARCH if tools is None else format_tools_for_llm(tools)}"
    return StructuredTool(
        name=name,
        description=description,
        func=run,
        coroutine=arun,
        args_schema=_Program,
        response_format="content_and_artifact",
        metadata={"ls_code_input_language": "python"},  # LangSmith shows the argument as code
    )


class _Program(BaseModel):
    code: str = Field(description="The program: Python 3.11. Its value is what it returns at the top level.")


def described(tool: BaseTool) -> str:
    """A LangChain tool's description, with the note that its result is meant for the user, if it is."""
    note = "Its result is meant for the user as it is: return it unchanged." if tool.return_direct else ""
    return "\n\n".join(text for text in (tool.description, note) if text)


def _some(tools: Source) -> Any:
    """What `execute` takes: it knows no single function."""
    return [tools] if callable(tools) else tools


def _original(tool: Tool) -> BaseTool | None:
    """The LangChain tool that a tool was made of, if it does the same."""
    origin = tool.implementation
    if not isinstance(origin, BaseTool):
        return None
    same = origin.name == tool.name and described(origin) == tool.metadata.description
    return origin if same else None


def _wrapped(tool: Tool, name: str) -> BaseTool:
    metadata = tool.metadata
    return ToolchordTool(
        tool,
        name=name,
        description=metadata.description or name,
        args_schema={"type": "object", "properties": {}, **(metadata.argument_schema or {})},
        response_format="content_and_artifact",
        handle_tool_error=True,
        tags=sorted(metadata.tags) or None,
    )


def _answer(value: Any) -> tuple[str, Any]:
    if isinstance(value, str):
        return value, value
    return to_json(value, bytes_mode="base64", fallback=str).decode(), value
