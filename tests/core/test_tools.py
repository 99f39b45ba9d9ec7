"""What a tool is: binding, validation, every kind of implementation, and the provider forms."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from toolchord import create_registry
from toolchord.errors import ConfigurationError, InvalidArguments, RegistrationError
from toolchord.tools import (
    Tool,
    ToolCapability,
    ToolMetadata,
    ToolSpec,
    ValidatedTool,
    around,
    is_plain,
    open_to,
    tool_from,
)


class Point(BaseModel):
    x: int
    y: int = 0


class Rows(BaseModel):
    rows: list[dict[str, Any]]


@dataclass
class User:
    name: str


def search(query, limit=5, **filters):  # type: ignore[no-untyped-def]
    return query, limit, filters


class GetTotalTool(ValidatedTool):
    """Add it up."""

    class Arguments(BaseModel):
        amounts: list[int] = Field(description="What to add")
        start: int = 10

    class Result(BaseModel):
        value: int

    async def _execute(self, amounts: list[int], start: int) -> int:
        return sum(amounts) + start


# Binding


def test_positional_arguments_become_keywords_in_parameter_order() -> None:
    assert tool_from(search).bind(("a", 3), {"lang": "en"}) == {"query": "a", "limit": 3, "lang": "en"}


def test_a_single_dict_is_taken_as_the_keywords() -> None:
    assert tool_from(search).bind(({"query": "a", "limit": 1},), {}) == {"query": "a", "limit": 1}


def test_a_single_dict_is_the_value_of_a_parameter_that_could_be_one() -> None:
    def save(record: dict[str, Any], name: str = "") -> None: ...
    def place(point: Point, name: str = "") -> None: ...
    def keep(anything: Any, name: str = "") -> None: ...

    for fn, first in ((save, "record"), (place, "point"), (keep, "anything")):
        assert tool_from(fn).bind(({"name": "n"},), {}) == {first: {"name": "n"}}


def test_an_empty_dict_means_no_arguments_unless_it_could_be_the_first_value() -> None:
    def orders() -> None: ...
    def sales(day: str) -> None: ...
    def save(record): ...  # type: ignore[no-untyped-def]

    assert tool_from(orders).bind(({},), {}) == {}
    assert tool_from(save).bind(({},), {}) == {"record": {}}
    with pytest.raises(InvalidArguments, match="missing argument 'day'"):
        tool_from(sales).bind(({},), {})


def test_a_dict_with_other_keys_stays_a_value() -> None:
    def save(record, name=""): ...  # type: ignore[no-untyped-def]

    assert tool_from(save).bind(({"id": 1},), {}) == {"record": {"id": 1}}


def test_star_arguments_are_listed_under_their_name_and_spread_again() -> None:
    def fail(*a: Any) -> Any:
        return a

    tool = tool_from(fail)
    assert tool.bind((1, {"b": 2}), {}) == {"a": [1, {"b": 2}]}
    assert tool.call({"a": [1, 2]}) == (1, 2)
    assert tool.call({}) == ()
    assert tool.bind((), {"a": [1]}) == {"a": [1]}
    assert tool.bind(({"a": 1},), {}) == {"a": [{"a": 1}]}
    assert tool.signature == "fail(*a)"


def test_positional_only_parameters_work_by_name_too() -> None:
    def power(base: int, exponent: int = 2, /, *, mod: int | None = None) -> int:
        return pow(base, exponent, mod)

    tool = tool_from(power)
    assert tool.call(tool.bind((3,), {})) == 9
    assert tool.call(tool.bind((), {"base": 3, "mod": 5})) == 4


def test_open_keywords_pass_through() -> None:
    def echo(x=None, **k):  # type: ignore[no-untyped-def]
        return x, k

    tool = tool_from(echo)
    assert tool.call(tool.bind((), {"x": 1, "z": 2})) == (1, {"z": 2})
    assert tool.call(tool.bind((), {"z": 2})) == (None, {"z": 2})


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "missing argument 'start_date'"),
        ((), {"start_dat": "a", "end_date": "b"}, "did you mean 'start_date'"),
        (("a",), {"start_date": "b", "end_date": "c"}, "two values for 'start_date'"),
        (("a", "b", "c"), {}, "takes 2 positional arguments, 3 were given"),
    ],
)
def test_wrong_arguments_are_named_with_the_signature(args: tuple[Any, ...], kwargs: dict[str, Any], said: str) -> None:
    def sales(start_date: str, end_date: str) -> None: ...

    with pytest.raises(InvalidArguments) as caught:
        tool_from(sales).bind(args, kwargs)
    assert said in str(caught.value)
    assert "sales(start_date: str, end_date: str)" in str(caught.value)
    assert caught.value.tool == "sales"


names = st.sampled_from("abcdef")


@given(st.lists(st.integers(), max_size=4), st.dictionaries(names, st.integers(), max_size=4))
def test_binding_agrees_with_python(args: list[int], kwargs: dict[str, int]) -> None:
    def plain(a: int, b: int = 1, *, c: int = 2) -> Any:
        return a, b, c

    def open_ended(a: int, b: int = 1, **k: int) -> Any:
        return a, b, k

    def rest(a: int, *more: int, c: int = 0) -> Any:
        return a, more, c

    for fn in (plain, open_ended, rest):
        tool = tool_from(fn)
        try:
            expected = fn(*args, **kwargs)
        except TypeError:
            with pytest.raises(InvalidArguments):
                tool.bind(args, kwargs)
        else:
            bound = tool.bind(args, kwargs)
            assert tool.call(tool.validate(bound)) == expected
            assert tool.bind((), bound) == bound


# Validation


def test_arguments_are_coerced_to_their_types() -> None:
    def go(n: int, point: Point, user: User, tags: list[int] | None = None) -> Any:
        return n, point, user, tags

    tool = tool_from(go)
    found = tool.validate({"n": "5", "point": {"x": "1"}, "user": {"name": "ann"}, "tags": ["1"]})
    assert found == {"n": 5, "point": Point(x=1), "user": User("ann"), "tags": [1]}
    assert tool.validate({"n": 1, "point": Point(x=1), "user": User("b")}).keys() == {"n", "point", "user"}


def test_each_problem_gets_one_line() -> None:
    def go(n: int, mode: Literal["a", "b"]) -> None: ...

    with pytest.raises(InvalidArguments) as caught:
        tool_from(go).validate({"n": "many", "mode": "c"})
    text = str(caught.value)
    assert "- n: " in text
    assert "'many'" in text
    assert "- mode: " in text
    assert "go(n: int, mode: Literal['a', 'b'])" in text


def test_unannotated_arguments_are_left_alone() -> None:
    marker = object()
    assert tool_from(search).validate({"query": marker}) == {"query": marker}


def test_none_as_default_allows_none() -> None:
    def go(x: str = None, y: Annotated[int, Field(description="why")] = None) -> None: ...  # type: ignore  # noqa: RUF013

    tool = tool_from(go)
    assert tool.validate({"x": None, "y": None}) == {"x": None, "y": None}
    assert (tool.metadata.argument_schema or {})["properties"]["y"]["description"] == "why"


def test_unknown_python_types_are_accepted_as_they_are() -> None:
    class Connection: ...

    def go(db: Connection, n: int = 1) -> Connection:
        return db

    go.__annotations__ = {"db": Connection, "n": int, "return": Connection}
    tool = tool_from(go)
    db = Connection()
    assert tool.validate({"db": db}) == {"db": db}
    assert tool.metadata.result_schema is None


def test_an_unresolvable_annotation_counts_as_none() -> None:
    def go(a: Nowhere, b: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    tool = tool_from(go)
    assert tool.validate({"a": "x", "b": "2"}) == {"a": "x", "b": 2}


def test_a_schema_given_for_open_keywords_is_held_to() -> None:
    async def call(**arguments: Any) -> Any:
        return arguments

    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "m": {"type": "string"}}, "required": ["n"]}
    tool = tool_from(call, name="remote", argument_schema=schema)
    assert tool.parameters == ("n", "m")
    assert tool.bind((1,), {}) == {"n": 1}
    with pytest.raises(InvalidArguments, match="n: expected integer, got str 'x'"):
        tool.validate({"n": "x"})
    with pytest.raises(InvalidArguments, match="unexpected argument 'k'"):
        tool.bind((), {"n": 1, "k": 2})


# Implementations


def test_functions_are_described_from_hints_and_docstring() -> None:
    def rate(city: Annotated[str, Field(description="Where")], days: list[int] | None = None) -> Rows:
        """Look it up."""
        return Rows(rows=[])

    tool = tool_from(rate)
    schema = tool.metadata.argument_schema or {}
    assert tool.metadata.description == "Look it up."
    assert schema["properties"]["city"] == {"type": "string", "description": "Where"}
    assert schema["required"] == ["city"]
    assert (tool.metadata.result_schema or {})["properties"]["rows"]["type"] == "array"
    assert tool.list_field == "rows"
    assert not tool.is_async


def test_every_kind_of_callable_is_a_tool() -> None:
    class Shop:
        """A shop."""

        def price(self, sku: str) -> int:
            """The price."""
            return len(sku)

        def __call__(self, sku: str) -> str:
            return sku

    async def scaled(n: int, by: int) -> int:
        return n * by

    assert tool_from(Shop().price).bind(("ab",), {}) == {"sku": "ab"}
    assert tool_from(Shop().price).metadata.description == "The price."
    assert (tool_from(Shop()).name, tool_from(Shop()).aliases) == ("Shop", ("shop",))
    assert tool_from(Shop()).call({"sku": "a"}) == "a"
    part = tool_from(functools.partial(scaled, by=3))
    assert (part.name, part.is_async, part.parameters) == ("scaled", True, ("n", "by"))
    assert tool_from(lambda x: x + 1, name="inc").call({"x": 1}) == 2
    assert tool_from(max, name="biggest").call({"args": [1, 3]}) == 3


async def test_objects_with_execute_are_tools() -> None:
    class Fetcher:
        """Fetch it."""

        async def execute(self, url: str) -> str:
            return url.upper()

    for obj in (Fetcher, Fetcher()):
        tool = tool_from(obj)
        assert (tool.name, tool.aliases, tool.is_async) == ("Fetcher", ("fetcher",), True)
        assert tool.metadata.description == "Fetch it."
        assert await tool.execute(url="a") == "A"


@pytest.mark.parametrize("obj", [3, "name", Point, lambda x: x, Exception])
def test_what_is_no_tool_is_refused_with_advice(obj: Any) -> None:
    with pytest.raises(RegistrationError):
        tool_from(obj)


def test_a_field_as_default_is_refused() -> None:
    def go(x: int = Field(5, description="n")) -> None: ...

    with pytest.raises(RegistrationError, match="Annotated"):
        tool_from(go)


def test_dotted_names_hold_the_namespace() -> None:
    assert tool_from(search, name="web.find").full_name == "web.find"
    assert tool_from(search, name="files.read", namespace="mcp").name == "files.read"


def test_a_tool_can_be_copied_under_another_name() -> None:
    tool = tool_from(tool_from(GetTotalTool), name="total", namespace="shop", timeout=2)
    assert (tool.full_name, tool.aliases, tool.metadata.timeout) == ("shop.total", (), 2)


# ValidatedTool


async def test_a_validated_tool_checks_both_ends() -> None:
    tool = tool_from(GetTotalTool)
    assert (tool.name, tool.aliases, tool.parameters) == ("GetTotalTool", ("get_total",), ("amounts", "start"))
    assert await tool.call(tool.validate(tool.bind(([1, "2"],), {}))) == GetTotalTool.Result(value=13)
    assert await GetTotalTool().execute(amounts=[1]) == GetTotalTool.Result(value=11)
    with pytest.raises(InvalidArguments, match="amounts"):
        await GetTotalTool().execute(amounts="x")


@pytest.mark.parametrize(
    ("returned", "fits"), [({"rows": []}, True), (Rows(rows=[]), False), ([], False), ({"rows": 3}, False)]
)
async def test_results_are_validated(returned: Any, fits: bool) -> None:
    class T(ValidatedTool):
        Result = Rows if fits else type("Result", (Rows,), {})

        def _execute(self) -> Any:
            return returned

    tool = tool_from(T)
    assert not tool.is_async
    if fits:
        assert tool.call({}) == Rows(rows=[])
    else:
        with pytest.raises(ConfigurationError, match=r"T\._execute"):
            tool.call({})


async def test_a_validated_tool_needs_neither_arguments_nor_result() -> None:
    class Ping(ValidatedTool):
        async def _execute(self, n: int = 1) -> list[int]:
            return [n]

    tool = tool_from(Ping)
    assert tool.parameters == ("n",)
    assert await tool.call(tool.validate({"n": "3"})) == [3]
    assert await Ping().execute(n=2) == [2]


# Metadata and callers


def test_unknown_metadata_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RegistrationError, match=r"'capabilties'.*did you mean 'capabilities'"):
        tool_from(search, capabilties=[])
    with pytest.raises(RegistrationError, match="code_execution_20260120"):
        tool_from(search, allowed_callers=["code_execution"])


def test_two_old_booleans_are_capabilities() -> None:
    metadata = ToolMetadata(name="x", requires_auth=True, supports_streaming=False)  # type: ignore[call-arg]
    assert metadata.capabilities == {ToolCapability.REQUIRES_AUTH}


@pytest.mark.parametrize(
    ("callers", "direct", "sandbox"),
    [
        (None, True, True),
        (["direct"], True, False),
        (["sandbox"], False, True),
        (["code_execution_20250825"], False, True),
        (["direct", "programmatic"], True, True),
        ([], False, False),
    ],
)
def test_who_may_call(callers: list[str] | None, direct: bool, sandbox: bool) -> None:
    metadata = ToolMetadata(name="x", allowed_callers=callers)
    assert (open_to(metadata, "direct"), open_to(metadata, "sandbox")) == (direct, sandbox)


# Provider forms


PARAMETERS = {"type": "object", "properties": {"sql": {"type": "string"}}, "required": ["sql"]}


def spec(**fields: Any) -> ToolSpec:
    return ToolSpec(**{"name": "query", "description": "Run SQL.", "parameters": PARAMETERS, **fields})


def test_the_anthropic_form_speaks_todays_protocol() -> None:
    form = spec(
        allowed_callers=["code_execution_20250825", "sandbox", "direct"],
        examples=[{"sql": "SELECT 1"}, {"input": {"sql": "SELECT 2"}, "description": "d", "output": [2]}],
        returns={"type": "array", "items": {"type": "integer"}},
        defer_loading=True,
    ).to_anthropic()
    assert form == {
        "name": "query",
        "description": "Run SQL.\n\nReturns JSON text; after json.loads: list[int]",
        "input_schema": PARAMETERS,
        "allowed_callers": ["code_execution_20260120", "direct"],
        "input_examples": [{"sql": "SELECT 1"}, {"sql": "SELECT 2"}],
        "defer_loading": True,
    }


NODE = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}}
TREE = {"type": "object", "properties": {"root": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": NODE}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"strict": True, "allowed_callers": ["programmatic"]}, "strict"),
        ({"parameters": TREE, "allowed_callers": ["programmatic"]}, "recursive"),
        ({"allowed_callers": ["sandbox"]}, "local sandbox only"),
        ({"examples": [{"sql": 3}]}, "example 1"),
        ({"examples": [{}]}, "sql: missing"),
        ({"name": "a.b"}, "letters"),
    ],
)
def test_what_anthropic_would_refuse_is_refused_here(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        spec(**fields).to_anthropic()


def test_direct_tools_may_be_strict_and_recursive() -> None:
    assert spec(strict=True, allowed_callers=["direct"]).to_anthropic()["strict"] is True
    assert spec(parameters=TREE).to_anthropic()["input_schema"]["$defs"] == {"Node": NODE}


def test_cache_control_is_not_for_deferred_tools() -> None:
    assert spec().to_anthropic(cache_control={"type": "ephemeral"})["cache_control"] == {"type": "ephemeral"}
    with pytest.raises(ConfigurationError, match="deferred"):
        spec(defer_loading=True).to_anthropic(cache_control={"type": "ephemeral"})


def test_the_openai_forms() -> None:
    one = spec(allowed_callers=["code_execution_20260120", "direct"], returns={"type": "object"}, strict=True)
    assert one.to_openai() == {
        "type": "function",
        "name": "query",
        "description": "Run SQL.",
        "parameters": PARAMETERS,
        "strict": True,
        "output_schema": {"type": "object"},
        "allowed_callers": ["programmatic", "direct"],
    }
    chat = one.to_openai(api="chat")
    assert chat["function"]["description"] == "Run SQL.\n\nReturns: dict[str, Any]"
    assert "allowed_callers" not in chat["function"]
    refused: list[dict[str, Any]] = [{"defer_loading": True}, {"allowed_callers": ["programmatic"]}]
    for fields in refused:
        with pytest.raises(ConfigurationError, match="Chat Completions"):
            spec(**fields).to_openai(api="chat")


def test_the_mcp_form_carries_hints() -> None:
    form = spec(capabilities=["read_only", "idempotent"], returns={"type": "object"}).to_mcp()
    assert form["annotations"] == {"readOnlyHint": True, "idempotentHint": True}
    assert form["outputSchema"] == {"type": "object"}
    assert spec().to_json_schema()["title"] == "query"


def test_a_specification_keeps_all_that_metadata_says() -> None:
    metadata = tool_from(
        GetTotalTool,
        capabilities=[ToolCapability.IDEMPOTENT],
        examples=[{"amounts": [1]}],
        allowed_callers=["sandbox"],
        tags=["math"],
        defer_loading=True,
    ).metadata
    made = ToolSpec.from_metadata(metadata)
    assert (made.parameters, made.returns) == (metadata.argument_schema, metadata.result_schema)
    for field in ("name", "capabilities", "examples", "allowed_callers", "tags", "defer_loading", "description"):
        assert getattr(made, field) == getattr(metadata, field)
    assert made.has_capability(ToolCapability.IDEMPOTENT)
    assert ToolSpec.from_validated_tool(GetTotalTool).parameters == metadata.argument_schema


def test_unknown_specification_fields_and_callers_are_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"allowed_caller": []},
        {"allowed_callers": ["me"]},
        {"parameters": {"type": "null"}},
    ]
    for fields in wrong:
        with pytest.raises(ConfigurationError):
            spec(**fields)


def test_capability_is_never_guessed_from_a_name() -> None:
    def forget_user(uid: str) -> None: ...

    assert ToolSpec.from_function(forget_user).capabilities == frozenset()


def test_signatures_of_wrapped_functions_are_followed() -> None:
    def inner(a: int) -> int:
        return a

    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> int:
        return inner(*args, **kwargs)

    tool = tool_from(outer)
    assert isinstance(tool, Tool)
    assert tool.parameters == tuple(inspect.signature(inner).parameters)


def test_long_mistakes_make_short_messages() -> None:
    def go(n: int) -> None: ...

    tool = tool_from(go)
    with pytest.raises(InvalidArguments) as caught:
        tool.bind((), {"k" * 10_000 + str(i): 1 for i in range(1000)})
    assert len(str(caught.value)) < 2000
    with pytest.raises(InvalidArguments) as caught:
        tool.validate({"n": ["x" * 100] * 100_000})
    assert len(str(caught.value)) < 1000


def test_a_tool_shows_itself_in_one_line() -> None:
    assert repr(tool_from(GetTotalTool)) == "<Tool default.GetTotalTool(amounts: list[int], start: int = 10)>"


class Place(typing.TypedDict, total=False):
    x: typing.Required[int]
    label: str


def test_a_typed_dict_of_the_standard_library_keeps_its_schema() -> None:
    def nearest(points: list[Place]) -> list[Place] | None:
        return points

    tool = tool_from(nearest)
    assert tool.metadata.result_schema is not None
    assert "label" in str(tool.metadata.result_schema)
    assert tool.validate({"points": [{"x": "1"}]}) == {"points": [{"x": 1}]}


async def test_an_adapters_own_check_stands_in_for_the_one_by_schema() -> None:
    def run(**arguments: Any) -> dict[str, Any]:
        return arguments

    def check(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"x": Point.model_validate(arguments).x}

    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    tool = tool_from(run, check=check, argument_schema=schema)
    assert await tool.execute(x="7") == {"x": 7}  # by the schema, text would be refused
    with pytest.raises(InvalidArguments, match=r"run: x: .*got str 'seven'.*\nIt is called as run\(x: int\)"):
        tool.execute_sync(x="seven")
    copy = tool_from(tool, name="other", check=lambda arguments: {"x": 0})
    assert (copy.name, copy.execute_sync(x="seven")) == ("other", {"x": 0})


def double_plain(n: int) -> int:
    return 2 * n


async def double_async(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


@pytest.mark.parametrize("function", [double_plain, double_async])
def test_a_tool_runs_without_a_loop_with_its_arguments_checked(function: Any) -> None:
    tool = tool_from(function)
    assert tool.execute_sync(n="4") == 8
    with pytest.raises(InvalidArguments):
        tool.execute_sync(n="four")


@pytest.mark.parametrize("function", [double_plain, double_async])
async def test_a_tool_runs_inside_a_running_loop_without_await(function: Any) -> None:
    assert tool_from(function).execute_sync(n=4) == 8


async def test_a_tool_that_is_run_without_await_sees_its_callers_context() -> None:
    user = contextvars.ContextVar("user", default="nobody")

    async def whoami() -> str:
        return user.get()

    user.set("ann")
    assert tool_from(whoami).execute_sync() == "ann"


def test_what_may_cross_can_be_asked_beforehand() -> None:
    assert is_plain([1, "a", {"b": Point(x=1)}, None, {1.5}])
    assert is_plain("long" * 1_000_000)
    assert not is_plain({"rows": [1, object()]})
    assert not is_plain(len)


async def test_a_tools_calls_can_be_run_by_somebody_else() -> None:
    seen: list[Any] = []

    def watched(tool: Tool) -> Callable[[dict[str, Any]], Any]:
        def run(arguments: dict[str, Any]) -> Any:
            seen.append((tool.full_name, arguments))
            return tool.call(arguments)

        return run

    def twice(n: int, *more: int) -> int:
        return 2 * n + sum(more)

    tool = around(tool_from(twice, tags=["a"]), watched)
    assert tool.call(tool.validate(tool.bind(["3", 4], {}))) == 10
    assert tool.execute_sync(n=1) == 2
    assert seen == [("default.twice", {"n": 3, "more": [4]}), ("default.twice", {"n": 1})]
    assert tool.metadata.tags == {"a"}
    assert tool.implementation is twice


async def test_a_tool_that_is_not_imported_yet_is_run_by_somebody_else_once_it_is() -> None:
    registry = create_registry()
    registry.add(None, "sqrt", import_path="math:sqrt", defer_loading=True)
    held: list[str] = []

    def refusing(tool: Tool) -> Callable[[dict[str, Any]], Any]:
        def run(arguments: dict[str, Any]) -> Any:
            held.append(tool.full_name)
            return "held"

        return run

    found = registry.find("sqrt")
    assert found is not None
    tool = around(found, refusing)
    assert tool.load().call({"x": 4.0}) == tool.call({"x": 4.0}) == "held"
    assert held == ["default.sqrt"] * 2
