"""Owns the way in: LangChain's tools and toolkits as tools of Toolchord."""

from __future__ import annotations

import dataclasses
import typing
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from langchain_core.messages import ToolCall
from langchain_core.messages.tool import ToolOutputMixin
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.tools import BaseTool, BaseToolkit
from langchain_core.tools import tool as langchain_tool

import toolchord
from toolchord import Tool, ToolRegistry, create_registry
from toolchord.errors import ConfigurationError, RegistrationError
from toolchord_langchain.arguments import Arguments, arguments_of
from toolchord_langchain.calls import ArgumentsRefused, acall, call, runs_async
from toolchord_langchain.outbound import ToolchordTool, described
from toolchord_langchain.private import hints_of, implementations

Injected: TypeAlias = Mapping[str, Any] | Callable[[BaseTool, RunnableConfig], Mapping[str, Any]]
"""Values of injected arguments by name, or what gives them for one call of a tool in the surrounding run."""

Runner: TypeAlias = Callable[[BaseTool, ToolCall, frozenset[str]], Awaitable[Any]]
"""Runs one call in the tool's stead and gives its value: the tool, the call without the injected arguments, and the
names of arguments that error messages must not show."""

Tools: TypeAlias = "BaseToolkit | BaseTool | Callable[..., Any] | Iterable[Tools]"
"""A toolkit, a tool, a function that shall become one, or several of these."""

# Fields of `extras`, which providers have agreed on, and ours of the same meaning.
_EXTRAS = {
    "allowed_callers": "allowed_callers",
    "capabilities": "capabilities",
    "defer_loading": "defer_loading",
    "input_examples": "examples",
    "strict": "strict",
}


def registry_from(
    tools: Tools,
    *,
    namespace: str = "default",
    registry: ToolRegistry | None = None,
    injected: Injected | None = None,
    run: Runner | None = None,
    reserved: Collection[str] = (),
    **metadata: Any,
) -> ToolRegistry:
    """Register LangChain's tools.

    Args:
        tools: a toolkit, a tool, or several of both; plain functions become tools as `@tool` makes them.
        namespace: where they go.
        registry: where to register; a new one when None.
        injected: what the host gives for arguments that are injected, see `tool_from`.
        run: who runs the calls, see `tool_from`.
        reserved: names of arguments that `run` gives, whether they are marked as injected or not.
        **metadata: fields of `ToolMetadata` for each of them, such as `capabilities` or `timeout`.

    Raises:
        RegistrationError: something is no tool, a name is taken, or a required injected argument has no value.
    """
    registry = create_registry() if registry is None else registry
    for tool, source in collected(tools):
        given = {"source_name": source, **metadata}
        registry.add(tool_from(tool, namespace=namespace, injected=injected, run=run, reserved=reserved, **given))
    return registry


def tool_from(
    tool: BaseTool,
    *,
    name: str | None = None,
    namespace: str = "default",
    injected: Injected | None = None,
    run: Runner | None = None,
    reserved: Collection[str] = (),
    **metadata: Any,
) -> Tool:
    """Make a tool of a LangChain tool.

    It runs as LangChain runs it: checked by its `args_schema`, with the callbacks of the surrounding run, on the event
    loop if it has asynchronous code, else in a thread. Its exceptions are raised whatever `handle_tool_error` says.

    Args:
        tool: the tool; one that `langchain_tools` made gives the tool behind it.
        name: the name; LangChain's when None.
        namespace: the namespace.
        injected: the values of injected arguments by name, for all tools alike; or a function of the tool and the
            run's config that gives them, asked at every call. A program neither sees nor sets these arguments. The
            id of the call needs no value.
        run: runs the calls instead of the tool itself, and injects what is injected: for adapters of frameworks that
            have a way of their own to run tools.
        **metadata: fields of `ToolMetadata`.

    Raises:
        RegistrationError: it is no tool, or a required injected argument has no value.
    """
    if isinstance(tool, ToolchordTool) and run is None:
        return toolchord.tool_from(tool.wrapped, name=name, namespace=namespace, **metadata)
    if not isinstance(tool, BaseTool):
        raise RegistrationError(f"{type(tool).__name__} is no LangChain tool; give a BaseTool, or a toolkit")
    arguments = arguments_of(tool, reserved)
    if not callable(injected) and run is None:
        _require(tool, arguments, injected or {}, RegistrationError)
    extras = {ours: value for key, ours in _EXTRAS.items() if (value := (tool.extras or {}).get(key)) is not None}
    made = toolchord.tool_from(
        _implementation(tool, arguments, injected, run, lambda lines: made.invalid(lines)),
        name=name or tool.name,
        namespace=namespace,
        check=dict if arguments.checked else None,  # LangChain's own check also coerces, which must not happen twice
        **{
            "argument_schema": arguments.schema,
            "description": described(tool),
            "tags": tool.tags or (),
            "source": "langchain",
            **extras,
            **metadata,
        },
    )
    if arguments.injected - arguments.call_ids:  # the tool alone is not the same: others may fill in other values
        return made
    return dataclasses.replace(made, implementation=tool)


def _implementation(
    tool: BaseTool,
    arguments: Arguments,
    injected: Injected | None,
    runner: Runner | None,
    invalid: Callable[[list[str]], Exception],
) -> Callable[..., Any]:
    """The function that runs a call of a program."""

    def request(given: dict[str, Any]) -> ToolCall:
        if wrong := [f"{name!r} is not for programs to set" for name in given if name in arguments.refused]:
            raise invalid(wrong)
        call_id = f"call_{uuid.uuid4().hex}"
        args = dict(given)
        if runner is None:
            values = injected(tool, ensure_config()) if callable(injected) else injected or {}
            _require(tool, arguments, values, ConfigurationError)
            args |= {name: value for name, value in values.items() if name in arguments.injected}
            args |= dict.fromkeys(arguments.call_ids - values.keys(), call_id)
        args = {arguments.renamed.get(name, name): value for name, value in args.items()}
        return ToolCall(type="tool_call", id=call_id, name=tool.name, args=args)

    def run(**given: Any) -> Any:
        try:
            return call(tool, request(given), arguments.refused)
        except ArgumentsRefused as error:
            raise invalid(list(error.lines)) from None

    async def arun(**given: Any) -> Any:
        try:
            return await (runner or acall)(tool, request(given), arguments.refused)
        except ArgumentsRefused as error:
            raise invalid(list(error.lines)) from None

    chosen: Callable[..., Any] = run if runner is None and not runs_async(tool) else arun
    chosen.__annotations__ = _result(tool)
    return chosen


def _require(tool: BaseTool, arguments: Arguments, values: Mapping[str, Any], error: type[ConfigurationError]) -> None:
    if missing := sorted(arguments.required - values.keys()):
        raise error(
            f"the tool {tool.name!r} takes {', '.join(missing)} from its host; "
            f"pass injected={{{missing[0]!r}: ...}}, or a function that gives the values for each call"
        )


def _result(tool: BaseTool) -> dict[str, Any]:
    """The declared type of the result, as an annotation; none where LangChain would have changed it."""
    if tool.response_format != "content":
        return {}
    hint = hints_of(implementations(tool)[0]).get("return", Any)
    parts = (hint, *typing.get_args(hint))
    if hint is Any or any(isinstance(part, type) and issubclass(part, ToolOutputMixin) for part in parts):
        return {}
    return {"return": hint}


def collected(tools: Any, source: str | None = None) -> Iterator[tuple[BaseTool, str | None]]:
    """Every tool with the name of the toolkit that it came from."""
    if isinstance(tools, BaseTool):
        yield tools, source
    elif isinstance(tools, BaseToolkit):
        yield from collected(tools.get_tools(), type(tools).__name__)
    elif callable(tools) and not isinstance(tools, type):
        yield langchain_tool(tools), source
    elif isinstance(tools, Iterable) and not isinstance(tools, str | Mapping):
        for one in tools:
            yield from collected(one, source)
    else:
        raise RegistrationError(f"{type(tools).__name__} is no LangChain tool; give BaseTools or a toolkit")
