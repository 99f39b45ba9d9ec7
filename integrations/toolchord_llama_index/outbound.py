"""Owns the way out: Toolchord's tools as tools of LlamaIndex."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.tools import AsyncBaseTool, BaseTool, FunctionTool, ToolMetadata, ToolOutput
from pydantic import BaseModel, ConfigDict, create_model
from pydantic_core import to_json

from toolchord import Catalogue, Tool
from toolchord.catalogue import Source

_DIRECT = "Its result is meant for the user as it is: return it unchanged."


@dataclass
class SchemaMetadata(ToolMetadata):
    """A tool's metadata whose schema is JSON Schema, not made of a model.

    Attributes:
        parameters: the schema.
    """

    parameters: dict[str, Any] = field(default_factory=dict)

    def get_parameters_dict(self) -> dict[str, Any]:
        """The schema."""
        return self.parameters

    def to_openai_tool(self, skip_length_check: bool = True) -> dict[str, Any]:
        """The tool as OpenAI has it; a description that holds stubs may be long."""
        return super().to_openai_tool(skip_length_check=True)


class ToolchordTool(AsyncBaseTool):
    """A tool of Toolchord as LlamaIndex sees it. Made by `llama_index_tools`.

    An output's content is the result as JSON text, its `raw_output` the value itself. Whatever the tool raises is
    raised, which agents turn into an output that says so.
    """

    def __init__(self, wrapped: Tool, metadata: ToolMetadata) -> None:
        """Wrap a tool."""
        self._wrapped = wrapped
        self._metadata = metadata

    @property
    def wrapped(self) -> Tool:
        """The tool behind it."""
        return self._wrapped

    @property
    def metadata(self) -> ToolMetadata:
        """What LlamaIndex knows of it."""
        return self._metadata

    def call(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """Run it; positional arguments are taken in the order of its parameters."""
        arguments = self._wrapped.bind(args, kwargs)
        return self._output(arguments, self._wrapped.execute_sync(**arguments))

    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """Run it on this event loop, or in a thread if it is blocking."""
        tool = self._wrapped.load()
        arguments = tool.bind(args, kwargs)
        if tool.is_async:
            return self._output(arguments, await tool.execute(**arguments))
        return self._output(arguments, await asyncio.to_thread(tool.execute_sync, **arguments))

    def _output(self, arguments: dict[str, Any], value: Any) -> ToolOutput:
        text = value if isinstance(value, str) else to_json(value, bytes_mode="base64", fallback=str).decode()
        return ToolOutput(
            tool_name=self._metadata.get_name(), content=text, raw_input={"kwargs": arguments}, raw_output=value
        )


def llama_index_tools(tools: Source) -> list[BaseTool]:
    """The tools that are open to direct calls, as LlamaIndex's.

    Args:
        tools: a registry, or whatever else a `Catalogue` is made of. Deferred tools are left out.

    Returns:
        For a tool that came from LlamaIndex unchanged that very tool; a `ToolchordTool` for every other one. A name
        that several namespaces have gets its namespace in front: ``sales_get_orders``.
    """
    catalogue = Catalogue.of(tools, caller="direct")
    found: list[BaseTool] = []
    names: set[str | None] = set()
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
            tool = ToolchordTool(exposed.tool, metadata_of(exposed.tool, name))
        names.add(tool.metadata.name)
        found.append(tool)
    return found


def metadata_of(tool: Tool, name: str) -> SchemaMetadata:
    """What LlamaIndex is told of a tool."""
    schema = {"type": "object", "properties": {}, **(tool.metadata.argument_schema or {})}
    return SchemaMetadata(
        description=tool.metadata.description or name,
        name=name,
        fn_schema=_model_of(name, schema),
        parameters=schema,
    )


def described(tool: BaseTool) -> str:
    """A LlamaIndex tool's description without the signature, and with a note if its result is meant for the user."""
    text = tool.metadata.description or ""
    first, _, rest = text.partition("\n")
    if isinstance(tool, FunctionTool) and first.startswith(f"{tool.metadata.name}("):
        text = inspect.cleandoc(rest)  # LlamaIndex's own stub; a program's author gets a better one
    note = _DIRECT if tool.metadata.return_direct else ""
    return "\n\n".join(part for part in (text.strip(), note) if part)


def _model_of(name: str, schema: dict[str, Any]) -> type[BaseModel]:
    """A model for those providers that ask for one: it says the schema and takes what comes, for the tool checks it."""
    config = ConfigDict(extra="allow", json_schema_extra=lambda made: made.update(schema))
    model: type[BaseModel] = create_model(name, __config__=config)
    return model


def _original(tool: Tool) -> BaseTool | None:
    """The LlamaIndex tool that a tool was made of, if it does the same."""
    origin = tool.implementation
    if not isinstance(origin, BaseTool):
        return None
    same = origin.metadata.name == tool.name and described(origin) == tool.metadata.description
    return origin if same else None
