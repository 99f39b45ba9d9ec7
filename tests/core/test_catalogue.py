"""What one run exposes: names, namespaces, and why a name is not there."""

import keyword
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchord.catalogue import Catalogue, Exposed
from toolchord.errors import ConfigurationError, RegistrationError, ToolNotFoundError
from toolchord.registry import create_registry
from toolchord.tools import Tool, ValidatedTool, tool_from


def ping() -> str:
    return "pong"


async def pong(n: int = 1) -> int:
    return n


class GetSalesDataTool(ValidatedTool):
    async def _execute(self) -> list[int]:
        return [1]


def made(name: str, namespace: str = "default", **metadata: Any) -> Tool:
    return tool_from(lambda: name, name=name, namespace=namespace, **metadata)


def test_every_kind_of_source_is_collected() -> None:
    registry = create_registry()
    registry.add(ping)
    registry.add(pong)
    tool = made("third")
    assert list(Catalogue.of(registry).names) == ["ping", "pong"]
    assert list(Catalogue.of(None, registry=registry).names) == ["ping", "pong"]
    assert not Catalogue.of(None).tools
    assert list(Catalogue.of(ping).names) == ["ping"]
    assert list(Catalogue.of(tool).names) == ["third"]
    assert list(Catalogue.of({"a": ping, "b.c": pong, "d": GetSalesDataTool}).names) == ["a", "c", "d"]
    mixed = Catalogue.of(["ping", tool, pong, GetSalesDataTool, GetSalesDataTool()][:4], registry=registry)
    assert list(mixed.names) == ["ping", "third", "pong", "get_sales_data", "GetSalesDataTool"]
    assert Catalogue.of(mixed) is mixed


def test_the_same_tools_give_the_same_catalogue() -> None:
    registry = create_registry()
    registry.add(ping)
    assert Catalogue.of(registry) is Catalogue.of(registry)
    before = Catalogue.of(registry)
    registry.add(pong)
    assert Catalogue.of(registry) is not before


def test_what_holds_no_tool_is_refused() -> None:
    registry = create_registry()
    registry.add(ping)
    with pytest.raises(ToolNotFoundError, match="ping"):
        Catalogue.of(["pin"], registry=registry)
    with pytest.raises(ConfigurationError):
        Catalogue.of([3])
    with pytest.raises(RegistrationError):
        Catalogue.of({"x": 3})


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("get-orders", "get_orders"),
        ("get - the . orders!", "get_the_orders"),
        ("3d", "t_3d"),
        ("max", "max_"),
        ("class", "class_"),
        ("print", "print_"),
        ("été", "été"),
        ("!!!", "tool"),
        ("_hidden", "_hidden"),
        ("__builtins__", "builtins"),
        ("ﬁnd", "find"),
        ("¼", "t_1_4"),
    ],
)
def test_names_are_made_safe(name: str, identifier: str) -> None:
    catalogue = Catalogue.of([made(name, "ns")])
    exposed = catalogue.names[identifier]
    assert exposed.identifier == identifier
    for spelling in (name, identifier, f"ns.{name}", f"ns.{identifier}"):
        assert catalogue.resolve(spelling) is exposed


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=6), st.sampled_from(["default", "a", "a-b", "max"])), max_size=12)
)
def test_identifiers_are_valid_and_unique(keys: list[tuple[str, str]]) -> None:
    tools = [
        tool_from(made(name), name=None, namespace=ns)
        for name, ns in keys
        if name.strip(".") == name and "." not in name
    ]
    catalogue = Catalogue.of(tools)
    for name in (*catalogue.names, *catalogue.namespaces):
        assert name.isidentifier()
        assert not keyword.iskeyword(name)
        assert name not in dir(__builtins__)
    assert not catalogue.names.keys() & catalogue.namespaces.keys()
    places = [(e.tool.namespace, e.identifier) for e in catalogue.tools]
    assert len(set(places)) == len(places) == len(tools)
    paths = [catalogue.path(e) for e in catalogue.tools]
    assert len(set(paths)) == len(paths)
    for exposed in catalogue.tools:
        assert catalogue.resolve(catalogue.path(exposed)) is exposed


def test_a_class_is_called_by_its_snake_case_name_and_keeps_its_own() -> None:
    catalogue = Catalogue.of(GetSalesDataTool)
    exposed = catalogue.resolve("get_sales_data")
    assert isinstance(exposed, Exposed)
    assert exposed.identifier == "get_sales_data"
    for spelling in ("GetSalesDataTool", "default.GetSalesDataTool", "default.get_sales_data"):
        assert catalogue.resolve(spelling) is exposed
    assert catalogue.names["GetSalesDataTool"] is exposed


def test_an_exact_name_wins_over_one_that_was_made_safe() -> None:
    dashed, exact = made("get-x"), made("get_x")
    catalogue = Catalogue.of([dashed, exact])
    assert catalogue.names["get_x"].tool is exact
    assert catalogue.names["get_x_2"].tool is dashed
    resolved = catalogue.resolve("get-x")
    assert resolved is not None
    assert resolved.tool is dashed


def test_the_same_name_in_two_namespaces_is_reached_through_them() -> None:
    a, b = made("f", "a"), made("f", "b")
    catalogue = Catalogue.of([a, b])
    assert "f" not in catalogue.names
    assert catalogue.resolve("f") is None
    assert catalogue.namespaces["a"]["f"].tool is a
    assert catalogue.path(catalogue.namespaces["b"]["f"]) == "b.f"
    assert catalogue.explain("f") == "'f' is ambiguous; call a.f or b.f instead"
    home = made("f")
    with_default = Catalogue.of([a, home, b])
    assert with_default.names["f"].tool is home
    assert "default" not in with_default.namespaces


def test_a_namespace_never_hides_a_tool() -> None:
    web, fetch = made("web"), made("fetch", "web")
    catalogue = Catalogue.of([web, fetch])
    assert catalogue.names["web"].tool is web
    assert catalogue.namespaces == {"web_2": {"fetch": Exposed("fetch", fetch)}}
    resolved = catalogue.resolve("web.fetch")
    assert resolved is not None
    assert resolved.tool is fetch


def test_closed_tools_are_explained() -> None:
    closed = made("drop_table", allowed_callers=["direct"])
    catalogue = Catalogue.of([ping, closed])
    assert catalogue.closed == (closed,)
    assert catalogue.resolve("drop_table") is None
    for name in ("drop_table", "default.drop_table"):
        text = catalogue.explain(name)
        assert "not open to code" in text
        assert "['direct']" in text
        assert '"sandbox"' in text
    direct = Catalogue.of(catalogue, caller="direct")
    assert direct.resolve("drop_table") is not None
    by_code = made("f", allowed_callers=["sandbox"])
    assert "not open to direct calls" in Catalogue.of([by_code], caller="direct").explain("f")


def test_unknown_names_are_explained() -> None:
    catalogue = Catalogue.of([made("get_sales_data", "sales"), GetSalesDataTool, ping])
    assert "did you mean" in catalogue.explain("get_sale_data")
    assert catalogue.near("pin") == ("ping",)
    assert catalogue.near("GetSalesDatTool")[0] == "get_sales_data"
    assert catalogue.explain("zzz").startswith("no tool named 'zzz'; there are ")
    assert Catalogue.of(None).explain("x") == "no tool named 'x'; this run has no tools"


def test_deferred_tools_are_there_but_not_listed() -> None:
    registry = create_registry()
    registry.add(ping)
    registry.add(pong, defer_loading=True, description="Bounce a number")
    registry.add(None, "sqrt", import_path="math:sqrt", defer_loading=True, description="A root")
    catalogue = Catalogue.of(registry)
    assert list(catalogue.names) == ["ping", "pong", "sqrt"]
    assert {tool.name for tool in catalogue.unlisted} == {"pong", "sqrt"}
    assert [e.identifier for e in catalogue.search("bounce")] == ["pong"]
    root = catalogue.resolve("sqrt")
    assert root is not None
    assert root.tool.call(root.tool.bind((9,), {})) == 3.0
