"""One policy, carried by every framework: the same program and the same answers come to the same end in each."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command
from llama_index.core.workflow import Context, InputRequiredEvent, StartEvent, StopEvent, Workflow, step
from mcp import types
from mcp.server.fastmcp import Context as ServerContext
from mcp.server.fastmcp import FastMCP
from mcp.shared.memory import create_connected_server_and_client_session
from workflows.events import WorkflowIdleEvent

from toolchord import (
    Bounds,
    CodeSandbox,
    DurableJournal,
    Limits,
    MemoryStore,
    Policy,
    ToolRegistry,
    Unclear,
    allow,
    ask,
    create_registry,
    deny,
)
from toolchord.errors import CallPaused, ConfigurationError
from toolchord_langgraph import CodeOrchestrator
from toolchord_llama_index import AnswerRefused, CodeOrchestratorToolSpec, answer, code_act_agent, open_questions
from toolchord_mcp import code_server
from toolchord_mcp.approvals import Client

# LlamaIndex looks at every attribute of an agent, deprecated ones of pydantic's too.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
]

Answer = Callable[[Mapping[str, Any]], Any]
"""What a person says to a call with these arguments: "approve", "reject", or the arguments to run it with instead."""


class Shop:
    """Tools that note what they do."""

    def __init__(self) -> None:
        self.did: list[str] = []

        async def pay(to: str, amount: int) -> str:
            """Pay."""
            self.did.append(f"pay {to} {amount}")
            return f"paid {to} {amount}"

        async def wipe(path: str) -> str:
            """Wipe."""
            self.did.append(f"wipe {path}")
            return "wiped"

        async def note(text: str) -> str:
            """Note."""
            self.did.append(f"note {text}")
            return text

        self.registry: ToolRegistry = create_registry()
        for function in (pay, wipe, note):
            self.registry.add(function)


POLICY = Policy(
    deny("wipe", why="never"),
    ask("pay", when=lambda a: a["amount"] > 10, why="a lot"),
    allow("pay", within=Bounds(total={"amount": 6})),
    allow("note", within=Bounds(count=2)),
    otherwise="deny",
)

CODE = """\
import asyncio
async def tried(call):
    try:
        return await call
    except PermissionError as error:
        return f"{type(error).__name__}: {error}"
first = [await tried(note(text="x")), await tried(pay(to="ann", amount=5)), await tried(wipe(path="/"))]
both = await asyncio.gather(tried(pay(to="bob", amount=20)), tried(pay(to="cid", amount=30)))
last = [await tried(pay(to="dan", amount=2)), await tried(note(text="y")), await tried(note(text="z"))]
return first + both + last
"""


async def langgraph(
    sandbox: CodeSandbox, tools: ToolRegistry, code: str, policy: Policy | None, answers: Answer
) -> tuple[str, list[str]]:
    """What the model is told, and what a person was asked."""
    builder = StateGraph(MessagesState)
    builder.add_node("tools", CodeOrchestrator([tools], sandbox=sandbox, policy=policy))
    builder.add_edge(START, "tools")
    app = builder.compile(checkpointer=InMemorySaver())
    asked: list[str] = []
    call = {"type": "tool_call", "id": "c1", "name": "run_code", "args": {"code": code}}
    given: Any = {"messages": [AIMessage("", tool_calls=[call])]}
    while True:
        state = await app.ainvoke(given, {"configurable": {"thread_id": "1"}})
        if not (waiting := state.get("__interrupt__")):
            return str(state["messages"][-1].text), sorted(asked)
        decisions = {}
        for one in waiting:
            asked.append(one.value["args"]["to"])
            decisions[one.id] = _as_decision(one.value["name"], answers(one.value["args"]))
        given = Command(resume=decisions)


def _as_decision(name: str, said: Any) -> dict[str, Any]:
    if isinstance(said, dict):
        return {"type": "edit", "edited_action": {"name": name, "args": said}}
    return {"type": said, "message": "no"} if said == "reject" else {"type": said}


async def llama_index(
    sandbox: CodeSandbox, tools: ToolRegistry, code: str, policy: Policy | None, answers: Answer
) -> tuple[str, list[str]]:
    """See `langgraph`."""
    spec = CodeOrchestratorToolSpec(sandbox, tools, policy=policy)
    asked: list[str] = []
    handler = started(spec, code)
    async with asyncio.timeout(60):
        async for event in handler.stream_events():
            if isinstance(event, InputRequiredEvent):
                asked.append(event.tool_kwargs["to"])
                said = answers(event.tool_kwargs)
                if isinstance(said, dict):
                    handler.ctx.send_event(answer(event, "edit", arguments=said))
                else:
                    handler.ctx.send_event(answer(event, said, message="no" if said == "reject" else None))
        return (await handler).content, sorted(asked)


def started(spec: CodeOrchestratorToolSpec, code: str) -> Any:
    """A run of a workflow that runs a program."""
    return workflow(spec, code).run()


def workflow(spec: CodeOrchestratorToolSpec, code: str) -> Any:
    """A workflow with one step, which runs a program."""
    (tool,) = spec.to_tool_list()

    class Plain(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await tool.acall(ctx=ctx, code=code))

    return Plain()


async def mcp(
    sandbox: CodeSandbox, tools: ToolRegistry, code: str, policy: Policy | None, answers: Answer
) -> tuple[str, list[str]]:
    """See `langgraph`; its forms know no edit."""
    asked: list[str] = []

    async def elicited(context: Any, params: Any) -> types.ElicitResult:
        content = {}
        for place, line in enumerate(params.message.splitlines()[1:], 1):
            to = line.partition("to='")[2].partition("'")[0]
            asked.append(to)
            content[f"call_{place}"] = {"approve": "once", "reject": "no"}.get(answers({"to": to}), "no")
        return types.ElicitResult(action="accept", content=content)

    return await over_mcp(code_server(sandbox, tools, policy=policy), code, elicited), sorted(asked)


async def over_mcp(server: Any, code: str, elicited: Any) -> str:
    async with create_connected_server_and_client_session(server, elicitation_callback=elicited) as session:
        [block] = (await session.call_tool("run_code", {"code": code})).content
    assert isinstance(block, types.TextContent)
    return block.text


FRAMEWORKS: dict[str, Any] = {"langgraph": langgraph, "llama_index": llama_index, "mcp": mcp}
EDITING = [name for name in FRAMEWORKS if name != "mcp"]
WHERE = pytest.mark.parametrize("where", ["adapter", "sandbox"])


async def carried(
    framework: str, answers: Answer, *, policy: Policy = POLICY, where: str = "adapter", code: str = CODE
) -> tuple[Any, list[str], list[str]]:
    """The program's value, what the tools did, and what was asked."""
    shop = Shop()
    own = policy if where == "sandbox" else None
    async with CodeSandbox(limits=Limits(wall_time=20), policy=own) as sandbox:
        run = FRAMEWORKS[framework]
        told, asked = await run(sandbox, shop.registry, code, policy if own is None else None, answers)
    return json.loads(told), shop.did, asked


@WHERE
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_the_same_policy_and_answers_give_the_same_outcome(framework: str, where: str) -> None:
    said = {"bob": "approve", "cid": "reject"}
    value, did, asked = await carried(framework, lambda given: said[given["to"]], where=where)
    assert value[:4] == ["x", "paid ann 5", "CallDenied: default.wipe was refused: never", "paid bob 20"]
    assert value[4].startswith("CallDenied: default.pay was refused: ")
    assert value[5:] == [
        "CallDenied: default.pay was refused: the sum of 'amount' would be 7, more than 6",
        "y",
        "CallDenied: default.note was refused: 2 of 2 calls were made",
    ]
    assert did == ["note x", "pay ann 5", "pay bob 20", "note y"]
    assert asked == ["bob", "cid"]


@pytest.mark.parametrize("framework", EDITING)
async def test_a_call_runs_as_it_was_edited_unless_that_is_denied(framework: str) -> None:
    policy = Policy(deny("pay", when=lambda a: a["amount"] > 100, why="too much"), *POLICY.rules, otherwise="deny")

    def said(given: Mapping[str, Any]) -> Any:
        return {"to": given["to"], "amount": 15 if given["to"] == "bob" else 1000}

    value, did, asked = await carried(framework, said, policy=policy)
    assert value[3:5] == ["paid bob 15", "CallDenied: default.pay was refused: as edited: too much"]
    assert "pay bob 15" in did
    assert len([line for line in did if line.startswith("pay")]) == 2
    assert asked == ["bob", "cid"]


@pytest.mark.parametrize("framework", ["llama_index", "mcp"])
async def test_a_request_that_has_expired_is_refused_and_the_run_goes_on(framework: str) -> None:
    policy = Policy(ask("pay", expires=0.0), otherwise="allow")
    code = (
        "try:\n    await pay(to='ann', amount=1)\n"
        "except PermissionError as error:\n    return [str(error), await note('x')]"
    )
    value, did, asked = await carried(framework, lambda given: "approve", policy=policy, code=code)
    assert value == ["default.pay was refused: the request expired before anybody answered", "x"]
    assert did == ["note x"]
    assert asked == ["ann"]


# LlamaIndex


async def test_a_question_that_nobody_answers_ends_by_itself_and_an_answer_after_that_is_refused() -> None:
    shop = Shop()
    async with CodeSandbox(policy=Policy(ask("pay", expires=0.0, why="money"), otherwise="allow")) as sandbox:
        code = "try:\n    await pay(to='ann', amount=1)\nexcept PermissionError:\n    return await note('x')"
        handler = started(CodeOrchestratorToolSpec(sandbox, shop.registry), code)
        async with asyncio.timeout(60):
            events = [event async for event in handler.stream_events()]
            assert (await handler).raw_output == "x"
        [question] = [event for event in events if isinstance(event, InputRequiredEvent)]
        assert (question.why, question.expires is not None) == ("money", True)
        assert await open_questions(handler.ctx) == []
        assert not any(isinstance(event, AnswerRefused) for event in events)


async def test_a_question_that_expired_while_no_process_ran_fails_when_it_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = Shop()
    code = "try:\n    await pay(to='ann', amount=1)\nexcept PermissionError as error:\n    return str(error)"
    async with CodeSandbox(policy=Policy(ask("pay", expires=1000.0))) as sandbox, asyncio.timeout(60):
        flow = workflow(CodeOrchestratorToolSpec(sandbox, shop.registry), code)
        handler = flow.run()
        async for event in handler.stream_events(expose_internal=True):
            if isinstance(event, WorkflowIdleEvent):
                break
        snapshot = json.loads(json.dumps(handler.ctx.to_dict()))
        await handler.cancel_run()
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 2000.0)
        handler = flow.run(ctx=Context.from_dict(flow, snapshot))
        [question] = await open_questions(handler.ctx)
        handler.ctx.send_event(answer(question))
        reasons = [event.reason async for event in handler.stream_events() if isinstance(event, AnswerRefused)]
        assert reasons == ["it came too late: the question has expired"]
        told = "default.pay was refused: the request expired before anybody answered"
        assert (await handler).raw_output == told
    assert shop.did == []


async def test_an_edited_call_that_was_cut_off_is_asked_about_and_goes_on_as_it_was_edited() -> None:
    paid: list[str] = []
    begun = asyncio.Event()

    async def pay(to: str, amount: int) -> str:
        """Pay."""
        paid.append(f"{to} {amount}")
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        return f"paid {to} {amount}"

    code = "return await pay(to='ann', amount=50)"
    async with CodeSandbox(policy=Policy(ask("pay"))) as sandbox, asyncio.timeout(60):
        flow = workflow(CodeOrchestratorToolSpec(sandbox, [pay]), code)
        handler = flow.run()
        async for event in handler.stream_events():
            if isinstance(event, InputRequiredEvent):
                assert event.choices == ["approve", "edit", "reject", "respond"]
                handler.ctx.send_event(answer(event, "edit", arguments={"to": "ann", "amount": 5}))
                break
        await begun.wait()
        snapshot = json.loads(json.dumps(handler.ctx.to_dict()))
        await handler.cancel_run()
        handler = flow.run(ctx=Context.from_dict(flow, snapshot))
        asked, refused = [], []
        async for event in handler.stream_events():
            if isinstance(event, InputRequiredEvent):
                asked.append(event)
                handler.ctx.send_event(answer(event, "edit", arguments={"to": "eve", "amount": 9}))
            elif isinstance(event, AnswerRefused):
                refused.append(event.reason)
                handler.ctx.send_event(answer(asked[-1], "approve"))
        assert (await handler).raw_output == "paid ann 5"
    assert [(one.kind, one.tool_kwargs, one.choices) for one in asked] == [
        ("unclear", {"to": "ann", "amount": 5}, ["approve", "reject", "respond"])
    ]
    assert refused == ["its response is 'edit'; choose one of approve, reject, respond"]
    assert paid == ["ann 5", "ann 5"]


@pytest.mark.parametrize(
    ("choice", "more", "value"),
    [
        ("reject", {"message": "too slow"}, "CallDenied: default.build was refused: too slow"),
        ("respond", {"value": {"built": 1}}, {"built": 1}),
    ],
)
async def test_a_tool_that_paused_itself_is_answered_in_the_same_words(
    choice: Any, more: dict[str, Any], value: Any
) -> None:
    ran: list[str] = []

    async def build(what: str) -> str:
        """Build."""
        ran.append(what)
        raise CallPaused("the build runs")

    code = "try:\n    return await build('x')\nexcept PermissionError as e:\n    return f'{type(e).__name__}: {e}'"
    async with CodeSandbox() as sandbox, asyncio.timeout(60):
        handler = started(CodeOrchestratorToolSpec(sandbox, [build]), code)
        async for event in handler.stream_events():
            if isinstance(event, InputRequiredEvent):
                assert event.choices == ["approve", "reject", "respond"]
                handler.ctx.send_event(answer(event, choice, **more))
        assert (await handler).raw_output == value
    assert ran == ["x"]


async def test_a_run_in_which_nobody_can_be_asked_refuses_the_call_and_goes_on() -> None:
    shop = Shop()
    async with CodeSandbox(policy=POLICY) as sandbox:
        output = await CodeOrchestratorToolSpec(sandbox, shop.registry).run_code(CODE)
    assert output.raw_output[3] == (
        "CallDenied: default.pay was refused: it needs a person's approval, and nobody can be asked here"
    )
    assert shop.did == ["note x", "pay ann 5", "note y"]


async def test_names_beside_a_policy_are_refused_for_they_would_say_the_same_twice() -> None:
    shop = Shop()
    async with CodeSandbox() as plain, CodeSandbox(policy=POLICY) as ruled:
        for sandbox, policy in ((plain, POLICY), (ruled, None)):
            with pytest.raises(ConfigurationError, match="write ask= as rules of it"):
                CodeOrchestratorToolSpec(sandbox, shop.registry, ask=["pay"], policy=policy)
            with pytest.raises(ConfigurationError, match="write ask= as rules of it"):
                code_act_agent(sandbox, shop.registry, ask=[], policy=policy)
            with pytest.raises(ConfigurationError, match="write ask= and allow= as rules of it"):
                code_server(sandbox, shop.registry, ask=["pay"], policy=policy)
            with pytest.raises(ConfigurationError, match="write ask= and allow= as rules of it"):
                code_server(sandbox, shop.registry, allow=["pay"], policy=policy)
        with pytest.raises(ConfigurationError, match="must be a Policy, not list"):
            CodeOrchestratorToolSpec(plain, shop.registry, policy=[ask("pay")])  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="must be a Policy, not list"):
            code_server(plain, shop.registry, policy=[ask("pay")])  # type: ignore[arg-type]


# MCP


async def test_always_holds_for_the_tool_within_what_the_policy_allows() -> None:
    shop, forms = Shop(), []

    async def elicited(context: Any, params: Any) -> types.ElicitResult:
        forms.append(params.message)
        return types.ElicitResult(action="accept", content={"call_1": "always"})

    policy = Policy(deny("pay", when=lambda a: a["to"] == "eve"), ask("pay", within=Bounds(count=2)), otherwise="allow")
    code = (
        "r = []\nfor to in ['ann', 'eve', 'bob', 'cid']:\n    try:\n        r.append(await pay(to=to, amount=1))\n"
        "    except PermissionError as error:\n        r.append(str(error))\nreturn r"
    )
    async with CodeSandbox() as sandbox:
        told = await over_mcp(code_server(sandbox, shop.registry, policy=policy), code, elicited)
    assert json.loads(told) == [
        "paid ann 1",
        "default.pay was refused: the policy says deny",
        "paid bob 1",
        "default.pay was refused: 2 of 2 calls were made",
    ]
    assert len(forms) == 1
    assert shop.did == ["pay ann 1", "pay bob 1"]


@pytest.mark.parametrize(
    ("chosen", "kind"), [({"call_1": "once"}, "approve"), ({}, "reject"), ({"call_1": "always"}, "reject")]
)
async def test_a_call_of_which_nobody_knows_what_became_is_asked_about_as_such(
    chosen: dict[str, Any], kind: str
) -> None:
    store, begun = MemoryStore(), asyncio.Event()

    async def send(to: str) -> None:
        """Send."""
        begun.set()
        await asyncio.Event().wait()

    async with CodeSandbox(tools=[send]) as sandbox:
        cut_off = asyncio.create_task(
            sandbox.execute("await send('ann')", journal=await DurableJournal.open(store, "run"))
        )
        await begun.wait()
        cut_off.cancel()
        await asyncio.gather(cut_off, return_exceptions=True)
        result = await sandbox.execute("await send('ann')", journal=await DurableJournal.open(store, "run"))
    [call] = result.pending
    assert call.pause is not None
    request = call.pause.reason
    assert isinstance(request, Unclear)
    decided, forms = {}, []
    server = FastMCP("asks")

    async def go(ctx: ServerContext[Any, Any, Any]) -> str:
        """Ask."""
        decided.update(await Client(ctx.session, ctx.request_context.request_id).ask(result.pending))
        return "asked"

    go.__annotations__["ctx"] = ServerContext
    server.tool()(go)

    async def elicited(context: Any, params: Any) -> types.ElicitResult:
        forms.append(params)
        return types.ElicitResult(action="accept", content=chosen)

    async with create_connected_server_and_client_session(server, elicitation_callback=elicited) as session:
        await session.call_tool("go", {})
    [form] = forms
    assert form.message.endswith("1. default.send(to='ann'), line 1: it began before, and may have taken effect")
    assert form.requestedSchema["properties"]["call_1"]["enum"] == ["once", "no"]
    assert [(name, decision.kind) for name, decision in decided.items()] == [(request.id, kind)]
