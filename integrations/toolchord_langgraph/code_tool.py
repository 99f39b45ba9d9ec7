"""Owns the one tool with which a model runs a program in a graph, and what the model is told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeAlias

from langchain_core.tools import BaseTool, BaseToolkit, StructuredTool
from langgraph.errors import GraphBubbleUp
from langgraph.prebuilt import ToolRuntime
from pydantic import Field

from toolchord import Catalogue, Tool, ToolRegistry, format_tools_for_llm
from toolchord.errors import JournalConflict
from toolchord.prompt import PROGRAMS
from toolchord.tools import waited
from toolchord_langchain import langchain_tools, registry_from
from toolchord_langchain.inbound import collected
from toolchord_langgraph.program import Frame, Program, run_inner

CODE_NAME = "run_code"


class TakenOver(JournalConflict, GraphBubbleUp):
    """The same thread is being resumed elsewhere; this attempt has stopped. No tool node makes a message of it."""


Given: TypeAlias = Iterable[Any] | ToolRegistry | Catalogue | Tool | BaseToolkit
"""Tools, functions, toolkits, Toolchord's tools and registries: one of them, or several."""


def tools_of(tools: Given) -> list[BaseTool]:
    """LangChain's tools of whatever may be given.

    Of several with one name the last is taken, as langgraph's tool nodes do.
    """
    found: list[BaseTool] = []
    single = isinstance(tools, ToolRegistry | Catalogue | Tool | BaseTool | BaseToolkit)
    several: Iterable[Any] = [tools] if single else tools  # type: ignore[assignment]  # which single tells
    for one in several:
        if isinstance(one, ToolRegistry | Catalogue | Tool):
            found += langchain_tools(Catalogue.of(one, caller="sandbox"))
        else:
            found += [tool for tool, _ in collected(one)]
    return list({tool.name: tool for tool in found}.values())


def for_direct_only(tool: BaseTool) -> bool:
    """Whether a tool says that it is for the model's direct calls, and not for programs."""
    return _callers(tool) == {"direct"}


def for_code_only(tool: BaseTool) -> bool:
    """Whether a tool says that it is for programs, and not for direct calls."""
    callers = _callers(tool)
    return bool(callers) and "direct" not in callers


def _callers(tool: BaseTool) -> set[str]:
    return set((tool.extras or {}).get("allowed_callers") or ())


def catalogue_of(tools: Iterable[BaseTool]) -> Catalogue:
    """What a program may call of a graph's tools; each call goes the graph's way."""
    return Catalogue.of(registry_from(list(tools), run=run_inner, reserved=("runtime",)))


def described(catalogue: Catalogue, variables: bool) -> str:
    """How to write a program, and a typed stub of each tool.

    The same bytes for the same tools, so that a provider's prompt cache holds.
    """
    more = f" {_VARIABLES}" if variables else ""
    return f"{PROGRAMS}{more}\n\n{format_tools_for_llm(catalogue)}"


_VARIABLES = "Variables and functions of your earlier programs are still there."


def code_tool(frame: Callable[[ToolRuntime[Any, Any]], Frame], *, name: str, description: str) -> BaseTool:
    """The tool that runs programs; `frame` says where, at every call."""

    def run(code: Code, runtime: ToolRuntime[Any, Any]) -> Any:
        try:
            return waited(Program(frame(runtime), code, runtime, name=name, blocking=True).go())
        except JournalConflict as conflict:
            raise TakenOver(conflict.run, conflict.attempt) from None

    async def arun(code: Code, runtime: ToolRuntime[Any, Any]) -> Any:
        try:
            return await Program(frame(runtime), code, runtime, name=name, blocking=False).go()
        except JournalConflict as conflict:
            raise TakenOver(conflict.run, conflict.attempt) from None

    return StructuredTool.from_function(
        func=run,
        coroutine=arun,
        name=name,
        description=description,
        metadata={"ls_code_input_language": "python"},  # LangSmith shows the argument as code
    )


Code = Annotated[str, Field(description="The program: Python 3.11. Its value is what it returns at the top level.")]
