"""What every adapter promises alike, whichever framework it is for: the same words, the same behaviour."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import StructuredTool
from llama_index.core.tools import FunctionTool
from mcp.server.fastmcp import FastMCP
from mcp.shared.memory import create_connected_server_and_client_session

import toolchord_langchain
import toolchord_llama_index
import toolchord_mcp
from toolchord import CodeSandbox, ExecutionResult, ToolCapability, ToolRegistry, create_registry, tool_from
from toolchord.errors import RegistrationError

ROOT = Path(__file__).parents[2]

# the module that must not be there, the extra that brings it, and what else the adapter may import
ADAPTERS: dict[str, tuple[str, str, set[str]]] = {
    "toolchord_langchain": ("langchain_core", "langchain", {"langchain_core"}),
    "toolchord_langgraph": ("langgraph", "langgraph", {"langgraph", "langchain", "langchain_core"}),
    "toolchord_llama_index": ("llama_index.core", "llama-index", {"llama_index", "workflows"}),
    "toolchord_mcp": ("mcp", "mcp", {"mcp", "jsonschema", "starlette", "uvicorn"}),
    "toolchord_anthropic": ("anthropic", "anthropic", {"anthropic"}),
    "toolchord_openai": ("openai", "openai", {"openai"}),
}
BUILT_ON = {"toolchord_langgraph": {"toolchord_langchain"}}
COMMON = {"toolchord", "toolchord_guest", "pydantic", "pydantic_core", "typing_extensions", "msgspec", "anyio", "httpx"}


# the same four functions as each framework has them


def add(a: int, b: int = 2) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}  # an object: MCP has no other results


async def orders(customer: str) -> dict[str, Any]:
    """All orders of a customer."""
    await asyncio.sleep(0)
    return {"customer": customer, "rows": [{"id": 1, "euros": 2.5}, {"id": 2, "euros": None}]}


def broken(why: str) -> str:
    """Fails."""
    raise ValueError(f"it broke: {why}")


FUNCTIONS = (add, orders, broken)

Registering = Callable[..., Awaitable[ToolRegistry]]


@asynccontextmanager
async def langchain() -> AsyncIterator[Registering]:
    def theirs(function: Any) -> Any:
        if inspect.iscoroutinefunction(function):
            return StructuredTool.from_function(coroutine=function)
        return StructuredTool.from_function(function)

    async def register(**options: Any) -> ToolRegistry:
        return toolchord_langchain.registry_from(list(map(theirs, FUNCTIONS)), **options)

    yield register


@asynccontextmanager
async def llama_index() -> AsyncIterator[Registering]:
    def theirs(function: Any) -> Any:
        if inspect.iscoroutinefunction(function):
            return FunctionTool.from_defaults(async_fn=function, description=inspect.getdoc(function))
        return FunctionTool.from_defaults(function, description=inspect.getdoc(function))

    async def register(**options: Any) -> ToolRegistry:
        return toolchord_llama_index.registry_from(list(map(theirs, FUNCTIONS)), **options)

    yield register


@asynccontextmanager
async def mcp() -> AsyncIterator[Registering]:
    server = FastMCP("contract")
    for function in FUNCTIONS:
        server.tool()(function)
    async with create_connected_server_and_client_session(server._mcp_server) as session:

        async def register(**options: Any) -> ToolRegistry:
            return await toolchord_mcp.registry_from(session, **options)

        yield register


INBOUND = pytest.mark.parametrize("adapter", [langchain, llama_index, mcp], ids=lambda adapter: adapter.__name__)
Adapter = Any


async def run(registry: ToolRegistry, code: str) -> ExecutionResult:
    async with CodeSandbox(registry) as sandbox:
        return await sandbox.execute(code)


@INBOUND
async def test_names_words_and_schemas_come_through(adapter: Adapter) -> None:
    async with adapter() as register:
        tools = {metadata.name: metadata for metadata in await (await register()).list_metadata()}
    assert sorted(tools) == ["add", "broken", "orders"]
    assert tools["add"].description == "Add two numbers."
    schema = tools["add"].argument_schema
    assert schema is not None
    assert (schema["properties"]["a"]["type"], schema["required"]) == ("integer", ["a"])
    assert schema["properties"]["b"]["default"] == 2
    assert {metadata.source for metadata in tools.values()} == {adapter.__name__}


@INBOUND
async def test_calls_of_every_form_work_together(adapter: Adapter) -> None:
    async with adapter() as register:
        result = await run(
            await register(),
            "import asyncio\n"
            "mine = await asyncio.gather(orders(customer='ann'), orders('bob'))\n"
            "sums = [add(1), add(a=1, b=5), add(1, 7), add({'a': 3})]\n"
            "return [*[s.sum for s in sums], [m['customer'] for m in mine], mine[0].rows[0]['euros']]",
        )
    assert result.value == [3, 6, 8, 5, ["ann", "bob"], 2.5], result.error


@INBOUND
async def test_a_failing_tool_raises_in_the_program_with_its_message(adapter: Adapter) -> None:
    async with adapter() as register:
        result = await run(
            await register(), "try:\n    broken(why='rain')\nexcept Exception as error:\n    return str(error)"
        )
    assert "it broke: rain" in result.value
    assert result.calls[0].status == "error"


@INBOUND
@pytest.mark.parametrize("call", ["add()", "add(1, c=3)", "add('many')", "add(1, 2, 3)"])
async def test_wrong_arguments_are_refused_before_the_tool_runs(adapter: Adapter, call: str) -> None:
    async with adapter() as register:
        code = f"try:\n    {call.replace('add', 'tool')}\nexcept TypeError as error:\n    return str(error)"
        result = await run(await register(), f"tool = add\n{code}")
    assert "add" in result.value, result.error
    assert "a: int" in result.value  # it says how to call it


@INBOUND
async def test_options_are_the_same_words(adapter: Adapter) -> None:
    async with adapter() as register:
        home = create_registry()
        home.add(add, name="own")
        registry = await register(
            namespace="theirs",
            registry=home,
            capabilities=["read_only"],
            allowed_callers=["sandbox"],
            concurrency_limit=3,
        )
        assert registry is home
        tool = await registry.get_tool_strict("orders", "theirs")
        assert tool.metadata.capabilities == {ToolCapability.READ_ONLY}
        assert (tool.metadata.allowed_callers, tool.metadata.concurrency_limit) == (["sandbox"], 3)
        result = await run(registry, "return [own(1).sum, theirs.add(1).sum, (await theirs.orders('x')).customer]")
    assert result.value == [3, 3, "x"], result.error


def loud(adapter: Adapter) -> dict[str, bool]:
    """A server's other tools are worth having: MCP leaves out what can't be registered, unless told not to."""
    return {"strict": True} if adapter is mcp else {}


@INBOUND
async def test_unknown_options_are_refused_by_name(adapter: Adapter) -> None:
    async with adapter() as register:
        with pytest.raises(RegistrationError, match="capabilites"):
            await register(capabilites=["read_only"], **loud(adapter))


@INBOUND
async def test_a_name_that_is_taken_is_refused(adapter: Adapter) -> None:
    async with adapter() as register:
        home = create_registry()
        home.add(add)
        with pytest.raises(RegistrationError, match="add"):
            await register(registry=home, **loud(adapter))
        assert (await home.get_tool_strict("add")).implementation is add


OUTBOUND = pytest.mark.parametrize(
    ("there", "back"),
    [
        (toolchord_langchain.langchain_tools, toolchord_langchain.registry_from),
        (toolchord_llama_index.llama_index_tools, toolchord_llama_index.registry_from),
    ],
    ids=["langchain", "llama_index"],
)


@OUTBOUND
async def test_there_and_back_a_tool_is_the_same(there: Any, back: Any) -> None:
    registry = create_registry()
    for function in FUNCTIONS:
        registry.add(function, capabilities=["read_only"])
    again = back(there(registry))
    for info in await registry.list_tools():
        one, other = await registry.get_tool_strict(info.name), await again.get_tool_strict(info.name)
        assert one.metadata == other.metadata
        assert one.implementation is other.implementation
    assert await (await again.get_tool_strict("add")).execute(a=1) == {"sum": 3}


@OUTBOUND
def test_what_is_closed_to_models_is_not_handed_out(there: Any, back: Any) -> None:
    tools = [tool_from(add, allowed_callers=["sandbox"]), tool_from(orders)]
    assert len(there(tools)) == 1


# every adapter


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_missing_framework_is_told_with_the_pip_line(adapter: str) -> None:
    missing, extra, _ = ADAPTERS[adapter]
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from toolchord.errors import MissingExtraError\n"
        f"try:\n    import {adapter}\nexcept MissingExtraError as error:\n    print(error.extra, error)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert ended.stdout.startswith(f"{extra} "), ended.stderr
    assert f"pip install 'toolchord[{extra}]'" in ended.stdout


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_public_names_are_sorted_documented_and_typed(adapter: str) -> None:
    module = importlib.import_module(adapter)
    assert sorted(module.__all__) == module.__all__
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
    assert (Path(inspect.getfile(module)).parent / "py.typed").exists()


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_imports_its_own_framework_only(adapter: str) -> None:
    allowed = COMMON | ADAPTERS[adapter][2] | {adapter} | BUILT_ON.get(adapter, set()) | set(sys.stdlib_module_names)
    for path in (ROOT / "integrations" / adapter).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert not (private and names[0].startswith("toolchord")), f"{path.name} imports {private}"
            assert {name.partition(".")[0] for name in names} <= allowed, path.name
