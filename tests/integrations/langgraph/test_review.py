"""What a review found: each of these lost, repeated or mixed up something."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AnyMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.errors import NodeTimeoutError
from langgraph.graph import START, StateGraph, add_messages
from langgraph.prebuilt import InjectedState, ToolRuntime
from langgraph.types import Command, RetryPolicy, interrupt
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

from tests.integrations.langgraph.graphs import (
    GO,
    Script,
    State,
    calls,
    graph_of,
    invoke,
    program,
    thread,
    tool_messages,
)
from toolchord import CallIdentity, CodeSandbox, DurableJournal, Limits
from toolchord.errors import ConfigurationError, JournalConflict
from toolchord.recording import Event, Outcome
from toolchord_langgraph import CannotGoOn, CodeOrchestrator, CodeOrchestratorMiddleware, private
from toolchord_langgraph.store import CheckpointStore

_GIVES_UP = """\
import asyncio
try:
    return await asyncio.wait_for(hang(), 0.5)
except TimeoutError:
    return "gave up"
"""


class Ledger:
    """Tools that note what they do."""

    def __init__(self) -> None:
        self.did: list[str] = []

        @tool
        async def pay(amount: int) -> str:
            """Pay."""
            self.did.append(f"pay {amount}")
            return f"paid {amount}"

        self.pay = pay


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def sandbox() -> Iterator[CodeSandbox]:
    with CodeSandbox() as made:
        yield made


def one_node(node: Any, saver: Any, state: Any = State, **options: Any) -> Any:
    """A graph of one node."""
    return StateGraph(state).add_node("tools", node, **options).add_edge(START, "tools").compile(checkpointer=saver)


def asks(message: Any) -> dict[str, Any]:
    return {"messages": [message], "notes": []}


def texts(result: Any) -> list[str]:
    return [message.text for message in tool_messages(result)]


@pytest.mark.parametrize(
    "made", [program("return await pay(1)"), calls(("pay", {"amount": 1}), ("pay", {"amount": 2}))]
)
async def test_a_node_may_have_a_timeout(made: Any, ledger: Ledger, sandbox: CodeSandbox) -> None:
    app = one_node(CodeOrchestrator([ledger.pay], sandbox=sandbox), InMemorySaver(), timeout=60.0)
    result = await app.ainvoke(asks(made), thread())
    assert texts(result)[0] == "paid 1"


async def test_a_node_that_ran_out_of_time_is_retried_and_repeats_nothing(ledger: Ledger, sandbox: CodeSandbox) -> None:
    waits = [True]

    @tool(extras={"capabilities": ["read_only"]})
    async def look(key: str) -> str:
        """Look something up."""
        ledger.did.append(f"look {key}")
        if waits:
            waits.pop()
            await asyncio.Event().wait()
        return key

    retry = RetryPolicy(max_attempts=2, initial_interval=0.0, jitter=False, retry_on=NodeTimeoutError)
    node = CodeOrchestrator([ledger.pay, look], sandbox=sandbox)
    app = one_node(node, InMemorySaver(), timeout=3.0, retry_policy=retry)
    result = await app.ainvoke(asks(program("return [await pay(1), await look('a'), await pay(2)]")), thread())
    assert texts(result) == ['["paid 1", "a", "paid 2"]']
    assert ledger.did == ["pay 1", "look a", "look a", "pay 2"]


class Breaking(InMemorySaver):
    """A checkpointer that fails once, at a row of this name: what is there then is what a killed process leaves."""

    def __init__(self, row: str) -> None:
        super().__init__()
        self.row: str | None = row

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        if self.row and any(channel.endswith(self.row) for channel, _ in writes):
            self.row = None
            raise OSError("no room")
        super().put_writes(config, writes, task_id, task_path)


@tool(extras={"capabilities": ["idempotent"]})
def note(text: str, runtime: ToolRuntime[Any, Any]) -> Command[Any]:
    """Note a text."""
    return Command(update={"notes": [text], "messages": [ToolMessage("noted", tool_call_id=runtime.tool_call_id)]})


async def test_a_call_that_was_cut_off_before_its_result_writes_to_the_state_once(sandbox: CodeSandbox) -> None:
    app = one_node(CodeOrchestrator([note], sandbox=sandbox), Breaking("/call/2"))
    with pytest.raises(OSError, match="no room"):
        await app.ainvoke(asks(program("await note('a')\nawait note('b')\nreturn 1")), thread())
    result = await app.ainvoke(None, thread())
    assert texts(result) == ["1"]
    assert result["notes"] == ["a", "b"]


class Plan(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    plan: str


@dataclasses.dataclass
class PlanObject:
    messages: Annotated[list[AnyMessage], add_messages] = dataclasses.field(default_factory=list)
    plan: str = ""


@tool
def set_plan(plan: str, runtime: ToolRuntime[Any, Any]) -> Command[Any]:
    """Set the plan."""
    return Command(update={"plan": plan, "messages": [ToolMessage("set", tool_call_id=runtime.tool_call_id)]})


@tool
def get_plan(state: Annotated[Any, InjectedState]) -> str:
    """The plan."""
    return str(state.get("plan") if isinstance(state, dict) else state.plan)


@pytest.mark.parametrize("state", [Plan, PlanObject])
@pytest.mark.parametrize("how", ["sync", "async"])
async def test_a_program_sets_a_plain_key_of_the_state_again_and_again(
    state: Any, how: str, sandbox: CodeSandbox
) -> None:
    app = one_node(CodeOrchestrator([set_plan, get_plan], sandbox=sandbox), InMemorySaver(), state)
    code = "seen = []\nfor one in 'abc':\n    await set_plan(one)\n    seen.append(await get_plan())\nreturn seen"
    result = await invoke(app, {"messages": [program(code)]}, thread(), how)
    assert texts(result) == ['["a", "b", "c"]']
    assert result["plan"] == "c"


async def test_a_graph_that_stops_after_a_write_has_not_ended_its_program(ledger: Ledger, sandbox: CodeSandbox) -> None:
    """langgraph takes a node that has written something for one that has ended, and would not run it again."""
    app = one_node(CodeOrchestrator([note, ledger.pay], sandbox=sandbox), Breaking("/start/2/1"))
    with pytest.raises(OSError, match="no room"):
        await app.ainvoke(asks(program("await note('a')\nreturn await pay(1)")), thread())
    result = await app.ainvoke(None, thread())
    assert (texts(result), result["notes"]) == (["paid 1"], ["a"])


async def test_writes_keep_their_order_when_a_program_goes_on(sandbox: CodeSandbox) -> None:
    first = asyncio.Event()

    @tool
    async def late(text: str, runtime: ToolRuntime[Any, Any]) -> Command[Any]:
        """Note a text, but not before another has been noted."""
        await first.wait()
        return Command(update={"notes": [text], "messages": [ToolMessage("", tool_call_id=runtime.tool_call_id)]})

    @tool
    async def early(text: str, runtime: ToolRuntime[Any, Any]) -> Command[Any]:
        """Note a text."""
        first.set()
        return Command(update={"notes": [text], "messages": [ToolMessage("", tool_call_id=runtime.tool_call_id)]})

    app = one_node(CodeOrchestrator([late, early, asks_a_person], sandbox=sandbox), InMemorySaver())
    code = "import asyncio\nawait asyncio.gather(late('second'), early('first'))\nreturn await asks_a_person('?')"
    await app.ainvoke(asks(program(code)), thread())
    result = await app.ainvoke(Command(resume="yes"), thread())
    assert (texts(result), result["notes"]) == (["yes"], ["first", "second"])


@tool
def asks_a_person(what: str) -> str:
    """Ask a person."""
    return str(interrupt(what))


@tool(response_format="content_and_artifact")
def measure(what: str) -> tuple[str, dict[str, Any]]:
    """Measure something."""
    return f"measured {what}", {"variables": b"not those of a program"}


async def test_another_tools_artifact_is_not_taken_for_variables(ledger: Ledger, sandbox: CodeSandbox) -> None:
    node = CodeOrchestrator([measure, ledger.pay], sandbox=sandbox)
    model = Script(turns=[calls(("measure", {"what": "x"})), program("return await pay(1)", 2), "done"])
    result = await graph_of(node, model, InMemorySaver()).ainvoke(GO, thread())
    assert texts(result) == ["measured x", "paid 1"]


async def test_a_program_that_never_came_to_run_is_not_going_on(ledger: Ledger, sandbox: CodeSandbox) -> None:
    transcript = dict.fromkeys(("ok", "value", "stdout", "stderr", "error", "calls", "duration"))
    broken = ToolMessage("", tool_call_id="c0", artifact={**transcript, "variables": b"spoilt"})
    app = one_node(CodeOrchestrator([ledger.pay], sandbox=sandbox), InMemorySaver())
    for given in ({"messages": [broken, program("return await pay(1)")], "notes": []}, None):
        with pytest.raises(ConfigurationError, match="hold no variables"):
            await app.ainvoke(given, thread())


class Failing(CodeOrchestrator):
    """A node that fails once after all its calls."""

    failed = False

    async def _afunc(self, input: Any, config: Any, runtime: Any) -> Any:
        result = await super()._afunc(input, config, runtime)
        if not self.failed:
            self.failed = True
            raise ConnectionError("just once")
        return result


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_retried_node_repeats_nothing_wherever_it_is_kept(
    durability: str, ledger: Ledger, sandbox: CodeSandbox
) -> None:
    retry = RetryPolicy(max_attempts=2, initial_interval=0.0, jitter=False)
    app = one_node(Failing([ledger.pay], sandbox=sandbox), InMemorySaver(), retry_policy=retry)
    result = await app.ainvoke(asks(program("return [await pay(1), await pay(2)]")), thread(), durability=durability)
    assert texts(result) == ['["paid 1", "paid 2"]']
    assert ledger.did == ["pay 1", "pay 2"]


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize(
    "made",
    [
        program("return await pay(1)"),
        calls(("run_code", {"code": "return await pay(1)"}), ("run_code", {"code": "return 2"})),
    ],
)
async def test_a_graph_without_a_checkpointer_within_one_that_has_one(
    made: Any, how: str, ledger: Ledger, sandbox: CodeSandbox
) -> None:
    inner = one_node(CodeOrchestrator([ledger.pay], sandbox=sandbox), False)
    result = await invoke(one_node(inner, InMemorySaver()), asks(made), thread(), how)
    assert texts(result)[0] == "paid 1"


class WritingOver(InMemorySaver):
    """A checkpointer that writes over what is there, as some do."""

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        place = config["configurable"]
        kept = self.writes[place["thread_id"], place["checkpoint_ns"], place["checkpoint_id"]]
        for number in range(len(writes)):
            kept.pop((task_id, number), None)
        super().put_writes(config, writes, task_id, task_path)


def place_in(saver: InMemorySaver) -> private.Location:
    """A checkpoint for rows of runs."""
    config: Any = {"configurable": {"thread_id": "1", "checkpoint_ns": ""}}
    return private.Location(saver, saver.put(config, empty_checkpoint(), {}, {}), True)


@pytest.mark.parametrize("kind", [InMemorySaver, WritingOver])
async def test_of_two_claims_at_once_one_begins_calls(kind: Any) -> None:
    place = place_in(kind())
    one, other = (CheckpointStore(place, None, blocking=False) for _ in range(2))
    claimed = [
        await one.put("run", "attempt/1", b"one", fence=1),
        await other.put("run", "attempt/1", b"other", fence=1),
    ]
    begun = []
    for store, has in zip((one, other), claimed, strict=True):
        if has:
            try:
                begun.append(await store.put("run", "start/1/1", b"digest", fence=1))
            except JournalConflict:
                begun.append(False)
    assert begun.count(True) == 1


async def test_what_a_later_attempt_saw_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines read the price at different times; the one that went on must find its own again."""
    place = place_in(InMemorySaver())
    call = CallIdentity(1, "default.price", "0" * 64, 1)

    async def opened() -> DurableJournal:
        return await DurableJournal.open(CheckpointStore(place, None, blocking=False), "run")

    async def sees(journal: DurableJournal, price: bytes, now: float) -> None:
        async def produce() -> Outcome:
            return Outcome(1, call.digest, True, price)

        async def happens() -> Event:
            return Event(now, [await journal.call(call, produce, repeatable=True)])

        await journal.next(happens)

    with monkeypatch.context() as patch:
        patch.setattr("toolchord.attempts._machine", lambda: "another machine")
        first = await opened()
    second = await opened()
    await sees(first, b"old", 1.0)
    await first.keep(Event(1.5))
    await sees(second, b"new", 2.0)
    await second.end()
    third = await opened()
    assert [(event.now, [outcome.body for outcome in event.outcomes]) for event in third.events] == [(2.0, [b"new"])]


@pytest.mark.parametrize("code", ["return await hang()", _GIVES_UP])
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_synchronous_graph_does_not_wait_for_calls_that_nobody_waits_for(
    kind: str, code: str, sandbox: CodeSandbox
) -> None:
    began, end = threading.Event(), threading.Event()

    @tool("hang", description="Never come back.")
    def hang() -> str:
        began.set()
        end.wait()
        return "late"

    @tool("hang", description="Never come back.")
    async def hang_async() -> str:
        return str(hang.invoke({}))

    try:
        node = CodeOrchestrator([hang if kind == "sync" else hang_async], sandbox=sandbox, limits=Limits(wall_time=2.0))
        (text,) = texts(one_node(node, InMemorySaver()).invoke(asks(program(code)), thread()))
        assert began.is_set()
        assert "gave up" in text or "wall_time" in text
    finally:
        end.set()


class Narrowing(AgentMiddleware[Any, Any]):
    """Shows the model fewer tools than there are, as a tool selector does."""

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(tools=[tool for tool in request.tools if tool.name != "pay"]))


async def test_a_tool_that_waits_for_a_person_may_be_kept_from_the_model(ledger: Ledger, sandbox: CodeSandbox) -> None:
    code = CodeOrchestratorMiddleware(interrupt_on={"pay": True}, sandbox=sandbox)
    model = Script(turns=[program("return await pay(1)"), "done"])
    app: Any = create_agent(model, [ledger.pay], middleware=[Narrowing(), code], checkpointer=InMemorySaver())
    result = await app.ainvoke({"messages": [("user", "go")]}, thread())
    assert [asked.value["name"] for asked in result["__interrupt__"]] == ["pay"]


async def test_a_wrong_name_among_those_that_wait_for_a_person_runs_nothing(
    ledger: Ledger, sandbox: CodeSandbox
) -> None:
    code = CodeOrchestratorMiddleware(interrupt_on={"pya": True}, sandbox=sandbox)
    model = Script(turns=[program("return await pay(1)"), "done"])
    app: Any = create_agent(model, [ledger.pay], middleware=[code])
    with pytest.raises(ConfigurationError, match="did you mean 'pay'"):
        await app.ainvoke({"messages": [("user", "go")]})
    assert ledger.did == []


def deployed(
    ledger: Ledger, sandbox: CodeSandbox, saver: Any, *more: Any, said: str = "Pay.", gone: bool = False
) -> Any:
    """An app as it may be deployed while a thread waits."""

    async def pay(amount: int) -> str:
        ledger.did.append(f"pay {amount}")
        return f"paid {amount}"

    pay.__doc__ = said
    tools = [asks_a_person, *more] if gone else [tool(pay), asks_a_person, *more]
    return one_node(CodeOrchestrator(tools, sandbox=sandbox, handle_tool_errors=True), saver)


WAITS = "first = await pay(1)\nreturn [first, await asks_a_person('?'), await pay(2)]"


async def test_a_new_release_with_other_words_and_more_tools_goes_on(ledger: Ledger, sandbox: CodeSandbox) -> None:
    saver = InMemorySaver()
    await deployed(ledger, sandbox, saver).ainvoke(asks(program(WAITS)), thread())
    app = deployed(ledger, sandbox, saver, note, said="Pay an amount.")
    assert texts(await app.ainvoke(Command(resume="yes"), thread())) == ['["paid 1", "yes", "paid 2"]']
    assert ledger.did == ["pay 1", "pay 2"]


async def test_a_release_that_can_not_go_on_says_so_to_its_developer(ledger: Ledger, sandbox: CodeSandbox) -> None:
    """Not to the model, which would write the program anew and pay again; the next release finds all as it was."""
    saver = InMemorySaver()
    await deployed(ledger, sandbox, saver).ainvoke(asks(program(WAITS)), thread())
    with pytest.raises(CannotGoOn, match="begun with another program, other inputs or other tools"):
        await deployed(ledger, sandbox, saver, gone=True).ainvoke(Command(resume="yes"), thread())
    result = await deployed(ledger, sandbox, saver).ainvoke(Command(resume="yes"), thread())
    assert texts(result) == ['["paid 1", "yes", "paid 2"]']
    assert ledger.did == ["pay 1", "pay 2"]


class OldArguments(BaseModelV1):
    x: int


class Old(BaseTool):
    """A tool whose arguments are a model of pydantic's first version."""

    name: str = "old"
    description: str = "An old tool."
    args_schema: Any = OldArguments

    def _run(self, x: int) -> int:
        return x


async def test_wrong_arguments_of_an_old_tool_are_told_as_those_of_any_other(sandbox: CodeSandbox) -> None:
    code = "try:\n    await old(x='no')\nexcept TypeError as error:\n    return [type(error).__name__, str(error)]"
    result = await one_node(CodeOrchestrator([Old()], sandbox=sandbox), InMemorySaver()).ainvoke(
        asks(program(code)), thread()
    )
    (text,) = texts(result)
    assert text.startswith('["InvalidArguments", "')
    assert "x: value is not a valid integer" in text


async def test_an_answer_names_the_code_tool(ledger: Ledger, sandbox: CodeSandbox) -> None:
    """Some providers match answers to calls by name."""
    app = one_node(CodeOrchestrator([ledger.pay], sandbox=sandbox, code_name="program"), InMemorySaver())
    result = await app.ainvoke(asks(calls(("program", {"code": "return 1"}))), thread())
    assert [(message.name, message.text) for message in tool_messages(result)] == [("program", "1")]


async def test_a_question_of_an_agent_within_a_program_is_asked_once(ledger: Ledger, sandbox: CodeSandbox) -> None:
    code = "return await asks_a_person('?')"
    agent = one_node(CodeOrchestrator([asks_a_person], sandbox=sandbox), None)

    @tool
    async def delegate(what: str) -> str:
        """Have an agent do something."""
        (text,) = texts(await agent.ainvoke(asks(program(code))))
        return text

    app = one_node(CodeOrchestrator([delegate, ledger.pay], sandbox=sandbox), InMemorySaver())
    paused = await app.ainvoke(asks(program("return [await pay(1), await delegate('x')]")), thread())
    assert [asked.value for asked in paused["__interrupt__"]] == ["?"]
    assert texts(await app.ainvoke(Command(resume="yes"), thread())) == ['["paid 1", "yes"]']
    assert ledger.did == ["pay 1"]


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("within", [False, True])
async def test_an_answer_without_an_id_is_given_to_one_question(
    within: bool, how: str, ledger: Ledger, sandbox: CodeSandbox
) -> None:
    """It stays in the checkpoint; resumed without an answer, langgraph takes it for the answer to the next question."""
    node = CodeOrchestrator([ledger.pay], sandbox=sandbox, interrupt_on={"pay": True})
    app = one_node(one_node(node, None), InMemorySaver()) if within else one_node(node, InMemorySaver())

    async def asked(given: Any) -> list[Any]:
        result = await invoke(app, given, thread(), how)
        return sorted({one.value["args"]["amount"] for one in result.get("__interrupt__", ())})

    yes: Command[Any] = Command(resume={"type": "approve"})
    assert await asked(asks(program("return [await pay(1), await pay(2)]"))) == [1]
    assert await asked(yes) == [2]
    assert await asked(None) == [2]
    assert ledger.did == ["pay 1"]
    assert await asked(yes) == []
    assert ledger.did == ["pay 1", "pay 2"]


@pytest.mark.parametrize("value", ["'\\ud800'", "{'\\ud800': 1}", "[10 ** 40, float('nan')]", "{1: {2}}"])
async def test_whatever_a_program_returns_its_message_can_be_kept(
    value: str, ledger: Ledger, sandbox: CodeSandbox
) -> None:
    @tool
    def same(x: Any) -> Any:
        """Give the same."""
        return x

    app = one_node(CodeOrchestrator([same], sandbox=sandbox), InMemorySaver())
    result = await app.ainvoke(asks(program(f"return await same({value})")), thread())
    (message,) = tool_messages(result)
    assert message.status == "success"
    assert JsonPlusSerializer().loads_typed(JsonPlusSerializer().dumps_typed(message)) == message
