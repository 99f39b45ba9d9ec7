"""Owns what a model is told about the tools: typed stubs, in the call form of the runtime that it writes for."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from toolchord.catalogue import Caller, Catalogue, Exposed, Source
from toolchord.errors import ConfigurationError
from toolchord.models.tool_spec import example_input
from toolchord.observed import ShapeStore
from toolchord.schema import TypeWriter, dereference, is_name, shape
from toolchord.tools import Tool

__all__ = ["PROGRAMS", "describe", "format_tools_for_llm"]

_CHARS_PER_TOKEN = 4  # an estimate: English and code run at three to five
_HEADINGS = {
    "python": "# Tools. Call with keyword arguments: result = await tool(name=value)",
    "anthropic": "# Tools. Each takes one dict and gives JSON text: data = json.loads(await tool({...}))",
    "javascript": "// Tools. Each takes one object and gives parsed JSON: const data = await tools.name({...})",
}
PROGRAMS = """\
Run a Python program in a sandbox and get back what it returns. The tools below are functions in it; await them, and \
use asyncio.gather for calls that don't depend on each other. Work on the data in the program and `return` only what \
you need: nothing else reaches you."""
"""What a model is told of writing programs."""
_OBSERVED = "The result is not declared; its type is what was observed so far."
_TYPESCRIPT = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def format_tools_for_llm(
    source: Source,
    *,
    caller: Caller = "sandbox",
    target: Literal["python", "anthropic", "javascript"] = "python",
    max_tokens: int | None = None,
    shapes: ShapeStore | None = None,
) -> str:
    """Describe tools to a model that is going to write a program.

    The same tools always give the same text. Deferred tools are not listed, only counted.

    Args:
        source: what `Catalogue.of` takes.
        caller: only tools that are open to it.
        target: ``"python"`` for programs run here (keywords, Python values), ``"anthropic"`` for Anthropic's container
            (one dict, JSON text), ``"javascript"`` for OpenAI's programs (one object, parsed JSON).
        max_tokens: an approximate bound (four characters a token). To keep it, documentation is cut to its first line,
            then to names; a program asks `describe_tool` for the rest.
        shapes: what was seen of results that are not declared; told as such. A prompt changes when it learns more.

    Raises:
        ConfigurationError: an unknown target.
    """
    if target not in _HEADINGS:
        raise ConfigurationError(f"unknown target {target!r}; use one of {', '.join(_HEADINGS)}")
    catalogue = Catalogue.of(source, caller=caller)
    listed = [exposed for exposed in catalogue.tools if exposed.tool not in catalogue.unlisted]
    mark = "//" if target == "javascript" else "#"
    waiting = len(catalogue.tools) - len(listed)
    more = f"{mark} {waiting} more: find them with search_tools(query)." if waiting and target == "python" else ""
    if not listed:
        return more or f"{mark} There are no tools."
    full: dict[str, Callable[[], str]] = {
        "python": lambda: _python(catalogue, listed, shapes),
        "anthropic": lambda: "\n\n".join(_anthropic(exposed.tool, shapes) for exposed in listed),
        "javascript": lambda: "\n\n".join(_javascript(exposed.tool, shapes) for exposed in listed),
    }
    budget = None if max_tokens is None else max_tokens * _CHARS_PER_TOKEN
    hint = " describe_tool(name) tells more." if target == "python" else ""
    text = _join(_HEADINGS[target], full[target](), more)
    if budget is None or len(text) <= budget:
        return text
    lines = (_brief(catalogue, exposed, target, shapes) for exposed in listed)
    text = _join(_HEADINGS[target] + hint, "\n".join(lines), more)
    return text if len(text) <= budget else _names_only(catalogue, listed, target, mark, more, budget)


def describe(exposed: Exposed, *, path: str | None = None, shapes: ShapeStore | None = None) -> str:
    """Everything about one tool, as the Python stub that a program's author sees.

    Args:
        exposed: the tool.
        path: how a program writes it, `Catalogue.path`; its identifier when None.
        shapes: what was seen of results that are not declared.
    """
    writer = TypeWriter()
    stub = _stub(exposed, path or exposed.identifier, writer, shapes)
    if path and "." in path:
        stub = f"class {path.rpartition('.')[0]}:\n{textwrap.indent(stub, '    ')}"
    return "\n\n".join([*writer.definitions.values(), stub])


def _join(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _names_only(catalogue: Catalogue, listed: Sequence[Exposed], target: str, mark: str, more: str, budget: int) -> str:
    names = [_written(catalogue, exposed, target) for exposed in listed]
    advice = "describe_tool(name) tells more, search_tools(query) finds others." if target == "python" else ""
    room = budget - len(_join(f"{mark} Tools: (and 99999 more). {advice}", more))
    kept = 0
    while kept < len(names) and (room := room - len(names[kept]) - 2) >= 0:
        kept += 1
    rest = f" (and {len(names) - kept} more)" if kept < len(names) else ""
    return _join(f"{mark} Tools: {', '.join(names[:kept])}{rest}. {advice}".rstrip(), more)


def _written(catalogue: Catalogue, exposed: Exposed, target: str) -> str:
    if target == "python":
        return catalogue.path(exposed)
    return exposed.tool.name if target == "anthropic" else f"tools.{exposed.tool.name}"


def _returned(tool: Tool, shapes: ShapeStore | None) -> tuple[dict[str, Any] | None, bool]:
    """The schema of a tool's result, and whether it was only observed."""
    if tool.metadata.result_schema is not None or shapes is None:
        return tool.metadata.result_schema, False
    seen = shapes.shape(tool)
    return seen or None, bool(seen)


def _brief(catalogue: Catalogue, exposed: Exposed, target: str, shapes: ShapeStore | None) -> str:
    """One line: the signature and the first line of the documentation."""
    tool = exposed.tool
    first = tool.metadata.description.strip().partition("\n")[0][:200]
    written = _written(catalogue, exposed, target)
    returns, observed = _returned(tool, shapes)
    first = f"(result as observed) {first}".strip() if observed else first
    if target == "javascript":
        result = _typescript(returns, returns or {})
        return f"{written}({_typescript_arguments(tool)}): Promise<{_cut(result)}>{f'  // {first}' if first else ''}"
    result = _cut(shape(returns)) if returns is not None else "Any"
    arguments = ", ".join(tool.parameter_texts())
    if target == "anthropic":
        arguments, result = "{" + arguments + "}", f"JSON of {result}"
    return f"{written}({arguments}) -> {result}{f'  # {first}' if first else ''}"


def _cut(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 2] + " …"


def _python(catalogue: Catalogue, listed: Sequence[Exposed], shapes: ShapeStore | None) -> str:
    writer = TypeWriter()
    bare: list[str] = []
    spaces: dict[str, list[str]] = {}
    for exposed in listed:
        path = catalogue.path(exposed)
        stub = _stub(exposed, path, writer, shapes)
        (spaces.setdefault(path.partition(".")[0], []) if "." in path else bare).append(stub)
    for space, stubs in spaces.items():
        body = textwrap.indent("\n\n".join(stubs), "    ")
        bare.append(f"class {space}:  # a namespace, as in: await {space}.tool(name=value)\n{body}")
    return "\n\n".join([*writer.definitions.values(), *bare])


def _stub(exposed: Exposed, path: str, writer: TypeWriter, shapes: ShapeStore | None) -> str:
    tool = exposed.tool
    arguments = ", ".join(tool.parameter_texts(writer, exposed.identifier))
    returns, notes = "Any", []
    schema, observed = _returned(tool, shapes)
    if schema is not None:
        returns = writer.write(schema, f"{exposed.identifier}_{'observed' if observed else 'result'}")
    if observed:
        notes.append(_OBSERVED)
    properties = (tool.metadata.argument_schema or {}).get("properties", {})
    if odd := [name for name in properties if not is_name(name)]:
        notes.append("Give as **{'name': value}: " + ", ".join(map(repr, odd)))
    if tool.list_field:
        notes.append(f"Iterating the result iterates its `{tool.list_field}`.")
    if exposed.identifier not in (tool.name, *tool.aliases):
        notes.append(f"Registered as {tool.name!r}.")
    usage = _examples(tool, lambda given: f"await {path}({_keywords(given)})", "#")
    doc = _documentation(tool, notes, usage)
    return f"async def {exposed.identifier}({arguments}) -> {returns}:\n{_docstring(doc)}"


def _keywords(given: Mapping[str, Any]) -> str:
    if all(map(is_name, given)):
        return ", ".join(f"{name}={value!r}" for name, value in given.items())
    return f"**{dict(given)!r}"


def _documentation(tool: Tool, notes: Sequence[str], usage: Sequence[str]) -> str:
    schema = tool.metadata.argument_schema or {}
    described = []
    for name, sub in schema.get("properties", {}).items():
        resolved = dereference(sub, schema)
        text = resolved.get("description") if isinstance(resolved, Mapping) else None
        if text:
            described.append(f"    {name}: {' '.join(str(text).split())}")
    parts = [tool.metadata.description.strip()]
    if described:
        parts.append("\n".join(["Args:", *described]))
    parts.extend(notes)
    if usage:
        parts.append("\n".join(["Example:", *(f"    {line}" for line in usage)]))
    return "\n\n".join(part for part in parts if part)


def _examples(tool: Tool, write: Callable[[dict[str, Any]], str], mark: str) -> list[str]:
    lines = []
    for example in tool.metadata.examples:
        given = example_input(example, tool.metadata.argument_schema or {})
        wrapped = given != example
        if wrapped and example.get("description"):
            lines.append(f"{mark} {' '.join(str(example['description']).split())}")
        output = (
            f"  {mark} -> {_cut(json.dumps(example['output'], default=str))}" if wrapped and "output" in example else ""
        )
        lines.append(write(given) + output)
    return lines


def _docstring(text: str) -> str:
    """The text as an indented docstring, whatever quotes and backslashes it has."""
    if not text:
        return "    ..."
    text = text.replace('"""', "'''")
    prefix = "r" if "\\" in text else ""
    one_line = "\n" not in text and not text.endswith(('"', "\\"))
    body = f'{prefix}"""{text}"""' if one_line else f'{prefix}"""{text}\n"""'
    return textwrap.indent(body, "    ")


def _anthropic(tool: Tool, shapes: ShapeStore | None) -> str:
    given = "{" + ", ".join(tool.parameter_texts()) + "}"
    notes = [f"Takes: {given}"]
    returns, observed = _returned(tool, shapes)
    if returns is not None:
        notes.append(f"json.loads of the result {'gave so far' if observed else 'gives'}: {shape(returns)}")
    usage = _examples(tool, lambda given: f"data = json.loads(await {tool.name}({given!r}))", "#")
    return f"async def {tool.name}(arguments: dict) -> str:\n{_docstring(_documentation(tool, notes, usage))}"


def _javascript(tool: Tool, shapes: ShapeStore | None) -> str:
    returns, observed = _returned(tool, shapes)
    usage = _examples(tool, lambda given: f"await tools.{tool.name}({json.dumps(given, default=str)})", "//")
    doc = _documentation(tool, [_OBSERVED] if observed else [], usage).replace("*/", "* /")
    lines = "\n".join(f" * {line}".rstrip() for line in doc.splitlines())
    head = f"/**\n{lines}\n */\n" if doc else ""
    return f"{head}tools.{tool.name}({_typescript_arguments(tool)}): Promise<{_typescript(returns, returns or {})}>"


def _typescript_arguments(tool: Tool) -> str:
    schema = tool.metadata.argument_schema or {}
    return f"args: {_typescript({'type': 'object', **schema}, schema)}" if schema.get("properties") else ""


def _typescript(schema: Any, root: Mapping[str, Any], open_refs: tuple[str, ...] = ()) -> str:
    if isinstance(schema, Mapping) and isinstance(ref := schema.get("$ref"), str):
        if ref in open_refs:
            return "unknown"
        open_refs = (*open_refs, ref)
    schema = dereference(schema, root)
    if not isinstance(schema, Mapping):
        return "unknown"
    if "enum" in schema or "const" in schema:
        return " | ".join(json.dumps(value, default=str) for value in schema.get("enum", [schema.get("const")]))
    if branches := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(dict.fromkeys(_typescript(branch, root, open_refs) for branch in branches))
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_typescript({**schema, "type": one}, root, open_refs) for one in kind)
    if kind == "array":
        return f"Array<{_typescript(schema.get('items', True), root, open_refs)}>"
    if properties := schema.get("properties"):
        required = schema.get("required", ())
        fields = (
            f"{name if name.isidentifier() else json.dumps(name)}{'' if name in required else '?'}: "
            f"{_typescript(sub, root, open_refs)}"
            for name, sub in properties.items()
        )
        return "{" + "; ".join(fields) + "}"
    if kind == "object":
        extra = schema.get("additionalProperties")
        return f"Record<string, {_typescript(extra, root, open_refs) if isinstance(extra, Mapping) else 'unknown'}>"
    return _TYPESCRIPT.get(str(kind), "unknown")
