"""Results that tools don't declare are learned: their types, marked as observed, never what is in them."""

from __future__ import annotations

import ast
import datetime as dt
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from toolchord import CodeSandbox, ShapeStore, create_registry, format_tools_for_llm, tool_from
from toolchord.errors import ConfigurationError
from toolchord.schema import problems

SECRET = "sk-proj-abcdefghijklmnop1234567890"


def list_orders(page: int = 0) -> Any:
    """All orders."""
    return [
        {"id": 1, "customer": "ann", "amount": 120.5, "note": None, "when": dt.date(2024, 1, 1)},
        {"id": 2, "customer": "bob", "amount": 80, "note": "late"},
    ]


def by_customer() -> Any:
    """Orders by customer."""
    return {"ann@example.org": {"sum": 1.5}, "bob@example.org": {"sum": 2.0}}


def declared() -> list[int]:
    return [1]


REGISTRY = create_registry()
for tool in (list_orders, by_customer, declared):
    REGISTRY.add(tool)


@pytest_asyncio.fixture
async def sandbox() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox(REGISTRY, shapes=ShapeStore()) as sandbox:
        yield sandbox


async def test_a_prompt_tells_what_was_observed_and_that_it_was(sandbox: CodeSandbox) -> None:
    before = format_tools_for_llm(REGISTRY, shapes=sandbox.shapes)
    assert "def list_orders(page: int = 0) -> Any" in before
    assert before == format_tools_for_llm(REGISTRY)
    assert (await sandbox.execute("list_orders()\nby_customer()\ndeclared()\nreturn search_tools('orders')")).ok
    text = format_tools_for_llm(REGISTRY, shapes=sandbox.shapes)
    ast.parse(text)
    assert "def list_orders(page: int = 0) -> list[ListOrdersObserved" in text
    assert (
        "    id: int\n    customer: str\n    amount: float\n    note: str | None\n    when: NotRequired[date]" in text
    )
    assert "The result is not declared; its type is what was observed so far." in text
    assert "def by_customer() -> dict[str, ByCustomerObserved" in text
    assert "example.org" not in text
    assert "def declared() -> list[int]" in text
    assert text == format_tools_for_llm(REGISTRY, shapes=sandbox.shapes)
    other = format_tools_for_llm(REGISTRY, target="anthropic", shapes=sandbox.shapes)
    assert 'json.loads of the result gave so far: list[{"id": int' in other
    script = format_tools_for_llm(REGISTRY, target="javascript", shapes=sandbox.shapes)
    assert "Promise<Array<{id: number; customer: string; amount: number" in script
    brief = format_tools_for_llm(REGISTRY, max_tokens=110, shapes=sandbox.shapes)
    assert "(result as observed) All orders." in brief


async def test_a_program_is_told_too(sandbox: CodeSandbox) -> None:
    await sandbox.execute("list_orders()")
    result = await sandbox.execute("return describe_tool('list_orders')")
    assert "ListOrdersObserved" in result.value


async def test_an_observed_key_is_never_held_against_a_program(sandbox: CodeSandbox) -> None:
    await sandbox.execute("list_orders()")
    result = await sandbox.execute("return [o.get('x') for o in list_orders()], list_orders()[0]['nothing']")
    assert result.error is not None
    assert (result.error.kind, result.error.type) == ("program", "KeyError")


async def test_shapes_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "shapes.json"
    async with CodeSandbox(REGISTRY, shapes=ShapeStore(path)) as sandbox:
        await sandbox.execute("list_orders()")
    again = ShapeStore(path)
    assert "ListOrdersObserved" in format_tools_for_llm(REGISTRY, shapes=again)
    assert [file.name for file in path.parent.iterdir()] == ["shapes.json"]
    assert "ann" not in path.read_text()
    before = path.stat().st_mtime_ns
    again.save()
    assert path.stat().st_mtime_ns == before
    again.forget("default.list_orders")
    again.save()
    assert ShapeStore(path).shape(tool_from(list_orders)) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 9, "shapes": {}}', '{"format": 1}', '{"format": 1, "shapes": {"a": 1}}']
)
def test_a_file_of_something_else_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "shapes.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="delete it, or give another path"):
        ShapeStore(path)


def learned(*values: Any) -> dict[str, Any] | None:
    def tool() -> Any: ...

    made, store = tool_from(tool), ShapeStore()
    for value in values:
        store.observe(made, value)
    return store.shape(made)


def test_nothing_that_is_data_gets_into_a_shape() -> None:
    seen = json.dumps(
        learned(
            {"name": SECRET, "rows": [{"note": f"token={SECRET}"}], SECRET: 1},
            {"a" * 41: 1},
            {"4f9c2d1e-aaaa-bbbb-cccc-123456789abc": {"x": 1}},
            {f"user{n}": n for n in range(100)},
            {"2024-01-01": 3, "12": 4},
            [{"ann@example.org": True}],
        )
    )
    for text in (SECRET, "sk-proj", "4f9c", "2024", "ann", "a" * 41, "user1", "12"):
        assert text not in seen


def test_what_two_results_have_in_common() -> None:
    assert learned(1, 2.5) == {"type": "number"}
    assert learned(1, None) == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert learned(None, "a", 1) == {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}
    assert learned({"a": 1}, {"a": 1, "b": "x"}) == {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
        "required": ["a"],
    }
    assert learned([], [1]) == {"type": "array", "items": {"type": "integer"}}
    assert learned({"a": 1}, {"x@y": 2}) == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert learned({"d": Decimal("1"), "t": dt.datetime(2024, 1, 1), "b": b"x", "s": {1}}) == {
        "type": "object",
        "properties": {
            "d": {"type": "string", "format": "decimal"},
            "t": {"type": "string", "format": "date-time"},
            "b": {"type": "string", "format": "binary"},
            "s": {"type": "array", "uniqueItems": True, "items": {"type": "integer"}},
        },
        "required": ["b", "d", "s", "t"],
    }
    assert learned(object()) == {}
    deep: Any = 1
    for _ in range(50):
        deep = {"a": [deep]}
    assert len(json.dumps(learned(deep))) < 500


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=1),
        st.dictionaries(st.sampled_from(["id", "name", "x y"]), inner, max_size=3),
    ),
    max_leaves=12,
)


@given(st.lists(values, min_size=1, max_size=5))
def test_every_result_that_was_seen_fits_its_shape(seen: list[Any]) -> None:
    shape = learned(*seen)
    assert shape is not None
    for value in seen:
        assert not list(problems(value, shape)), (shape, value)


@given(st.lists(values, min_size=1, max_size=5))
def test_seeing_the_same_again_changes_nothing(seen: list[Any]) -> None:
    assert learned(*seen) == learned(*seen, *seen)
