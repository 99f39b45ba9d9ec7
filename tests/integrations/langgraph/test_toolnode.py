"""What langgraph's `ToolNode` does, `CodeOrchestrator` does: every public behaviour, run on both and compared.

A behaviour is a function that builds nodes and graphs on a `Bench` and asserts what comes out. It runs once with each
class, and all that its graphs gave, streamed or raised has to be the same. What is different on purpose has a test of
its own at the end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage, ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId, StructuredTool, ToolException, tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.func import task
from langgraph.graph import START, StateGraph, add_messages
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.prebuilt import InjectedState, InjectedStore, ToolNode, ToolRuntime, tools_condition
from langgraph.prebuilt.tool_node import ToolCallRequest, ToolInvocationError
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy, Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel
from typing_extensions import TypedDict

from tests.integrations.langgraph.bench import HOW, Behaviour, Bench, plain
from tests.integrations.langgraph.graphs import Script, State, calls, graph_of, program, thread
from toolchord import CodeSandbox, Limits
from toolchord.errors import ConfigurationError
from toolchord_langgraph import CodeOrchestrator

BEHAVIOURS: list[Behaviour] = []


def behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS.append(function)
    return function


@tool
def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


@tool
async def aadd(a: int, b: int = 1) -> int:
    """Add."""
    await asyncio.sleep(0)
    return a + b


@tool
def say(text: str) -> str:
    """Say."""
    return text


class Bad(ValueError):
    """What the failing tool raises."""


@tool
def fail(why: str) -> str:
    """Fail."""
    raise Bad(why)


def state(*made: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {"messages": [HumanMessage("go"), calls(*made)], "notes": []}


def giving(answer: Callable[[], Any], **options: Any) -> BaseTool:
    """A tool `give` that returns what it is told to."""

    def give() -> Any:
        return answer()

    return StructuredTool.from_function(func=give, name="give", description="Give.", **options)


def always(value: Any) -> Callable[..., Any]:
    return lambda *_: value


def commanding(command: Callable[[str], Any], name: str = "give") -> BaseTool:
    """A tool that returns what is made of its call's id."""

    def give(call_id: Annotated[str, InjectedToolCallId]) -> Any:
        return command(call_id)

    return StructuredTool.from_function(func=give, name=name, description="Give.")


GIVE: tuple[str, dict[str, Any]] = ("give", {})

# Inputs


@behaviour
async def takes_a_state_of_a_typed_dict(bench: Bench) -> None:
    found = await bench.run(bench.graph(bench.node(add)), state(("add", {"a": 1})))
    assert found.texts == ["2"]
    assert found.messages[0].tool_call_id == "c1"
    assert found.messages[0].name == "add"
    assert found.messages[0].status == "success"


@behaviour
async def takes_a_pydantic_state(bench: Bench) -> None:
    class Model(BaseModel):
        messages: Annotated[list[AnyMessage], add_messages]
        factor: int = 3

    @tool
    def times(a: int, factor: Annotated[int, InjectedState("factor")], whole: Annotated[Any, InjectedState]) -> str:
        """Multiply."""
        return f"{a * factor} {type(whole).__name__}"

    graph = bench.graph(bench.node(times), Model)
    found = await bench.run(graph, {"messages": state(("times", {"a": 2}))["messages"]})
    assert found.texts == ["6 Model"]


@behaviour
async def takes_a_dataclass_state(bench: Bench) -> None:
    @dataclass
    class Data:
        messages: Annotated[list[AnyMessage], add_messages]
        factor: int = 3

    @tool
    def times(a: int, factor: Annotated[int, InjectedState("factor")], runtime: ToolRuntime[Any, Any]) -> str:
        """Multiply."""
        return f"{a * factor} {type(runtime.state).__name__}"

    graph = bench.graph(bench.node(times), Data)
    found = await bench.run(graph, {"messages": state(("times", {"a": 2}))["messages"]})
    assert found.error is None
    assert found.texts == ["6 Data"]


@behaviour
async def takes_a_state_that_is_a_list_of_messages(bench: Bench) -> None:
    graph = bench.graph(bench.node(add), Annotated[list[AnyMessage], add_messages])
    found = await bench.run(graph, state(("add", {"a": 1}))["messages"])
    assert [message.text for message in found.value[-1:]] == ["2"]


@behaviour
async def takes_its_inputs_outside_of_a_graph_too(bench: Bench) -> None:
    node = bench.node(add)
    message = calls(("add", {"a": 1}))
    call = ToolCall(type="tool_call", id="c1", name="add", args={"a": 1})

    class Model(BaseModel):
        messages: list[Any]

    for given, wrapped in (
        ({"messages": [message]}, True),
        (Model(messages=[message]), True),
        ([HumanMessage("go"), message], False),
        ([call], True),
        ({"__type": "tool_call_with_context", "tool_call": call, "state": {"messages": []}}, True),
    ):
        found = await bench.ask(node, given)
        assert isinstance(found.value, dict) == wrapped
        [answer] = found.value["messages"] if wrapped else found.value
        assert answer.content == "2"


@behaviour
async def takes_the_latest_message_of_the_model_even_if_others_follow(bench: Bench) -> None:
    given = {"messages": [calls(("add", {"a": 1})), calls(("add", {"a": 5})), HumanMessage("wait")], "notes": []}
    found = await bench.run(bench.graph(bench.node(add)), given)
    assert found.texts == ["6"]


@behaviour
async def takes_a_message_without_calls(bench: Bench) -> None:
    found = await bench.ask(bench.node(add), {"messages": [AIMessage("nothing to do")]})
    assert found.value == {"messages": []}
    found = await bench.run(bench.graph(bench.node(add)), {"messages": [AIMessage("nothing")], "notes": []})
    assert found.error is None


@behaviour
async def refuses_an_input_without_messages(bench: Bench) -> None:
    node = bench.node(add)
    assert (await bench.ask(node, {"messages": []})).error == ("ValueError", "No message found in input")
    assert (await bench.ask(node, {})).error == ("ValueError", "No message found in input")
    assert (await bench.ask(node, [HumanMessage("go")])).error == ("ValueError", "No AIMessage found in input")
    assert (await bench.ask(node, [])).error is not None


@behaviour
async def takes_calls_by_send(bench: Bench) -> None:
    @tool
    def seen(a: int, whole: Annotated[dict[str, Any], InjectedState]) -> str:
        """See."""
        return f"{a} {len(whole['messages'])} {whole.get('notes')}"

    call = ToolCall(type="tool_call", id="c1", name="seen", args={"a": 1})
    for sent, expected in (
        ([call], "1 1 ['n']"),
        (
            {"__type": "tool_call_with_context", "tool_call": call, "state": {"messages": [1, 2], "notes": None}},
            "1 2 None",
        ),
    ):
        builder = StateGraph(State)
        builder.add_node("tools", bench.node(seen))
        builder.add_conditional_edges(START, lambda _, sent=sent: [Send("tools", sent)], ["tools"])
        found = await bench.run(builder.compile(), {"messages": [HumanMessage("go")], "notes": ["n"]})
        assert found.texts == [expected]


@behaviour
async def takes_several_sends_each_a_task(bench: Bench) -> None:
    sends = [Send("tools", [ToolCall(type="tool_call", id=f"c{n}", name="add", args={"a": n})]) for n in range(4)]
    builder = StateGraph(State)
    builder.add_node("tools", bench.node(add))
    builder.add_conditional_edges(START, lambda _: sends, ["tools"])
    found = await bench.run(builder.compile(), {"messages": [HumanMessage("go")], "notes": []}, modes=["values"])
    assert found.texts == ["1", "2", "3", "4"]


@behaviour
async def keeps_messages_under_another_key(bench: Bench) -> None:
    class Chat(TypedDict):
        chat: Annotated[list[AnyMessage], add_messages]

    node = bench.node(
        add, commanding(lambda i: Command(update={"chat": [ToolMessage("ok", tool_call_id=i)]})), messages_key="chat"
    )
    found = await bench.run(bench.graph(node, Chat), {"chat": [calls(("add", {"a": 1}))]})
    assert [message.text for message in found.value["chat"]] == ["", "2"]
    found = await bench.run(bench.graph(node, Chat), {"chat": [calls(GIVE)]})
    assert [message.text for message in found.value["chat"]] == ["", "ok"]
    assert (await bench.ask(node, {"messages": [calls(GIVE)]})).error is not None


# Several calls


@behaviour
async def answers_several_calls_in_their_order(bench: Bench) -> None:
    made = [("add", {"a": n}) if n % 2 else ("say", {"text": f"t{n}"}) for n in range(6)]
    found = await bench.run(bench.graph(bench.node(add, say)), state(*made), several=True)
    assert found.texts == ["t0", "2", "t2", "4", "t4", "6"]
    assert [message.tool_call_id for message in found.messages] == ["c1", "c2", "c3", "c4", "c5", "c6"]


@behaviour
async def runs_several_calls_at_the_same_time(bench: Bench) -> None:
    barrier, gate = threading.Barrier(3, timeout=30), asyncio.Barrier(3)

    def meet(n: int) -> int:
        barrier.wait()
        return n

    async def ameet(n: int) -> int:
        await asyncio.wait_for(gate.wait(), 30)
        return n

    both = StructuredTool.from_function(func=meet, coroutine=ameet, name="meet", description="Meet.")
    made = [("meet", {"n": n}) for n in range(3)]
    found = await bench.run(bench.graph(bench.node(both)), state(*made), several=True)
    assert found.texts == ["0", "1", "2"]


@behaviour
async def runs_both_of_two_calls_that_have_one_id(bench: Bench) -> None:
    ran: list[int] = []

    @tool
    def once(a: int) -> int:
        """Count."""
        ran.append(a)
        return a

    message = AIMessage(
        "", tool_calls=[ToolCall(type="tool_call", id="", name="once", args={"a": n}) for n in (1, 2, 2)]
    )
    found = await bench.run(bench.graph(bench.node(once)), {"messages": [message], "notes": []}, several=True)
    assert found.texts == ["1", "2", "2"]
    assert sorted(ran) == [1, 2, 2]


@behaviour
async def heeds_max_concurrency(bench: Bench) -> None:
    made = [("add", {"a": n}) for n in range(5)]
    for most in (1, 2):
        config: RunnableConfig = {"max_concurrency": most}
        found = await bench.run(bench.graph(bench.node(add)), state(*made), config, several=True)
        assert found.texts == ["1", "2", "3", "4", "5"]


@behaviour
async def lets_a_tool_have_tasks_of_its_own(bench: Bench) -> None:
    @task
    def half(a: int) -> int:
        return a // 2

    @task
    async def ahalf(a: int) -> int:
        return a // 2

    def halves(a: int) -> str:
        return str([half(a).result(), half(a + 2).result(), half(a + 4).result()])

    async def ahalves(a: int) -> str:
        return str([await ahalf(a), await ahalf(a + 2), await ahalf(a + 4)])

    both = StructuredTool.from_function(func=halves, coroutine=ahalves, name="halves", description="Halve.")
    for made in ([("halves", {"a": 2})], [("halves", {"a": 2}), ("halves", {"a": 4})]):
        found = await bench.run(
            bench.graph(bench.node(both), saver=InMemorySaver()), state(*made), thread(), several=True
        )
        assert found.texts == ["[1, 2, 3]", "[2, 3, 4]"][: len(made)]


# Results


@behaviour
async def makes_text_of_what_a_tool_returns(bench: Bench) -> None:
    class Point(BaseModel):
        x: int = 1

    expected: list[tuple[Any, Any]] = [
        ("text", "text"),
        ("12345", "12345"),
        ("", ""),
        (1, "1"),
        (1.5, "1.5"),
        (True, "true"),
        (None, "null"),
        ({"a": "ü", "b": [1]}, '{"a": "ü", "b": [1]}'),
        ([1, 2], "[1, 2]"),
        (["a", "b"], ["a", "b"]),
        ([{"type": "text", "text": "block"}], [{"type": "text", "text": "block"}]),
        (Point(), "x=1"),
        ((1, 2), "[1, 2]"),
    ]
    for value, _ in expected:
        found = await bench.run(bench.graph(bench.node(giving(always(value)))), state(GIVE))
        assert found.error is None
    texts = [
        (await bench.ask(bench.node(giving(always(value))), state(GIVE))).value["messages"][0].content
        for value, _ in expected
    ]
    assert texts[:5] == ["text", "12345", "", "1", "1.5"]
    assert texts[7] == '{"a": "ü", "b": [1]}'


@behaviour
async def keeps_artifacts(bench: Bench) -> None:
    node = bench.node(giving(lambda: ("said", {"rows": [1, 2]}), response_format="content_and_artifact"))
    found = await bench.run(bench.graph(node), state(GIVE))
    assert found.texts == ["said"]
    assert found.messages[0].artifact == {"rows": [1, 2]}
    found = await bench.run(bench.graph(node), state(GIVE, GIVE), several=True)
    assert [message.artifact for message in found.messages] == [{"rows": [1, 2]}] * 2
    wrong = bench.node(giving(lambda: "no pair", response_format="content_and_artifact"), handle_tool_errors=True)
    found = await bench.run(bench.graph(wrong), state(GIVE))
    assert found.messages[0].status == "error"


@behaviour
async def takes_messages_that_a_tool_makes_itself(bench: Bench) -> None:
    own = commanding(
        lambda i: ToolMessage("own", tool_call_id=i, artifact=[1], status="error", additional_kwargs={"k": 1})
    )
    found = await bench.run(bench.graph(bench.node(own)), state(GIVE))
    assert found.texts == ["own"]
    assert found.messages[0].status == "error"
    listed = commanding(lambda i: [ToolMessage("own", tool_call_id=i), ToolMessage("more", tool_call_id="other")])
    found = await bench.run(bench.graph(bench.node(listed)), state(GIVE))
    assert found.texts == ["own", "more"]


@behaviour
async def refuses_lists_that_do_not_answer_the_call_once(bench: Bench) -> None:
    lists: list[Callable[[str], Any]] = [
        lambda i: [ToolMessage("a", tool_call_id=i), ToolMessage("b", tool_call_id=i)],
        lambda i: [Command(update={"notes": ["x"]}), ToolMessage("b", tool_call_id="other")],
        lambda i: [Command(update={"notes": ["x"]})],
    ]
    for made in lists:
        found = await bench.run(bench.graph(bench.node(commanding(made))), state(GIVE))
        assert found.error is not None
        assert "exactly one terminating ToolMessage" in found.error[1]
        found = await bench.run(bench.graph(bench.node(commanding(made), handle_tool_errors=True)), state(GIVE))
        assert found.messages[0].status == "error"


# Commands


def ok(call_id: str) -> list[ToolMessage]:
    return [ToolMessage("ok", tool_call_id=call_id)]


@behaviour
async def applies_the_updates_of_commands_by_the_reducers(bench: Bench) -> None:
    note = commanding(lambda i: Command(update={"messages": ok(i), "notes": ["n"]}))
    found = await bench.run(bench.graph(bench.node(note)), {**state(GIVE), "notes": ["old"]})
    assert found.value["notes"] == ["old", "n"]
    assert found.texts == ["ok"]
    assert found.messages[0].name == "give"
    found = await bench.run(bench.graph(bench.node(note)), state(GIVE, GIVE, GIVE), several=True)
    assert found.value["notes"] == ["n", "n", "n"]
    assert found.texts == ["ok", "ok", "ok"]


@behaviour
async def mixes_commands_and_messages(bench: Bench) -> None:
    note = commanding(lambda i: Command(update={"messages": ok(i), "notes": ["n"]}))
    found = await bench.run(
        bench.graph(bench.node(note, add)), state(("add", {"a": 1}), GIVE, ("add", {"a": 2})), several=True
    )
    assert sorted(found.texts) == ["2", "3", "ok"]
    value = (await bench.ask(bench.node(note, add), state(("add", {"a": 1}), GIVE, ("add", {"a": 2})))).value
    assert [type(one).__name__ for one in value] == ["dict", "Command", "dict"]
    listed = commanding(lambda i: [Command(update={"notes": ["a"]}), *ok(i), Command(update={"notes": ["b"]})])
    found = await bench.run(bench.graph(bench.node(listed)), state(GIVE))
    assert found.value["notes"] == ["a", "b"]
    found = await bench.run(bench.graph(bench.node(listed)), state(GIVE, GIVE), several=True)
    assert found.value["notes"] == ["a", "b", "a", "b"]


@behaviour
async def takes_messages_of_commands_as_dicts(bench: Bench) -> None:
    raw = commanding(lambda i: Command(update={"messages": [{"role": "tool", "content": "raw", "tool_call_id": i}]}))
    found = await bench.run(bench.graph(bench.node(raw)), state(GIVE))
    assert found.texts == ["raw"]


@behaviour
async def takes_commands_of_message_lists(bench: Bench) -> None:
    note = commanding(lambda i: Command(update=ok(i)))
    graph = bench.graph(bench.node(note, add), Annotated[list[AnyMessage], add_messages])
    found = await bench.run(graph, state(GIVE)["messages"])
    assert found.value[-1].content == "ok"
    found = await bench.run(graph, state(GIVE, ("add", {"a": 1}))["messages"], several=True)
    assert sorted(message.text for message in found.value[2:]) == ["2", "ok"]


@behaviour
async def refuses_commands_that_do_not_fit(bench: Bench) -> None:
    wrong: list[Any] = [
        Command(update={"notes": ["x"]}),
        Command(update={"messages": []}),
        Command(update=[ToolMessage("x", tool_call_id="c1")]),
        Command(update={"messages": [ToolMessage("x", tool_call_id="other")]}),
    ]
    for command in wrong:
        found = await bench.run(bench.graph(bench.node(commanding(always(command)))), state(GIVE))
        assert found.error is not None
        assert found.error[0] == "ValueError"
    for_dicts = bench.node(commanding(lambda i: Command(update={"messages": ok(i)})))
    assert (await bench.ask(for_dicts, [calls(GIVE)])).error is not None


class Unwritable:
    """Nothing that a checkpointer could keep."""


class Holding(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    thing: Any


@behaviour
async def carries_things_that_no_checkpointer_could_keep(bench: Bench) -> None:
    def give(call_id: str) -> Any:
        return Command(
            update={"messages": [ToolMessage("ok", tool_call_id=call_id, artifact=Unwritable())], "thing": Unwritable()}
        )

    node = bench.node(commanding(give), add)
    for made in ([GIVE], [GIVE, ("add", {"a": 1})]):
        found = await bench.run(bench.graph(node, Holding), {"messages": [calls(*made)]}, several=len(made) > 1)
        assert isinstance(found.value["thing"], Unwritable)
        assert isinstance(found.messages[0].artifact, Unwritable)


@behaviour
async def lets_a_command_remove_all_messages(bench: Bench) -> None:
    clear = commanding(lambda _: Command(update={"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES)]}))
    found = await bench.run(bench.graph(bench.node(clear)), state(GIVE))
    assert found.value["messages"] == []


def going(goto: Any) -> Callable[[str], Any]:
    return lambda call_id: Command(update={"messages": ok(call_id)}, goto=goto)


@behaviour
async def goes_where_a_command_says(bench: Bench) -> None:
    for goto, expected in (
        ("left", ["left"]),
        (["left", "right"], ["left", "right"]),
        (Send("right", {"notes": ["sent"]}), ["right"]),
        ([Send("left", {}), Send("right", {})], ["left", "right"]),
    ):
        go = commanding(going(goto))

        def build(builder: Any) -> None:
            builder.add_node("left", lambda _: {"notes": ["left"]})
            builder.add_node("right", lambda _: {"notes": ["right"]})

        found = await bench.run(bench.graph(bench.node(go), build=build), state(GIVE))
        assert found.value["notes"] == expected
        found = await bench.run(
            bench.graph(bench.node(go, add), build=build), state(GIVE, ("add", {"a": 1})), several=True
        )
        assert found.value["notes"] == expected


@behaviour
async def hands_over_to_the_parent_graph(bench: Bench) -> None:
    def parent(node: ToolNode) -> Any:
        builder = StateGraph(State)
        builder.add_node("agent", bench.graph(node), destinations=("other",))
        builder.add_node("other", lambda s: {"notes": [f"other {len(s.get('messages', []))} {s.get('notes')}"]})
        builder.add_edge(START, "agent")
        return builder.compile()

    over = commanding(lambda i: Command(graph=Command.PARENT, goto="other", update={"messages": ok(i), "notes": ["n"]}))
    found = await bench.run(parent(bench.node(over)), state(GIVE))
    assert found.value["notes"][0] == "n"
    assert found.value["notes"][1].startswith("other")
    sent = commanding(lambda i: Command(graph=Command.PARENT, goto=[Send("other", {"notes": [i]})]))
    found = await bench.run(parent(bench.node(sent)), state(GIVE))
    assert found.value["notes"] == ["other 0 ['c1']"]
    found = await bench.run(parent(bench.node(sent)), state(GIVE, GIVE, GIVE), modes=["values"])
    assert found.value["notes"] == ["other 0 ['c1']", "other 0 ['c2']", "other 0 ['c3']"]


@behaviour
async def lets_a_graph_inside_of_a_tool_hand_over(bench: Bench) -> None:
    inner = StateGraph(State)
    inner.add_node(
        "one", lambda _: Command(graph=Command.PARENT, update={"messages": ok("c1"), "notes": ["from within"]})
    )
    inner.add_edge(START, "one")
    within = inner.compile()

    def nested() -> Any:
        return within.invoke({"messages": [], "notes": []})

    async def anested() -> Any:
        return await within.ainvoke({"messages": [], "notes": []})

    both = StructuredTool.from_function(func=nested, coroutine=anested, name="nested", description="Nested.")
    found = await bench.run(bench.graph(bench.node(both, add)), state(("nested", {})))
    assert found.value["notes"] == ["from within"]
    found = await bench.run(bench.graph(bench.node(both, add)), state(("nested", {}), ("add", {"a": 1})), several=True)
    assert found.value["notes"] == ["from within"]
    assert found.texts == ["ok"]


# Errors


@behaviour
async def handles_errors_in_every_form(bench: Bench) -> None:
    class Handler:
        def handle(self, error: Bad) -> str:
            return f"method {error}"

    def typed(error: Bad) -> str:
        return f"typed {error}"

    def union(error: Any) -> str:
        return f"union {error}"

    def piped(error: Any) -> str:
        return f"piped {error}"

    # langgraph reads annotations as they are; this module's are text.
    union.__annotations__["error"] = Union[Bad, TypeError]  # noqa: UP007
    piped.__annotations__["error"] = KeyError | Bad

    def other(error: KeyError) -> str:
        return f"other {error}"

    handled: list[tuple[Any, str | None]] = [
        (True, "Error: Bad('why')\n Please fix your mistakes."),
        ("always this", "always this"),
        (Bad, "Error: Bad('why')\n Please fix your mistakes."),
        (ValueError, "Error: Bad('why')\n Please fix your mistakes."),
        ((KeyError, Bad), "Error: Bad('why')\n Please fix your mistakes."),
        (typed, "typed why"),
        (union, "union why"),
        (piped, "piped why"),
        (lambda error: f"any {error}", "any why"),
        (Handler().handle, "method why"),
        (False, None),
        (KeyError, None),
        ((KeyError, TypeError), None),
        (other, None),
    ]
    for flag, expected in handled:
        found = await bench.run(bench.graph(bench.node(fail, handle_tool_errors=flag)), state(("fail", {"why": "why"})))
        if expected is None:
            assert found.error == ("Bad", "why")
        else:
            assert found.texts == [expected]
            assert (found.messages[0].status, found.messages[0].name) == ("error", "fail")
        found = await bench.run(
            bench.graph(bench.node(fail, add, handle_tool_errors=flag)),
            state(("fail", {"why": "why"}), ("add", {"a": 1})),
            several=True,
        )
        assert (found.error == ("Bad", "why")) if expected is None else (found.texts == [expected, "2"])


@behaviour
async def raises_errors_of_tools_by_default(bench: Bench) -> None:
    found = await bench.run(bench.graph(bench.node(fail)), state(("fail", {"why": "why"})))
    assert found.error == ("Bad", "why")
    found = await bench.run(
        bench.graph(bench.node(fail, add)), state(("add", {"a": 1}), ("fail", {"why": "w"})), several=True
    )
    assert found.error == ("Bad", "w")


@behaviour
async def refuses_handlers_that_make_no_sense(bench: Bench) -> None:
    def wrong(error: int) -> str:
        return "never"

    def wrong_union(error: int | str) -> str:
        return "never"

    for flag in (wrong, wrong_union, 42):
        found = await bench.run(bench.graph(bench.node(fail, handle_tool_errors=flag)), state(("fail", {"why": "why"})))
        assert found.error is not None


@behaviour
async def tells_the_model_of_arguments_that_do_not_fit(bench: Bench) -> None:
    @tool
    def typed(a: int, secret: Annotated[list[str], InjectedState("notes")], b: Literal["x", "y"] = "x") -> int:
        """Take."""
        return a

    given = {**state(("typed", {"a": "no", "b": "z"})), "notes": ["hush"]}
    found = await bench.run(bench.graph(bench.node(typed)), given)
    assert found.messages[0].status == "error"
    assert "a: Input should be a valid integer" in found.texts[0]
    assert "hush" not in found.texts[0]
    found = await bench.run(bench.graph(bench.node(typed, handle_tool_errors=False)), given)
    assert found.error is not None
    assert found.error[0] == "ToolInvocationError"
    seen: list[Any] = []

    def handler(error: ToolInvocationError) -> str:
        seen.append((error.tool_name, error.tool_kwargs, [one["loc"] for one in error.filtered_errors or []]))
        return "fix it"

    found = await bench.run(bench.graph(bench.node(typed, handle_tool_errors=handler)), given)
    assert found.texts == ["fix it"]
    bench.note(seen)
    found = await bench.run(bench.graph(bench.node(add)), state(("add", {})))
    assert "Field required" in found.texts[0]


@behaviour
async def keeps_what_a_tool_does_with_its_own_errors(bench: Bench) -> None:
    def refuse(why: str) -> str:
        raise ToolException(why)

    def make(**options: Any) -> BaseTool:
        return StructuredTool.from_function(func=refuse, name="refuse", description="Refuse.", **options)

    for options, expected in (
        ({"handle_tool_error": True}, "why"),
        ({"handle_tool_error": "set"}, "set"),
        ({"handle_tool_error": lambda e: f"made {e}"}, "made why"),
        ({"handle_validation_error": "misfit"}, None),
        ({}, None),
    ):
        found = await bench.run(bench.graph(bench.node(make(**options))), state(("refuse", {"why": "why"})))
        if expected is None:
            assert found.error == ("ToolException", "why")
        else:
            assert found.texts == [expected]
            assert found.messages[0].status == "error"
    found = await bench.run(bench.graph(bench.node(make(handle_validation_error="misfit"))), state(("refuse", {})))
    assert found.texts == ["misfit"]


@behaviour
async def raises_cancellation_and_base_exceptions(bench: Bench) -> None:
    class Worse(BaseException):
        pass

    def worse() -> str:
        raise Worse("out")

    node = bench.node(giving(worse), handle_tool_errors=True)
    try:
        await bench.run(bench.graph(node), state(GIVE))
    except Worse as error:
        bench.note(str(error))
    assert bench.noted == ["out"]


# Wrappers


def both_wrappers(wrap: Callable[[ToolCallRequest, Callable[[ToolCallRequest], Any]], Any]) -> dict[str, Any]:
    """The same wrapper for sync and async graphs; the wrapper is a generator that yields the requests it wants run."""

    def sync(request: ToolCallRequest, execute: Any) -> Any:
        steps = wrap(request, execute)
        answer = None
        try:
            while True:
                wanted = steps.send(answer)
                try:
                    answer = execute(wanted)
                except Exception as error:
                    answer = error
        except StopIteration as end:
            return end.value

    async def asynchronous(request: ToolCallRequest, execute: Any) -> Any:
        steps = wrap(request, execute)
        answer = None
        try:
            while True:
                wanted = steps.send(answer)
                try:
                    answer = await execute(wanted)
                except Exception as error:
                    answer = error
        except StopIteration as end:
            return end.value

    return {"wrap_tool_call": sync, "awrap_tool_call": asynchronous}


@behaviour
async def passes_calls_through_a_wrapper(bench: Bench) -> None:
    seen: list[Any] = []

    def wrap(request: ToolCallRequest, _: Any) -> Any:
        seen.append(
            (
                dict(request.tool_call),
                request.tool and request.tool.name,
                plain(request.state),
                request.runtime.tool_call_id,
            )
        )
        answer = yield request
        seen.append(answer.content)
        return answer

    node = bench.node(add, **both_wrappers(wrap))
    found = await bench.run(bench.graph(node), state(("add", {"a": 1})))
    assert found.texts == ["2"]
    assert seen[1] == "2"
    bench.note(seen)
    found = await bench.run(bench.graph(node), state(("add", {"a": 1}), ("add", {"a": 2})), several=True)
    assert found.texts == ["2", "3"]


@behaviour
async def lets_a_wrapper_try_again(bench: Bench) -> None:
    tried: list[int] = []

    @tool
    def flaky(a: int) -> int:
        """Fail twice."""
        tried.append(a)
        if len(tried) % 3:
            raise Bad(f"attempt {len(tried)}")
        return a

    def wrap(request: ToolCallRequest, _: Any) -> Any:
        for _attempt in range(3):
            answer = yield request
            if not isinstance(answer, Exception) and answer.status != "error":
                return answer
        return answer

    for options in ({}, {"handle_tool_errors": True}):
        found = await bench.run(
            bench.graph(bench.node(flaky, **options, **both_wrappers(wrap))), state(("flaky", {"a": 5}))
        )
        assert found.texts == ["5"]
    found = await bench.run(
        bench.graph(bench.node(flaky, add, **both_wrappers(wrap))),
        state(("flaky", {"a": 5}), ("add", {"a": 1})),
        several=True,
    )
    assert found.texts == ["5", "2"]
    assert len(tried) == 9


@behaviour
async def lets_a_wrapper_answer_instead(bench: Bench) -> None:
    def wrap(request: ToolCallRequest, _: Any) -> Any:
        if request.tool_call["args"].get("a") == 1:
            return ToolMessage("cached", tool_call_id=request.tool_call["id"], name="add")
        if request.tool_call["args"].get("a") == 2:
            return Command(update={"messages": ok(str(request.tool_call["id"])), "notes": ["by wrapper"]})
        return (yield request)

    node = bench.node(add, **both_wrappers(wrap))
    assert (await bench.run(bench.graph(node), state(("add", {"a": 1})))).texts == ["cached"]
    found = await bench.run(bench.graph(node), state(("add", {"a": 2})))
    assert found.value["notes"] == ["by wrapper"]
    found = await bench.run(
        bench.graph(node), state(("add", {"a": 1}), ("add", {"a": 2}), ("add", {"a": 3})), several=True
    )
    assert sorted(found.texts) == ["4", "cached", "ok"]


@behaviour
async def lets_a_wrapper_change_the_request(bench: Bench) -> None:
    @tool
    def reads(a: int, notes: Annotated[list[str], InjectedState("notes")], runtime: ToolRuntime) -> str:
        """Read."""
        return f"{a} {notes} {runtime.state['notes']}"

    def wrap(request: ToolCallRequest, _: Any) -> Any:
        changed = request.override(
            tool_call={**request.tool_call, "args": {"a": 10}}, state={**request.state, "notes": ["changed"]}
        )
        assert request.tool_call["args"] == {"a": 1}
        return (yield changed)

    found = await bench.run(bench.graph(bench.node(reads, **both_wrappers(wrap))), state(("reads", {"a": 1})))
    assert found.texts == ["10 ['changed'] ['changed']"]


@behaviour
async def lets_a_wrapper_serve_tools_that_the_node_does_not_have(bench: Bench) -> None:
    @tool
    def dynamic(a: int, notes: Annotated[list[str], InjectedState("notes")]) -> str:
        """Dynamic."""
        return f"{a} {notes}"

    def wrap(request: ToolCallRequest, _: Any) -> Any:
        assert request.tool is None
        if request.tool_call["name"] == "dynamic":
            request = request.override(tool=dynamic)
            return (yield request)
        return ToolMessage("by hand", tool_call_id=request.tool_call["id"])

    node = bench.node(add, **both_wrappers(wrap))
    found = await bench.run(bench.graph(node), {**state(("dynamic", {"a": 1})), "notes": ["n"]})
    assert found.texts == ["1 ['n']"]
    assert (await bench.run(bench.graph(node), state(("unknown", {})))).texts == ["by hand"]


@behaviour
async def handles_errors_of_a_wrapper(bench: Bench) -> None:
    def wrap(request: ToolCallRequest, _: Any) -> Any:
        if request.tool_call["args"]["a"] == 1:
            raise Bad("wrapper")
        return (yield request)

    for flag, expected in (
        (True, "Error: Bad('wrapper')\n Please fix your mistakes."),
        ("set", "set"),
        (lambda e: f"made {e}", "made wrapper"),
        (KeyError, "Error: Bad('wrapper')\n Please fix your mistakes."),
        (False, None),
    ):
        node = bench.node(add, handle_tool_errors=flag, **both_wrappers(wrap))
        found = await bench.run(bench.graph(node), state(("add", {"a": 1})))
        assert (found.error == ("Bad", "wrapper")) if expected is None else (found.texts == [expected])
    found = await bench.run(bench.graph(bench.node(add, **both_wrappers(wrap))), state(("add", {"a": 1})))
    assert found.error == ("Bad", "wrapper")


@behaviour
async def uses_a_sync_wrapper_in_async_graphs(bench: Bench) -> None:
    def wrap(request: ToolCallRequest, execute: Any) -> Any:
        answer = execute(request)
        return answer.model_copy(update={"content": f"wrapped {answer.content}"})

    found = await bench.run(bench.graph(bench.node(add, wrap_tool_call=wrap)), state(("add", {"a": 1})))
    assert found.texts == ["wrapped 2"]
    made = state(("add", {"a": 1}), ("add", {"a": 2}))
    found = await bench.run(bench.graph(bench.node(add, wrap_tool_call=wrap)), made, several=True)
    assert found.texts == ["wrapped 2", "wrapped 3"]


@behaviour
async def uses_an_async_wrapper_in_async_graphs_only(bench: Bench) -> None:
    async def wrap(request: ToolCallRequest, execute: Any) -> Any:
        answer = await execute(request)
        return answer.model_copy(update={"content": f"wrapped {answer.content}"})

    found = await bench.run(bench.graph(bench.node(add, awrap_tool_call=wrap)), state(("add", {"a": 1})))
    assert found.texts == (["wrapped 2"] if bench.how == "async" else ["2"])


# Injection


@behaviour
async def injects_the_state(bench: Bench) -> None:
    @tool
    def reads(
        a: int,
        whole: Annotated[dict[str, Any], InjectedState],
        called: Annotated[dict[str, Any], InjectedState()],
        notes: Annotated[list[str], InjectedState("notes")],
        missing: Annotated[str, InjectedState("missing")] = "default",
    ) -> str:
        """Read."""
        return f"{a} {sorted(whole)} {sorted(called)} {notes} {missing}"

    found = await bench.run(
        bench.graph(bench.node(reads)), {**state(("reads", {"a": 1, "notes": ["forged"]})), "notes": ["n"]}
    )
    assert found.texts == ["1 ['messages', 'notes'] ['messages', 'notes'] ['n'] default"]


@behaviour
async def says_what_the_state_lacks(bench: Bench) -> None:
    @tool
    def reads(missing: Annotated[str, InjectedState("missing")]) -> str:
        """Read."""
        return missing

    found = await bench.run(bench.graph(bench.node(reads, handle_tool_errors=True)), state(("reads", {})))
    assert found.error == ("KeyError", "'missing'")

    class Model(BaseModel):
        messages: list[Any]

    found = await bench.ask(bench.node(reads), Model(messages=[calls(("reads", {}))]))
    assert found.error == ("AttributeError", "missing")
    found = await bench.ask(bench.node(reads), [calls(("reads", {}))])
    assert found.error is not None
    assert "requires graph state dict as input" in found.error[1]


@behaviour
async def injects_the_state_of_a_message_list(bench: Bench) -> None:
    @tool
    def whole(state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Read."""
        return str(len(state["messages"]))

    @tool
    def part(said: Annotated[list[Any], InjectedState("messages")]) -> str:
        """Read."""
        return str(len(said))

    for name in ("whole", "part"):
        found = await bench.ask(bench.node(whole, part), [HumanMessage("go"), calls((name, {}))])
        assert found.value[0].content == "2"


@behaviour
async def injects_the_store(bench: Bench) -> None:
    @tool
    def keep(key: str, store: Annotated[BaseStore, InjectedStore()]) -> str:
        """Keep."""
        store.put(("n",), key, {"v": 1})
        return str(len(store.search(("n",))))

    store = InMemoryStore()
    found = await bench.run(bench.graph(bench.node(keep), store=store), state(("keep", {"key": "k"})))
    assert found.texts == ["1"]
    bench.note([item.key for item in store.search(("n",))])
    found = await bench.run(bench.graph(bench.node(keep)), state(("keep", {"key": "k"})))
    assert found.error is not None
    assert "Cannot inject store" in found.error[1]


@dataclass
class Context:
    user: str


@behaviour
async def injects_the_runtime(bench: Bench) -> None:
    @tool
    def typed(a: int, rt: ToolRuntime[Context, State]) -> str:
        """See."""
        rt.stream_writer({"said": rt.tool_call_id})
        assert rt.store is not None
        assert rt.execution_info is not None
        names = sorted(one.name for one in rt.tools if one.name != "run_code")
        at = rt.config["configurable"]["thread_id"]
        return f"{a} {rt.context.user} {rt.tool_call_id} {names} {sorted(rt.state)} {at}"

    def untyped(a: int, runtime) -> str:  # type: ignore[no-untyped-def]
        return f"{a} {runtime.context.user} {type(runtime).__name__}"

    class Schema(BaseModel):
        a: int
        runtime: Any = None

    named = StructuredTool.from_function(func=untyped, name="untyped", description="See.", args_schema=Schema)
    graph = bench.graph(bench.node(typed, named), context=Context, store=InMemoryStore(), saver=InMemorySaver())
    options: dict[str, Any] = {"modes": ["updates", "values", "custom"], "context": Context("ann")}
    found = await bench.run(graph, state(("typed", {"a": 1})), thread("a"), **options)
    assert found.texts == ["1 ann c1 ['typed', 'untyped'] ['messages', 'notes'] a"]
    assert found.told("custom") == [{"said": "c1"}]
    found = await bench.run(graph, state(("untyped", {"a": 1})), thread("b"), **options)
    assert found.texts == ["1 ann ToolRuntime"]
    found = await bench.run(
        graph, state(("typed", {"a": 1}), ("untyped", {"a": 2})), thread("c"), several=True, **options
    )
    assert found.texts == ["1 ann c1 ['typed', 'untyped'] ['messages', 'notes'] c", "2 ann ToolRuntime"]


@behaviour
async def strips_what_a_model_must_not_set(bench: Bench) -> None:
    @tool
    def guarded(
        a: int,
        call_id: Annotated[str, InjectedToolCallId],
        user: Annotated[str, InjectedToolArg] = "host",
        notes: Annotated[list[str] | None, InjectedState("notes")] = None,
    ) -> str:
        """Guard."""
        return f"{a} {call_id} {user} {notes}"

    forged = {"a": 1, "call_id": "forged", "user": "root", "notes": ["forged"]}
    found = await bench.run(bench.graph(bench.node(guarded)), state(("guarded", forged)))
    assert found.texts == ["1 c1 host []"]

    @tool
    def lacking(a: int, user: Annotated[str, InjectedToolArg]) -> str:
        """Lack."""
        return user

    found = await bench.run(bench.graph(bench.node(lacking)), state(("lacking", {"a": 1, "user": "root"})))
    assert found.messages[0].status == "error"


# Config, callbacks, names


class Seen(BaseCallbackHandler):
    """Notes what starts and ends, with tags and metadata."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_tool_start(self, serialized: Any, input_str: str, **options: Any) -> None:
        metadata = {k: v for k, v in (options["metadata"] or {}).items() if k in ("mine", "langgraph_step", "own")}
        self.events.append(("start", serialized["name"], options["inputs"], sorted(set(options["tags"])), metadata))

    def on_tool_end(self, output: Any, **_: Any) -> None:
        self.events.append(("end", output.content))

    def on_tool_error(self, error: BaseException, **_: Any) -> None:
        self.events.append(("error", repr(error)))


@behaviour
async def hands_config_and_callbacks_on(bench: Bench) -> None:
    @tool
    def reads(a: int, config: RunnableConfig) -> str:
        """Read."""
        return f"{a} {config['configurable']['mine']} {config['metadata']['mine']} {config['recursion_limit']}"

    reads.tags = ["of the tool"]
    reads.metadata = {"own": 1}
    for made, several in ([("reads", {"a": 1})], False), ([("reads", {"a": 1}), ("reads", {"a": 2})], True):
        seen = Seen()
        config: RunnableConfig = {
            "callbacks": [seen],
            "tags": ["t"],
            "metadata": {"mine": 1},
            "configurable": {"mine": "conf"},
            "recursion_limit": 7,
        }
        found = await bench.run(bench.graph(bench.node(reads)), state(*made), config, several=several)
        assert found.texts[0] == "1 conf 1 7"
        assert {event[0] for event in seen.events} == {"start", "end"}
        tags = [event[3] for event in seen.events if event[0] == "start"]
        assert all({"t", "of the tool"} <= set(one) for one in tags)
        bench.note(sorted(map(repr, ([e[:3], e[4:]] for e in seen.events))))
    seen = Seen()
    await bench.run(bench.graph(bench.node(fail)), state(("fail", {"why": "w"})), {"callbacks": [seen]})
    bench.note(seen.events)
    assert seen.events[-1] == ("error", "Bad('w')")


@behaviour
async def has_name_tags_and_tools(bench: Bench) -> None:
    node = bench.node(add, say)
    assert node.name == "tools"
    assert [name for name in node.tools_by_name if name != "run_code"] == ["add", "say"]
    assert node.tools_by_name["add"] is add

    def double(a: int) -> int:
        """Double."""
        return 2 * a

    named = bench.node(double, name="mine", tags=["x"])
    assert named.name == "mine"
    assert named.tags == ["x"]
    assert named.get_name() == "mine"
    assert named.tools_by_name["double"].description == "Double."
    bench.note(named.name, named.tags, node.get_name(), named.tools_by_name["double"].args)
    found = await bench.run(bench.graph(named), state(("double", {"a": 4})))
    assert found.texts == ["8"]
    assert isinstance(node, ToolNode)
    builder = StateGraph(State)
    builder.add_node(named)  # the node's own name is used
    assert list(builder.nodes) == ["mine"]


@behaviour
async def takes_no_tools_at_all(bench: Bench) -> None:
    found = await bench.ask(bench.node(), {"messages": [AIMessage("nothing")]})
    assert found.value == {"messages": []}


@behaviour
async def takes_the_last_of_two_tools_with_one_name(bench: Bench) -> None:
    first, second = giving(lambda: "first"), giving(lambda: "second")
    found = await bench.run(bench.graph(bench.node(first, second)), state(GIVE))
    assert found.texts == ["second"]


@behaviour
async def takes_tools_with_names_that_are_no_identifiers(bench: Bench) -> None:
    odd = StructuredTool.from_function(func=lambda: "odd", name="my-tool.v2", description="Odd.")
    found = await bench.run(bench.graph(bench.node(odd)), state(("my-tool.v2", {})))
    assert found.texts == ["odd"]
    found = await bench.run(bench.graph(bench.node(odd)), state(("my-tool.v2", {}), ("my-tool.v2", {})), several=True)
    assert found.texts == ["odd", "odd"]


@behaviour
async def works_in_the_prebuilt_loop(bench: Bench) -> None:
    model = Script(turns=[calls(("add", {"a": 1})), calls(("add", {"a": 2}), ("say", {"text": "x"}), start=2), "done"])
    graph = graph_of(bench.node(add, say), model, InMemorySaver())
    found = await bench.run(graph, {"messages": [("user", "go")], "notes": []}, thread(), modes=["values"])
    assert found.texts == ["2", "3", "x"]
    assert found.value["messages"][-1].text == "done"
    assert tools_condition({"messages": [calls(("add", {}))]}) == "tools"
    states = graph.get_state_history(thread())
    bench.note([(one.next, one.metadata["step"], one.values.get("messages")) for one in states])


@behaviour
async def stops_after_a_tool_that_returns_directly(bench: Bench) -> None:
    from langgraph.prebuilt import create_react_agent

    direct = StructuredTool.from_function(
        func=lambda: "the answer", name="direct", description="Direct.", return_direct=True
    )
    model = Script(turns=[calls(("direct", {})), "never said"])
    with pytest.warns(match="create_react_agent"):
        graph = create_react_agent(model, bench.node(direct, add))
    found = await bench.run(graph, {"messages": [("user", "go")]}, modes=["values"])
    assert found.value["messages"][-1].text == "the answer"


@behaviour
async def is_retried_and_cached_by_the_graph(bench: Bench) -> None:
    ran: list[int] = []

    @tool
    def flaky(a: int) -> int:
        """Fail once."""
        ran.append(a)
        if len(ran) == 1:
            raise ConnectionError("try again")
        return a

    builder = StateGraph(State)
    policy = RetryPolicy(initial_interval=0.001, jitter=False)
    builder.add_node("tools", bench.node(flaky), retry_policy=policy, cache_policy=CachePolicy(key_func=lambda _: "k"))
    builder.add_edge(START, "tools")
    graph = builder.compile(cache=InMemoryCache())
    for _ in range(2):
        found = await bench.run(graph, state(("flaky", {"a": 1})))
        assert found.texts == ["1"]
    assert ran == [1, 1]
    bench.note(ran)


# Interrupts


async def resumed(bench: Bench, graph: Any, given: Any, *answers: Any, **options: Any) -> Any:
    """Run a graph and answer its questions one after another."""
    found = await bench.run(graph, given, thread(), **options)
    for answer in answers:
        assert found.error is None
        assert graph.get_state(thread()).interrupts
        found = await bench.run(graph, Command(resume=answer), thread(), **options)
    return found


@behaviour
async def pauses_for_a_tool_that_asks(bench: Bench) -> None:
    ran: list[str] = []

    @tool
    def ask(what: str) -> str:
        """Ask twice."""
        ran.append("begun")
        first = interrupt(f"{what}?")
        second = interrupt(f"{what} again?")
        ran.append("ended")
        return f"{first} {second}"

    for flag in (False, True, "handled", (Exception,)):
        graph = bench.graph(bench.node(ask, handle_tool_errors=flag), saver=InMemorySaver())
        found = await resumed(bench, graph, state(("ask", {"what": "go"})), "yes", "sure")
        assert found.texts == ["yes sure"]
    assert ran == ["begun", "begun", "begun", "ended"] * 4


@behaviour
async def pauses_for_a_wrapper_that_asks(bench: Bench) -> None:
    def wrap(request: ToolCallRequest, _: Any) -> Any:
        answer = interrupt({"may": request.tool_call["name"]})
        if answer == "no":
            return ToolMessage("refused", tool_call_id=request.tool_call["id"])
        return (yield request)

    for answer, expected in (("yes", "2"), ("no", "refused")):
        graph = bench.graph(bench.node(add, handle_tool_errors=True, **both_wrappers(wrap)), saver=InMemorySaver())
        found = await resumed(bench, graph, state(("add", {"a": 1})), answer)
        assert found.texts == [expected]


@behaviour
async def refuses_an_answer_that_does_not_fit(bench: Bench) -> None:
    @tool
    def ask() -> str:
        """Ask for a number."""
        return str(interrupt("how many?", response_schema=int))

    graph = bench.graph(bench.node(ask, handle_tool_errors=True), saver=InMemorySaver())
    found = await bench.run(graph, state(("ask", {})), thread())
    assert graph.get_state(thread()).interrupts
    found = await bench.run(graph, Command(resume="many"), thread())
    assert found.error is not None
    assert found.error[0] == "ValidationError"
    found = await bench.run(graph, Command(resume=3), thread())
    assert found.texts == ["3"]


@behaviour
async def pauses_for_a_graph_inside_of_a_tool(bench: Bench) -> None:
    inner = StateGraph(State)
    inner.add_node("one", lambda _: {"notes": [interrupt("inner?")]})
    inner.add_edge(START, "one")
    within = inner.compile()

    def nested() -> str:
        return str(within.invoke({"messages": [], "notes": []})["notes"])

    async def anested() -> str:
        return str((await within.ainvoke({"messages": [], "notes": []}))["notes"])

    both = StructuredTool.from_function(func=nested, coroutine=anested, name="nested", description="Nested.")
    graph = bench.graph(bench.node(both), saver=InMemorySaver())
    found = await resumed(bench, graph, state(("nested", {})), "answer")
    assert found.texts == ["['answer']"]


@behaviour
async def streams_alike_in_every_mode(bench: Bench) -> None:
    @tool
    def chatty(a: int, runtime: ToolRuntime) -> int:
        """Chat."""
        runtime.stream_writer({"step": 1})
        runtime.emit_output_delta("part")
        return a

    @tool
    async def achatty(a: int, runtime: ToolRuntime) -> int:
        """Chat."""
        runtime.stream_writer({"step": 1})
        runtime.emit_output_delta("part")
        return a

    one = chatty if bench.how == "sync" else achatty
    modes = ["custom", "updates", "values", "messages", "tools"]
    found = await bench.run(
        bench.graph(bench.node(one)), state((one.name, {"a": 1})), modes=["custom", "updates", "values"]
    )
    assert found.told("custom") == [{"step": 1}]
    builder = bench.graph(bench.node(one))
    quiet = Bench(bench.cls, bench.how)  # metadata of messages names checkpoints
    found = await quiet.run(builder, state((one.name, {"a": 1})), modes=modes)
    bench.note([told["event"] for told in found.told("tools")], [m.content for m, _ in found.told("messages")])
    assert [told["event"] for told in found.told("tools")] == ["tool-started", "tool-output-delta", "tool-finished"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda one: one.__name__)
async def test_code_orchestrator_does_what_tool_node_does(behaviour: Behaviour, how: str) -> None:
    theirs, ours = Bench(ToolNode, how), Bench(CodeOrchestrator, how)
    await behaviour(theirs)
    assert theirs.noted, "nothing to compare"
    await behaviour(ours)
    assert ours.noted == theirs.noted


# What a node does with programs, where a ToolNode has nothing to compare


SANDBOX = CodeSandbox(limits=Limits(wall_time=60))


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    with SANDBOX:
        yield


def sandboxed(how: str, *tools: Any, **options: Any) -> tuple[Bench, ToolNode]:
    bench = Bench(CodeOrchestrator, how)
    return bench, bench.node(*tools, sandbox=SANDBOX, **options)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["no saver", "saver"])
async def test_calls_of_two_programs_are_told_apart(saver: Any, how: str) -> None:
    ran: list[int] = []

    @tool
    def fetch(a: int) -> int:
        """Fetch."""
        ran.append(a)
        return a

    bench, node = sandboxed(how, fetch)
    code = "first = await fetch(a={0})\nsecond = await fetch(a={0} + first)\nreturn [first, second]"
    turns = state(*[("run_code", {"code": code.format(n)}) for n in (1, 10)])
    found = await bench.run(bench.graph(node, saver=saver and saver()), turns, thread(), several=True)
    assert found.error is None
    assert found.texts == ["[1, 2]", "[10, 20]"]
    assert sorted(ran) == [1, 2, 10, 20]


@pytest.mark.parametrize("how", HOW)
async def test_a_tool_of_a_program_has_tasks_of_its_own(how: str) -> None:
    @task
    def half(a: int) -> int:
        return a // 2

    @task
    async def ahalf(a: int) -> int:
        return a // 2

    def halves(a: int) -> list[int]:
        return [half(a).result(), half(a + 2).result()]

    async def ahalves(a: int) -> list[int]:
        return [await ahalf(a), await ahalf(a + 2)]

    both = StructuredTool.from_function(func=halves, coroutine=ahalves, name="halves", description="Halve.")
    bench, node = sandboxed(how, both)
    found = await bench.run(
        bench.graph(node), state(("run_code", {"code": "return [await halves(a=2), await halves(a=8)]"}))
    )
    assert found.texts == ["[[1, 2], [4, 5]]"]


@pytest.mark.parametrize("how", HOW)
async def test_a_program_runs_outside_of_a_graph_too(how: str) -> None:
    note = commanding(lambda i: Command(update={"messages": ok(i), "notes": ["n"]}), name="note")
    bench, node = sandboxed(how, add, note)
    given = {"messages": [program("import asyncio\nreturn sum(await asyncio.gather(add(a=1), add(a=2)))")]}
    for _ in range(2):
        found = await bench.ask(node, given)
        assert [message.content for message in found.value["messages"]] == ["5"]
    found = await bench.ask(node, {"messages": [program("await note()\nreturn await add(a=1)")], "notes": []})
    assert [type(one).__name__ for one in found.value] == ["Command", "dict"]
    assert found.value[0].update == {"notes": ["n"]}
    assert found.value[1]["messages"][0].content == "2"


@pytest.mark.parametrize("how", HOW)
async def test_what_an_inner_call_gives_the_state_need_not_be_writable(how: str) -> None:
    def give(call_id: str) -> Any:
        return Command(update={"messages": ok(call_id), "thing": Unwritable()})

    bench, node = sandboxed(how, commanding(give))
    found = await bench.run(bench.graph(node, Holding), {"messages": [program("await give()\nreturn 1")]})
    assert found.error is None
    assert found.texts == ["1"]
    assert isinstance(found.value["thing"], Unwritable)


@pytest.mark.parametrize("how", HOW)
async def test_what_an_inner_call_gives_the_state_is_written_as_the_checkpointer_writes(how: str) -> None:
    def give(call_id: str) -> Any:
        return Command(update={"messages": ok(call_id), "thing": Picklable(7)})

    @tool
    def ask() -> str:
        """Ask."""
        return str(interrupt("go on?"))

    bench, node = sandboxed(how, commanding(give), ask)
    graph = bench.graph(node, Holding, saver=InMemorySaver(serde=JsonPlusSerializer(pickle_fallback=True)))
    given = {"messages": [program("await give()\nreturn await ask()")]}
    found = await resumed(bench, graph, given, "yes")
    assert found.texts == ["yes"]
    assert found.value["thing"].number == 7


class Picklable:
    """Kept by a checkpointer that may pickle, and by no other."""

    def __init__(self, number: int) -> None:
        self.number = number


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("most", [1, 2, None])
async def test_programs_of_one_step_do_not_wait_for_each_other(most: int | None, how: str) -> None:
    running = Gauge()

    @tool
    def fetch(a: int) -> int:
        """Fetch."""
        with running:
            return a

    code = "import asyncio\nreturn sum(await asyncio.gather(*[fetch(a=n) for n in range(5)]))"
    bench, node = sandboxed(how, fetch)
    config: RunnableConfig = {} if most is None else {"max_concurrency": most}
    turns = state(*[("run_code", {"code": code})] * 7)  # more than the threads of a small machine
    found = await asyncio.wait_for(bench.run(bench.graph(node), turns, config, modes=["values"]), 60)
    assert found.error is None
    assert found.texts == ["10"] * 7


@pytest.mark.parametrize("how", HOW)
async def test_max_concurrency_bounds_the_calls_of_a_program(how: str) -> None:
    running = Gauge()

    @tool
    def fetch(a: int) -> int:
        """Fetch."""
        with running:
            return a

    @tool
    async def afetch(a: int) -> int:
        """Fetch."""
        with running:
            await asyncio.sleep(0)
            return a

    bench, node = sandboxed(how, fetch, afetch)
    name = "fetch" if how == "sync" else "afetch"
    code = f"import asyncio\nreturn sum(await asyncio.gather(*[{name}(a=n) for n in range(12)]))"
    found = await bench.run(bench.graph(node), state(("run_code", {"code": code})), {"max_concurrency": 2})
    assert found.texts == ["66"]
    assert running.most <= 2


class Gauge:
    """How many are inside at once, at most."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.inside -= 1


@pytest.mark.parametrize("how", HOW)
async def test_a_graph_that_an_inner_call_runs_hands_over_to_the_programs_graph(how: str) -> None:
    inner = StateGraph(State)

    def leave(state: State) -> Any:
        return Command(
            graph=Command.PARENT, update={"messages": ok(state["notes"][0]), "notes": ["from within"]}, goto="after"
        )

    inner.add_node("one", leave)
    inner.add_edge(START, "one")
    within = inner.compile()

    def nested(call_id: Annotated[str, InjectedToolCallId]) -> Any:
        return within.invoke({"messages": [], "notes": [call_id]})

    async def anested(call_id: Annotated[str, InjectedToolCallId]) -> Any:
        return await within.ainvoke({"messages": [], "notes": [call_id]})

    both = StructuredTool.from_function(func=nested, coroutine=anested, name="nested", description="Nested.")
    bench, node = sandboxed(how, both, add)
    graph = bench.graph(node, build=lambda b: b.add_node("after", lambda _: {"notes": ["after"]}))
    found = await bench.run(
        graph, state(("run_code", {"code": "first = await nested()\nreturn [first, await add(a=1)]"}))
    )
    assert found.error is None
    assert found.texts == ['["ok", 2]']
    assert found.value["notes"] == ["from within", "after"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "a copy"])
async def test_a_program_gets_what_a_wrapper_made_of_a_result(in_place: bool, how: str) -> None:
    @tool(response_format="content_and_artifact")
    def both(a: int) -> tuple[str, dict[str, str]]:
        """Both."""
        return "the secret", {"key": "secret"}

    @tool
    def plain_text(a: int) -> str:
        """Text."""
        return "the secret"

    def wrap(request: ToolCallRequest, _: Any) -> Any:
        answer = yield request
        if request.tool_call["name"] == "run_code":
            return answer
        if in_place:
            answer.content, answer.artifact = "redacted", None
            return answer
        return answer.model_copy(update={"content": "redacted", "artifact": None})

    bench, node = sandboxed(how, both, plain_text, **both_wrappers(wrap))
    code = "print([await both(a=1), await plain_text(a=1)])"
    outer = state(("run_code", {"code": code}))
    found = await bench.run(bench.graph(node), outer, modes=["updates", "values", "custom", "tasks"])
    assert found.error is None
    assert "['redacted', 'redacted']" in found.texts[0]
    assert "secret" not in repr(found.streams)


@pytest.mark.parametrize("how", HOW)
async def test_a_program_gets_the_artifact_that_a_wrapper_left(how: str) -> None:
    @tool(response_format="content_and_artifact")
    def both(a: int) -> tuple[str, dict[str, str]]:
        """Both."""
        return "said", {"key": "secret"}

    def wrap(request: ToolCallRequest, _: Any) -> Any:
        answer = yield request
        if request.tool_call["name"] == "both":
            answer.artifact = {"key": "***"}
        return answer

    bench, node = sandboxed(how, both, **both_wrappers(wrap))
    found = await bench.run(bench.graph(node), state(("run_code", {"code": "return await both(a=1)"})))
    assert found.texts == ['{"key": "***"}']


# What is different on purpose


class Asking:
    """A tool whose calls ask a question. When resumed, Bob's asks before Ann's, however the threads are scheduled."""

    def __init__(self) -> None:
        self._bob_asked = threading.Event()
        self._resumed = False

        @tool
        def ask(who: str) -> str:
            """Ask."""
            if self._resumed and who == "ann":
                assert self._bob_asked.wait(30)
            try:
                return f"{who} got {interrupt(f'{who}?')}"
            finally:
                if who == "bob":
                    self._bob_asked.set()

        self.tool = ask

    def resume(self) -> None:
        self._bob_asked.clear()
        self._resumed = True


async def test_answers_of_parallel_questions_reach_the_call_that_asked() -> None:
    made = state(("ask", {"who": "ann"}), ("ask", {"who": "bob"}))

    asking, theirs = Asking(), Bench(ToolNode, "sync")
    graph = theirs.graph(theirs.node(asking.tool), saver=InMemorySaver())
    await theirs.run(graph, made, thread())
    [asked] = graph.get_state(thread()).interrupts
    assert asked.value == "ann?"  # bob's question is lost
    for answer in ("for ann", "again for ann"):
        asking.resume()
        found = await theirs.run(graph, Command(resume=answer), thread())
    assert found.texts == ["ann got again for ann", "bob got for ann"]

    asking, ours = Asking(), Bench(CodeOrchestrator, "sync")
    graph = ours.graph(ours.node(asking.tool), saver=InMemorySaver())
    await ours.run(graph, made, thread())
    questions = graph.get_state(thread()).interrupts
    assert [one.value for one in questions] == ["ann?", "bob?"]
    asking.resume()
    found = await ours.run(graph, Command(resume={one.id: f"for {one.value[:3]}" for one in questions}), thread())
    assert found.texts == ["ann got for ann", "bob got for bob"]


@pytest.mark.parametrize("how", HOW)
async def test_parallel_questions_are_answered_in_any_order(how: str) -> None:
    asking, bench = Asking(), Bench(CodeOrchestrator, how)
    graph = bench.graph(bench.node(asking.tool), saver=InMemorySaver())
    await bench.run(graph, state(("ask", {"who": "ann"}), ("ask", {"who": "bob"})), thread())
    questions = graph.get_state(thread()).interrupts
    for one in reversed(questions):
        found = await bench.run(graph, Command(resume={one.id: f"for {one.value[:3]}"}), thread())
    assert found.texts == ["ann got for ann", "bob got for bob"]


async def test_calls_that_have_ended_do_not_run_again_when_another_one_asked() -> None:
    ran: list[int] = []

    @tool
    def note(a: int, call_id: Annotated[str, InjectedToolCallId]) -> Any:
        """Note."""
        ran.append(a)
        return [ToolMessage(str(a), tool_call_id=call_id), Command(update={"notes": [f"n{a}"]})]

    @tool
    def ask() -> str:
        """Ask."""
        return str(interrupt("?"))

    made = state(("note", {"a": 1}), ("ask", {}), ("note", {"a": 2}))
    results = []
    for cls, expected in ((ToolNode, [1, 1, 2, 2]), (CodeOrchestrator, [1, 2])):
        for how in HOW:
            ran.clear()
            bench = Bench(cls, how)
            graph = bench.graph(bench.node(note, ask), saver=InMemorySaver())
            await bench.run(graph, made, thread())
            found = await bench.run(graph, Command(resume="yes"), thread())
            assert sorted(ran) == expected
            assert found.value["notes"] == ["n1", "n2"]
            results.append([plain(message) for message in found.messages])
    assert all(result == results[0] for result in results)


async def test_a_call_that_leaves_for_the_parent_waits_for_another_one_that_asks() -> None:
    inner = StateGraph(State)
    inner.add_node("one", lambda _: Command(graph=Command.PARENT, update={"messages": ok("c1"), "notes": ["left"]}))
    inner.add_edge(START, "one")
    within = inner.compile()
    ran: list[int] = []

    @tool
    def leave() -> Any:
        """Leave."""
        ran.append(1)
        return within.invoke({"messages": [], "notes": []})

    @tool
    def ask() -> str:
        """Ask."""
        return str(interrupt("?"))

    bench = Bench(CodeOrchestrator, "sync")
    graph = bench.graph(bench.node(leave, ask), saver=InMemorySaver())
    await bench.run(graph, state(("leave", {}), ("ask", {})), thread())
    found = await bench.run(graph, Command(resume="yes"), thread())
    assert found.error is None
    assert found.value["notes"] == ["left"]
    assert ran == [1]


@pytest.mark.parametrize("how", HOW)
async def test_several_calls_show_in_updates_one_by_one(how: str) -> None:
    note = commanding(lambda i: Command(update={"messages": ok(i), "notes": ["n"]}))
    made = state(("add", {"a": 1}), GIVE)
    theirs, ours = Bench(ToolNode, how), Bench(CodeOrchestrator, how)
    found = await theirs.run(theirs.graph(theirs.node(add, note)), made)
    assert [list(chunk) for chunk in found.told("updates")] == [["tools"]]
    found = await ours.run(ours.graph(ours.node(add, note)), made)
    names = [name for chunk in found.told("updates") for name in chunk]
    assert sorted(names[:2]) == ["add", "give"]
    assert names[2:] == ["tools"]
    [told] = [chunk["add"] for chunk in found.told("updates") if "add" in chunk]
    assert [message.content for message in told["messages"]] == ["2"]


async def test_the_code_tool_is_one_more_tool() -> None:
    seen: list[list[str]] = []

    @tool
    def look(runtime: ToolRuntime) -> str:
        """Look."""
        seen.append([one.name for one in runtime.tools])
        return "seen"

    bench, node = sandboxed("sync", look)
    assert list(node.tools_by_name) == ["look", "run_code"]
    await bench.run(bench.graph(node), state(("look", {})))
    assert seen == [["look", "run_code"]]
    found = await bench.run(bench.graph(node), state(("unknown", {})))
    assert found.texts == ["Error: unknown is not a valid tool, try one of [look, run_code]."]
    assert found.messages[0].status == "error"
    with pytest.raises(ConfigurationError, match="code_name="):
        CodeOrchestrator([look], code_name="look")


async def test_one_of_several_calls_runs_as_a_task_of_its_own_name() -> None:
    @tool
    def where(config: RunnableConfig) -> str:
        """Say where."""
        return str(config["metadata"]["langgraph_node"])

    theirs, ours = Bench(ToolNode, "sync"), Bench(CodeOrchestrator, "sync")
    several = state(("where", {}), ("where", {}))
    assert (await theirs.run(theirs.graph(theirs.node(where)), several)).texts == ["tools", "tools"]
    assert (await ours.run(ours.graph(ours.node(where)), several)).texts == ["where", "where"]
    assert (await ours.run(ours.graph(ours.node(where)), state(("where", {})))).texts == ["tools"]
