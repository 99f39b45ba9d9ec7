"""Where tools live: registration, names, namespaces, deferred tools, and the programs of the specification."""

import sys
import threading
import types
from collections.abc import AsyncIterator
from typing import Any, assert_type

import pytest
from pydantic import BaseModel, Field

from toolchord.errors import RegistrationError, ToolNotFoundError
from toolchord.models.tool_spec import ToolCapability, ToolSpec
from toolchord.models.validated_tool import ValidatedTool
from toolchord.registry import (
    ToolInfo,
    ToolRegistry,
    create_registry,
    get_default_registry,
    register_tool,
    reset_registry,
)
from toolchord.search import near, rank
from toolchord.tools import Tool


@pytest.fixture(autouse=True)
async def clean() -> AsyncIterator[None]:
    await reset_registry()
    yield
    await reset_registry()


class FakeDb:
    async def query(self, sql: str, *args: str) -> list[dict[str, Any]]:
        return [{"day": arg} for arg in args]


db = FakeDb()


def register_the_seeds_tool() -> Any:
    @register_tool(
        namespace="sales",
        tags=["database", "sales"],
        # Enable programmatic access
        allowed_callers=["code_execution_20250825", "sandbox"],
    )
    class GetSalesDataTool(ValidatedTool):
        """Fetch sales data from database."""

        class Arguments(BaseModel):
            start_date: str = Field(..., description="Start date (YYYY-MM-DD)")
            end_date: str = Field(..., description="End date (YYYY-MM-DD)")

        class Result(BaseModel):
            rows: list[dict] = Field(..., description="Sales records")  # type: ignore[type-arg]

        async def _execute(self, start_date: str, end_date: str) -> dict:  # type: ignore[type-arg]
            # Fetch from database
            rows = await db.query("SELECT * FROM sales WHERE date BETWEEN ? AND ?", start_date, end_date)
            return {"rows": rows}

    return GetSalesDataTool


async def test_the_seeds_tool_registers_runs_and_exports() -> None:
    cls = register_the_seeds_tool()
    assert cls.__name__ == "GetSalesDataTool"
    registry = await get_default_registry()

    programmatic_tools = []
    for tool_info in await registry.list_tools():
        metadata = await registry.get_metadata(tool_info.name, tool_info.namespace)
        assert metadata is not None
        if metadata.allowed_callers and "code_execution_20250825" in metadata.allowed_callers:
            spec = ToolSpec.from_metadata(metadata)
            programmatic_tools.append(spec.to_anthropic())

    assert programmatic_tools == [
        {
            "name": "GetSalesDataTool",
            "description": "Fetch sales data from database.\n\n"
            'Returns JSON text; after json.loads: {"rows": list[dict[str, Any]]}',
            "input_schema": {
                "type": "object",
                "properties": {
                    "start_date": {"type": "string", "description": "Start date (YYYY-MM-DD)"},
                    "end_date": {"type": "string", "description": "End date (YYYY-MM-DD)"},
                },
                "required": ["start_date", "end_date"],
            },
            "allowed_callers": ["code_execution_20260120"],
        }
    ]
    tool = await registry.get_tool("get_sales_data")
    assert tool is not None
    result = await tool.execute(start_date="2024-01-01", end_date="2024-12-31")
    assert result.rows == [{"day": "2024-01-01"}, {"day": "2024-12-31"}]
    assert tool.list_field == "rows"


async def test_the_seeds_capability_is_kept() -> None:
    @register_tool(
        namespace="sales",
        allowed_callers=["code_execution_20250825"],
        capabilities=[ToolCapability.IDEMPOTENT],  # Mark as safe to retry
    )
    class GetSalesDataTool(ValidatedTool):
        """Read-only data fetch - safe to call multiple times."""

        async def _execute(self) -> None: ...

    metadata = await (await get_default_registry()).get_metadata("get_sales_data")
    assert metadata is not None
    assert ToolCapability.IDEMPOTENT in metadata.capabilities


async def test_every_way_of_registering_returns_the_object() -> None:
    @register_tool
    def bare(x: int) -> int:
        return x

    @register_tool("web.fetch", tags=["net"])
    async def fetch(url: str) -> str:
        return url

    class Thing:
        async def execute(self) -> int:
            return 1

    thing = Thing()
    assert register_tool(thing, namespace="things") is thing
    assert register_tool(name="again")(bare) is bare
    assert bare(3) == 3
    registry = await get_default_registry()
    assert await registry.list_tools() == [
        ToolInfo("default", "bare"),
        ToolInfo("web", "fetch"),
        ToolInfo("things", "Thing"),
        ToolInfo("default", "again"),
    ]
    assert await registry.list_namespaces() == ["default", "things", "web"]
    assert await registry.list_tools("web") == [ToolInfo("web", "fetch")]


async def test_the_listing_changes_only_when_the_registry_does() -> None:
    registry = create_registry()
    registry.add(lambda: 1, "one")
    before = registry.tools()
    assert registry.tools() is before
    registry.add(lambda: 2, "two")
    assert [tool.name for tool in registry.tools()] == ["one", "two"]


async def test_a_name_is_never_overwritten_in_silence() -> None:
    registry = create_registry()

    def one() -> int:
        return 1

    first = registry.add(one)
    assert registry.add(one) is first
    db_query = registry.add(db.query)
    assert registry.add(db.query) is db_query
    with pytest.raises(RegistrationError, match=r"'default\.one' is registered already.*remove"):
        registry.add(lambda: 2, "one")
    registry.add(lambda: 2, "one", "other")
    registry.remove("one", "default")
    registry.add(lambda: 3, "one")
    with pytest.raises(ToolNotFoundError):
        registry.remove("nothing")


async def test_a_tool_is_found_by_name_alias_and_full_name() -> None:
    register_the_seeds_tool()
    registry = await get_default_registry()
    tool = registry.find("GetSalesDataTool")
    assert tool is not None
    for name in ("get_sales_data", "sales.GetSalesDataTool", "sales.get_sales_data"):
        assert registry.find(name) is tool
    assert registry.find("GetSalesDataTool", "default") is None
    with pytest.raises(ToolNotFoundError) as caught:
        await registry.get_tool_strict("get_sale_data")
    assert caught.value.near[0] == "get_sales_data"


async def test_a_bare_name_in_two_namespaces_means_the_default_one_or_none() -> None:
    registry = create_registry()
    registry.add(lambda: 1, "f", "a")
    registry.add(lambda: 2, "f", "b")
    assert registry.find("f") is None
    home = registry.add(lambda: 3, "f")
    assert registry.find("f") is home


async def test_unknown_metadata_is_an_error_at_registration() -> None:
    with pytest.raises(RegistrationError, match="did you mean 'tags'"):

        @register_tool(tag=["x"])
        def f() -> None: ...


# Deferred tools


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("far_away")

    def convert(amount: float, to: str = "EUR") -> str:
        """Convert money."""
        return f"{amount} {to}"

    made.convert = convert  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "far_away", made)
    return made


async def deferred_registry() -> ToolRegistry:
    registry = create_registry()
    registry.add(lambda: 1, "listed")
    registry.add(lambda sql: sql, "pg_query", defer_loading=True, description="Run SQL in a relational database")
    registry.add(lambda to: to, "send_email", "mail", defer_loading=True, tags=["mail"], search_keywords=["message"])
    await registry.register_tool(
        None,
        name="convert",
        metadata={"import_path": "far_away:convert", "defer_loading": True, "description": "Change currencies"},
    )
    return registry


async def test_deferred_tools_wait_for_a_search() -> None:
    registry = await deferred_registry()
    assert await registry.get_active_tools() == [ToolInfo("default", "listed")]
    assert [m.name for m in await registry.get_deferred_tools()] == ["pg_query", "send_email", "convert"]
    assert len(await registry.list_metadata()) == 4

    async def names(query: str, **options: Any) -> list[str]:
        return [m.name for m in await registry.search_deferred_tools(query, **options)]

    assert await names("query a relational database") == ["pg_query"]
    assert await names("messages") == ["send_email"]
    assert await names("currency") == []
    assert await names("CURRENCIES") == ["convert"]
    assert await names("^send.*mail|convert") == ["send_email", "convert"]
    assert await names("email sql", tags=["mail"]) == ["send_email"]
    for nothing in ("", "a", " ", ".*", "(a+)+$", "zzz"):
        assert await names(nothing) == []


async def test_loading_lists_a_tool_at_the_end(module: types.ModuleType) -> None:
    registry = await deferred_registry()
    loaded = await registry.load_deferred_tool("convert")
    assert [tool.name for tool in registry.tools()] == ["listed", "convert"]
    assert registry.find("convert") is loaded
    assert loaded.metadata.description == "Change currencies"
    assert await loaded.execute(amount="3") == "3.0 EUR"


async def test_getting_a_tool_imports_it_but_does_not_list_it(module: types.ModuleType) -> None:
    registry = await deferred_registry()
    waiting = registry.find("convert")
    assert waiting is not None
    assert waiting.implementation is None
    tool = await registry.get_tool("convert")
    assert tool is not None
    assert tool.implementation is module.convert
    assert waiting.load() is tool
    assert len(registry.tools()) == 1


async def test_a_wrong_import_path_says_so() -> None:
    registry = await deferred_registry()
    with pytest.raises(RegistrationError, match="far_away:convert"):
        await registry.get_tool("convert")
    with pytest.raises(RegistrationError, match="import_path"):
        await registry.register_tool(None, name="x")


async def test_deferred_names_may_be_dotted(module: types.ModuleType) -> None:
    registry = create_registry()
    registry.add(None, "money.convert", import_path="far_away.convert", defer_loading=True)
    assert await registry.list_namespaces() == ["money"]
    assert (await registry.load_deferred_tool("money.convert")).namespace == "money"


def test_types_survive_registration() -> None:
    registry = create_registry()

    @register_tool(registry=registry)
    def one(x: int) -> str:
        return str(x)

    assert_type(one(1), str)
    assert_type(register_tool(one, registry=registry)(1), str)
    assert_type(registry.find("one"), Tool | None)


def test_threads_may_register_at_once() -> None:
    registry = create_registry()

    def work(n: int) -> None:
        for i in range(50):
            registry.add(lambda: None, f"t{n}_{i}")
            registry.tools()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry.tools()) == 200


# Search


def test_a_name_counts_for_more_than_prose() -> None:
    documents = [("other", "", "get the orders"), ("get_orders", "", "x"), ("misc", "", "y")]
    assert rank("orders", documents) == [1, 0]


def test_patterns_match_without_backtracking() -> None:
    documents = [("a" * 5000,), ("get_sales_data",), ("data_get",)]
    assert rank("get_.*_data$", documents) == [1]
    assert rank("^data", documents) == [2]
    assert rank("(?i)GET", documents) == [1, 2]
    assert rank("a.*" * 150 + "b", documents) == []


def test_near_finds_typing_errors_and_shared_words() -> None:
    names = ["get_sales_data", "list_orders", "send_email"]
    assert near("getSalesDta", names)[0] == "get_sales_data"
    assert near("fetch_sales_data", names) == ("get_sales_data",)
    assert near("zzz", names) == ()
