"""What those see who stream a graph in which a program runs, and those who trace it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolRuntime
from langgraph.types import Command, interrupt

from tests.integrations.langgraph.bench import HOW, Bench, Outcome
from tests.integrations.langgraph.graphs import Script, State, program, thread
from toolchord import CodeSandbox, Limits
from toolchord_langgraph import CodeOrchestrator

MODES = ["custom", "updates", "tools", "messages", "tasks", "values"]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[CodeSandbox]:
    with CodeSandbox(limits=Limits(wall_time=60)) as sandbox:
        yield sandbox


@tool
def fetch(a: int, runtime: ToolRuntime[Any, Any]) -> dict[str, int]:
    """Fetch, and tell how it goes."""
    runtime.stream_writer({"progress": a, "of": runtime.tool_call_id})
    runtime.emit_output_delta(f"part of {a}")
    return {"got": a}


@tool
async def afetch(a: int, runtime: ToolRuntime[Any, Any]) -> dict[str, int]:
    """Fetch, and tell how it goes."""
    runtime.stream_writer({"progress": a, "of": runtime.tool_call_id})
    runtime.emit_output_delta(f"part of {a}")
    return {"got": a}


@tool
def fail(why: str) -> str:
    """Fail."""
    raise ValueError(why)


@tool
def ask(what: str) -> str:
    """Ask a person."""
    return str(interrupt(what))


def given(code: str) -> dict[str, Any]:
    return {"messages": [("user", "go"), program(code)], "notes": []}


def graph_with(bench: Bench, sandbox: CodeSandbox, *tools: BaseTool) -> Any:
    return bench.graph(bench.node(*tools, sandbox=sandbox), saver=InMemorySaver())


def events(outcome: Outcome, kind: str) -> list[dict[str, Any]]:
    return [told for told in outcome.told("custom") if told.get("type") == kind]


CODE = """
print("begun")
first = await {fetch}(a=1)
try:
    await fail(why="broken")
except ValueError as error:
    print(error)
return first
"""


@pytest.mark.parametrize("how", HOW)
async def test_custom_events_tell_of_calls_and_output(sandbox: CodeSandbox, how: str) -> None:
    bench = Bench(CodeOrchestrator, how)
    graph = graph_with(bench, sandbox, fetch, afetch, fail)
    for name in ("fetch", "afetch") if how == "async" else ("fetch",):
        found = await bench.run(graph, given(CODE.format(fetch=name)), thread(name), modes=MODES)
        told = [
            (event["tool_call_id"], event["name"], event["status"], event["line"], event["args"])
            for event in events(found, "code_tool_call")
        ]
        assert told == [
            ("c1:1", name, "running", 3, {"a": 1}),
            ("c1:1", name, "ok", 3, {"a": 1}),
            ("c1:2", "fail", "running", 5, {"why": "broken"}),
            ("c1:2", "fail", "error", 5, {"why": "broken"}),
        ]
        assert {event["parent_tool_call_id"] for event in events(found, "code_tool_call")} == {"c1"}
        assert events(found, "code_tool_call")[-1]["error"] == {"type": "ValueError", "message": "broken"}
        output = events(found, "code_output")
        assert "".join(event["text"] for event in output) == "begun\nbroken\n"
        assert {(event["tool_call_id"], event["stream"]) for event in output} == {("c1", "stdout")}
        # What the inner tool itself writes comes between the two events of its call.
        kinds = [
            event.get("status") or ("progress" if "progress" in event else event["type"])
            for event in found.told("custom")
        ]
        assert kinds[kinds.index("running") : kinds.index("ok") + 1] == ["running", "progress", "ok"]
        assert [event for event in found.told("custom") if "progress" in event] == [{"progress": 1, "of": "c1:1"}]


@pytest.mark.parametrize("how", HOW)
async def test_the_tools_mode_shows_inner_calls_and_output(sandbox: CodeSandbox, how: str) -> None:
    bench = Bench(CodeOrchestrator, how)
    name = "fetch" if how == "sync" else "afetch"
    found = await bench.run(
        graph_with(bench, sandbox, fetch, afetch, fail), given(CODE.format(fetch=name)), thread(), modes=MODES
    )
    told = [(event["event"], event["tool_call_id"]) for event in found.told("tools") if event.get("delta") != "\n"]
    assert told == [
        ("tool-started", "c1"),
        ("tool-output-delta", "c1"),
        ("tool-started", "c1:1"),
        ("tool-output-delta", "c1:1"),
        ("tool-finished", "c1:1"),
        ("tool-started", "c1:2"),
        ("tool-error", "c1:2"),
        ("tool-output-delta", "c1"),
        ("tool-finished", "c1"),
    ]
    deltas = [(event["tool_call_id"], event["delta"]) for event in found.told("tools") if "delta" in event]
    assert "".join(delta for of, delta in deltas if of == "c1") == "begun\nbroken\n"
    assert [delta for of, delta in deltas if of == "c1:1"] == ["part of 1"]
    started = {
        event["tool_call_id"]: event["input"] for event in found.told("tools") if event["event"] == "tool-started"
    }
    assert started["c1:1"] == {"a": 1}
    assert started["c1:2"] == {"why": "broken"}


@pytest.mark.parametrize("how", HOW)
async def test_updates_and_tasks_show_inner_calls_under_their_names(sandbox: CodeSandbox, how: str) -> None:
    bench = Bench(CodeOrchestrator, how)
    found = await bench.run(
        graph_with(bench, sandbox, fetch, afetch, fail), given(CODE.format(fetch="fetch")), thread(), modes=MODES
    )
    [(one, first), (two, second), (three, last)] = [item for chunk in found.told("updates") for item in chunk.items()]
    assert (one, two, three) == ("fetch", "fail", "tools")
    [message] = first["messages"]
    assert (message.tool_call_id, message.name, message.text, message.status) == (
        "c1:1",
        "fetch",
        '{"got": 1}',
        "success",
    )
    [message] = second["messages"]
    assert (message.tool_call_id, message.name, message.text, message.status) == (
        "c1:2",
        "fail",
        "ValueError: broken",
        "error",
    )
    [message] = last["messages"]
    assert message.tool_call_id == "c1"
    # The state holds none of the inner messages.
    assert [message.tool_call_id for message in found.messages] == ["c1"]
    tasks = found.told("tasks")
    assert [task["name"] for task in tasks if "input" in task] == ["tools", "fetch", "fail"]
    ended = {task["name"]: task for task in tasks if "result" in task}
    assert set(ended) == {"tools", "fetch", "fail"}
    assert all(task["error"] is None for task in ended.values())


@pytest.mark.parametrize("how", HOW)
async def test_messages_show_what_inner_calls_and_their_models_say(sandbox: CodeSandbox, how: str) -> None:
    model = Script(turns=["a summary"])

    def summarise(text: str) -> str:
        return model.invoke(text).text

    async def asummarise(text: str) -> str:
        return (await model.ainvoke(text)).text

    both = StructuredTool.from_function(
        func=summarise, coroutine=asummarise, name="summarise", description="Summarise."
    )
    bench = Bench(CodeOrchestrator, how)
    found = await bench.run(
        graph_with(bench, sandbox, both), given("return await summarise(text='long')"), thread(), modes=MODES
    )
    told = [(message.type, message.text, metadata["langgraph_node"]) for message, metadata in found.told("messages")]
    assert told == [
        ("ai", "a summary", "summarise"),
        ("tool", "a summary", "summarise"),
        ("tool", "a summary", "tools"),
    ]
    ids = [message.tool_call_id for message, _ in found.told("messages") if isinstance(message, ToolMessage)]
    assert ids == ["c1:1", "c1"]


@pytest.mark.parametrize("how", HOW)
async def test_ids_are_the_same_on_replay(sandbox: CodeSandbox, how: str) -> None:
    bench = Bench(CodeOrchestrator, how)
    graph = graph_with(bench, sandbox, fetch, fail, ask)
    code = """
import asyncio
print("begun")
made = await asyncio.gather(fetch(a=1), ask(what="one?"), fetch(a=2), ask(what="two?"))
print("half")
return [made, await fetch(a=3)]
"""
    first = await bench.run(graph, given(code), thread(), modes=MODES)
    questions = first.told("updates")[-1]["__interrupt__"]
    assert sorted(question.value for question in questions) == ["one?", "two?"]
    ids = {event["tool_call_id"]: (event["name"], event["args"]) for event in events(first, "code_tool_call")}
    assert ids == {
        "c1:1": ("fetch", {"a": 1}),
        "c1:2": ("ask", {"what": "one?"}),
        "c1:3": ("fetch", {"a": 2}),
        "c1:4": ("ask", {"what": "two?"}),
    }
    last = {event["tool_call_id"]: event["status"] for event in events(first, "code_tool_call")}
    assert last == {"c1:1": "ok", "c1:2": "paused", "c1:3": "ok", "c1:4": "paused"}
    assert "tool-error" not in {event["event"] for event in first.told("tools")}  # a question is no error

    answers = {question.id: f"to {question.value}" for question in questions}
    second = await bench.run(graph, Command(resume=answers), thread(), modes=MODES)
    assert second.error is None
    again = {event["tool_call_id"]: (event["name"], event["args"]) for event in events(second, "code_tool_call")}
    assert again == {**ids, "c1:5": ("fetch", {"a": 3})}
    replayed = {event["tool_call_id"] for event in events(second, "code_tool_call") if event["replayed"]}
    assert replayed == {"c1:1", "c1:3"}
    # What is replayed is told once, as ended, and no tool starts again for it.
    assert all(event["status"] == "ok" for event in events(second, "code_tool_call") if event["replayed"])
    started = [event["tool_call_id"] for event in second.told("tools") if event["event"] == "tool-started"]
    assert sorted(started) == ["c1", "c1:2", "c1:4", "c1:5"]
    [message] = second.messages
    assert [call["tool_call_id"] for call in message.artifact["calls"]] == ["c1:1", "c1:2", "c1:3", "c1:4", "c1:5"]
    assert message.artifact["value"][0] == [{"got": 1}, "to one?", {"got": 2}, "to two?"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("mode", ["custom", "tools"])
async def test_events_come_while_the_program_runs(sandbox: CodeSandbox, mode: str, how: str) -> None:
    seen_output, seen_start = threading.Event(), threading.Event()

    @tool
    def wait() -> bool:
        """Go on once the outside has seen that the program printed and that this call began."""
        return seen_output.wait(30) and seen_start.wait(30)

    def see(event: Any) -> None:
        if event.get("text") == "begun" or event.get("delta") == "begun":
            seen_output.set()
        if event.get("tool_call_id") == "c1:1":
            seen_start.set()

    bench = Bench(CodeOrchestrator, how)
    graph = graph_with(bench, sandbox, wait)
    code = given("print('begun')\nreturn await wait()")

    modes = ["custom", "tools", "values"]  # alone, langgraph hands the events of tools on when the step is over

    def stream() -> Any:
        for kind, chunk in graph.stream(code, thread(), stream_mode=modes):
            if kind == mode:
                see(chunk)
        return chunk

    if how == "sync":
        last = await asyncio.to_thread(stream)
    else:
        async for kind, last in graph.astream(code, thread(), stream_mode=modes):
            if kind == mode:
                see(last)
    assert last["messages"][-1].text.startswith("true")


@pytest.mark.parametrize("how", HOW)
async def test_events_of_two_programs_name_their_own(sandbox: CodeSandbox, how: str) -> None:
    bench = Bench(CodeOrchestrator, how)
    turn = program("print('one')\nreturn await fetch(a=1)")
    turn.tool_calls.append(
        {**turn.tool_calls[0], "id": "c2", "args": {"code": "print('two')\nreturn await fetch(a=2)"}}
    )
    found = await bench.run(graph_with(bench, sandbox, fetch), {"messages": [turn], "notes": []}, thread(), modes=MODES)
    printed = {
        of: "".join(e["text"] for e in events(found, "code_output") if e["tool_call_id"] == of) for of in ("c1", "c2")
    }
    assert printed == {"c1": "one\n", "c2": "two\n"}
    deltas = [(event["tool_call_id"], event["delta"]) for event in found.told("tools") if "delta" in event]
    for of, text, part in (("c1", "one\n", "part of 1"), ("c2", "two\n", "part of 2")):
        assert "".join(delta for one, delta in deltas if one == of) == text
        assert [delta for one, delta in deltas if one == f"{of}:1"] == [part]
    parents = {event["tool_call_id"]: event["parent_tool_call_id"] for event in events(found, "code_tool_call")}
    assert parents == {"c1:1": "c1", "c2:1": "c2"}


@pytest.mark.parametrize("how", HOW)
async def test_events_come_out_of_a_graph_within_a_graph(sandbox: CodeSandbox, how: str) -> None:
    bench = Bench(CodeOrchestrator, how)
    inner = bench.graph(bench.node(fetch, sandbox=sandbox))
    builder = StateGraph(State)
    builder.add_node("agent", inner)
    builder.add_edge(START, "agent")
    graph: Any = builder.compile(checkpointer=InMemorySaver())
    chunks: list[Any] = []
    options: Any = {"stream_mode": ["custom", "updates"], "subgraphs": True}

    def stream() -> None:
        chunks.extend(graph.stream(given("return await fetch(a=1)"), thread(), **options))

    if how == "sync":
        await asyncio.to_thread(stream)
    else:
        chunks = [chunk async for chunk in graph.astream(given("return await fetch(a=1)"), thread(), **options)]
    told = [(len(place), chunk["status"]) for place, mode, chunk in chunks if mode == "custom" and "status" in chunk]
    assert told == [(1, "running"), (1, "ok")]
    names = [name for _, mode, chunk in chunks if mode == "updates" for name in chunk]
    assert names == ["fetch", "tools", "agent"]


class Traced(BaseCallbackHandler):
    """Notes every run: name, kind, parent."""

    run_inline = True

    def __init__(self) -> None:
        self.runs: dict[UUID, tuple[str, str, UUID | None]] = {}

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, **options: Any) -> None:
        self.runs[run_id] = ("chain", str(options.get("name")), options["parent_run_id"])

    def on_tool_start(self, serialized: Any, input_str: str, *, run_id: UUID, **options: Any) -> None:
        self.runs[run_id] = ("tool", serialized["name"], options["parent_run_id"])

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **options: Any) -> None:
        self.runs[run_id] = ("model", "", options["parent_run_id"])

    def above(self, name: str, kind: str = "tool") -> list[str]:
        """The runs above the one of this name, from the inside out."""
        [found] = [one for one in self.runs.values() if one[:2] == (kind, name)]
        names = []
        while (parent := found[2]) is not None:
            found = self.runs[parent]
            names.append(found[1])
        return names


@pytest.mark.parametrize("how", HOW)
async def test_runs_of_inner_calls_are_below_the_programs_run(sandbox: CodeSandbox, how: str) -> None:
    model = Script(turns=["said"])

    @tool
    def outer(text: str) -> str:
        """Ask the model."""
        return model.invoke(text).text

    @tool
    async def aouter(text: str) -> str:
        """Ask the model."""
        return (await model.ainvoke(text)).text

    bench, traced = Bench(CodeOrchestrator, how), Traced()
    name = "outer" if how == "sync" else "aouter"
    code = f"import asyncio\nreturn await asyncio.gather(fetch(a=1), {name}(text='x'))"
    config = {**thread(), "callbacks": [traced]}
    found = await bench.run(graph_with(bench, sandbox, fetch, outer, aouter), given(code), config, modes=["values"])
    assert found.error is None
    assert traced.above("run_code") == ["tools", "LangGraph"]
    assert traced.above("fetch") == ["fetch", "run_code", "tools", "LangGraph"]
    assert traced.above(name) == [name, "run_code", "tools", "LangGraph"]
    assert traced.above("", "model") == [name, name, "run_code", "tools", "LangGraph"]


@pytest.mark.parametrize("how", HOW)
async def test_runs_of_two_programs_are_below_their_own(sandbox: CodeSandbox, how: str) -> None:
    bench, traced = Bench(CodeOrchestrator, how), Traced()
    turn = program("return await fetch(a=1)")
    turn.tool_calls.append({**turn.tool_calls[0], "id": "c2", "args": {"code": "return await fail(why='x')"}})
    config = {**thread(), "callbacks": [traced]}
    graph = graph_with(bench, sandbox, fetch, fail)
    await bench.run(graph, {"messages": [turn], "notes": []}, config, modes=["values"])
    for name in ("fetch", "fail"):
        assert traced.above(name) == [name, "run_code", "run_code", "tools", "LangGraph"]
    programs = [run for run, (kind, name, _) in traced.runs.items() if (kind, name) == ("tool", "run_code")]
    assert len(programs) == 2
    above = [
        traced.runs[run][2]
        for run, (kind, name, _) in traced.runs.items()
        if (kind, name) in (("chain", "fetch"), ("chain", "fail"))
    ]
    assert sorted(above, key=str) == sorted(programs, key=str)


async def test_event_streams_of_langchain_show_inner_tools(sandbox: CodeSandbox) -> None:
    bench = Bench(CodeOrchestrator, "async")
    graph = graph_with(bench, sandbox, afetch)
    told = [
        (event["event"], event["name"])
        async for event in graph.astream_events(given("return await afetch(a=1)"), thread(), version="v2")
        if event["event"].startswith("on_tool")
    ]
    assert told == [
        ("on_tool_start", "run_code"),
        ("on_tool_start", "afetch"),
        ("on_tool_end", "afetch"),
        ("on_tool_end", "run_code"),
    ]
