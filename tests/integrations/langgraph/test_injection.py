# ruff: noqa: E501  (a program is kept on one line)
"""Injected arguments belong to the host: no trick of a program sets one, and none gets to see one.

Each trick is a program, run against one tool of each kind of injection. The tools write down what they were given.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from langchain_core.messages import AnyMessage
from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId, StructuredTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import StateGraph, add_messages
from langgraph.prebuilt import InjectedState, InjectedStore, ToolRuntime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from tests.integrations.langgraph.bench import HOW
from tests.integrations.langgraph.graphs import Script, calls, thread, tool_messages
from toolchord import CodeSandbox, Limits
from toolchord_langgraph import CodeOrchestrator

SECRET = "S3CRET"
FORGED = "FORGED"


class Vault(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    vault: str


@dataclass
class Context:
    key: str


class Ledger:
    """What the tools were given, and whether it was the host's."""

    def __init__(self, store: BaseStore) -> None:
        self.store = store
        self.rows: list[tuple[str, int, bool]] = []

    def note(self, tool: str, a: int, genuine: bool) -> str:
        self.rows.append((tool, a, genuine))
        return f"{tool} {a}"


class Hidden(BaseModel):
    """Arguments whose injected one has an alias."""

    model_config = ConfigDict(populate_by_name=True)
    a: int
    hidden_field: Annotated[str, InjectedState("vault")] = Field(default="", alias="hiddenField")


class Open(BaseModel):
    """Arguments that may be any, one of which is injected."""

    model_config = ConfigDict(extra="allow")
    a: int
    hidden_open: Annotated[str, InjectedState("vault")] = ""


class Named(BaseModel):
    """Arguments of which one has a name that langgraph knows."""

    a: int
    runtime: Any = None


def tools_for(ledger: Ledger) -> dict[str, tuple[BaseTool, str]]:
    """One tool of each kind, with the name of what is injected."""

    def whole(a: int, hidden_state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Use the whole state."""
        return ledger.note(
            "whole", a, isinstance(hidden_state, dict) and hidden_state.get("vault") == f"{SECRET} state"
        )

    def part(a: int, hidden_part: Annotated[str, InjectedState("vault")]) -> str:
        """Use a part of the state."""
        return ledger.note("part", a, hidden_part == f"{SECRET} state")

    def maybe(a: int, hidden_maybe: Annotated[str | None, InjectedState("vault")] = f"{SECRET} default") -> str:
        """Use a part of the state that may be missing."""
        return ledger.note("maybe", a, hidden_maybe == f"{SECRET} state")

    def stored(a: int, hidden_store: Annotated[BaseStore, InjectedStore()]) -> str:
        """Use the store."""
        return ledger.note("stored", a, hidden_store is ledger.store)

    def running(a: int, hidden_runtime: ToolRuntime[Context, Any]) -> str:
        """Use all that runs."""
        genuine = isinstance(hidden_runtime, ToolRuntime) and hidden_runtime.context.key == f"{SECRET} context"
        return ledger.note("running", a, genuine and hidden_runtime.state["vault"] == f"{SECRET} state")

    def named(a: int, runtime=None) -> str:  # type: ignore[no-untyped-def]
        """Use what langgraph gives."""
        return ledger.note("named", a, isinstance(runtime, ToolRuntime) and runtime.context.key == f"{SECRET} context")

    def bare(a: int, runtime) -> str:  # type: ignore[no-untyped-def]
        """Use what langgraph gives by its name alone."""
        return ledger.note("bare", a, isinstance(runtime, ToolRuntime) and runtime.context.key == f"{SECRET} context")

    def custom(a: int, hidden_user: Annotated[str, InjectedToolArg] = f"{SECRET} user") -> str:
        """Use what only the host may set."""
        return ledger.note("custom", a, hidden_user == f"{SECRET} user")

    def identified(a: int, hidden_id: Annotated[str, InjectedToolCallId]) -> str:
        """Use the id of the call."""
        return ledger.note("identified", a, re.fullmatch(r"c\d+:\d+", hidden_id) is not None)

    def modelled(a: int, hidden_field: str) -> str:
        """Use a part of the state, by a model."""
        return ledger.note("modelled", a, hidden_field == f"{SECRET} state")

    def open_(a: int, hidden_open: str, **more: Any) -> str:
        """Take anything else, too."""
        return ledger.note("open_", a, hidden_open == f"{SECRET} state")

    made: list[tuple[Callable[..., Any], str, dict[str, Any]]] = [
        (whole, "hidden_state", {}),
        (part, "hidden_part", {}),
        (maybe, "hidden_maybe", {}),
        (stored, "hidden_store", {}),
        (running, "hidden_runtime", {}),
        (named, "runtime", {"args_schema": Named}),
        (bare, "runtime", {}),
        (custom, "hidden_user", {}),
        (identified, "hidden_id", {}),
        (modelled, "hidden_field", {"args_schema": Hidden}),
        (open_, "hidden_open", {"args_schema": Open}),
    ]
    return {
        one.__name__: (StructuredTool.from_function(func=one, **options), argument) for one, argument, options in made
    }


# Programs that are refused before they run, or may be: each is run alone. The others are all tried in one program.
ALONE = {
    "one dict",
    "nested dict",
    "dict of arguments",
    "fields of a call",
    "config",
    "call_tool with a dict",
    "keyword",
    "positional",
    "more positional",
    "double star",
    "wide letters",
    "call_tool",
    "set defaults",
    "inspect",
    "globals",
}

# {t} is the tool, {arg} its injected argument; {wide} is {arg} in wide letters, {camel} in camel case.
TRICKS = {
    "keyword": """return await {t}(a=1, {arg}="FORGED")""",
    "positional": """return await {t}(1, "FORGED")""",
    "more positional": """return await {t}(1, "FORGED", "FORGED", "FORGED")""",
    "star": """args = (1, "FORGED")\nreturn await {t}(*args)""",
    "double star": """return await {t}(**{{"a": 1, "{arg}": "FORGED"}})""",
    "computed key": """key = "{arg}"[:2] + "{arg}"[2:]\nreturn await {t}(**{{"a": 1, key: "FORGED"}})""",
    "one dict": """return await {t}({{"a": 1, "{arg}": "FORGED"}})""",
    "a computed dict": """given = dict(a=1)\ngiven["{arg}"] = "FORGED"\nreturn await {t}(given)""",
    "alias": """return await {t}(**{{"a": 1, "{camel}": "FORGED"}})""",
    "wide letters": """return await {t}(a=1, {wide}="FORGED")""",
    "wide letters in a dict": """return await {t}(**{{"a": 1, "{wide}": "FORGED"}})""",
    "upper case": """return await {t}(**{{"a": 1, "{arg}".upper(): "FORGED"}})""",
    "padded": """return await {t}(**{{"a": 1, " {arg}": "FORGED", "{arg} ": "FORGED", "{arg}\\0": "FORGED"}})""",
    "nested dict": """return await {t}(a={{"a": 1, "{arg}": "FORGED"}})""",
    "dict of arguments": """return await {t}(a=1, kwargs={{"{arg}": "FORGED"}}, args=["FORGED"], input={{"{arg}": 1}})""",
    "fields of a call": """return await {t}(a=1, id="FORGED", tool_call_id="FORGED", type="tool_call", name="FORGED")""",
    "config": """return await {t}(a=1, config={{"configurable": {{"{arg}": "FORGED"}}}}, state={{"vault": "FORGED"}})""",
    "call_tool": """return await call_tool("{t}", a=1, {arg}="FORGED")""",
    "call_tool with a dict": """return await call_tool("{t}", {{"a": 1, "{arg}": "FORGED"}})""",
    "call_tool by path": """return await call_tool("default.{t}", **{{"a": 1, "{arg}": "FORGED"}})""",
    "getattr": """return await getattr({t}, "__call__")(a=1, {arg}="FORGED")""",
    "attributes of the function": (
        """seen = []\nfor name in ("func", "__wrapped__", "__self__", "__globals__", "__closure__", "__code__", "_tool"):\n"""
        """    try:\n        seen.append(getattr({t}, name))\n    except Exception as error:\n        seen.append(str(error))\n"""
        """await {t}(a=1)\nreturn repr(seen)"""
    ),
    "set an attribute": """{t}.{arg} = "FORGED"\nreturn await {t}(a=1)""",
    "set defaults": """{t}.__kwdefaults__ = {{"{arg}": "FORGED"}}\nreturn await {t}(a=1)""",
    "default of a lambda": """f = lambda a=1, {arg}="FORGED": {t}(**{{"a": a, "{arg}": {arg}}})\nreturn await f()""",
    "partial": """import functools\nreturn await functools.partial({t}, {arg}="FORGED")(a=1)""",
    "gather": (
        """import asyncio\nmade = await asyncio.gather({t}(a=1), {t}(a=2, **{{"{arg}": "FORGED"}}), {t}(a=3),"""
        """ return_exceptions=True)\nreturn [str(one) for one in made]"""
    ),
    "map": """return [await one for one in map(lambda n: {t}(a=n, **{{"{arg}": "FORGED"}}), [1, 2])]""",
    "again after an error": (
        """said = []\nfor given in ({{"{arg}": "FORGED"}}, {{"{arg}": None}}, {{"{arg}": {{}}}}, {{}}):\n"""
        """    try:\n        said.append(await {t}(**{{"a": 1, **given}}))\n"""
        """    except Exception as error:\n        said += [str(error), repr(error), repr(error.args)]\nreturn said"""
    ),
    "a dict of its own kind": (
        """class Both(dict):\n    def keys(self):\n        return ["a", "{arg}"]\n"""
        """    def __getitem__(self, key):\n        return 1 if key == "a" else "FORGED"\nreturn await {t}(**Both())"""
    ),
    "all names": """return await {t}(a=1, **{{name: "FORGED" for name in {everything}}})""",
    "signature and docs": """await {t}(a=1)\nreturn [{t}.__doc__, repr({t}), str({t}), getattr({t}, "__annotations__", None)]""",
    "inspect": """import inspect\nreturn str(inspect.signature({t}))""",
    "describe_tool": """await {t}(a=1)\nreturn [await describe_tool("{t}"), await search_tools("{t} hidden state secret")]""",
    "error of a wrong argument": (
        """said = []\nfor wrong in ("x", None, [], {{}}):\n    try:\n        await {t}(**{{"a": wrong}})\n"""
        """    except Exception as error:\n        said += [str(error), repr(error), repr(error.args)]\nreturn said"""
    ),
    "error of a missing argument": """try:\n    await {t}(**{{}})\nexcept Exception as error:\n    return str(error)""",
    "print": """print(await {t}(a=1))\nprint({t})\nprint(dir())""",
    "globals": """await {t}(a=1)\nreturn [str(globals()), str(locals()), str(vars())]""",
    "traceback": (
        """import traceback\ntry:\n    await {t}(**{{"a": 1, "{arg}": "FORGED"}})\n"""
        """except Exception as error:\n    return traceback.format_exc()"""
    ),
    "format": (
        """said = []\nfor text in ("{{0.__globals__}}", "{{0.__self__}}", "{{0.__dict__}}", "{{0.__class__.__init__}}"):\n"""
        """    try:\n        said.append(text.format({t}))\n    except Exception as error:\n        said.append(str(error))\n"""
        """await {t}(a=1)\nreturn said"""
    ),
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[CodeSandbox]:
    with CodeSandbox(limits=Limits(wall_time=60)) as sandbox:
        yield sandbox


async def run(sandbox: CodeSandbox, how: str, code: Callable[[str, str], str]) -> tuple[Ledger, Any, Script, list[Any]]:
    """Run a program for each tool, side by side in one step."""
    store = InMemoryStore()
    store.put(("vault",), "key", {"value": f"{SECRET} item"})
    ledger = Ledger(store)
    tools = tools_for(ledger)
    node = CodeOrchestrator([tool for tool, _ in tools.values()], sandbox=sandbox)
    made = [("run_code", {"code": code(name, argument)}) for name, (_, argument) in tools.items()]
    model = Script(turns=[calls(*made), "done"])
    builder = StateGraph(Vault, context_schema=Context)
    builder.add_node("model", lambda s: {"messages": [model.bind_tools(node.model_tools).invoke(s["messages"])]})
    builder.add_node("tools", node)
    builder.set_entry_point("model")
    builder.add_conditional_edges("model", lambda s: "tools" if s["messages"][-1].tool_calls else "__end__")
    builder.add_edge("tools", "model")
    graph: Any = builder.compile(checkpointer=InMemorySaver(), store=store)
    given: Any = {"messages": [("user", "go")], "vault": f"{SECRET} state"}
    modes: Any = ["values", "custom", "updates", "tools"]
    options: Any = {"stream_mode": modes, "context": Context(f"{SECRET} context")}
    if how == "sync":
        chunks = list(graph.stream(given, thread(), **options))
    else:
        chunks = [chunk async for chunk in graph.astream(given, thread(), **options)]
    last = [chunk for mode, chunk in chunks if mode == "values"][-1]
    shown = [chunk for mode, chunk in chunks if mode in ("custom", "updates")]
    shown += [told for mode, told in chunks if mode == "tools" and told["event"] != "tool-started"]
    return ledger, last, model, shown


@pytest.mark.parametrize("how", HOW)
async def test_what_is_injected_reaches_every_tool(sandbox: CodeSandbox, how: str) -> None:
    ledger, last, _, _ = await run(sandbox, how, lambda tool, _: f"return [await {tool}(a=1), await {tool}(2)]")
    answers = [json.loads(message.text) for message in tool_messages(last)]
    names = list(tools_for(ledger))
    assert answers == [[f"{name} 1", f"{name} 2"] for name in names]
    assert sorted(ledger.rows) == sorted((name, a, True) for name in names for a in (1, 2))


def written(trick: str, tool: str, argument: str) -> str:
    """The program of a trick, for a tool."""
    first, *rest = argument.split("_")
    return TRICKS[trick].format(
        t=tool,
        arg=argument,
        wide="".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in argument),
        camel=first + "".join(map(str.capitalize, rest)),
        everything=sorted({argument for _, argument in tools_for(Ledger(InMemoryStore())).values()}),
    )


def check_nothing_got_through(ledger: Ledger, last: Any, model: Script, shown: list[Any]) -> None:
    messages = list(tool_messages(last))
    assert len(messages) == len(tools_for(ledger))
    assert all(genuine for _, _, genuine in ledger.rows), ledger.rows
    for message in messages:
        assert SECRET not in message.text
        assert not re.search(r"\bc\d+:\d+\b", message.text), message.text
        assert SECRET not in repr(message.artifact)
    assert SECRET not in repr(shown)
    assert SECRET not in repr(model.asked)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("trick", sorted(ALONE))
async def test_no_trick_sets_or_reads_what_is_injected(sandbox: CodeSandbox, trick: str, how: str) -> None:
    ledger, last, model, shown = await run(sandbox, how, lambda tool, argument: written(trick, tool, argument))
    check_nothing_got_through(ledger, last, model, shown)


@pytest.mark.parametrize("how", HOW)
async def test_no_trick_of_many_in_one_program_sets_or_reads_what_is_injected(sandbox: CodeSandbox, how: str) -> None:
    tricks = [trick for trick in TRICKS if trick not in ALONE]
    assert len(tricks) >= 25

    def code(tool: str, argument: str) -> str:
        lines = ["outcomes = {}"]
        for number, trick in enumerate(tricks):
            body = textwrap.indent(written(trick, tool, argument), "    ")
            tried = (
                f"try:\n    outcome = str(await trick_{number}())\nexcept Exception as error:\n    outcome = str(error)"
            )
            lines += [f"async def trick_{number}():\n{body}", tried, f"outcomes[{trick!r}] = outcome"]
        return "\n".join([*lines, "return outcomes"])

    ledger, last, model, shown = await run(sandbox, how, code)
    check_nothing_got_through(ledger, last, model, shown)
    for message in tool_messages(last):
        assert message.artifact["ok"], message.text
        assert set(message.artifact["value"]) == set(tricks)  # every trick was tried, none ended the program
    names = {name for name, _, _ in ledger.rows}
    assert names == set(tools_for(ledger))


async def test_the_model_is_not_told_of_what_is_injected() -> None:
    ledger = Ledger(InMemoryStore())
    tools = tools_for(ledger)
    node = CodeOrchestrator([tool for tool, _ in tools.values()], exclusive=True)
    told = node.code_tool.description + json.dumps(node.code_tool.args)
    for name, (_, argument) in tools.items():
        assert f"{name}(" in told
        assert not re.search(rf"\b{argument}\b", told), f"{name}: {argument}"
    assert SECRET not in told
