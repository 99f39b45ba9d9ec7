"""Five thousand tools: found by words, told within a budget, and searched by programs at no turn of the model."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from toolchord import Catalogue, CodeSandbox, ToolRegistry, create_registry, format_tools_for_llm

on_loop = pytest.mark.asyncio(loop_scope="module")

THINGS = "order invoice customer ticket shipment contract employee product payment meeting".split()
VERBS = "list get create update delete export approve archive count merge".split()
PLACES = [f"service{n}" for n in range(50)]
COUNT = 5000


def catalogue_of_many() -> ToolRegistry:
    registry = create_registry()
    for place in PLACES:
        for thing in THINGS:
            for verb in VERBS:
                registry.add(
                    lambda id=0: {"id": id},
                    f"{verb}_{thing}",
                    namespace=place,
                    description=f"{verb.capitalize()} a {thing} in {place}.",
                    defer_loading=True,
                )
    registry.add(lambda city: {"celsius": 21, "city": city}, "weather_now", description="The weather in a city, now.",
                 search_keywords=["temperature", "forecast"], defer_loading=True)  # fmt: skip
    registry.add(lambda: 1, "start_here", description="Always listed.")
    return registry


REGISTRY = catalogue_of_many()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> Any:
    async with CodeSandbox(REGISTRY) as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("approve an invoice in service7", "service7.approve_invoice"),
        ("export shipments service49", "service49.export_shipment"),
        ("what is the temperature", "weather_now"),
        ("weather forecast", "weather_now"),
        ("service12 merge customers", "service12.merge_customer"),
        ("archive_contract$", "service0.archive_contract"),
        ("list_order.*|weather_now", "service0.list_order"),
    ],
)
def test_the_right_tool_comes_first(query: str, first: str) -> None:
    catalogue = Catalogue.of(REGISTRY)
    assert len(catalogue.tools) == COUNT + 2
    assert catalogue.path(catalogue.search(query)[0]) == first


def test_nothing_matches_nothing() -> None:
    catalogue = Catalogue.of(REGISTRY)
    for query in ("", " ", "xyzzy", "the of and"):
        assert catalogue.search(query) == ()
    assert len(catalogue.search("invoice", limit=7)) == 7


def test_a_prompt_lists_what_is_not_deferred_and_counts_the_rest() -> None:
    text = format_tools_for_llm(REGISTRY)
    assert "def start_here()" in text
    assert text.endswith("# 5001 more: find them with search_tools(query).")
    assert len(text) < 500
    assert text == format_tools_for_llm(catalogue_of_many())  # the same bytes from another registry of the same tools


@on_loop
async def test_a_program_finds_describes_and_calls(sandbox: CodeSandbox) -> None:
    result = await sandbox.execute(
        "found = search_tools('temperature in a city')\n"
        "name = found[0]['name']\n"
        "print(describe_tool(name))\n"
        "return name, call_tool(name, city='Oslo')['celsius'], service3.get_order(id=5)"
    )
    assert result.value == ("weather_now", 21, {"id": 5}), result.error
    assert "async def weather_now(city" in result.stdout
    assert [call.tool for call in result.calls if "weather" in call.tool] == ["default.weather_now"]


@on_loop
async def test_a_wrong_name_among_thousands_is_told_with_the_near_one(sandbox: CodeSandbox) -> None:
    result = await sandbox.execute("return service3.aprove_invoice(id=1)")
    assert result.error is not None
    assert "did you mean service3.approve_invoice?" in result.error.message
    result = await sandbox.execute("return wether_now('Oslo')")
    assert result.error is not None
    assert "did you mean weather_now?" in result.error.message


@on_loop
async def test_only_what_a_program_could_mean_is_checked(sandbox: CodeSandbox) -> None:
    result = await sandbox.execute("return service3.get_order(id=5)")
    assert result.record is not None
    checked = [stub["name"] for stub in result.record.tools if "check" in stub]
    assert "service3.get_order" in checked
    assert len(checked) == len(PLACES)  # the same name in each namespace
