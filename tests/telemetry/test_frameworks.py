"""Beside other instrumentations, all of them real: LangSmith's client, LangChain's tracer, OpenInference's spans of
LangChain and LlamaIndex, LlamaIndex's own dispatcher, HTTPX, and the trace context that goes to MCP servers."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, tool
from langchain_core.tracers import LangChainTracer
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_core.tracers.schemas import Run
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from langsmith import Client
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation import get_dispatcher, root_dispatcher
from mcp.shared.memory import create_connected_server_and_client_session
from openinference.instrumentation.langchain import LangChainInstrumentor
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

import toolchord
import toolchord_llama_index
from tests.telemetry.seen import Seen, instrumented, told
from toolchord import CodeSandbox, Limits
from toolchord_langchain import code_tool, registry_from
from toolchord_langgraph import CodeOrchestrator
from toolchord_mcp import code_server, connect


@pytest.fixture
def seen() -> Iterator[Seen]:
    with instrumented(content=False) as seen:
        yield seen


@pytest.fixture(scope="module")
def sandbox() -> Iterator[CodeSandbox]:
    with CodeSandbox(limits=Limits(wall_time=20)) as sandbox:
        yield sandbox


@tool
async def search(words: str) -> list[str]:
    """Find documents."""
    return [words]


def plain(number: int) -> int:
    """A function, no tool of LangChain's."""
    return number


PROGRAM = "rows = search(words='a')\nreturn plain(number=len(rows))"


def runner(sandbox: CodeSandbox) -> BaseTool:
    registry = registry_from([search])
    registry.add(toolchord.tool_from(plain))
    return code_tool(sandbox, registry)


def call_of(code: str) -> ToolCall:
    return ToolCall(type="tool_call", id="call_1", name="run_code", args={"code": code})


# LangChain and LangSmith


def tree(run: Run) -> Any:
    return (run.name, run.run_type, [tree(child) for child in run.child_runs])


async def test_langchains_tracer_sees_inner_calls_below_the_program(seen: Seen, sandbox: CodeSandbox) -> None:
    collector = RunCollectorCallbackHandler()
    await runner(sandbox).ainvoke(call_of(PROGRAM), {"callbacks": [collector]})
    assert [tree(run) for run in collector.traced_runs] == [("run_code", "tool", [("search", "tool", [])])]
    assert {way.partition(" > ")[0] for way in seen.ways} == {"execute_tool run_code"}  # of spans, one tree too


class _LangSmith(BaseHTTPRequestHandler):
    """The receiving end of LangSmith: keeps the bodies."""

    server: _Bodies

    def do_GET(self) -> None:
        self._answer(
            json.dumps({"version": "0.12.0", "batch_ingest_config": {"use_multipart_endpoint": False}}).encode()
        )

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(json.loads(body))
        self._answer(b"{}")

    do_PATCH = do_POST

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class _Bodies(ThreadingHTTPServer):
    def __init__(self) -> None:
        self.bodies: list[Any] = []
        super().__init__(("127.0.0.1", 0), _LangSmith)


@pytest.fixture
def langsmith() -> Iterator[_Bodies]:
    with _Bodies() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_langsmith_is_sent_inner_calls_as_children_of_the_program(
    langsmith: _Bodies, sandbox: CodeSandbox
) -> None:
    client = Client(api_url=f"http://127.0.0.1:{langsmith.server_address[1]}", api_key="none", auto_batch_tracing=False)
    tracer = LangChainTracer(client=client, project_name="tests")
    await runner(sandbox).ainvoke(call_of(PROGRAM), {"callbacks": [tracer]})
    tracer.wait_for_futures()
    client.cleanup()
    runs = {body["name"]: body for body in langsmith.bodies if "name" in body}
    assert set(runs) == {"run_code", "search"}
    assert runs["search"]["parent_run_id"] == runs["run_code"]["id"]
    assert runs["search"]["run_type"] == runs["run_code"]["run_type"] == "tool"


@pytest.fixture
def openinference(seen: Seen) -> Iterator[Seen]:
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=seen.tracers)
    yield seen
    instrumentor.uninstrument()


async def test_with_openinferences_spans_of_langchain_there_is_one_tree(
    openinference: Seen, sandbox: CodeSandbox
) -> None:
    """Its spans are not current, so ours would be a second root; and LangChain's tools are its to tell of."""
    await runner(sandbox).ainvoke(call_of(PROGRAM))
    assert sorted(openinference.ways) == [
        "run_code",
        "run_code > execute_tool run_code",
        "run_code > execute_tool run_code > execute_tool plain",
        "run_code > execute_tool run_code > run_program",
        "run_code > search",
    ]


def test_so_there_is_in_a_run_that_is_not_asynchronous(openinference: Seen) -> None:
    with CodeSandbox() as sandbox, openinference.tracer.start_as_current_span("request"):
        runner(sandbox).invoke(call_of(PROGRAM))
    assert sorted(openinference.ways)[:3] == [
        "request",
        "request > run_code",
        "request > run_code > execute_tool run_code",
    ]
    assert len(openinference.ways) == 6


async def test_a_span_that_an_application_makes_within_a_run_of_langchains_is_the_nearer_one(
    openinference: Seen, sandbox: CodeSandbox
) -> None:
    async def step(_: Any) -> Any:
        with openinference.tracer.start_as_current_span("mine"):
            return (await sandbox.execute("plain(number=1)", [plain])).value

    assert await RunnableLambda(step, name="step").ainvoke(None) == 1
    assert "step > mine > execute_tool run_code > execute_tool plain" in _joined(openinference)


def _joined(seen: Seen) -> list[str]:
    """Ways, with a span of the application's own as what it is: the child of what was current, or a root."""
    ways = seen.ways
    return [f"step > {way}" if way.startswith("mine") else way for way in ways]


# LangGraph


def graph_of(sandbox: CodeSandbox, code: str, **options: Any) -> Any:
    registry = registry_from([search])
    registry.add(toolchord.tool_from(plain))
    orchestrator = CodeOrchestrator([registry], sandbox=sandbox, **options)

    def model(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("", tool_calls=[call_of(code)])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", model)
    graph.add_node("tools", orchestrator)
    graph.add_edge(START, "model")
    graph.add_edge("model", "tools")
    graph.add_edge("tools", END)
    return graph.compile(checkpointer=InMemorySaver())


@pytest.mark.parametrize("blocking", [False, True])
async def test_in_a_graph_the_calls_nest_below_the_run(seen: Seen, sandbox: CodeSandbox, blocking: bool) -> None:
    graph = graph_of(sandbox, PROGRAM)
    asked = {"messages": [HumanMessage("Look.")]}
    config = {"configurable": {"thread_id": "1"}}
    with seen.tracer.start_as_current_span("request"):
        state = graph.invoke(asked, config) if blocking else await graph.ainvoke(asked, config)
    assert state["messages"][-1].content == "1"
    assert sorted(seen.ways) == [
        "request",
        "request > execute_tool run_code",
        "request > execute_tool run_code > execute_tool plain",
        "request > execute_tool run_code > execute_tool search",
        "request > execute_tool run_code > run_program",
    ]


async def test_a_graph_that_waits_for_a_person_goes_on_with_a_span_that_links_to_the_first(
    seen: Seen, sandbox: CodeSandbox
) -> None:
    graph = graph_of(sandbox, PROGRAM, interrupt_on={"plain": True})
    config = {"configurable": {"thread_id": "1"}}
    await graph.ainvoke({"messages": [HumanMessage("Look.")]}, config)
    state = await graph.ainvoke(Command(resume={"type": "approve"}), config)
    assert state["messages"][-1].content == "1"
    before, after = seen.named("execute_tool run_code")
    assert before.context is not None
    assert [link.context.span_id for link in after.links] == [before.context.span_id]
    assert told(before)["toolchord.run.id"] == told(after)["toolchord.run.id"]
    assert [told(one)["toolchord.run.status"] for one in (before, after)] == ["paused", "ok"]
    assert len(seen.named("execute_tool search")) == 1
    assert [told(one)["toolchord.call.status"] for one in seen.named("execute_tool plain")] == ["paused", "ok"]


async def test_in_a_graph_that_openinference_watches_there_is_one_tree(
    openinference: Seen, sandbox: CodeSandbox
) -> None:
    graph = graph_of(sandbox, PROGRAM)
    await graph.ainvoke({"messages": [HumanMessage("Look.")]}, {"configurable": {"thread_id": "1"}})
    assert len(openinference.traces) == 1
    ways = openinference.ways
    assert "LangGraph > tools > run_code > execute_tool run_code > run_program" in ways
    assert "LangGraph > tools > run_code > plain" in ways  # a tool of the node's is LangChain's, which tells of it
    assert not [way for way in ways if "execute_tool plain" in way or "execute_tool search" in way]


# LlamaIndex


class Dispatched(SimpleSpanHandler):
    """LlamaIndex's own spans, with their parents."""


_dispatcher = get_dispatcher(__name__)


@_dispatcher.span
def looked_up(words: str) -> str:
    return words


def query(words: str) -> str:
    """Query."""
    return looked_up(words)


@_dispatcher.span
async def agent(sandbox: CodeSandbox) -> Any:
    tools = toolchord_llama_index.registry_from([FunctionTool.from_defaults(query)])
    return (await sandbox.execute("query(words='a')", tools)).value


async def test_llama_indexs_own_spans_of_inner_calls_nest_below_what_is_around_the_program(
    sandbox: CodeSandbox,
) -> None:
    handler = Dispatched()
    root_dispatcher.add_span_handler(handler)
    try:
        assert await agent(sandbox) == "a"
    finally:
        root_dispatcher.span_handlers.remove(handler)
    spans = {span.id_.partition("-")[0]: span for span in handler.completed_spans}
    assert spans["looked_up"].parent_id == spans["FunctionTool.call"].id_
    assert spans["FunctionTool.call"].parent_id == spans["agent"].id_


async def test_with_openinferences_spans_of_llama_index_there_is_one_tree(seen: Seen, sandbox: CodeSandbox) -> None:
    instrumentor = LlamaIndexInstrumentor()
    instrumentor.instrument(tracer_provider=seen.tracers)
    try:
        assert await agent(sandbox) == "a"
    finally:
        instrumentor.uninstrument()
    assert sorted(seen.ways) == [
        "agent",
        "agent > FunctionTool.call",  # by its own reckoning of parents
        "agent > FunctionTool.call > looked_up",
        "agent > execute_tool run_code",
        "agent > execute_tool run_code > execute_tool query",
        "agent > execute_tool run_code > run_program",
    ]


# what tools do over the network


async def test_requests_of_a_tool_nest_below_its_call(seen: Seen, langsmith: _Bodies, sandbox: CodeSandbox) -> None:
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=seen.tracers)

    async def fetch() -> int:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{langsmith.server_address[1]}/")).status_code

    try:
        assert (await sandbox.execute("fetch()", [toolchord.tool_from(fetch)])).value == 200
    finally:
        instrumentor.uninstrument()
    assert "execute_tool run_code > execute_tool fetch > GET" in seen.ways


SERVER = """
from mcp.server.fastmcp import Context, FastMCP

server = FastMCP("echo")

@server.tool()
def meta(context: Context) -> dict:
    given = context.request_context.meta
    return dict(given.model_extra or {}) if given is not None else {}

server.run()
"""


async def test_mcp_servers_are_told_the_trace_and_no_baggage(seen: Seen, sandbox: CodeSandbox, tmp_path: Path) -> None:
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    with connect([sys.executable, str(path)], timeout=30.0) as server:
        result = await sandbox.execute("meta()", server.registry)
        assert result.ok, result.for_model()
        call = seen.one("execute_tool meta")
        assert call.context is not None
        (parent,) = json.loads(result.value).items()
        assert parent[0] == "traceparent"
        assert parent[1].startswith(f"00-{call.context.trace_id:032x}-{call.context.span_id:016x}-")
        toolchord.observing.use_propagator(None)
        assert json.loads((await sandbox.execute("meta()", server.registry)).value) == {}


async def test_a_server_of_ours_goes_on_with_the_trace_of_its_client(seen: Seen, sandbox: CodeSandbox) -> None:
    server = code_server(sandbox, [plain])
    with seen.tracer.start_as_current_span("client") as span:
        context = span.get_span_context()
        carried = {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-01"}
    async with create_connected_server_and_client_session(server) as session:
        for meta in (carried, {"traceparent": "nonsense"}, {}):
            answer = await session.call_tool("run_code", {"code": "plain(number=1)"}, meta=meta)
            assert not answer.isError
    assert [seen.way(run)[0] for run in seen.named("execute_tool run_code")] == [
        "client",
        "execute_tool run_code",
        "execute_tool run_code",
    ]
