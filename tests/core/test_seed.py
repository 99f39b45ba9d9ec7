"""The seed's own programs, verbatim, with tools registered the seed's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from pydantic import BaseModel, Field

from toolchord import (
    CodeSandbox,
    ExecutionResult,
    ToolCapability,
    ToolRegistry,
    ToolSpec,
    create_registry,
    format_tools_for_llm,
    get_default_registry,
    reset_registry,
)
from toolchord.errors import ToolNotFoundError

# The seed's import lines, with only the top package renamed.
from toolchord.execution.code_sandbox import CodeSandbox as SeedCodeSandbox
from toolchord.models.validated_tool import ValidatedTool
from toolchord.registry import register_tool

pytestmark = pytest.mark.asyncio(loop_scope="module")

OVERVIEW = """\
# Get data
sales = await get_sales_data()

# Process in memory (no token cost!)
top_10 = sorted(sales, key=lambda x: x['revenue'], reverse=True)[:10]

# Analyze
analysis = await analyze_trends(top_10)

return analysis
"""

AGGREGATION = """\
# Fetch sales data
sales = await get_sales_data(start_date="2024-01-01", end_date="2024-12-31")

# Group by category
from collections import defaultdict
category_revenue = defaultdict(float)

for sale in sales['rows']:
    product = await get_product(product_id=sale['product_id'])
    category_revenue[product['category']] += sale['revenue']

# Format results
results = [
    {"category": cat, "total_revenue": rev}
    for cat, rev in sorted(category_revenue.items(), key=lambda x: x[1], reverse=True)
]

return {"categories": results}
"""

PARALLEL = """\
import asyncio

# Get low stock products
products = await get_low_stock_products(threshold=10)

# Check each product's status in parallel
async def check_product(product_id):
    inventory = await get_inventory_status(product_id=product_id)
    supplier = await get_supplier_info(supplier_id=inventory['supplier_id'])
    return {
        "product_id": product_id,
        "stock": inventory['quantity'],
        "supplier": supplier['name'],
        "lead_time": supplier['lead_time_days']
    }

# Execute all checks concurrently
results = await asyncio.gather(*[
    check_product(p['id']) for p in products['items']
])

return {"statuses": results}
"""

ITERATIVE = """\
# Fetch customers sorted by total purchases
customers = await get_top_customers(limit=100)

# Check each until we find one meeting criteria
for customer in customers['rows']:
    purchases = await get_customer_purchases(customer_id=customer['id'])

    # Check if any single purchase exceeds threshold
    big_purchase = next(
        (p for p in purchases['items'] if p['amount'] > 10000),
        None
    )

    if big_purchase:
        return {
            "customer": customer,
            "purchase": big_purchase
        }

return {"message": "No customer found with purchase > $10,000"}
"""

SALES = [
    {"customer_id": f"C{n}", "product_id": f"P{n % 4}", "revenue": float(n * 37 % 101), "date": f"2024-01-{n:02}"}
    for n in range(1, 29)
]
CATEGORIES = {"P0": "books", "P1": "toys", "P2": "books", "P3": "games"}


@register_tool(
    namespace="sales",
    tags=["database", "sales"],
    # Enable programmatic access
    allowed_callers=["code_execution_20250825", "sandbox"],
)
class GetSalesDataTool(ValidatedTool):
    """Fetch sales data from database."""

    class Arguments(BaseModel):
        start_date: str = Field("2024-01-01", description="Start date (YYYY-MM-DD)")
        end_date: str = Field("2024-12-31", description="End date (YYYY-MM-DD)")

    class Result(BaseModel):
        rows: list[dict[str, Any]] = Field(..., description="Sales records")

    async def _execute(self, start_date: str, end_date: str) -> dict[str, Any]:
        return {"rows": [row for row in SALES if start_date <= str(row["date"]) <= end_date]}


@register_tool(namespace="sales", allowed_callers=["code_execution_20250825"], capabilities=[ToolCapability.IDEMPOTENT])
class GetProductTool(ValidatedTool):
    """Read-only data fetch - safe to call multiple times."""

    class Arguments(BaseModel):
        product_id: str

    class Result(BaseModel):
        category: str
        name: str

    async def _execute(self, product_id: str) -> dict[str, Any]:
        return {"category": CATEGORIES[product_id], "name": product_id.lower()}


@register_tool(namespace="sales", allowed_callers=["sandbox"])
async def analyze_trends(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Analyze sales records."""
    return {"count": len(rows), "best": rows[0]["revenue"], "worst": rows[-1]["revenue"]}


class Stock:
    """The tools of Example 2; a barrier opens only when `expected` calls of one kind are in flight together."""

    def __init__(self, expected: int) -> None:
        self.inventory = asyncio.Barrier(expected)
        self.supplier = asyncio.Barrier(expected)
        self.expected = expected

    async def get_low_stock_products(self, threshold: int) -> dict[str, Any]:
        return {"items": [{"id": f"P{n}", "stock": n % threshold} for n in range(self.expected)]}

    async def get_inventory_status(self, product_id: str) -> dict[str, Any]:
        await self.inventory.wait()
        return {"quantity": int(product_id[1:]), "supplier_id": f"S{product_id[1:]}"}

    async def get_supplier_info(self, supplier_id: str) -> dict[str, Any]:
        await self.supplier.wait()
        return {"name": f"Supplier {supplier_id}", "lead_time_days": int(supplier_id[1:]) + 1}


class Customers:
    """The tools of Example 3."""

    def __init__(self, big: int | None) -> None:
        self.big = big

    async def get_top_customers(self, limit: int) -> dict[str, Any]:
        return {"rows": [{"id": n, "name": f"customer {n}"} for n in range(limit)]}

    async def get_customer_purchases(self, customer_id: int) -> dict[str, Any]:
        return {"items": [{"amount": 9_999}, {"amount": 10_000 if customer_id != self.big else 10_001}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def registry() -> AsyncIterator[ToolRegistry]:
    await reset_registry()  # other modules register tools of their own, and may have emptied it
    callers = ["code_execution_20250825", "sandbox"]
    for tool in (GetSalesDataTool, GetProductTool, analyze_trends):
        register_tool(namespace="sales", tags=["database", "sales"], allowed_callers=callers)(tool)
    yield await get_default_registry()
    await reset_registry()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(registry: ToolRegistry) -> AsyncIterator[CodeSandbox]:
    async with SeedCodeSandbox(registry=registry) as sandbox:
        yield sandbox


def tools_called(result: ExecutionResult) -> list[str]:
    return [call.tool.rpartition(".")[2] for call in result.calls]


async def test_the_overview_program_runs_as_written(sandbox: CodeSandbox) -> None:
    result = await sandbox.execute(OVERVIEW)
    best = sorted((float(str(row["revenue"])) for row in SALES), reverse=True)
    assert result.error is None
    assert result.value == {"count": 10, "best": best[0], "worst": best[9]}
    assert tools_called(result) == ["GetSalesDataTool", "analyze_trends"]


async def test_data_aggregation_runs_as_written(sandbox: CodeSandbox) -> None:
    result = await sandbox.execute(AGGREGATION)
    totals: dict[str, float] = {}
    for row in SALES:
        category = CATEGORIES[str(row["product_id"])]
        totals[category] = totals.get(category, 0.0) + float(str(row["revenue"]))
    ordered = sorted(totals.items(), key=lambda pair: pair[1], reverse=True)
    assert result.error is None
    assert result.value == {"categories": [{"category": c, "total_revenue": r} for c, r in ordered]}
    assert tools_called(result) == ["GetSalesDataTool", *["GetProductTool"] * len(SALES)]


async def test_parallel_processing_runs_as_written_with_its_calls_in_flight_together(sandbox: CodeSandbox) -> None:
    stock = Stock(8)
    tools = [stock.get_low_stock_products, stock.get_inventory_status, stock.get_supplier_info]
    result = await sandbox.execute(PARALLEL, tools=tools)
    assert result.error is None  # a barrier that never fills would end in wall_time
    assert result.value == {
        "statuses": [
            {"product_id": f"P{n}", "stock": n, "supplier": f"Supplier S{n}", "lead_time": n + 1} for n in range(8)
        ]
    }
    assert tools_called(result).count("get_inventory_status") == tools_called(result).count("get_supplier_info") == 8


async def test_iterative_processing_stops_at_the_first_hit(sandbox: CodeSandbox) -> None:
    shop = Customers(big=6)
    result = await sandbox.execute(ITERATIVE, tools=[shop.get_top_customers, shop.get_customer_purchases])
    assert result.value == {"customer": {"id": 6, "name": "customer 6"}, "purchase": {"amount": 10_001}}
    assert tools_called(result) == ["get_top_customers", *["get_customer_purchases"] * 7]
    assert [call.arguments for call in result.calls[1:]] == [{"customer_id": n} for n in range(7)]


async def test_iterative_processing_says_so_when_there_is_no_hit(sandbox: CodeSandbox) -> None:
    shop = Customers(big=None)
    result = await sandbox.execute(ITERATIVE, tools=[shop.get_top_customers, shop.get_customer_purchases])
    assert result.value == {"message": "No customer found with purchase > $10,000"}
    assert len(result.calls) == 101


@pytest.mark.parametrize(
    "code",
    [
        "return [s['revenue'] for s in await get_sales_data()]",
        "return [s['revenue'] for s in await GetSalesDataTool()]",
        "return [s['revenue'] for s in await sales.get_sales_data()]",
        "return [s['revenue'] for s in await call_tool('get_sales_data')]",
        "return [s['revenue'] for s in await call_tool('sales.GetSalesDataTool')]",
        "return [s['revenue'] for s in (await get_sales_data())['rows']]",
        "return [s['revenue'] for s in (await get_sales_data()).rows]",
        "data = await get_sales_data()\nreturn [data[n]['revenue'] for n in range(len(data))]",
        "return [s['revenue'] for s in get_sales_data()]",
        "return [s['revenue'] for s in await get_sales_data('2024-01-01', '2024-12-31')]",
        "return [s['revenue'] for s in await get_sales_data({'start_date': '2024-01-01'})]",
    ],
)
async def test_the_sales_tool_answers_to_its_names_and_its_rows_read_as_a_list(sandbox: CodeSandbox, code: str) -> None:
    result = await sandbox.execute(code)
    assert result.error is None
    assert result.value == [row["revenue"] for row in SALES]


async def test_call_tool_takes_the_name_and_keywords_as_in_the_seed(sandbox: CodeSandbox) -> None:
    result = await sandbox.execute("return (await call_tool('get_product', product_id='P3'))['category']")
    assert (result.value, tools_called(result)) == ("games", ["GetProductTool"])


async def test_call_tool_of_an_unknown_name_says_so_and_can_be_caught(sandbox: CodeSandbox) -> None:
    code = "try:\n    await call_tool('get_prodcut', product_id='P3')\nexcept Exception as e:\n    return str(e)"
    result = await sandbox.execute(code)
    assert "'get_prodcut'" in result.value
    assert "get_product" in result.value
    assert result.calls[0].status == "error"


DIRECT = [
    "await wipe(table='x')",
    "await call_tool('wipe', table='x')",
    "await call_tool('admin.wipe', table='x')",
    "await call_tool(name='wipe', table='x')",
    "await call_tool(''.join(['admin', '.', 'wipe']), table='x')",
    "await call_tool('default.wipe', table='x')",
    "await call_tool('ADMIN.WIPE', table='x')",
    "await call_tool('admin.wipe ', table='x')",
    "await admin.wipe(table='x')",
    "await sales.wipe(table='x')",
    "get_product.__name__ = 'wipe'\nget_product.tool = 'admin.wipe'\nawait get_product(table='x')",
]


@pytest.mark.parametrize("code", DIRECT)
async def test_a_tool_for_direct_calls_only_is_closed_to_code_by_any_name(code: str) -> None:
    wiped: list[str] = []
    registry = create_registry()

    @register_tool(namespace="admin", allowed_callers=["direct"], registry=registry)
    def wipe(table: str) -> None:
        wiped.append(table)

    @register_tool(namespace="sales", allowed_callers=["sandbox"], registry=registry)
    def get_product(product_id: str = "", **more: Any) -> str:
        return product_id

    async with CodeSandbox(registry) as sandbox:
        result = await sandbox.execute(code)
    assert wiped == []
    if "get_product" not in code:
        assert result.error is not None


@pytest.mark.parametrize("form", ["await call_tool('wipe')", "await call_tool('admin.wipe')"])
async def test_a_closed_tool_names_itself_its_callers_and_the_fix(form: str) -> None:
    registry = create_registry()

    @register_tool(namespace="admin", allowed_callers=["direct"], registry=registry)
    def wipe() -> None: ...

    async with CodeSandbox(registry) as sandbox:
        result = await sandbox.execute(form)
    assert result.error is not None
    assert result.error.type == "ToolNotAvailable"
    for part in ("wipe", "['direct']", '"sandbox"', "allowed_callers"):
        assert part in result.error.message


async def test_tools_may_be_a_registry_names_or_callables(registry: ToolRegistry) -> None:
    async def double(n: int) -> int:
        return 2 * n

    async with CodeSandbox(registry) as sandbox:
        by_registry = await sandbox.execute("return len(await get_sales_data())", tools=registry)
        by_name = await sandbox.execute("return len(await get_sales_data())", tools=["GetSalesDataTool"])
        by_dotted = await sandbox.execute("return len(await get_sales_data())", tools=["sales.GetSalesDataTool"])
        by_alias = await sandbox.execute("return len(await get_sales_data())", tools=["get_sales_data"])
        by_function = await sandbox.execute("return await double(21)", tools=[double])
        by_mapping = await sandbox.execute("return await twice(21)", tools={"twice": double})
        mixed = await sandbox.execute("return await double(len(await get_sales_data()))", tools=[double, registry])
    assert [r.value for r in (by_registry, by_name, by_dotted, by_alias)] == [len(SALES)] * 4
    assert (by_function.value, by_mapping.value, mixed.value) == (42, 42, 2 * len(SALES))


async def test_a_tool_outside_the_runs_choice_is_not_there(registry: ToolRegistry) -> None:
    async with CodeSandbox(registry) as sandbox:
        result = await sandbox.execute(
            "return await call_tool('get_product', product_id='P1')", tools=["analyze_trends"]
        )
        assert result.error is not None
        assert result.error.type == "ToolNotAvailable"
        assert "analyze_trends" in result.error.message
        with pytest.raises(ToolNotFoundError, match="get_sales_dat"):
            await sandbox.execute("1", tools=["get_sales_dat"])


async def test_the_seeds_prompt_names_every_tool_by_the_name_a_program_writes(registry: ToolRegistry) -> None:
    prompt = format_tools_for_llm(registry)
    for name in ("get_sales_data(", "get_product(", "analyze_trends(", "start_date", "Fetch sales data from database"):
        assert name in prompt


async def test_the_seeds_export_loop_gives_the_programmatic_tools(registry: ToolRegistry) -> None:
    programmatic_tools = []
    for tool_info in await registry.list_tools():
        metadata = await registry.get_metadata(tool_info.name, tool_info.namespace)
        assert metadata is not None

        if metadata.allowed_callers and "code_execution_20250825" in metadata.allowed_callers:
            # Export for Anthropic
            spec = ToolSpec.from_metadata(metadata)
            programmatic_tools.append(spec.to_anthropic())
    assert {"GetSalesDataTool", "GetProductTool"} <= {form["name"] for form in programmatic_tools}


async def test_tools_given_as_an_iterator_are_there_in_every_run() -> None:
    def one() -> int:
        return 1

    async with CodeSandbox(tools=iter([one])) as sandbox:
        assert [(await sandbox.execute("one()")).value for _ in range(2)] == [1, 1]
        async with sandbox.session(tools=iter([one])) as session:
            assert [(await session.execute("one()")).value for _ in range(2)] == [1, 1]
