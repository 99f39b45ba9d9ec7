"""`toolchord tools` and `toolchord stubs`: what programs could call, for a person and for a model."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from toolchord.cli.options import AsJson, Tools, say


def tools(
    tools: Tools = None,
    search: Annotated[str | None, typer.Option(help="Only what these words find, the best first.")] = None,
    as_json: AsJson = False,
) -> None:
    """List tools: names, what they take and give, what they may do."""
    from toolchord.catalogue import Catalogue
    from toolchord.loading import load_tools
    from toolchord.schema import shape

    catalogue = Catalogue.of(load_tools(tools or []))
    found = catalogue.tools if search is None else catalogue.search(search, 50)
    listed = []
    lines = []
    for exposed in found:
        path, tool = catalogue.path(exposed), exposed.tool
        metadata = tool.metadata
        returns = shape(metadata.result_schema) if metadata.result_schema is not None else None
        signature = f"{path}({', '.join(tool.parameter_texts())})"
        can = sorted(str(one.value) for one in metadata.capabilities)
        listed.append(
            {
                "name": path,
                "tool": tool.full_name,
                "signature": signature,
                "returns": returns,
                "description": metadata.description,
                "capabilities": can,
                "deferred": metadata.defer_loading,
                "source": metadata.source,
            }
        )
        marks = ", ".join([*can, *(["found by search only"] if metadata.defer_loading else [])])
        lines.append(f"{signature} -> {returns}" if returns else signature)
        first = metadata.description.strip().partition("\n")[0]
        lines += [f"    {text}" for text in (first, f"[{marks}]" if marks else "") if text]
    lines.append(f"{len(listed)} tool{'s' * (len(listed) != 1)}")
    say(listed, as_json, "\n".join(lines))


def stubs(
    tools: Tools = None,
    target: Annotated[
        Literal["python", "anthropic", "javascript"], typer.Option(help="Where the program is going to run.")
    ] = "python",
    max_tokens: Annotated[int | None, typer.Option(help="About how long it may be.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a model is told of the tools."""
    from toolchord.loading import load_tools
    from toolchord.prompt import format_tools_for_llm

    text = format_tools_for_llm(load_tools(tools or []), target=target, max_tokens=max_tokens)
    say({"target": target, "text": text}, as_json, text)
