# ruff: noqa: E501  (a program is kept on one line)
"""LlamaIndex's tools inside programs, and Toolchord's tools inside LlamaIndex: real tools and indexes, nothing stubbed."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import SimpleDirectoryReader, SimpleKeywordTableIndex, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import ImageBlock, TextBlock
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import Document, NodeWithScore, TextNode
from llama_index.core.tools import (
    AsyncBaseTool,
    BaseTool,
    FunctionTool,
    QueryEngineTool,
    RetrieverTool,
    ToolMetadata,
    ToolOutput,
)
from llama_index.core.tools.tool_spec.base import BaseToolSpec
from llama_index.core.workflow import Context
from pydantic import AliasChoices, BaseModel, Field, RootModel
from pydantic.v1 import BaseModel as BaseModelV1

from tests.integrations.llama_script import ScriptedLLM
from toolchord import (
    CodeSandbox,
    ExecutionResult,
    Limits,
    Orchestrator,
    Tool,
    ToolCapability,
    create_registry,
    format_tools_for_llm,
)
from toolchord.errors import ConfigurationError, InvalidArguments, RegistrationError
from toolchord_llama_index import ToolchordTool, chat_model, llama_index_tools, registry_from, tool_from

ROOT = Path(__file__).parents[2]

# What LlamaIndex itself does: it looks at every attribute of an agent, deprecated ones of pydantic's too, and imports
# langchain-community if that happens to be installed.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore:.*langchain-community. is being sunset"),
]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[CodeSandbox]:
    with CodeSandbox(limits=Limits(wall_time=20)) as sandbox:
        yield sandbox


async def value_of(sandbox: CodeSandbox, code: str, *tools: Any, **given: Any) -> Any:
    """What a program returns that may call the tools."""
    result = await sandbox.execute(code, registry_from(tools, **given))
    assert result.ok, result.for_model()
    return result.value


async def error_of(sandbox: CodeSandbox, code: str, *tools: Any, **given: Any) -> tuple[str, str]:
    """The type and message of the error that a program ends with."""
    result: ExecutionResult = await sandbox.execute(code, registry_from(tools, **given))
    assert result.error is not None
    return result.error.type, result.error.message


# One tool in each of the forms that LlamaIndex has


def sync_function(answer: Callable[[], Any]) -> BaseTool:
    def give() -> Any:
        """Give."""
        return answer()

    return FunctionTool.from_defaults(give)


def async_function(answer: Callable[[], Any]) -> BaseTool:
    async def give() -> Any:
        """Give."""
        await asyncio.sleep(0)
        return answer()

    return FunctionTool.from_defaults(async_fn=give)


def coroutine_function(answer: Callable[[], Any]) -> BaseTool:
    async def give() -> Any:
        """Give."""
        return answer()

    return FunctionTool.from_defaults(give)


def both_functions(answer: Callable[[], Any]) -> BaseTool:
    def give() -> Any:
        """Give."""
        return answer()

    async def agive() -> Any:
        return answer()

    return FunctionTool.from_defaults(give, async_fn=agive)


def tool_spec(answer: Callable[[], Any]) -> BaseTool:
    class Giver(BaseToolSpec):
        spec_functions = ["give"]  # noqa: RUF012  (as its base has it)

        def give(self) -> Any:
            """Give."""
            return answer()

    return Giver().to_tool_list()[0]


NOTHING = ToolMetadata("Give.", "give", type("Nothing", (BaseModel,), {}))


class OnlyCall(BaseTool):
    """The oldest form: no asynchronous code at all."""

    metadata = NOTHING

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def __call__(self, *args: Any, **kwargs: Any) -> ToolOutput:
        value = self.answer()
        return ToolOutput("give", content=repr(value), raw_input=kwargs, raw_output=value)


class CallAndAcall(AsyncBaseTool):
    metadata = NOTHING

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def call(self, *args: Any, **kwargs: Any) -> ToolOutput:
        return ToolOutput("give", content="", raw_input=kwargs, raw_output=self.answer())

    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        return self.call(*args, **kwargs)


class AcallRefuses(CallAndAcall):
    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        raise NotImplementedError("give has no asynchronous form")


FORMS: dict[str, Callable[[Callable[[], Any]], BaseTool]] = {
    "function": sync_function,
    "async_fn": async_function,
    "coroutine as fn": coroutine_function,
    "both": both_functions,
    "tool spec": tool_spec,
    "only __call__": OnlyCall,
    "call and acall": CallAndAcall,
    "acall refuses": AcallRefuses,
}
NATIVE = [
    "12345",
    '{"a": 1}',
    ["a", "b"],
    {"a": [1, {"b": None}]},
    {"block_type": "text", "text": "t"},
    1.0,
    True,
    b"\x00\xff",
    (1, "a"),
    {1, 2},
    dt.date(2024, 2, 29),
]


@pytest.mark.parametrize("form", FORMS)
async def test_a_value_arrives_as_the_tool_returned_it(sandbox: CodeSandbox, form: str) -> None:
    for native in NATIVE:
        value = await value_of(sandbox, "return await give()", FORMS[form](lambda value=native: value))  # type: ignore[misc]
        assert (value, type(value)) == (native, type(native))


@pytest.mark.parametrize("form", ["function", "async_fn", "coroutine as fn", "both", "tool spec"])
async def test_nothing_and_empty_are_values_too(sandbox: CodeSandbox, form: str) -> None:
    empty: list[Any] = ["", [], None, 0, {}]
    for native in empty:
        value = await value_of(sandbox, "return await give()", FORMS[form](lambda value=native: value))  # type: ignore[misc]
        assert (value, type(value)) == (native, type(native))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_tool_works_in_a_run_that_is_not_asynchronous(form: str) -> None:
    with CodeSandbox(registry_from(FORMS[form](lambda: ["a", "b"]))) as sandbox:
        assert sandbox.execute_sync("return [give(), await give()]").value == [["a", "b"], ["a", "b"]]


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_tool_raises_its_own_exception_in_the_program(sandbox: CodeSandbox, form: str) -> None:
    class Odd(Exception):
        pass

    def fail() -> None:
        raise Odd("no such row")

    program = "try:\n    give()\nexcept Exception as error:\n    return type(error).__name__, str(error)"
    assert await value_of(sandbox, program, FORMS[form](fail)) == ("Odd", "no such row")


async def test_a_tool_that_is_not_implemented_further_down_says_so_and_runs_once(sandbox: CodeSandbox) -> None:
    ran: list[str] = []

    class Partial(CallAndAcall):
        async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
            ran.append("async")
            return await AcallRefuses(self.answer).acall()

    error = await error_of(sandbox, "return give()", Partial(lambda: ran.append("sync")))
    assert error == ("NotImplementedError", "give has no asynchronous form")
    assert ran == ["async"]


# What an output may hold


def giving(output: ToolOutput) -> BaseTool:
    class Gives(CallAndAcall):
        def call(self, *args: Any, **kwargs: Any) -> ToolOutput:
            return output

    return Gives(lambda: None)


async def test_an_output_that_says_it_failed_raises_its_exception(sandbox: CodeSandbox) -> None:
    program = "try:\n    give()\nexcept Exception as error:\n    return type(error).__name__, str(error)"
    failed = ToolOutput(
        "give", content="Encountered error: gone", raw_input={}, is_error=True, exception=LookupError("gone")
    )
    assert await value_of(sandbox, program, giving(failed)) == ("LookupError", "gone")
    said = ToolOutput("give", content="the service is closed", raw_input={}, is_error=True)
    assert await value_of(sandbox, program, giving(said)) == ("ToolError", "the service is closed")
    nothing = ToolOutput("give", raw_input={}, is_error=True)
    assert await value_of(sandbox, program, giving(nothing)) == ("ToolError", "the tool give failed")


async def test_the_content_serves_where_a_tool_of_ones_own_has_no_data(sandbox: CodeSandbox) -> None:
    lock = ToolOutput("give", content="a lock", raw_input={}, raw_output=threading.Lock())
    assert await value_of(sandbox, "return give()", giving(lock)) == "a lock"
    nothing = ToolOutput("give", content="two rows", raw_input={})
    assert await value_of(sandbox, "return give()", giving(nothing)) == "two rows"


async def test_a_function_that_returns_no_data_is_an_error_that_names_the_place(sandbox: CodeSandbox) -> None:
    kind, message = await error_of(sandbox, "return give()", sync_function(lambda: {"rows": [1, object()]}))
    assert kind == "UnsupportedValue"
    assert "rows" in message


async def test_a_callback_changes_the_text_and_not_the_value_unless_it_gives_an_output(sandbox: CodeSandbox) -> None:
    seen: list[Any] = []

    def note(value: Any) -> str:
        seen.append(value)
        return f"{len(value)} rows"

    async def other(value: Any) -> ToolOutput:
        return ToolOutput("rows", content="other", raw_input={}, raw_output={"other": value})

    def rows() -> list[int]:
        """Rows."""
        return [1, 2]

    assert await value_of(sandbox, "return rows()", FunctionTool.from_defaults(rows, callback=note)) == [1, 2]
    assert seen == [[1, 2]]

    async def arows() -> list[int]:
        """Rows."""
        return [1, 2]

    replaced = FunctionTool.from_defaults(async_fn=arows, async_callback=other, name="rows")
    assert await value_of(sandbox, "return rows()", replaced) == {"other": [1, 2]}


async def test_blocks_of_text_are_text_and_others_are_records(sandbox: CodeSandbox) -> None:
    assert await value_of(sandbox, "return give()", sync_function(lambda: TextBlock(text="one"))) == "one"
    two = [TextBlock(text="one"), TextBlock(text="two")]
    assert await value_of(sandbox, "return give()", sync_function(lambda: two)) == "one\ntwo"
    mixed = [TextBlock(text="one"), ImageBlock(url="https://example.com/a.png")]
    first, second = await value_of(sandbox, "return give()", sync_function(lambda: mixed))
    assert (first["text"], second["block_type"]) == ("one", "image")


async def test_documents_come_without_what_only_an_index_needs(sandbox: CodeSandbox) -> None:
    found = [NodeWithScore(node=TextNode(text="a", id_="1", metadata={"page": 2}, embedding=[0.5]), score=0.25)]
    passage = {"id": "1", "text": "a", "score": 0.25, "metadata": {"page": 2}}
    assert await value_of(sandbox, "return give()", sync_function(lambda: found)) == [passage]
    document = Document(text="b", id_="2")
    assert await value_of(sandbox, "return give().text", sync_function(lambda: document)) == "b"


# Arguments


class Place(BaseModel):
    city: str


async def test_arguments_are_checked_by_the_schema_and_come_in_the_functions_own_types(sandbox: CodeSandbox) -> None:
    def trips(place: Place, day: dt.date, limit: int = Field(5, ge=1, description="at most")) -> list[Any]:
        """Find trips."""
        return [type(place).__name__, place.city, day.year, limit]

    code = "return trips({'city': 'Rome'}, '2024-05-06', limit='7'), trips(place={'city': 'Rome'}, day='2025-01-01')"
    assert await value_of(sandbox, code, typed(trips)) == (["Place", "Rome", 2024, 7], ["Place", "Rome", 2025, 5])
    text = format_tools_for_llm(registry_from(typed(trips)))
    assert "trips(place: Place, day: date, limit: int = 5) -> list[Any]" in text
    assert "limit: at most" in text
    assert text.count("trips(") == 1  # LlamaIndex's own line with the signature is left out


def typed(function: Callable[..., Any]) -> FunctionTool:
    """A tool of a function of this module: LlamaIndex reads annotations as they are, and here they are text."""
    import typing

    function.__annotations__ = typing.get_type_hints(function, globals(), localns={"Context": Context, "Any": Any})
    return FunctionTool.from_defaults(function)


async def test_a_function_with_another_schema_gets_plain_data(sandbox: CodeSandbox) -> None:
    class Remote(BaseModel):
        place: Place
        when: dt.date | None = None

    def call_server(**given: Any) -> dict[str, Any]:
        return {name: type(value).__name__ for name, value in given.items()}

    remote = FunctionTool.from_defaults(call_server, name="remote", description="Remote.", fn_schema=Remote)
    assert await value_of(sandbox, "return remote(place={'city': 'Rome'})", remote) == {"place": "dict"}
    assert await error_of(sandbox, "return remote(place={'town': 'Rome'})", remote) == (
        "InvalidArguments",
        'remote: place.city: Field required\nIt is called as remote(place: {"city": str}, when: date | None = None)',
    )


async def test_a_field_with_an_alias_is_called_by_it_as_models_call_it(sandbox: CodeSandbox) -> None:
    class Search(BaseModel):
        since: int = Field(alias="from")
        words: str = Field("", validation_alias=AliasChoices("q", "query"))

    def search(**given: Any) -> dict[str, Any]:
        return given

    aliased = FunctionTool.from_defaults(search, name="search", description="Search.", fn_schema=Search)
    assert await value_of(sandbox, "return search(**{'from': 3}, q='a')", aliased) == {"from": 3, "q": "a"}


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("twice(n='x')", "n: Input should be a valid integer, unable to parse string as an integer (got str 'x')"),
        ("twice()", "missing argument 'n'"),
        ("twice(n=1, m=2)", "unexpected argument 'm'"),
        ("twice(1, 2)", "takes 1 positional arguments, 2 were given"),
    ],
)
async def test_arguments_that_do_not_fit_are_a_typed_error_before_the_tool_runs(
    sandbox: CodeSandbox, call: str, problem: str
) -> None:
    ran: list[int] = []

    def twice(n: int) -> int:
        """Twice."""
        ran.append(n)
        return 2 * n

    program = f"try:\n    {call}\nexcept TypeError as error:\n    return type(error).__name__, str(error)"
    name, message = await value_of(sandbox, program, typed(twice))
    assert name == "InvalidArguments"
    assert problem in message
    assert "It is called as twice(n: int)" in message
    assert ran == []


async def test_an_only_argument_goes_by_position_where_the_tool_knows_no_name_for_it(sandbox: CodeSandbox) -> None:
    class Echo(CallAndAcall):
        metadata = ToolMetadata("Echo.", "echo")

        def call(self, text: str) -> ToolOutput:
            return ToolOutput("echo", content=text, raw_input={}, raw_output=text)

    def shout(text: str) -> str:
        return text.upper()

    named = FunctionTool(shout, metadata=ToolMetadata("Shout.", "shout"))  # its schema says `input`
    assert await value_of(sandbox, "return echo(input='a'), shout(input='b'), shout('c')", Echo(str), named) == (
        "a",
        "B",
        "C",
    )


class Recursive(BaseModel):
    name: str
    children: list[Recursive] = []


class Listed(RootModel[list[int]]):
    pass


class Missing(BaseModel):
    field: NotThere  # type: ignore[name-defined]  # noqa: F821


class Unsayable(BaseModel, arbitrary_types_allowed=True):
    lock: threading.Event


class OldModel(BaseModelV1):
    n: int


def with_schema(schema: Any, function: Callable[..., Any] = lambda **given: given) -> FunctionTool:
    return FunctionTool(function, metadata=ToolMetadata("Odd.", "odd", schema))


async def test_a_recursive_schema_is_shown_and_checked(sandbox: CodeSandbox) -> None:
    tree = with_schema(Recursive, lambda **given: given["children"][0]["name"])
    assert await value_of(sandbox, "return odd(name='a', children=[{'name': 'b', 'children': []}])", tree) == "b"
    kind, message = await error_of(sandbox, "odd(name='a', children=[{'name': 'b', 'children': [1]}])", tree)
    assert kind == "InvalidArguments"
    assert "children.0.children.0" in message
    assert "odd(name: str" in format_tools_for_llm(registry_from(tree))


async def test_an_empty_schema_takes_nothing(sandbox: CodeSandbox) -> None:
    empty = with_schema(type("Nothing", (BaseModel,), {}))
    assert await value_of(sandbox, "return odd(), odd(**{})", empty) == ({}, {})
    assert (await error_of(sandbox, "odd(x=1)", empty))[0] == "InvalidArguments"


async def test_no_schema_means_one_text(sandbox: CodeSandbox) -> None:
    assert await value_of(sandbox, "return odd(input='a')", with_schema(None)) == {"input": "a"}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (Listed, "are no object but 'array'"),
        (Missing, "have no JSON Schema"),
        (Unsayable, "have no JSON Schema"),
        (OldModel, "is no pydantic model"),
        ({"type": "object"}, "is no pydantic model"),
        (Recursive(name="a"), "is no pydantic model"),
        (int, "is no pydantic model"),
    ],
    ids=["list", "unresolved", "unsayable", "version 1", "dict", "instance", "class"],
)
async def test_a_wrong_schema_is_told_when_the_tool_is_registered(schema: Any, says: str) -> None:
    with pytest.raises(RegistrationError, match=says):
        registry_from(with_schema(schema))


@pytest.mark.parametrize("wrong", [None, 3, "tool", BaseTool, ToolMetadata("x", "y"), [None]], ids=repr)
async def test_what_is_no_tool_is_refused(wrong: Any) -> None:
    with pytest.raises(RegistrationError, match="is no LlamaIndex tool"):
        registry_from(wrong)


async def test_a_tool_without_a_name_is_refused_until_it_gets_one() -> None:
    nameless = FunctionTool(lambda: 1, metadata=ToolMetadata("Give.", None, NOTHING.fn_schema))
    with pytest.raises(RegistrationError, match="has no name"):
        registry_from(nameless)
    assert tool_from(nameless, name="give").name == "give"
    with pytest.raises(RegistrationError, match="can't make a tool"):
        registry_from([max])


async def test_the_same_name_twice_is_refused() -> None:
    with pytest.raises(RegistrationError, match="registered already"):
        registry_from([sync_function(int), sync_function(str)])


# What the host fills in


class Vault:
    """Two tools that act for one user, whom the host gives; every value that reaches them is written down."""

    def __init__(self) -> None:
        self.users: list[Any] = []

        def partial(what: str, user: str) -> str:
            """Read something of the user's."""
            self.users.append(user)
            return f"{what} of {user}"

        async def in_context(ctx: Context, what: str) -> str:
            """Read something of the workflow's."""
            self.users.append(ctx)
            return f"{what} of the workflow"

        def open_ended(ctx: Context, user: str, **more: Any) -> list[str]:
            """Read anything."""
            self.users += [user, ctx]
            return sorted(more)

        for function in (partial, in_context, open_ended):
            function.__annotations__ = {
                name: {"str": str, "Context": Context, "Any": Any, "list[str]": list[str]}[text]
                for name, text in function.__annotations__.items()
            }
        self.partial = FunctionTool.from_defaults(partial, partial_params={"user": "ann"})
        self.in_context = FunctionTool.from_defaults(async_fn=in_context)
        self.open_ended = FunctionTool.from_defaults(
            open_ended, fn_schema=Everything, description="Anything.", partial_params={"user": "ann"}
        )

    @property
    def tools(self) -> list[FunctionTool]:
        return [self.partial, self.in_context, self.open_ended]


class Everything(BaseModel, extra="allow"):
    what: str = ""
    user: str = ""
    ctx: Any = None


TRICKS = [
    "partial(what='x', user='mallory')",
    "partial('x', 'mallory')",
    "partial(**{'what': 'x', 'user': 'mallory'})",
    "partial({'what': 'x', 'user': 'mallory'})",
    "partial('x', **{'user': 'mallory'})",
    "call_tool('partial', what='x', user='mallory')",
    "await partial(what='x', user=None)",
    "in_context(what='x', ctx='mallory')",
    "in_context('mallory', 'x')",
    "in_context({'what': 'x', 'ctx': 'mallory'})",
    "open_ended(user='mallory')",
    "open_ended(ctx='mallory')",
    "open_ended(**{'user': 'mallory', 'other': 1})",
    "open_ended({'user': 'mallory'})",
    "call_tool('open_ended', ctx='mallory')",
]


@pytest.mark.parametrize("trick", TRICKS)
async def test_no_program_sets_what_the_host_fills_in(sandbox: CodeSandbox, trick: str) -> None:
    vault = Vault()
    ctx: Context[Any] = Context(agent())
    result = await sandbox.execute(f"return {trick}", registry_from(vault.tools, context=ctx))
    assert result.error is not None
    assert result.error.type == "InvalidArguments"
    assert vault.users == []


async def test_the_tricks_are_real_llama_index_itself_takes_the_forged_value() -> None:
    vault = Vault()
    await vault.partial.acall(what="x", user="mallory")
    await vault.in_context.acall(what="x", ctx="mallory")
    await vault.open_ended.acall(user="mallory", ctx="mallory")
    assert vault.users == ["mallory"] * 4


async def test_an_ordinary_call_gets_what_the_host_fills_in_and_no_stub_names_it(sandbox: CodeSandbox) -> None:
    vault = Vault()
    ctx: Context[Any] = Context(agent())
    registry = registry_from(vault.tools, context=ctx)
    result = await sandbox.execute("return partial('a'), in_context('b'), open_ended(what='c', other=1)", registry)
    assert result.value == ("a of ann", "b of the workflow", ["other", "what"])
    assert vault.users == ["ann", ctx, "ann", ctx]
    assert not re.search("user:|ctx|Context|mallory|ann", format_tools_for_llm(registry))
    described = await sandbox.execute("return [await describe_tool(n) for n in ('partial', 'open_ended')]", registry)
    assert not re.search("user:|ctx|Context|mallory", str(described.value))


async def test_a_context_that_nobody_gives_is_told_by_name(sandbox: CodeSandbox) -> None:
    kind, message = await error_of(sandbox, "in_context('x')", Vault().in_context)
    assert kind == "ConfigurationError"
    assert "'in_context' takes a workflow's Context" in message


async def test_a_tool_is_not_registered_a_second_time_with_another_context() -> None:
    vault = Vault()
    registry = registry_from(vault.in_context, context=Context(agent()))
    with pytest.raises(RegistrationError, match="registered already"):
        registry_from(vault.in_context, context=Context(agent()), registry=registry)


def agent() -> Any:
    from llama_index.core.agent.workflow import FunctionAgent

    return FunctionAgent(llm=ScriptedLLM([]))


# Registries


class Numbers(BaseToolSpec):
    """A tool spec with a blocking, an asynchronous and a paired function."""

    spec_functions = ["add", "double", ("half", "ahalf")]  # noqa: RUF012  (as its base has it)

    def add(self, a: int, b: int) -> int:
        """Add."""
        return a + b

    async def double(self, n: int) -> int:
        """Double."""
        return 2 * n

    def half(self, n: int) -> float:
        """Halve."""
        raise AssertionError("the asynchronous one is there")

    async def ahalf(self, n: int) -> float:
        return n / 2


async def test_a_tool_spec_is_one_call_and_its_tools_work_together_with_others(sandbox: CodeSandbox) -> None:
    registry = registry_from([Numbers(), sync_function(lambda: 5)], namespace="math", capabilities=["read_only"])
    code = "import asyncio\nreturn await asyncio.gather(math.add(1, 2), math.double(n=4), half(3), give())"
    assert (await sandbox.execute(code, registry)).value == [3, 8, 1.5, 5]
    tool = registry.find("math.double")
    assert tool is not None
    assert (tool.metadata.source, tool.metadata.source_name) == ("llama_index", "Numbers")
    assert tool.metadata.capabilities == {ToolCapability.READ_ONLY}
    assert tool.metadata.description == "Double."


async def test_return_direct_is_noted_for_the_author_of_a_program() -> None:
    def answer() -> str:
        """Answer."""
        return "a"

    direct = FunctionTool.from_defaults(answer, return_direct=True)
    assert tool_from(direct).metadata.description.endswith("return it unchanged.")


async def test_names_that_are_no_identifiers_can_be_called(sandbox: CodeSandbox) -> None:
    odd = FunctionTool(lambda: 1, metadata=ToolMetadata("One.", "get-one", NOTHING.fn_schema))
    assert await value_of(sandbox, "return get_one(), call_tool('get-one')", odd) == (1, 1)


async def test_asynchronous_tools_that_are_gathered_run_together(sandbox: CodeSandbox) -> None:
    barrier = asyncio.Barrier(4)

    async def meet(n: int) -> int:
        """Meet the others."""
        await barrier.wait()
        return n

    code = "import asyncio\nreturn await asyncio.gather(*(meet(n) for n in range(4)))"
    assert await value_of(sandbox, code, FunctionTool.from_defaults(async_fn=meet)) == [0, 1, 2, 3]


async def test_blocking_tools_that_are_gathered_run_together_and_the_loop_goes_on(sandbox: CodeSandbox) -> None:
    barrier, loop = threading.Barrier(12), threading.get_ident()

    def meet(n: int) -> bool:
        """Meet the others."""
        barrier.wait(15)
        return threading.get_ident() != loop

    code = "import asyncio\nreturn await asyncio.gather(*(meet(n) for n in range(12)))"
    assert await value_of(sandbox, code, FunctionTool.from_defaults(meet)) == [True] * 12


# Indexes over the files of this repository


class Words(BaseEmbedding):
    """Texts with the same words are near to each other; no model, no network."""

    def _vector(self, text: str) -> list[float]:
        vector = [0.001] * 512
        for word in re.findall(r"[a-z_]{4,}", text.lower()):
            vector[zlib.crc32(word.encode()) % 512] += 1.0
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)


PIECES = SentenceSplitter(chunk_size=200, chunk_overlap=0)


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return SimpleDirectoryReader(
        input_files=[ROOT / "docs" / name for name in ("decisions.md", "security.md", "replay.md", "langchain.md")]
    ).load_data()


async def test_a_retriever_over_this_repositorys_files_answers_a_program(
    sandbox: CodeSandbox, documents: list[Document]
) -> None:
    vectors = VectorStoreIndex.from_documents(documents, embed_model=Words(), transformations=[PIECES])
    keywords = SimpleKeywordTableIndex.from_documents(documents, llm=ScriptedLLM([]), max_keywords_per_chunk=1000)
    by_keyword = keywords.as_retriever(retriever_mode="simple")
    tools = {"near": vectors.as_retriever(similarity_top_k=2), "by_word": by_keyword}
    code = """\
found = await near(input="frames are msgspec structs, decoded into tagged structs")
files = {p["metadata"]["file_name"] for p in by_word(input="seccomp landlock")}
return len(found), found[0].metadata["file_name"], "msgspec" in found[0].text, found[0].score > found[1].score, files
"""
    count, name, right, sorted_, files = await value_of(sandbox, code, tools)
    assert (count, name, right, sorted_) == (2, "decisions.md", True, True)
    assert files == {d.metadata["file_name"] for d in documents if re.search("(?i)landlock|seccomp", d.text)} != set()
    text = format_tools_for_llm(registry_from(tools))
    assert "class Passage(TypedDict)" in text
    assert "near(input: str) -> list[Passage]" in text


async def test_a_query_engine_answers_with_its_sources(sandbox: CodeSandbox, documents: list[Document]) -> None:
    index = VectorStoreIndex.from_documents(documents, embed_model=Words(), transformations=[PIECES])
    model = ScriptedLLM(["Because a clone is refused."] * 2)
    engine = index.as_query_engine(
        llm=model, similarity_top_k=1, response_synthesizer=get_response_synthesizer(llm=model)
    )
    code = """\
answer = await ask(input="Guests may not create threads: why are the threads of a program greenlets?")
return answer.response, [p["metadata"]["file_name"] for p in answer.source_nodes]
"""
    assert await value_of(sandbox, code, {"ask": engine}) == ("Because a clone is refused.", ["decisions.md"])
    named = QueryEngineTool.from_defaults(engine, name="ask", description="Ask the docs.")
    with CodeSandbox(registry_from(named)) as blocking:
        assert blocking.execute_sync(code).value == ("Because a clone is refused.", ["decisions.md"])
    streaming = index.as_query_engine(
        llm=model, similarity_top_k=1, response_synthesizer=get_response_synthesizer(llm=model, streaming=True)
    )
    assert await value_of(sandbox, "return (await ask('threads')).response", {"ask": streaming}) == (
        "Because a clone is refused."
    )


async def test_an_index_needs_a_name_to_be_a_tool(documents: list[Document]) -> None:
    index = SimpleKeywordTableIndex.from_documents(documents, llm=ScriptedLLM([]))
    with pytest.raises(RegistrationError, match="has no name of its own"):
        registry_from(index.as_retriever(retriever_mode="simple"))
    tool = RetrieverTool.from_defaults(index.as_retriever(retriever_mode="simple"), name="words")
    assert registry_from(tool).find("words") is not None


# The other way


async def test_registered_tools_serve_llama_index_in_both_kinds_of_run() -> None:
    registry = create_registry()

    async def wait(n: int, times: int = 2) -> dict[str, int]:
        """Wait."""
        return {"n": n * times}

    def work(text: str) -> str:
        """Work."""
        return text.upper()

    registry.add(wait)
    registry.add(work)
    waiting, working = llama_index_tools(registry)
    assert isinstance(waiting, ToolchordTool)
    assert isinstance(working, ToolchordTool)
    assert waiting.call(n=2).content == '{"n":4}'
    assert (await waiting.acall(n=2, times=3)).raw_output == {"n": 6}
    assert (working("a").content, (await working.acall(text="b")).raw_output) == ("A", "B")
    function = waiting.metadata.to_openai_tool()["function"]
    assert function["parameters"]["required"] == ["n"]
    assert waiting.metadata.fn_schema is not None
    assert waiting.metadata.fn_schema.model_json_schema()["properties"] == function["parameters"]["properties"]
    with pytest.raises(InvalidArguments, match="missing argument 'n'"):
        waiting.call(times=1)


async def test_names_of_several_namespaces_stay_apart() -> None:
    registry = create_registry()
    for space in ("sales", "stock"):
        registry.add(lambda: 1, "get", namespace=space)
    registry.add(lambda: 1, "hidden", allowed_callers=["sandbox"])
    assert [tool.metadata.name for tool in llama_index_tools(registry)] == ["sales_get", "stock_get"]


async def test_a_registry_goes_to_llama_index_and_back(sandbox: CodeSandbox) -> None:
    def add(a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    registry = create_registry()
    registry.add(add)
    back = registry_from(llama_index_tools(registry), namespace="again")
    tool = back.find("again.add")
    assert isinstance(tool, Tool)
    assert tool.implementation is add
    assert (await sandbox.execute("return again.add(1, b=4)", back)).value == 5


async def test_llama_indexs_tools_go_through_a_registry_and_come_back_themselves() -> None:
    tools = [*Numbers().to_tool_list(), FORMS["call and acall"](int)]
    assert llama_index_tools(registry_from(tools)) == tools
    renamed = create_registry()
    renamed.add(tool_from(tools[0], name="plus"))
    (other,) = llama_index_tools(renamed)
    assert isinstance(other, ToolchordTool)
    assert other(a=1, b=2).raw_output == 3


# The house


def test_without_llama_index_the_import_says_what_to_install() -> None:
    code = """
import sys
sys.modules["llama_index"] = None
try:
    import toolchord_llama_index
except ImportError as error:
    print(type(error).__name__, error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == (
        "MissingExtraError toolchord_llama_index needs an extra: pip install 'toolchord[llama-index]'"
    ), ran.stderr


PRIVATE = {
    "workflows.runtime.types.results": ["StepWorkerStateContextVar", "WaitingForEvent", "AddWaiter", "DeleteWaiter"],
    "workflows.runtime.types.plugin": ["as_snapshottable_adapter"],
    "workflows.runtime.types.ticks": ["TickAddEvent"],
    "workflows.events": ["CollectionReleaseEvent"],
    "llama_index.core.tools.function_tool": ["sync_to_async"],
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in PRIVATE.items() for name in names])
def test_a_private_name_that_has_moved_is_told_at_import(
    module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = find_spec("toolchord_llama_index.private")
    assert spec is not None
    assert spec.loader is not None
    again = import_module("importlib.util").module_from_spec(spec)
    monkeypatch.delattr(import_module(module), name)
    with pytest.raises(Exception, match=f"has no {name}") as caught:
        spec.loader.exec_module(again)
    assert type(caught.value).__name__ == "ConfigurationError"
    assert "use another version" in str(caught.value)


def test_the_private_names_still_mean_what_they_meant() -> None:
    from toolchord_llama_index.private import has_async_code

    blocking, asynchronous = FORMS["function"](int), FORMS["async_fn"](int)
    assert isinstance(blocking, FunctionTool)
    assert isinstance(asynchronous, FunctionTool)
    assert (has_async_code(blocking), has_async_code(asynchronous)) == (False, True)


async def test_an_llm_is_a_model_for_the_orchestrator() -> None:
    registry = create_registry()
    ran: list[int] = []

    async def fetch(n: int) -> dict[str, int]:
        """Fetch a number."""
        ran.append(n)
        return {"n": n}

    registry.add(fetch)
    broken = "Let me see.\n```python\na = await fetch(n=1)\nreturn a.m\n```"
    repaired = "```python\na = await fetch(n=1)\nb = await fetch(n=2)\nreturn a.n + b.n\n```"
    llm = ScriptedLLM([broken, repaired, "It is 3."])
    async with CodeSandbox(registry) as sandbox:
        run = await Orchestrator(chat_model(llm), sandbox).run("What is the sum?")
    assert run.text == "It is 3."
    assert ran == [1, 2]  # the first call was answered from the record
    assert "AttributeError (line 2)" in str(llm.seen[1][-1].content)
    with pytest.raises(ConfigurationError, match="no LLM of LlamaIndex"):
        chat_model("gpt")  # type: ignore[arg-type]
