"""JSON Schema as Python type text, and as a check of plain data."""

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchord.schema import TypeWriter, accepts_object, dereference, parameter_list, problems, recursive_ref, shape


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string"}, "str"),
        ({"type": "array", "items": {"type": "object"}}, "list[dict[str, Any]]"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "dict[str, int]"),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, "str | None"),
        ({"type": ["integer", "null"]}, "int | None"),
        ({"enum": ["a", 1, None]}, "Literal['a', 1] | None"),
        ({"const": "x"}, "Literal['x']"),
        ({"enum": [f"v{i}" for i in range(50)]}, "str"),
        ({"type": "string", "format": "date-time"}, "datetime"),
        ({"type": "array", "uniqueItems": True, "items": {"type": "string"}}, "set[str]"),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}, "tuple[int, str]"),
        ({"allOf": [{"type": "number"}]}, "float"),
        ({}, "Any"),
        (True, "Any"),
    ],
)
def test_schemas_become_annotations(schema: Any, text: str) -> None:
    assert TypeWriter().write(schema) == text


def test_objects_become_typed_dicts() -> None:
    writer = TypeWriter()
    schema = {
        "type": "object",
        "properties": {
            "rows": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "integer"}}}},
            "note": {"type": "string", "description": "Why\nit is"},
        },
        "required": ["rows"],
    }
    assert writer.write(schema, "get_sales_result") == "GetSalesResult"
    assert "\n\n".join(writer.definitions.values()) == (
        "class GetSalesResult(TypedDict):\n"
        "    rows: list[GetSalesResultRow]\n"
        "    note: NotRequired[str]  # Why it is\n\n"
        "class GetSalesResultRow(TypedDict):\n"
        "    id: NotRequired[int]"
    )
    assert shape(schema) == '{"rows": list[{"id"?: int}], "note"?: str}'


def test_keys_that_are_no_identifiers_are_kept() -> None:
    writer = TypeWriter()
    writer.write(
        {"type": "object", "properties": {"first name": {"type": "string"}}, "required": ["first name"]}, "row"
    )
    assert writer.definitions["Row"] == "Row = TypedDict(\"Row\", {\n    'first name': str,\n})"


NODE = {
    "type": "object",
    "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
    "required": ["kids"],
}
TREE = {"$ref": "#/$defs/Node", "$defs": {"Node": NODE}}


def test_recursion_goes_by_name() -> None:
    writer = TypeWriter()
    assert writer.write(TREE) == "Node"
    assert writer.definitions == {"Node": "class Node(TypedDict):\n    kids: list[Node]"}
    assert shape(TREE) == '{"kids": list[Node]}'
    assert recursive_ref(TREE) == "#/$defs/Node"
    assert recursive_ref({"$ref": "#/$defs/A", "$defs": {"A": {"type": "string"}}}) is None


def test_two_types_of_one_name_are_told_apart() -> None:
    writer = TypeWriter()
    one = {"title": "Row", "type": "object", "properties": {"a": {"type": "integer"}}}
    two = {"title": "Row", "type": "object", "properties": {"b": {"type": "integer"}}}
    assert [writer.write(one), writer.write(two), writer.write(dict(one))] == ["Row", "Row2", "Row"]


def test_references_that_lead_nowhere_or_in_a_circle_are_open() -> None:
    assert dereference({"$ref": "#/$defs/x"}, {}) == {}
    assert dereference({"$ref": "#/a"}, {"a": {"$ref": "#/a"}}) == {}
    assert TypeWriter().write({"$ref": "#/$defs/x"}) == "Any"


def test_parameters_put_required_ones_first() -> None:
    schema = {
        "properties": {"limit": {"type": "integer", "default": 5}, "q": {"type": "string"}, "o": {"type": "string"}},
        "required": ["q"],
        "additionalProperties": True,
    }
    assert parameter_list(schema) == ["q: str", "limit: int = 5", "o: str = ...", "**more"]


@pytest.mark.parametrize(
    ("schema", "takes"),
    [
        ({}, True),
        ({"type": "string"}, False),
        ({"type": ["object", "null"]}, True),
        ({"anyOf": [{"type": "string"}, {"$ref": "#/$defs/N"}]}, True),
        ({"enum": ["a"]}, False),
    ],
)
def test_whether_a_dict_could_be_a_value(schema: Any, takes: bool) -> None:
    assert accepts_object(schema, {"$defs": {"N": {"type": "object"}}}) is takes


@pytest.mark.parametrize(
    ("value", "schema", "said"),
    [
        ({"n": 1}, {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, []),
        ({}, {"type": "object", "required": ["n"]}, ["n: missing"]),
        ({"a": {"b": ["x"]}}, {"properties": {"a": {"properties": {"b": {"items": {"type": "integer"}}}}}},
         ["a.b[0]: expected integer, got str 'x'"]),
        ({"k": 1}, {"additionalProperties": False}, ["k: unexpected"]),
        (True, {"type": "integer"}, ["value: expected integer, got bool True"]),
        (2.0, {"type": "integer"}, []),
        ("c", {"enum": ["a", "b"]}, ["value: expected one of ['a', 'b'], got 'c'"]),
        (3, {"anyOf": [{"type": "string"}, {"type": "null"}]}, ["value: expected str | None, got int 3"]),
        (11, {"type": "integer", "maximum": 10}, ["value: must be at most 10, got 11"]),
        ("", {"type": "string", "minLength": 1}, ["value: must have at least 1, has 0"]),
        ({"kids": [{"kids": 3}]}, TREE, ["kids[0].kids: expected array, got int 3"]),
    ],
)  # fmt: skip
def test_data_is_checked(value: Any, schema: Any, said: list[str]) -> None:
    assert list(problems(value, schema)) == said


scalars = st.sampled_from([{"type": t} for t in ("string", "integer", "null", "boolean")] + [{}, {"enum": ["a'\"\\"]}])
schemas = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(
            lambda props: {"type": "object", "properties": props, "required": sorted(props)[:1]},
            st.dictionaries(st.text(max_size=4), inner, max_size=3),
        ),
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=12,
)


@given(schemas)
def test_the_text_is_always_python_and_always_the_same(schema: Any) -> None:
    texts = []
    for _ in range(2):
        writer = TypeWriter()
        annotation = writer.write(schema, "thing")
        texts.append("\n".join([*writer.definitions.values(), f"x: {annotation}"]))
    assert texts[0] == texts[1]
    ast.parse(texts[0])


def test_nested_alternatives_are_checked_in_time_that_grows_with_the_data() -> None:
    """Either branch looks into all that is below; tried one after the other, 60 levels would take for ever."""
    step = {"type": "object", "properties": {"below": {"$ref": "#/$defs/node"}, "kind": {}}, "required": ["kind"]}
    branches = [
        {**step, "properties": {**step["properties"], "kind": {"const": kind}}}  # type: ignore[dict-item]
        for kind in ("a", "b", "c")
    ]
    schema = {"$ref": "#/$defs/node", "$defs": {"node": {"anyOf": [*branches, {"type": "integer"}]}}}
    fits: object = 1
    breaks: object = "one"
    for _ in range(60):
        fits, breaks = {"below": fits, "kind": "c"}, {"below": breaks, "kind": "c"}
    assert list(problems(fits, schema)) == []
    assert len(list(problems(breaks, schema))) == 1


def test_a_schema_that_unfolds_without_end_is_written_with_one() -> None:
    wide: dict[str, Any] = {"type": "object", "properties": {f"p{n}": {"$ref": "#"} for n in range(50)}}
    assert "Any" in TypeWriter(inline=True).write(wide)
    writer = TypeWriter()
    for _ in range(3000):  # many small ones are no large one
        assert writer.write({"type": "array", "items": {"type": "integer"}}) == "list[int]"
