"""What a model is told about the tools."""

import ast
import json
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from toolchord.catalogue import Catalogue
from toolchord.errors import ConfigurationError
from toolchord.prompt import describe, format_tools_for_llm
from toolchord.registry import ToolRegistry, create_registry
from toolchord.tools import ValidatedTool, tool_from


class GetSalesDataTool(ValidatedTool):
    """Fetch sales data from database."""

    class Arguments(BaseModel):
        start_date: str = Field(description="Start date (YYYY-MM-DD)")
        limit: int | None = 10

    class Result(BaseModel):
        rows: list[dict[str, Any]] = Field(description="Sales records")

    async def _execute(self, start_date: str, limit: int | None) -> dict[str, Any]:
        return {"rows": []}


def shop() -> ToolRegistry:
    registry = create_registry()
    example = {"input": {"start_date": "2024-01-01"}, "description": "This year", "output": {"rows": []}}
    registry.add(GetSalesDataTool, namespace="sales", examples=[example])
    registry.add(lambda: 1, "drop-all", allowed_callers=["direct"], description="Danger.")
    registry.add(lambda: 1, "get-x", description='Has "quotes" and \\ and """three"""')
    registry.add(lambda mode: 1, "f", "a")
    registry.add(lambda mode: 1, "f", "b")
    registry.add(lambda: 1, "later", defer_loading=True)
    return registry


def test_python_stubs_say_all_that_a_program_needs() -> None:
    text = format_tools_for_llm(shop())
    assert ("class GetSalesDataResult(TypedDict):\n    rows: list[dict[str, Any]]  # Sales records") in text
    assert (
        "async def get_sales_data(start_date: str, limit: int | None = 10) -> GetSalesDataResult:\n"
        '    """Fetch sales data from database.\n'
        "\n"
        "    Args:\n"
        "        start_date: Start date (YYYY-MM-DD)\n"
        "\n"
        "    Iterating the result iterates its `rows`.\n"
        "\n"
        "    Example:\n"
        "        # This year\n"
        "        await get_sales_data(start_date='2024-01-01')  # -> {\"rows\": []}\n"
        '    """'
    ) in text
    assert "drop" not in text
    assert "Registered as 'get-x'." in text
    assert "class a:  # a namespace, as in: await a.tool(name=value)\n    async def f(mode: Any) -> Any:" in text
    assert text.endswith("# 1 more: find them with search_tools(query).")
    assert "later" not in text


def test_the_stubs_are_python_and_always_the_same() -> None:
    ast.parse(format_tools_for_llm(shop()))
    assert format_tools_for_llm(shop()) == format_tools_for_llm(shop())
    assert "drop_all" in format_tools_for_llm(shop(), caller="direct")
    assert format_tools_for_llm([]) == "# There are no tools."


def test_anthropics_container_takes_a_dict_and_gives_text() -> None:
    text = format_tools_for_llm([tool_from(GetSalesDataTool, examples=[{"start_date": "d"}])], target="anthropic")
    ast.parse(text)
    assert "async def GetSalesDataTool(arguments: dict) -> str:" in text
    assert "Takes: {start_date: str, limit: int | None = 10}" in text
    assert 'json.loads of the result gives: {"rows": list[dict[str, Any]]}' in text
    assert "data = json.loads(await GetSalesDataTool({'start_date': 'd'}))" in text


def test_openais_programs_are_javascript() -> None:
    def search(q: str, mode: Literal["a", "b"] = "a") -> list[dict[str, float]]:
        """Find */ it."""
        return []

    text = format_tools_for_llm([tool_from(search, examples=[{"q": "x"}])], target="javascript")
    assert 'tools.search(args: {q: string; mode?: "a" | "b"}): Promise<Array<Record<string, number>>>' in text
    assert f" *     await tools.search({json.dumps({'q': 'x'})})" in text
    assert "Find * / it." in text


@pytest.mark.parametrize("target", ["python", "anthropic", "javascript"])
def test_a_budget_is_kept_by_saying_less(target: Any) -> None:
    registry = create_registry()
    for i in range(60):
        registry.add(lambda x: x, f"tool_number_{i}", description=f"The first line {i}.\n\n" + "More about it. " * 20)
    full = format_tools_for_llm(registry, target=target)
    lengths = []
    for tokens in (100_000, 2_500, 700, 60):
        text = format_tools_for_llm(registry, target=target, max_tokens=tokens)
        assert len(text) <= tokens * 4
        lengths.append(len(text))
    assert lengths == sorted(set(lengths), reverse=True)
    assert lengths[0] == len(full)
    brief = format_tools_for_llm(registry, target=target, max_tokens=2_500)
    assert "The first line 59." in brief
    assert "More about it" not in brief
    assert " more)" in text
    assert ("search_tools" in text) is (target == "python")


def test_unknown_targets_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="anthropic"):
        format_tools_for_llm([], target="ruby")  # type: ignore[arg-type]


def test_one_tool_is_described_in_full() -> None:
    catalogue = Catalogue.of(shop())
    exposed = catalogue.resolve("get_sales_data")
    assert exposed is not None
    text = describe(exposed)
    assert text.startswith("class GetSalesDataResult(TypedDict):")
    assert "async def get_sales_data(start_date: str" in text
    inner = catalogue.resolve("a.f")
    assert inner is not None
    assert describe(inner, path=catalogue.path(inner)).startswith("class a:\n    async def f(mode: Any)")


def test_arguments_that_python_cannot_name_are_told_apart() -> None:
    async def call(**arguments: Any) -> Any:
        return arguments

    schema = {"type": "object", "properties": {"first-name": {"type": "string"}, "n": {"type": "integer"}}}
    text = format_tools_for_llm([tool_from(call, argument_schema=schema, examples=[{"first-name": "a"}])])
    ast.parse(text)
    assert "async def call(n: int = ..., **more) -> Any:" in text
    assert "Give as **{'name': value}: 'first-name'" in text
    assert "await call(**{'first-name': 'a'})" in text


class Person(BaseModel):
    name: str
    friends: list["Person"] = []


def test_recursive_and_defaulted_results_are_told_as_they_arrive() -> None:
    def get_person(more: int, **others: Any) -> Person: ...  # type: ignore[empty-body]

    text = format_tools_for_llm(get_person)
    ast.parse(text)
    assert "class Person(TypedDict):\n    name: str\n    friends: list[Person]\n" in text
    assert "get_person(more: int, **more_) -> Person" in text
    script = format_tools_for_llm(get_person, target="javascript")
    assert "Promise<{name: string; friends: Array<unknown>}>" in script
