"""Tools of several frameworks in one program. Each framework is one entry in `GUESTS`, and one line in the program."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool, BaseToolkit, tool
from llama_index.core import SimpleDirectoryReader, SimpleKeywordTableIndex
from llama_index.core.llms import MockLLM
from llama_index.core.tools import FunctionTool
from llama_index.core.tools.tool_spec.base import BaseToolSpec

import toolchord_langchain
import toolchord_llama_index
import toolchord_mcp
from toolchord import CodeSandbox, Limits, ToolRegistry, create_registry, format_tools_for_llm

ROOT = Path(__file__).parents[2]


class Numbers(BaseToolkit):
    """A toolkit of LangChain's."""

    def get_tools(self) -> list[BaseTool]:
        @tool
        async def count_words(text: str) -> dict[str, int]:
            """Count words."""
            return {"words": len(text.split())}

        @tool(response_format="content_and_artifact")
        def rank(items: list[str]) -> tuple[str, list[str]]:
            """Sort by length."""
            return "sorted", sorted(items, key=len)

        return [count_words, rank]


class Notes(BaseToolSpec):
    """A tool spec of LlamaIndex's."""

    spec_functions = ["note", "alength"]  # noqa: RUF012  (as its base has it)

    def note(self, text: str) -> list[str]:
        """Split a note into lines."""
        return text.splitlines()

    async def alength(self, text: str) -> int:
        """A text's length."""
        if not text:
            raise LookupError("nothing to measure")
        return len(text)


@asynccontextmanager
async def langchain(registry: ToolRegistry) -> AsyncIterator[None]:
    toolchord_langchain.registry_from(Numbers(), registry=registry, namespace="lc")
    yield


@asynccontextmanager
async def llama_index(registry: ToolRegistry) -> AsyncIterator[None]:
    documents = SimpleDirectoryReader(input_files=[ROOT / "docs" / "decisions.md"]).load_data()
    index = SimpleKeywordTableIndex.from_documents(documents, llm=MockLLM(), max_keywords_per_chunk=1000)
    retriever = index.as_retriever(retriever_mode="simple")
    toolchord_llama_index.registry_from([Notes(), {"find": retriever}], registry=registry, namespace="li")
    yield


SERVER = """\
from mcp.server.fastmcp import FastMCP

server = FastMCP("cities")

@server.tool()
def population(city: str) -> dict[str, int]:
    \"\"\"How many people live in a city.\"\"\"
    return {"people": {"Oslo": 720_000, "Bergen": 290_000}[city]}

server.run()
"""


@asynccontextmanager
async def mcp(registry: ToolRegistry) -> AsyncIterator[None]:
    async with toolchord_mcp.connect([sys.executable, "-c", SERVER], registry=registry, namespace="mcp"):
        yield


GUESTS = {"lc": langchain, "li": llama_index, "mcp": mcp}

PROGRAM = """\
import asyncio
passages, words, oslo, bergen = await asyncio.gather(
    li.find(input="greenlet"),
    lc.count_words(text="one two three"),
    mcp.population(city="Oslo"),
    mcp.population(city="Bergen"),
)
lines = li.note(passages[0].text)
lengths = await asyncio.gather(*(li.alength(text=line) for line in lines if line))
try:
    await li.alength(text="")
except LookupError as error:
    failed = str(error)
return {
    "words": words["words"],
    "found": any("greenlet" in line for line in lines),
    "measured": sum(lengths) > 100,
    "ranked": lc.rank(["ccc", "a", "bb"]),
    "failed": failed,
    "people": oslo["people"] + bergen["people"],
    "own": own(2),
}
"""


def own(n: int) -> int:
    """A plain function."""
    return n + 1


async def test_one_program_calls_tools_of_every_framework() -> None:
    registry = create_registry()
    registry.add(own)
    async with AsyncExitStack() as stack:
        for guest in GUESTS.values():
            await stack.enter_async_context(guest(registry))
        sandbox = await stack.enter_async_context(CodeSandbox(registry, limits=Limits(wall_time=20)))
        result = await sandbox.execute(PROGRAM)
    assert result.ok, result.for_model()
    assert result.value == {
        "words": 3,
        "found": True,
        "measured": True,
        "ranked": ["a", "bb", "ccc"],
        "failed": "nothing to measure",
        "people": 1_010_000,
        "own": 3,
    }
    called = {call.tool for call in result.calls}
    guests = {"li.find", "lc.count_words", "li.note", "li.alength", "lc.rank", "mcp.population"}
    assert called == {*guests, "default.own"}


@pytest.mark.parametrize("guest", GUESTS)
async def test_each_frameworks_tools_have_typed_stubs_in_their_namespace(guest: str) -> None:
    registry = create_registry()
    async with GUESTS[guest](registry):
        text = format_tools_for_llm(registry)
        namespaces = {tool.namespace for tool in registry.tools()}
    stubs = {
        "lc": "async def count_words(text: str)",
        "li": "async def find(input: str)",
        "mcp": "async def population(city: str)",
    }
    assert stubs[guest] in text
    assert namespaces == {guest}


async def test_tools_go_from_one_framework_to_the_other_through_a_registry() -> None:
    registry = create_registry()
    async with langchain(registry), llama_index(registry):
        tools = toolchord_llama_index.llama_index_tools(registry)
        for_llama: dict[Any, Any] = {tool.metadata.name: tool for tool in tools}
        for_langchain = {tool.name: tool for tool in toolchord_langchain.langchain_tools(registry)}
    assert set(for_llama) == set(for_langchain)
    assert for_llama["rank"].call(items=["bb", "a"]).raw_output == ["a", "bb"]
    assert isinstance(for_llama["note"], FunctionTool)
    assert await for_langchain["alength"].ainvoke({"text": "abc"}) == "3"
