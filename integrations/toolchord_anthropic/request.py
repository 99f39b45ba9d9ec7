"""Owns what is asked of Anthropic's API: the tools in its form, and what can't be combined, refused before it is sent.

Source of the rules: platform.claude.com, programmatic tool calling, code execution and tool search, July 2026.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toolchord.catalogue import Source
from toolchord.errors import ConfigurationError
from toolchord.native import Exported, export
from toolchord.schema import recursive_ref
from toolchord.tools import ToolSpec

CODE_EXECUTION = {"type": "code_execution_20260120", "name": "code_execution"}
TOOL_SEARCH = {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}

_TOO_OLD = ("code_execution_20250522", "code_execution_20250825")
_SERVER_NAMES = (
    "code_execution",
    "bash_code_execution",
    "text_editor_code_execution",
    "tool_search_tool_bm25",
    "tool_search_tool_regex",
    "web_search",
    "web_fetch",
)
_ON_FAILURE = 'If it fails, the text starts with "Error:".'


def anthropic_tools(tools: Source, *, extra_tools: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """What goes into ``tools=[...]`` of `messages.create`.

    A tool that declares no callers is offered to code, where it can be; one that is strict or has a recursive schema is
    offered directly. The code execution tool is added where code may call something, and tool search where a tool is
    deferred, unless `extra_tools` holds one.

    Args:
        tools: a registry, or whatever else a `Catalogue` is made of.
        extra_tools: tools of Anthropic's own, such as web search, in its form. One that runs here, such as memory,
            takes the place of the registered tool of that name, which serves it.

    Raises:
        ConfigurationError: what the API would refuse: a tool for code that is strict or has a recursive schema, an old
            code execution tool, tools of its MCP connector.
    """
    return form_of(exported(tools), extra_tools)


def exported(tools: Source) -> dict[str, Exported]:
    """The tools by exported name."""
    return export(tools, undeclared=_callers, reserved=_SERVER_NAMES)


def _callers(spec: ToolSpec) -> list[str]:
    return ["direct"] if spec.strict or recursive_ref(spec.parameters) else ["programmatic"]


def by_code(spec: ToolSpec) -> bool:
    """Whether a tool is offered to code."""
    return any(name not in ("direct", "sandbox") for name in spec.allowed_callers or ())


def form_of(tools: Mapping[str, Exported], extra_tools: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The whole list of tools."""
    extra = [dict(tool) for tool in extra_tools]
    for tool in extra:
        kind = str(tool.get("type"))
        if kind in _TOO_OLD:
            raise ConfigurationError(f"{kind} can't call tools; leave it out, or give code_execution_20260120 or later")
        if kind == "mcp_toolset":
            raise ConfigurationError(
                "tools of the MCP connector can't be called from code; connect to the server here and register its "
                "tools, see toolchord_mcp"
            )
    specs = [one.spec for one in tools.values()]
    kinds = {str(tool.get("type")) for tool in extra}
    form: list[dict[str, Any]] = []
    if any(map(by_code, specs)) and not any(kind.startswith("code_execution") for kind in kinds):
        form.append(dict(CODE_EXECUTION))
    deferred = any(spec.defer_loading for spec in specs)
    if deferred and not any(kind.startswith("tool_search_tool") for kind in kinds):
        form.append(dict(TOOL_SEARCH))
    names = {tool.get("name") for tool in extra}
    return [*form, *extra, *(_tool(spec) for spec in specs if spec.name not in names)]


def _tool(spec: ToolSpec) -> dict[str, Any]:
    form = spec.to_anthropic()
    if by_code(spec):
        form["description"] = "\n\n".join(text for text in (form["description"], _ON_FAILURE) if text)
    return form


def check(client: Any, tools: Mapping[str, Exported], request: Mapping[str, Any]) -> None:
    """Refuse what the API would refuse, or what this loop can't do."""
    if "betas" in request:
        raise ConfigurationError("betas= is not needed for programmatic tool calling; leave it out")
    if "mcp_servers" in request:
        raise ConfigurationError(
            "the MCP connector can't be called from code; connect to the server here, see toolchord_mcp"
        )
    known = set(inspect.signature(client.messages.create).parameters) - {"stream"}
    if unknown := sorted(set(request) - known):
        raise ConfigurationError(
            f"messages.create of this SDK takes no {', '.join(unknown)}; it takes {', '.join(sorted(known))}"
        )
    for_code = [name for name, one in tools.items() if by_code(one.spec)]
    if for_code and any("Bedrock" in cls.__name__ for cls in type(client).__mro__):
        raise ConfigurationError(
            f"Amazon Bedrock has no programmatic tool calling, which {for_code[0]} needs; run programs in a CodeSandbox"
        )
    choice: Mapping[str, Any] = request.get("tool_choice") or {}
    if choice.get("disable_parallel_tool_use") and for_code:
        raise ConfigurationError(
            f"disable_parallel_tool_use can't be combined with tools that code calls, such as {for_code[0]}; leave it "
            f"out, or give those tools allowed_callers=['direct']"
        )
    chosen = tools.get(str(choice.get("name"))) if choice.get("type") == "tool" else None
    if chosen is not None and "direct" not in (chosen.spec.allowed_callers or ()):
        raise ConfigurationError(
            f"tool_choice names {choice['name']!r}, which only code may call; leave tool_choice out, or add 'direct' "
            f"to its allowed_callers"
        )
