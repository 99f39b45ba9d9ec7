"""Owns what is asked of OpenAI's APIs: the tools in their form, and what makes no sense, refused before it is sent.

Source of the rules: developers.openai.com, programmatic tool calling, July 2026, and the types of the SDK.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import openai

from toolchord.catalogue import Source
from toolchord.errors import ConfigurationError
from toolchord.native import Exported, StreamEnded, export
from toolchord.tools import ToolSpec

PROGRAMS = {"type": "programmatic_tool_calling"}
TOOL_SEARCH = {"type": "tool_search"}


def openai_tools(tools: Source, *, extra_tools: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """What goes into ``tools=[...]`` of `responses.create`.

    A tool that declares no callers is offered to programs. Programmatic tool calling is added where a program may call
    something, and tool search where a tool is deferred.

    Args:
        tools: a registry, or whatever else a `Catalogue` is made of.
        extra_tools: tools of OpenAI's own, such as an MCP server, in its form; they may have `allowed_callers` too.

    Raises:
        ConfigurationError: a tool that the API would refuse.
    """
    return form_of(exported(tools), extra_tools)


def exported(tools: Source) -> dict[str, Exported]:
    """The tools by exported name."""
    return export(tools, undeclared=lambda spec: ["programmatic"])


def by_program(spec: ToolSpec) -> bool:
    """Whether a tool is offered to programs."""
    return any(name not in ("direct", "sandbox") for name in spec.allowed_callers or ())


def form_of(tools: Mapping[str, Exported], extra_tools: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The whole list of tools."""
    extra = [dict(tool) for tool in extra_tools]
    specs = [one.spec for one in tools.values()]
    kinds = {tool.get("type") for tool in extra}
    form: list[dict[str, Any]] = []
    programs = any(map(by_program, specs)) or any(
        "programmatic" in (tool.get("allowed_callers") or ()) for tool in extra
    )
    if programs and PROGRAMS["type"] not in kinds:
        form.append(dict(PROGRAMS))
    if any(spec.defer_loading for spec in specs) and TOOL_SEARCH["type"] not in kinds:
        form.append(dict(TOOL_SEARCH))
    return [*form, *extra, *(spec.to_openai() for spec in specs)]


def check(create: Callable[..., Any], request: Mapping[str, Any], *, ours: Collection[str]) -> None:
    """Refuse parameters that the SDK's method doesn't have, and those that the loop sets itself."""
    if taken := sorted(set(request) & set(ours)):
        raise ConfigurationError(f"{', '.join(taken)} is set by the loop; leave it out")
    known = set(inspect.signature(create).parameters) - set(ours)
    if unknown := sorted(set(request) - known):
        raise ConfigurationError(
            f"the create method of this SDK takes no {', '.join(unknown)}; it takes {', '.join(sorted(known))}"
        )


def unforced(choice: Any) -> Any:
    """A `tool_choice` without its force: made again and again, it would never let the model answer."""
    if not isinstance(choice, Mapping):
        return "auto" if choice == "required" else choice
    if choice.get("type") != "allowed_tools":
        return "auto"
    inner = choice.get("allowed_tools")  # where Chat Completions has the mode
    if isinstance(inner, Mapping):
        return {**choice, "allowed_tools": {**inner, "mode": "auto"}}
    return {**choice, "mode": "auto"}


async def whole(events: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The events of a stream that has begun. The SDK reports its breaking off like a connection that never was."""
    try:
        async for event in events:
            yield event
    except openai.APIConnectionError as error:
        raise StreamEnded(str(error.__cause__ or error)) from error
