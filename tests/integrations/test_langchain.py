# ruff: noqa: E501  (a program is kept on one line)
"""LangChain's tools inside programs, and Toolchord's tools inside LangChain: real tools, nothing stubbed."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.messages.tool import ToolOutputMixin
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import (
    BaseTool,
    BaseToolkit,
    InjectedToolArg,
    InjectedToolCallId,
    StructuredTool,
    ToolException,
    create_retriever_tool,
    tool,
)
from langchain_core.tools import Tool as SingleInputTool
from pydantic import AliasPath, BaseModel, Field, field_validator
from pydantic.v1 import BaseModel as BaseModelV1

from toolchord import (
    CodeSandbox,
    ExecutionResult,
    Limits,
    Tool,
    ToolCapability,
    ToolRegistry,
    create_registry,
    format_tools_for_llm,
)
from toolchord.errors import RegistrationError
from toolchord_langchain import ToolchordTool, code_tool, langchain_tools, registry_from, tool_from


@pytest.fixture(scope="module")
def sandbox() -> Iterator[CodeSandbox]:
    with CodeSandbox(limits=Limits(wall_time=20)) as sandbox:
        yield sandbox


async def value_of(sandbox: CodeSandbox, code: str, *tools: Any, **given: Any) -> Any:
    """What a program returns that may call the tools."""
    result = await sandbox.execute(code, registry_from(tools, **given))
    assert result.ok, result.for_model()
    return result.value


def call_of(tool: BaseTool, **arguments: Any) -> ToolCall:
    return ToolCall(type="tool_call", id="call_1", name=tool.name, args=arguments)


# One tool in each of the forms that LangChain has


def sync_function(answer: Callable[[], Any]) -> BaseTool:
    @tool
    def give() -> Any:
        """Give."""
        return answer()

    return give


def async_function(answer: Callable[[], Any]) -> BaseTool:
    @tool
    async def give() -> Any:
        """Give."""
        await asyncio.sleep(0)
        return answer()

    return give


def both_functions(answer: Callable[[], Any]) -> BaseTool:
    async def coroutine() -> Any:
        return answer()

    return StructuredTool.from_function(func=answer, coroutine=coroutine, name="give", description="Give.")


class OnlyRun(BaseTool):
    name: str = "give"
    description: str = "Give."
    answer: Callable[[], Any]

    def _run(self) -> Any:
        return self.answer()


class OnlyArun(BaseTool):
    name: str = "give"
    description: str = "Give."
    answer: Callable[[], Any]

    def _run(self) -> Any:
        raise NotImplementedError("asynchronous only")

    async def _arun(self) -> Any:
        return self.answer()


class ArunRefuses(OnlyRun):
    async def _arun(self) -> Any:
        raise NotImplementedError("give does not support async")


FORMS: dict[str, Callable[[Callable[[], Any]], BaseTool]] = {
    "sync function": sync_function,
    "async function": async_function,
    "both functions": both_functions,
    "only _run": lambda answer: OnlyRun(answer=answer),
    "only _arun": lambda answer: OnlyArun(answer=answer),
    "_arun refuses": lambda answer: ArunRefuses(answer=answer),
}
NATIVE = [
    "12345",
    "",
    '{"a": 1}',
    ["a", "b"],
    [],
    {"a": [1, {"b": None}]},
    {"type": "text", "text": "t"},
    [{"type": "text", "text": "t"}],
    None,
    1.0,
    True,
    b"\x00\xff",
    (1, "a"),
    {1, 2},
    dt.date(2024, 2, 29),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("native", NATIVE, ids=repr)
async def test_a_value_arrives_as_the_tool_returned_it(sandbox: CodeSandbox, form: str, native: Any) -> None:
    value = await value_of(sandbox, "return await give()", FORMS[form](lambda: native))
    assert (value, type(value)) == (native, type(native))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_tool_works_in_a_run_that_is_not_asynchronous(form: str) -> None:
    with CodeSandbox(registry_from(FORMS[form](lambda: ["a", "b"]))) as sandbox:
        assert sandbox.execute_sync("return [give(), await give()]").value == [["a", "b"], ["a", "b"]]
        assert code_tool(sandbox).invoke({"code": "return give()"}) == '["a", "b"]'


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_tool_raises_its_own_exception_in_the_program(sandbox: CodeSandbox, form: str) -> None:
    class Odd(ToolException):
        pass

    def fail() -> None:
        raise Odd("no such row")

    program = "try:\n    give()\nexcept Exception as error:\n    return type(error).__name__, str(error)"
    assert await value_of(sandbox, program, FORMS[form](fail)) == ("Odd", "no such row")


async def test_a_tool_that_is_not_implemented_further_down_says_so_and_runs_once(sandbox: CodeSandbox) -> None:
    ran: list[str] = []

    def backend() -> None:
        raise NotImplementedError("the backend has no such operation")

    class Partial(OnlyRun):
        async def _arun(self) -> Any:
            ran.append("async")
            return backend()

    result = await sandbox.execute("return give()", registry_from(Partial(answer=lambda: ran.append("sync"))))
    assert result.error is not None
    assert (result.error.type, result.error.message) == (
        "NotImplementedError",
        "the backend has no such operation",
    )
    assert ran == ["async"]


# Content and artifact


def with_artifact(content: Any, artifact: Any) -> BaseTool:
    @tool(response_format="content_and_artifact")
    def give() -> tuple[Any, Any]:
        """Give."""
        return content, artifact

    return give


@pytest.mark.parametrize(
    ("content", "artifact", "expected"),
    [
        ("2 rows", [{"id": 1}, {"id": 2}], [{"id": 1}, {"id": 2}]),
        ("nothing", [], []),
        ("zero", 0, 0),
        ("a picture", object(), "a picture"),
        ("rows and a handle", {"rows": [1], "handle": threading.Lock()}, "rows and a handle"),
        ("no artifact", None, "no artifact"),
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], None, "one\ntwo"),
        (
            [{"type": "text", "text": "one"}, {"type": "image", "url": "x"}],
            None,
            [{"type": "text", "text": "one"}, {"type": "image", "url": "x"}],
        ),
        ([{"type": "text", "text": '{"n": 1}'}], {"structured_content": {"n": 1}}, {"n": 1}),
    ],
    ids=["rows", "empty", "zero", "object", "handle", "none", "text blocks", "other blocks", "mcp"],
)
async def test_a_program_gets_the_artifact_if_it_is_data_and_else_the_content(
    sandbox: CodeSandbox, content: Any, artifact: Any, expected: Any
) -> None:
    assert await value_of(sandbox, "return give()", with_artifact(content, artifact)) == expected


async def test_a_message_gives_its_artifact_and_an_error_message_raises(sandbox: CodeSandbox) -> None:
    @tool
    def said(fail: bool, tool_call_id: Annotated[str, InjectedToolCallId]) -> ToolMessage:
        """Answer with a message."""
        status = "error" if fail else "success"
        return ToolMessage("text", artifact={"n": 1}, tool_call_id=tool_call_id, status=status)

    program = "try:\n    said(True)\nexcept Exception as e:\n    return said(False), type(e).__name__, str(e)"
    assert await value_of(sandbox, program, said) == ({"n": 1}, "ToolException", "text")


@pytest.mark.parametrize("wrapped", [lambda output: output, lambda output: [output, output]], ids=["one", "list"])
async def test_what_is_meant_for_a_graph_is_refused_with_its_name(sandbox: CodeSandbox, wrapped: Any) -> None:
    @dataclass
    class Command(ToolOutputMixin):
        update: int = 1

    result = await sandbox.execute("return give()", registry_from(sync_function(lambda: wrapped(Command()))))
    assert result.error is not None
    assert result.error.type == "ConfigurationError"
    assert "give returned a Command" in result.error.message


async def test_a_value_that_is_no_data_is_an_error_that_names_the_place(sandbox: CodeSandbox) -> None:
    odd = sync_function(lambda: {"rows": [1, object()]})
    result = await sandbox.execute("return give()", registry_from(odd))
    assert result.error is not None
    assert result.error.type == "UnsupportedValue"
    assert "rows" in result.error.message


async def test_a_model_of_the_first_pydantic_crosses_as_a_dict(sandbox: CodeSandbox) -> None:
    class Row(BaseModelV1):
        n: int

    assert await value_of(sandbox, "return give()", sync_function(lambda: Row(n=1))) == {"n": 1}
    assert await value_of(sandbox, "return give()", sync_function(lambda: [Row(n=1)])) == [{"n": 1}]


# Arguments


class Place(BaseModel):
    city: str


class Search(BaseModel):
    """Search for trips."""

    place: Place
    limit: int = Field(5, ge=1, description="at most")
    from_: str = Field("any", alias="from")


class SearchV1(BaseModelV1):
    city: str
    limit: int | None = None


async def test_arguments_are_checked_and_coerced_by_the_tools_own_model(sandbox: CodeSandbox) -> None:
    @tool(args_schema=Search)
    def trips(place: Place, limit: int, from_: str) -> list[Any]:
        """Find trips."""
        return [type(place).__name__, place.city, limit, from_]

    assert await value_of(sandbox, "return trips({'city': 'Rome'}, limit='7', from_='Oslo')", trips) == [
        "Place",
        "Rome",
        7,
        "Oslo",
    ]
    assert await value_of(sandbox, "return trips(place={'city': 'Rome'})", trips) == ["Place", "Rome", 5, "any"]
    text = format_tools_for_llm(registry_from(trips))
    assert "trips(place: Place, limit: int = 5, from_: str = 'any') -> list[Any]" in text
    assert "city: str" in text


@pytest.mark.parametrize(
    "handled", [False, True, "ask again", lambda error: "ask again"], ids=["off", "on", "text", "function"]
)
async def test_arguments_that_do_not_fit_are_a_typed_error_whatever_the_handler_says(
    sandbox: CodeSandbox, handled: Any
) -> None:
    async def twice(n: int, m: int = 0) -> int:
        return 2 * n

    checked = StructuredTool.from_function(coroutine=twice, description="Twice.", handle_validation_error=handled)
    program = "try:\n    twice(n='x', m='y')\nexcept TypeError as error:\n    return type(error).__name__, str(error)"
    name, message = await value_of(sandbox, program, checked)
    assert name == "InvalidArguments"
    assert "n: " in message
    assert "(got str 'x')" in message
    assert "m: " in message
    assert "twice(n: int, m: int = 0)" in message


@pytest.mark.parametrize(
    "handled", [False, True, "ask again", lambda error: "ask again"], ids=["off", "on", "text", "function"]
)
async def test_a_tool_exception_reaches_the_program_whatever_the_handler_says(
    sandbox: CodeSandbox, handled: Any
) -> None:
    async def fail(n: int) -> int:
        raise ToolException(f"no row {n}")

    failing = StructuredTool.from_function(coroutine=fail, description="Fail.", handle_tool_error=handled)
    program = "try:\n    fail(n=3)\nexcept Exception as error:\n    return type(error).__name__, str(error)"
    assert await value_of(sandbox, program, failing) == ("ToolException", "no row 3")


async def test_a_validation_error_of_the_tools_own_making_is_no_complaint_about_the_call(sandbox: CodeSandbox) -> None:
    @tool
    def parse(text: str) -> str:
        """Parse."""
        return Place.model_validate_json(text).city

    program = "try:\n    parse('{}')\nexcept ValueError as error:\n    return type(error).__name__"
    assert await value_of(sandbox, program, parse) == "ValidationError"


async def test_a_schema_of_the_first_pydantic_takes_none_and_coerces(sandbox: CodeSandbox) -> None:
    @tool(args_schema=SearchV1)
    def find(city: str, limit: int | None = None) -> list[Any]:
        """Find."""
        return [city, limit]

    program = "return [find('Rome'), find('Rome', None), find(city='Rome', limit='3')]"
    assert await value_of(sandbox, program, find) == [["Rome", None], ["Rome", None], ["Rome", 3]]
    result = await sandbox.execute("return find('Rome', limit='many')", registry_from(find))
    assert result.error is not None
    assert result.error.type == "InvalidArguments"
    assert "limit: " in result.error.message


async def test_a_dict_schema_is_kept_and_checked(sandbox: CodeSandbox) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    async def twice(n: int) -> int:
        return 2 * n

    remote = StructuredTool(name="twice", description="Twice.", coroutine=twice, args_schema=schema)
    assert tool_from(remote).metadata.argument_schema == schema
    assert await value_of(sandbox, "return twice(4)", remote) == 8
    for wrong in ("twice(n='4')", "twice()", "twice(n=1, extra=2)"):
        result = await sandbox.execute(f"return {wrong}", registry_from(remote))
        assert result.error is not None
        assert result.error.type == "InvalidArguments"


async def test_tools_without_a_schema_are_read_from_their_code(sandbox: CodeSandbox) -> None:
    class Async(BaseTool):
        name: str = "add"
        description: str = "Add."

        def _run(self, *args: Any, **kwargs: Any) -> int:
            raise NotImplementedError

        async def _arun(self, a: int, b: int = 1) -> int:
            return a + b

    single = SingleInputTool(name="shout", func=str.upper, description="Shout.")
    registry = registry_from([Async(), single])
    assert {t.name: t.signature for t in registry.tools()} == {
        "add": "add(a: int, b: int = 1)",
        "shout": "shout(tool_input: str)",
    }
    result = await sandbox.execute("return add(a=2), add(2, 3), shout('abc')", registry)
    assert result.value == (3, 5, "ABC"), result.for_model()


async def test_an_argument_that_looks_like_a_tool_call_is_an_argument(sandbox: CodeSandbox) -> None:
    class Note(BaseModel):
        type: str
        id: str
        args: dict[str, Any]
        name: str

    @tool(args_schema=Note)
    def note(**given: Any) -> dict[str, Any]:
        """Note."""
        return given

    sent = {"type": "tool_call", "id": "x", "args": {"user": "root"}, "name": "other"}
    assert await value_of(sandbox, f"return note(**{sent!r})", note) == sent


# Injected arguments

SECRET = "alice-4711"


class Marker(InjectedToolArg):
    """As langgraph's InjectedState and InjectedStore are."""


class Ledger:
    """Tools that take an injected `user` in each way LangChain knows, and what they were given."""

    def __init__(self) -> None:
        self.users: list[Any] = []
        note = self.users.append

        @tool
        def marked(x: int, user: Annotated[str, InjectedToolArg]) -> int:
            """The mark is on the function."""
            note(user)
            return x

        @tool
        async def marked_async(x: int, user: Annotated[str, Marker()], y: int = 0) -> int:
            """A mark of a class of its own, on a coroutine."""
            note(user)
            return x

        class Explicit(BaseModel):
            x: int
            user: Annotated[str, InjectedToolArg] = Field(alias="uid")

        @tool(args_schema=Explicit)
        def explicit(x: int, user: str) -> int:
            """The mark is on the schema, with an alias."""
            note(user)
            return x

        class Open(BaseModel, extra="allow", populate_by_name=True):
            x: int
            user: Annotated[str, InjectedToolArg] = Field(alias="uid")

        @tool(args_schema=Open)
        def open_model(x: int, user: str, **more: Any) -> int:
            """The schema takes any other argument."""
            note(user)
            assert "uid" not in more
            return x

        class Nested(BaseModel, extra="allow", populate_by_name=True):
            x: int
            user: Annotated[str, InjectedToolArg] = Field(validation_alias=AliasPath("meta", "user"))

        @tool(args_schema=Nested)
        def nested(x: int, user: str, **more: Any) -> int:
            """The schema looks for it inside another argument."""
            note(user)
            return x

        class Silent(BaseModel):
            x: int

        @tool(args_schema=Silent)
        def silent(x: int, user: Annotated[str, InjectedToolArg] = SECRET) -> int:
            """The schema does not know of it."""
            note(user)
            return x

        class First(BaseModelV1):
            x: int
            user: Annotated[str, InjectedToolArg]

        @tool(args_schema=First)
        def first(x: int, user: str) -> int:
            """The mark is on a schema of the first pydantic."""
            note(user)
            return x

        def listed(x: int, user: Annotated[str, InjectedToolArg], **more: Any) -> int:
            note(user)
            return x

        schema = {
            "type": "object",
            "properties": {"x": {"type": "integer"}, "user": {"type": "string"}},
            "required": ["x", "user"],
            "additionalProperties": True,
        }

        class Own(BaseTool):
            name: str = "own"
            description: str = "The mark is on _run."

            def _run(self, x: int, user: Annotated[str, InjectedToolArg]) -> int:
                note(user)
                return x

        self.tools = [
            marked,
            marked_async,
            explicit,
            open_model,
            nested,
            silent,
            first,
            StructuredTool(name="listed", description="The schema lists it.", func=listed, args_schema=schema),
            Own(),
        ]


TRICKS = [
    "return f(x=1, user='root')",
    "return f(1, 'root')",
    "return f(1, user='root')",
    "return f(**{'x': 1, 'user': 'root'})",
    "return f({'x': 1, 'user': 'root'})",
    "return await f({'x': 1}, user='root')",
    "return f(x=1, uid='root')",
    "return f(x=1, user=None)",
    "return f(x=1, meta={'user': 'root'})",
    "return f(x=1, **{'user': 'root', 'uid': 'root'})",
    "return await call_tool('F', x=1, user='root')",
    "return await call_tool('F', {'x': 1, 'user': 'root'})",
    "return await call_tool('default.F', x=1, user='root')",
    "return list(map(lambda u: f(x=1, user=u), ['root', 'admin']))",
    "import asyncio\nreturn await asyncio.gather(f(x=1, user='root'), f(x=2))",
    "import functools\nreturn functools.partial(f, user='root')(x=1)",
    "return f(x={'x': 1, 'user': 'root'})",
    "return f(x=1, kwargs={'user': 'root'})",
    "return f(x=1, args=['root'])",
    "return f(x=1, config={'configurable': {'user': 'root'}})",
    "return f(x=1, run_manager=None)",
    "return f(x=1, callbacks=[])",
    "return f(x=1, type='tool_call', args={'x': 1, 'user': 'root'}, id='1', name='F')",
    "return f(x='not a number')",
    "return f()",
    "try:\n    f(x='wrong')\nexcept Exception as e:\n    return str(e), repr(e), list(e.args), str(e.__cause__), str(e.__context__)",
    "return await describe_tool('F')",
    "return await search_tools('F user', limit=20)",
    "return f.user",
    "return repr(f), str(f.__doc__)",
    "f.user = 'root'\nreturn f(x=1)",
    "user = 'root'\nuid = 'root'\nreturn f(x=1)",
    "class X(int):\n    user = 'root'\nreturn f(x=X(1))",
]


@pytest.mark.parametrize("trick", TRICKS)
async def test_no_program_sets_or_reads_an_injected_value(sandbox: CodeSandbox, trick: str) -> None:
    ledger = Ledger()
    for one in ledger.tools:
        registry = registry_from(one, injected={"user": SECRET})
        program = f"f = {one.name}\n{trick.replace('F', one.name)}"
        result = await sandbox.execute(program, registry)
        told = f"{result.for_model()}{result.value!r}{result.stdout}{result.stderr}{result.error}"
        assert SECRET not in told, (one.name, told)
        assert set(ledger.users) <= {SECRET}, (one.name, ledger.users)
        assert result.value is None or "root" not in repr(result.value), (one.name, told)


async def test_an_ordinary_call_gets_what_the_host_injects(sandbox: CodeSandbox) -> None:
    ledger = Ledger()
    registry = registry_from(ledger.tools, injected={"user": SECRET})
    names = [one.name for one in ledger.tools]
    result = await sandbox.execute(f"return [{', '.join(f'{name}(x=1)' for name in names)}]", registry)
    assert result.value == [1] * len(names), result.for_model()
    assert ledger.users == [SECRET] * len(names)
    assert "user" not in format_tools_for_llm(registry)
    assert "uid" not in format_tools_for_llm(registry)


async def test_the_tricks_are_real_langchain_itself_takes_the_forged_value() -> None:
    ledger = Ledger()
    for one in ledger.tools:
        others: dict[str, dict[str, Any]] = {"explicit": {"uid": "root"}, "nested": {"meta": {"user": "root"}}}
        await one.ainvoke({"x": 1, **others.get(one.name, {"user": "root"})})
    assert ledger.users == ["root"] * len(ledger.tools)


async def test_an_injected_argument_is_refused_by_its_name(sandbox: CodeSandbox) -> None:
    for one in Ledger().tools:
        result = await sandbox.execute(
            f"return {one.name}(x=1, user='root')", registry_from(one, injected={"user": SECRET})
        )
        assert result.error is not None
        assert result.error.type == "InvalidArguments"
        assert "'user'" in result.error.message


async def test_a_function_gives_the_values_of_each_call_from_the_config_of_its_run(sandbox: CodeSandbox) -> None:
    ledger = Ledger()

    def of_this_run(tool: BaseTool, config: RunnableConfig) -> dict[str, Any]:
        return {"user": config["configurable"]["user"], "of_no_tool": 1}

    registry = registry_from(ledger.tools[:2], injected=of_this_run)
    runner = code_tool(sandbox, registry)
    code = "return marked(x=1), marked_async(x=2)"
    for user in ("ann", "bob"):
        await runner.ainvoke({"code": code}, {"configurable": {"user": user}})
    assert ledger.users == ["ann", "ann", "bob", "bob"]


async def test_a_value_that_the_host_forgot_is_told_early_or_by_name(sandbox: CodeSandbox) -> None:
    marked = Ledger().tools[0]
    with pytest.raises(RegistrationError, match="'marked' takes user from its host"):
        registry_from(marked)
    result = await sandbox.execute("return marked(x=1)", registry_from(marked, injected=lambda tool, config: {}))
    assert result.error is not None
    assert result.error.type == "ConfigurationError"
    assert "takes user from its host" in result.error.message


async def test_a_wrong_value_of_the_hosts_is_not_shown(sandbox: CodeSandbox) -> None:
    @tool
    def counted(x: int, count: Annotated[int, InjectedToolArg]) -> int:
        """Count."""
        return count

    for call in ("counted(x=1)", "counted(x='wrong')"):
        result = await sandbox.execute(f"return {call}", registry_from(counted, injected={"count": SECRET}))
        assert result.error is not None
        assert SECRET not in result.for_model()
        assert result.error.type == ("ConfigurationError" if "1" in call else "InvalidArguments")


async def test_each_call_has_an_id_of_its_own_and_the_config_is_the_runs(sandbox: CodeSandbox) -> None:
    @tool
    def identify(
        x: int,
        tool_call_id: Annotated[str, InjectedToolCallId],
        config: RunnableConfig,
        optional: RunnableConfig | None = None,
    ) -> list[Any]:
        """Tell."""
        return [x, tool_call_id, config["configurable"]["thread_id"], optional]

    registry = registry_from(identify)
    assert langchain_tools(registry) == [identify]
    assert registry.tools()[0].signature == "identify(x: int)"
    runner = code_tool(sandbox, registry)
    request = call_of(runner, code="return [identify(x=n) for n in range(3)]")
    message = await runner.ainvoke(request, {"configurable": {"thread_id": "t-1"}})
    rows = message.artifact.value
    assert [(row[0], row[2], row[3]) for row in rows] == [(n, "t-1", None) for n in range(3)]
    assert len({row[1] for row in rows}) == 3


async def test_a_call_has_its_id_where_langchain_has_no_model_to_fill_it_into(sandbox: CodeSandbox) -> None:
    def identify(own: Annotated[str, InjectedToolCallId]) -> bool:
        return own.startswith("call_")

    schema = {"type": "object", "properties": {}}
    remote = StructuredTool(name="identify", description="Tell.", func=identify, args_schema=schema)
    assert await value_of(sandbox, "return identify()", remote) is True


async def test_what_langgraph_injects_is_neither_seen_nor_set(sandbox: CodeSandbox) -> None:
    """With langgraph's own markers where it is installed, else with markers that derive from the same classes."""
    if find_spec("langgraph") is None:
        from langchain_core.tools.base import _DirectlyInjectedToolArg

        class Direct(_DirectlyInjectedToolArg):
            pass

        state, store, runtime = Marker(), Marker, Direct
    else:
        prebuilt: Any = import_module("langgraph.prebuilt")
        state, store, runtime = prebuilt.InjectedState("messages"), prebuilt.InjectedStore, prebuilt.ToolRuntime
    seen: list[Any] = []

    def use(x: int, state: Any, store: Any, runtime: Any) -> int:
        seen.append((state, store, runtime))
        return x

    use.__annotations__ = {
        "x": int,
        "state": Annotated[Any, state],
        "store": Annotated[Any, store],
        "runtime": runtime,
        "return": int,
    }
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "additionalProperties": True}
    used = StructuredTool(name="use", description="Use.", func=use, args_schema=schema)
    values = {"state": ["m"], "store": "the store", "runtime": "the runtime"}
    registry = registry_from(used, injected=values)
    assert "use(x: int = ..., **more)" in format_tools_for_llm(registry)
    for name in values:
        result = await sandbox.execute(f"return use(x=1, {name}='forged')", registry)
        assert result.error is not None
        assert f"'{name}' is not for programs to set" in result.error.message
    assert (await sandbox.execute("return use(x=1)", registry)).value == 1
    assert seen == [(["m"], "the store", "the runtime")]


# Toolkits, names and metadata


class Numbers(BaseToolkit):
    start: int

    def get_tools(self) -> list[BaseTool]:
        def nth(n: int) -> int:
            return self.start + n

        async def between(low: int, high: int) -> list[int]:
            return list(range(self.start + low, self.start + high))

        return [
            StructuredTool.from_function(nth, description="The nth.", tags=["math"]),
            StructuredTool.from_function(coroutine=between, description="All between."),
        ]


async def test_a_toolkit_is_one_call_and_its_tools_work_together_with_others(sandbox: CodeSandbox) -> None:
    def double(n: int) -> int:
        """Twice a number."""
        return 2 * n

    registry = registry_from(Numbers(start=10), namespace="numbers", capabilities=[ToolCapability.READ_ONLY])
    assert registry_from([double, [sync_function(lambda: 7)]], registry=registry) is registry
    assert [(t.full_name, t.metadata.source, t.metadata.source_name) for t in registry.tools()] == [
        ("numbers.nth", "langchain", "Numbers"),
        ("numbers.between", "langchain", "Numbers"),
        ("default.double", "langchain", None),
        ("default.give", "langchain", None),
    ]
    nth, between = registry.tools()[:2]
    assert nth.metadata.tags == {"math"}
    assert nth.metadata.capabilities == {ToolCapability.READ_ONLY}
    assert (nth.is_async, between.is_async) == (False, True)
    program = "return [double(n=m) for m in await numbers.between(0, 3)] + [numbers.nth(5), give()]"
    assert (await sandbox.execute(program, registry)).value == [20, 22, 24, 15, 7]


async def test_extras_tags_and_return_direct_are_noted() -> None:
    @tool(
        return_direct=True,
        extras={
            "defer_loading": True,
            "allowed_callers": ["sandbox"],
            "input_examples": [{"n": 1}],
            "strict": True,
            "cache_control": {"type": "ephemeral"},
        },
    )
    def show(n: int) -> str:
        """Show it."""
        return str(n)

    show.tags = ["ui"]
    show.metadata = {"team": "front"}
    made = tool_from(show)
    assert made.metadata.description.splitlines()[0] == "Show it."
    assert "return it unchanged" in made.metadata.description
    assert made.metadata.defer_loading
    assert made.metadata.strict
    assert made.metadata.allowed_callers == ["sandbox"]
    assert made.metadata.examples == [{"n": 1}]
    assert made.metadata.tags == {"ui"}
    assert made.implementation is show
    assert tool_from(show, defer_loading=False, tags=["mine"]).metadata.tags == {"mine"}


async def test_names_that_are_no_identifiers_can_be_called(sandbox: CodeSandbox) -> None:
    dashed = StructuredTool.from_function(lambda q: [q], name="duck-search", description="Search.", args_schema=None)
    spaced = SingleInputTool(name="Python REPL", func=lambda q: q, description="Run.")
    assert await value_of(sandbox, "return duck_search(q='a'), Python_REPL('b')", dashed, spaced) == (["a"], "b")


@pytest.mark.parametrize("wrong", [3, "search", {"a": 1}, [None], int], ids=str)
async def test_what_is_no_tool_is_refused(wrong: Any) -> None:
    with pytest.raises(RegistrationError, match="is no LangChain tool"):
        registry_from(wrong)


async def test_the_same_name_twice_is_refused() -> None:
    with pytest.raises(RegistrationError, match="registered already"):
        registry_from([sync_function(lambda: 1), sync_function(lambda: 2)])


async def test_a_tool_is_not_registered_a_second_time_with_other_injected_values() -> None:
    marked = Ledger().tools[0]
    registry = registry_from(marked, injected={"user": "ann"})
    with pytest.raises(RegistrationError, match="registered already"):
        registry_from(marked, injected={"user": "bob"}, registry=registry)
    plain = sync_function(lambda: 1)
    assert len(registry_from(plain, registry=registry_from(plain)).tools()) == 1


async def test_a_tool_that_counts_keeps_its_count(sandbox: CodeSandbox) -> None:
    class Counter(BaseTool):
        name: str = "count"
        description: str = "Count."
        n: int = 0

        def _run(self) -> int:
            self.n += 1
            return self.n

    counter = Counter()
    assert await value_of(sandbox, "return [count() for _ in range(3)]", counter) == [1, 2, 3]
    assert counter.n == 3


# Retrievers


class Shelf(BaseRetriever):
    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [document for document in self.documents if query in document.page_content]


SHELF = Shelf(
    documents=[
        Document(page_content=f"{kind} number {n}", metadata={"n": n}) for kind in ("cat", "dog") for n in (1, 2)
    ]
)


async def test_a_retriever_gives_text_or_documents(sandbox: CodeSandbox) -> None:
    as_text = create_retriever_tool(SHELF, "look", "Look up.")
    assert await value_of(sandbox, "return look('cat')", as_text) == "cat number 1\n\ncat number 2"
    found = create_retriever_tool(SHELF, "find", "Find.", response_format="content_and_artifact")
    program = "return [(d.page_content, d['metadata']['n']) for d in find(query='dog')]"
    assert await value_of(sandbox, program, found) == [("dog number 1", 1), ("dog number 2", 2)]
    assert await value_of(sandbox, "return find(query='cow')", found) == []


# Traces


class Traces(BaseCallbackHandler):
    """Notes every run with its parent."""

    def __init__(self) -> None:
        self.runs: dict[uuid.UUID, tuple[str, uuid.UUID | None]] = {}
        self.ended: dict[uuid.UUID, Any] = {}
        self.inputs: dict[str, Any] = {}
        self.marks: dict[str, tuple[Any, Any]] = {}
        self.lock = threading.Lock()

    def _note(self, name: str, run_id: uuid.UUID, parent: uuid.UUID | None) -> None:
        with self.lock:
            self.runs[run_id] = (name, parent)

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: uuid.UUID, **rest: Any) -> None:
        self._note(rest.get("name") or "chain", run_id, rest.get("parent_run_id"))

    def on_tool_start(self, serialized: Any, input_str: str, *, run_id: uuid.UUID, **rest: Any) -> None:
        self._note(serialized["name"], run_id, rest.get("parent_run_id"))
        self.inputs[serialized["name"]] = rest.get("inputs")
        self.marks[serialized["name"]] = rest.get("tags"), rest.get("metadata")

    def on_retriever_start(self, serialized: Any, query: str, *, run_id: uuid.UUID, **rest: Any) -> None:
        self._note("retriever", run_id, rest.get("parent_run_id"))

    def on_tool_end(self, output: Any, *, run_id: uuid.UUID, **rest: Any) -> None:
        self.ended[run_id] = output

    def on_tool_error(self, error: BaseException, *, run_id: uuid.UUID, **rest: Any) -> None:
        self.ended[run_id] = error

    def lines(self) -> list[str]:
        """Each run as the path of names that leads to it."""

        def path(run: uuid.UUID | None) -> str:
            if run is None:
                return ""
            name, parent = self.runs[run]
            return f"{path(parent)}/{name}"

        return sorted(map(path, self.runs))


def traced_tools() -> ToolRegistry:
    @tool
    def plain(x: int) -> int:
        """Blocks."""
        return x

    @tool
    async def inner(x: int, user: Annotated[str, InjectedToolArg]) -> int:
        """Asynchronous."""
        return x

    @tool
    async def outer(x: int) -> int:
        """Calls another tool itself."""
        return int(await inner.ainvoke({"x": x, "user": SECRET}))

    @tool
    def fail() -> None:
        """Fails."""
        raise ToolException("no")

    fail.handle_tool_error = True
    plain.tags, plain.metadata = ["slow"], {"team": "back"}
    look = create_retriever_tool(SHELF, "look", "Look up.")
    return registry_from([plain, inner, outer, fail, look], injected={"user": SECRET})


TRACED = """
import asyncio
await asyncio.gather(plain(x=1), inner(x=2), outer(x=3), look(query='cat'))
try:
    fail()
except Exception:
    return plain(x=4)
"""
PATHS = [
    "/run_code",
    "/run_code/fail",
    "/run_code/inner",
    "/run_code/look",
    "/run_code/look/retriever",
    "/run_code/outer",
    "/run_code/outer/inner",
    "/run_code/plain",
    "/run_code/plain",
]


async def test_inner_calls_nest_below_the_program_in_an_asynchronous_run(sandbox: CodeSandbox) -> None:
    traces = Traces()
    runner = code_tool(sandbox, traced_tools())
    message = await runner.ainvoke(call_of(runner, code=TRACED), {"callbacks": [traces]})
    assert message.artifact.value == 4, message.content
    assert traces.lines() == PATHS
    assert traces.ended.keys() == {run for run, (name, _) in traces.runs.items() if name != "retriever"}
    [failed] = [ended for run, ended in traces.ended.items() if traces.runs[run][0] == "fail"]
    assert isinstance(failed, ToolException)
    assert traces.inputs["inner"] == {"x": 3} or traces.inputs["inner"] == {"x": 2}
    tags, metadata = traces.marks["plain"]
    assert "slow" in tags
    assert metadata["team"] == "back"
    assert SECRET not in str(traces.inputs)


def test_inner_calls_nest_below_the_program_in_a_run_that_is_not_asynchronous() -> None:
    traces = Traces()
    with CodeSandbox() as sandbox:
        runner = code_tool(sandbox, traced_tools())
        message = runner.invoke(call_of(runner, code=TRACED), {"callbacks": [traces]})
    assert message.artifact.value == 4, message.content
    assert traces.lines() == PATHS


async def test_each_of_several_runs_at_once_has_its_own_calls_below_it(sandbox: CodeSandbox) -> None:
    traces = Traces()
    registry = traced_tools()

    async def step(n: int) -> Any:
        return (await sandbox.execute(f"return plain(x={n}) + await inner(x={n})", registry)).value

    chain = RunnableLambda(step, name="step")
    values = await asyncio.gather(
        *(chain.ainvoke(n, {"callbacks": [traces], "run_name": f"step{n}"}) for n in range(4))
    )
    assert values == [0, 2, 4, 6]
    assert traces.lines() == sorted(f"/step{n}{rest}" for n in range(4) for rest in ("", "/plain", "/inner"))


async def test_the_programs_of_a_session_nest_each_below_its_own_run(sandbox: CodeSandbox) -> None:
    traces = Traces()
    async with sandbox.session(traced_tools()) as session:

        async def step(code: str) -> Any:
            return (await session.execute(code)).value

        chain = RunnableLambda(step)
        for n, code in enumerate(("y = plain(x=1)", "return y + await inner(x=2) + plain(x=3)")):
            await chain.ainvoke(code, {"callbacks": [traces], "run_name": f"step{n}"})
    assert traces.lines() == ["/step0", "/step0/plain", "/step1", "/step1/inner", "/step1/plain"]


# Concurrency


async def test_asynchronous_tools_that_are_gathered_run_together(sandbox: CodeSandbox) -> None:
    barrier = asyncio.Barrier(8)

    @tool
    async def meet(n: int) -> int:
        """Waits until eight are there."""
        async with asyncio.timeout(10), barrier:
            return n

    program = "import asyncio\nreturn await asyncio.gather(*[meet(n=n) for n in range(8)])"
    assert await value_of(sandbox, program, meet) == list(range(8))


async def test_blocking_tools_that_are_gathered_run_together_and_the_loop_goes_on(sandbox: CodeSandbox) -> None:
    barrier = threading.Barrier(17)

    @tool
    def meet(n: int) -> int:
        """Waits until all are there."""
        barrier.wait(10)
        return n

    async def join() -> None:  # the loop is alive only if it can start the last one
        await asyncio.to_thread(barrier.wait, 10)

    program = "import asyncio\nreturn await asyncio.gather(*[meet(n=n) for n in range(16)])"
    values, _ = await asyncio.gather(value_of(sandbox, program, meet), join())
    assert values == list(range(16))


async def test_values_of_many_calls_of_one_tool_are_not_mixed_up(sandbox: CodeSandbox) -> None:
    @tool(response_format="content_and_artifact")
    async def echo(n: int) -> tuple[str, dict[str, int]]:
        """Echo."""
        await asyncio.sleep(0)
        return f"{n}", {"n": n}

    program = "import asyncio\nreturn [r['n'] for r in await asyncio.gather(*[echo(n=n) for n in range(100)])]"
    assert await value_of(sandbox, program, echo) == list(range(100))


# The way out


def prices() -> ToolRegistry:
    registry = create_registry()

    class Price(BaseModel):
        item: str
        euros: float

    async def price(item: str) -> Price:
        """Price of an item."""
        if item == "gold":
            raise LookupError("no gold")
        return Price(item=item, euros=0.5)

    def names(limit: int = 2) -> list[str]:
        """Names."""
        return ["apple", "pear"][:limit]

    def secret() -> None:
        """Not for models."""

    registry.add(price, tags=["shop"])
    registry.add(names)
    registry.add(secret, allowed_callers=["sandbox"])
    registry.add(names, name="later", defer_loading=True)
    return registry


async def test_registered_tools_serve_langchain_in_both_kinds_of_run() -> None:
    price, names = langchain_tools(prices())
    assert (price.name, price.description, price.tags) == ("price", "Price of an item.", ["shop"])
    assert price.args == {"item": {"type": "string"}}
    for message in (await price.ainvoke(call_of(price, item="pear")), price.invoke(call_of(price, item="pear"))):
        assert message.content == '{"item":"pear","euros":0.5}'
        assert message.artifact.euros == 0.5
        assert message.status == "success"
    for message in (await names.ainvoke(call_of(names, limit=1)), names.invoke(call_of(names, limit="1"))):
        assert (message.content, message.artifact) == ('["apple"]', ["apple"])


async def test_arguments_that_do_not_fit_come_back_to_the_model_and_other_errors_to_the_host() -> None:
    price, names = langchain_tools(prices())
    for broken, arguments in ((price, {}), (names, {"limit": "many"}), (names, {"max": 1})):
        for message in (
            await broken.ainvoke(call_of(broken, **arguments)),
            broken.invoke(call_of(broken, **arguments)),
        ):
            assert message.status == "error"
            assert f"It is called as {broken.name}(" in message.content
    with pytest.raises(LookupError, match="no gold"):
        await price.ainvoke({"item": "gold"})
    with pytest.raises(LookupError, match="no gold"):
        price.invoke({"item": "gold"})


async def test_a_blocking_tool_does_not_hold_up_langchains_loop() -> None:
    barrier = threading.Barrier(3)

    def meet() -> int:
        """Meet."""
        return barrier.wait(10)

    [made] = langchain_tools([meet])
    async with asyncio.timeout(15):
        answers = await asyncio.gather(*(made.ainvoke({}) for _ in range(3)))
    assert sorted(answers) == ["0", "1", "2"]


async def test_names_of_several_namespaces_stay_apart() -> None:
    registry = create_registry()
    for namespace in ("sales", "stock"):
        registry.add(sorted, name="get", namespace=namespace)
    registry.add(sorted, name="sales_get")
    assert sorted(one.name for one in langchain_tools(registry)) == ["sales_get", "sales_get_2", "stock_get"]


async def test_a_registry_goes_to_langchain_and_back(sandbox: CodeSandbox) -> None:
    registry = prices()
    out = langchain_tools(registry)
    back = registry_from(out)
    assert [t.implementation for t in back.tools()] == [t.implementation for t in registry.tools()[:2]]
    assert [t.metadata for t in back.tools()] == [t.metadata for t in registry.tools()[:2]]
    assert format_tools_for_llm(back) == format_tools_for_llm([*registry.tools()[:2]])
    result = await sandbox.execute("return price('pear').euros, names()", back)
    assert result.value == (0.5, ["apple", "pear"]), result.for_model()
    again = langchain_tools(back)
    assert [one.name for one in again] == ["price", "names"]
    assert all(isinstance(one, ToolchordTool) and isinstance(one.wrapped, Tool) for one in again)


async def test_langchains_tools_go_through_a_registry_and_come_back_themselves() -> None:
    given = Numbers(start=1).get_tools()
    assert [id(one) for one in langchain_tools(registry_from(given))] == [id(one) for one in given]
    [renamed] = langchain_tools([tool_from(given[0], name="other")])
    assert (renamed.name, renamed.invoke({"n": 2})) == ("other", "3")
    ledger = Ledger()
    [filled] = langchain_tools(registry_from(ledger.tools[0], injected={"user": SECRET}))
    assert filled.args.keys() == {"x"}
    assert await filled.ainvoke({"x": 1}) == "1"
    assert ledger.users == [SECRET]


# The one tool


async def test_the_code_tool_tells_of_its_tools_and_answers_with_the_result(sandbox: CodeSandbox) -> None:
    runner = code_tool(sandbox, registry_from(Numbers(start=10)))
    assert runner.name == "run_code"
    assert runner.args.keys() == {"code"}
    assert "async def nth(n: int) -> int" in runner.description
    message = await runner.ainvoke(call_of(runner, code="return sum(await between(0, 4)) + nth(1)"))
    assert message.content == "57"
    assert isinstance(message.artifact, ExecutionResult)
    assert [record.tool for record in message.artifact.calls] == ["default.between", "default.nth"]


async def test_a_failed_program_is_an_answer(sandbox: CodeSandbox) -> None:
    runner = code_tool(sandbox, max_chars=300, limits=Limits(tool_calls=0))
    message = await runner.ainvoke(call_of(runner, code="x = 1\nreturn x / 0"))
    assert not message.artifact.ok
    assert message.content == message.artifact.for_model(300)
    assert "ZeroDivisionError (line 2)" in message.content
    cut = await runner.ainvoke(call_of(runner, code="return 'x' * 1000"))
    assert len(cut.artifact.value) == 1000
    assert len(cut.content) <= 300
    assert "search_tools" in runner.description


# The frame


def python(program: str) -> str:
    ran = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_without_langchain_the_import_says_what_to_install() -> None:
    said = python(
        "import sys\nsys.modules['langchain_core'] = None\n"
        "try:\n    import toolchord_langchain\nexcept ImportError as error:\n    print(type(error).__name__, error.extra, error)"
    )
    assert said.startswith("MissingExtraError langchain ")
    assert said.endswith("pip install 'toolchord[langchain]'")


@pytest.mark.parametrize(
    "name", ["_is_injected_arg_type", "get_all_basemodel_annotations", "BaseTool._injected_args_keys"]
)
def test_a_private_name_that_has_moved_is_told_at_import(name: str) -> None:
    said = python(
        f"from langchain_core.tools import base\ndel base.{name}\n"
        "from toolchord.errors import ConfigurationError\n"
        "try:\n    import toolchord_langchain\nexcept ConfigurationError as error:\n    print(error)"
    )
    assert f"has no {name.rpartition('.')[2]}" in said


def markers() -> Iterator[tuple[Any, bool]]:
    from langchain_core.tools.base import _DirectlyInjectedToolArg

    yield _DirectlyInjectedToolArg, True
    yield Annotated[str, InjectedToolArg], True
    yield Annotated[str, InjectedToolCallId()], True
    yield Annotated[str, "a note"], False
    yield str, False


@pytest.mark.parametrize(("hint", "injected"), list(markers()), ids=["direct", "mark", "call id", "note", "plain"])
def test_the_private_names_still_mean_what_they_meant(hint: Any, injected: bool) -> None:
    from toolchord_langchain import private

    def use(x: Any) -> None:
        """Use."""

    use.__annotations__ = {"x": hint}
    schema = {"type": "object", "properties": {}}
    used = StructuredTool(name="use", description="Use.", func=use, args_schema=schema)
    assert private.is_injected(hint) is injected
    assert private.injected_parameters(used) == ({"x"} if injected else set())
    assert used._injected_args_keys == ({"x"} if injected else set())


async def test_written_arguments_are_judged_before_a_program_runs() -> None:
    called: list[int] = []

    @tool
    def double(n: int) -> int:
        """Twice as much."""
        called.append(n)
        return 2 * n

    class Loose(BaseModel):
        n: int

        @field_validator("n", mode="before")
        @classmethod
        def _any(cls, value: Any) -> int:
            return 7

    @tool(args_schema=Loose)
    def loose(n: int) -> int:
        """Take anything."""
        return n

    async with CodeSandbox(registry_from([double, loose])) as sandbox:
        refused = await sandbox.execute("double(n=1)\ndouble(n='many')")
        assert refused.error is not None
        assert (refused.error.kind, refused.error.line, called) == ("refused", 2, [])
        assert "n: expected integer, got str 'many'" in refused.error.message
        assert (await sandbox.execute("return double(n='4'), loose(n='many')")).value == (8, 7)
