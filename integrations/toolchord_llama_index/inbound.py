"""Owns the way in: LlamaIndex's tools, tool specs, query engines and retrievers as tools of Toolchord."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, cast

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import BaseNode, NodeWithScore
from llama_index.core.tools import AsyncBaseTool, BaseTool, FunctionTool, QueryEngineTool, RetrieverTool
from llama_index.core.tools.tool_spec.base import BaseToolSpec
from llama_index.core.workflow import Context

import toolchord
from toolchord import Tool, ToolRegistry, create_registry
from toolchord.errors import ConfigurationError, RegistrationError
from toolchord_llama_index.arguments import Arguments, arguments_of, hints_of
from toolchord_llama_index.calls import Answer, Passage, acall, call, runs_async, surrounding
from toolchord_llama_index.outbound import ToolchordTool, described

Tools: TypeAlias = (
    "BaseToolSpec | BaseTool | BaseQueryEngine | BaseRetriever | Callable[..., Any] | Mapping[str, Tools] "
    "| Iterable[Tools]"
)
"""A tool spec, a tool, a query engine, a retriever, a function that shall become a tool, or several of these."""


def registry_from(
    tools: Tools,
    *,
    namespace: str = "default",
    registry: ToolRegistry | None = None,
    context: Context[Any] | None = None,
    **metadata: Any,
) -> ToolRegistry:
    """Register LlamaIndex's tools.

    Args:
        tools: a tool spec, a tool, or several of both; plain functions become tools as agents make them. A query engine
            or retriever becomes one too, and needs a name: ``{"search_docs": index.as_retriever()}``.
        namespace: where they go.
        registry: where to register; a new one when None.
        context: what tools get that take a `Context`, see `tool_from`.
        **metadata: fields of `ToolMetadata` for each of them, such as `capabilities` or `timeout`.

    Raises:
        RegistrationError: something is no tool, has no usable schema or name, or a name is taken.
    """
    registry = create_registry() if registry is None else registry
    for tool, name, source in _collected(tools, None, None):
        given = {"source_name": source, **metadata}
        registry.add(tool_from(tool, name=name, namespace=namespace, context=context, **given))
    return registry


def tool_from(
    tool: BaseTool | BaseQueryEngine | BaseRetriever,
    *,
    name: str | None = None,
    namespace: str = "default",
    context: Context[Any] | None = None,
    **metadata: Any,
) -> Tool:
    """Make a tool of a LlamaIndex tool.

    It runs as LlamaIndex runs it: with its `partial_params`, callbacks and instrumentation, on the event loop if it has
    asynchronous code, else in a thread. Arguments are checked by its `fn_schema` first.

    Args:
        tool: the tool, or a query engine or retriever with `name`.
        name: the name; the tool's own when None.
        namespace: the namespace.
        context: what parameters get that take a workflow's `Context`, where the program does not run in a step of a
            workflow; in one they get that step's. A program neither sees nor sets these, nor `partial_params`.
        **metadata: fields of `ToolMetadata`.

    Raises:
        RegistrationError: it is no tool, or has no usable schema or name.
    """
    if isinstance(tool, ToolchordTool):
        return toolchord.tool_from(tool.wrapped, name=name, namespace=namespace, **metadata)
    tool = _made(tool, name)
    if not (name or tool.metadata.name):
        raise RegistrationError(f"a {type(tool).__name__} has no name; pass name=, or set it in its metadata")
    arguments = arguments_of(tool)
    made = toolchord.tool_from(
        _implementation(tool, arguments, context, lambda lines: made.invalid(lines)),
        name=name or tool.metadata.name,
        namespace=namespace,
        check=arguments.check,
        **{
            "argument_schema": arguments.schema,
            "description": described(tool),
            "source": "llama_index",
            **metadata,
        },
    )
    if context is not None:  # the tool alone is not the same: others may fill in another context
        return made
    return dataclasses.replace(made, implementation=tool)


def _implementation(
    tool: BaseTool, arguments: Arguments, context: Context[Any] | None, invalid: Callable[[list[str]], Exception]
) -> Callable[..., Any]:
    """The function that runs a call of a program."""

    def request(given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if wrong := [f"{name!r} is not for programs to set" for name in given if name in arguments.hidden]:
            raise invalid(wrong)
        if arguments.single and len(given) == 1:
            return tuple(given.values()), {}
        if not arguments.context:
            return (), given
        here = surrounding.get() or context
        if here is None:
            raise ConfigurationError(
                f"the tool {tool.metadata.name!r} takes a workflow's Context; run the program in an agent, "
                f"or pass context= when you register the tool"
            )
        return (), {**given, **dict.fromkeys(arguments.context, here)}

    def run(**given: Any) -> Any:
        return call(tool, *request(given))

    async def arun(**given: Any) -> Any:
        return await acall(cast(AsyncBaseTool, tool), *request(given))

    chosen: Callable[..., Any] = arun if runs_async(tool) else run
    chosen.__annotations__ = _result(tool)
    return chosen


def _result(tool: BaseTool) -> dict[str, Any]:
    """The type of the result, as an annotation."""
    if isinstance(tool, QueryEngineTool):
        return {"return": Answer}
    if isinstance(tool, RetrieverTool):
        return {"return": list[Passage]}
    hint = hints_of(tool.real_fn).get("return", Any) if isinstance(tool, FunctionTool) else Any
    text = str(hint)
    if hint is Any or isinstance(hint, str) or any(cls.__name__ in text for cls in (BaseNode, NodeWithScore)):
        return {}
    return {"return": hint}


def _made(tool: Any, name: str | None) -> BaseTool:
    """The tool that something is, or becomes."""
    if isinstance(tool, BaseTool):
        return tool
    if isinstance(tool, BaseQueryEngine | BaseRetriever):
        if not name:
            raise RegistrationError(
                f'a {type(tool).__name__} has no name of its own; pass name=, or a dict: {{"search_docs": ...}}'
            )
        if isinstance(tool, BaseQueryEngine):
            return QueryEngineTool.from_defaults(tool, name=name)
        return RetrieverTool.from_defaults(tool, name=name)
    raise RegistrationError(
        f"{type(tool).__name__} is no LlamaIndex tool; give a BaseTool, a query engine, a retriever or a tool spec"
    )


def _collected(tools: Any, name: str | None, source: str | None) -> Iterator[tuple[Any, str | None, str | None]]:
    """Every tool with the name that it was given and the tool spec that it came from."""
    if isinstance(tools, BaseTool | BaseQueryEngine | BaseRetriever):
        yield tools, name, source
    elif isinstance(tools, BaseToolSpec):
        for tool in tools.to_tool_list():
            yield tool, None, type(tools).__name__
    elif isinstance(tools, Mapping):
        for key, one in tools.items():
            yield from _collected(one, key, source)
    elif callable(tools) and not isinstance(tools, type):
        yield _function_tool(tools, name), name, source
    elif isinstance(tools, Iterable) and not isinstance(tools, str):
        for one in tools:
            yield from _collected(one, None, source)
    else:
        raise RegistrationError(
            f"{type(tools).__name__} is no LlamaIndex tool; "
            f"give tools, functions, query engines, retrievers or tool specs"
        )


def _function_tool(function: Callable[..., Any], name: str | None) -> FunctionTool:
    try:
        return FunctionTool.from_defaults(function, name=name)
    except Exception as error:  # LlamaIndex has no error of its own for this
        raise RegistrationError(f"LlamaIndex can't make a tool of {function!r:.80}: {error}") from error
