# ruff: noqa: E501  (a program is kept on one line)
"""LlamaIndex's agents run programs: real agents and workflows, a model that plays a script, real processes that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.agent.workflow.workflow_events import ToolCall, ToolCallResult
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from pydantic import BaseModel
from workflows.events import WorkflowIdleEvent
from workflows.handler import WorkflowHandler

from tests.integrations.llama_script import PAYMENTS, ScriptedLLM, Turn, shop
from toolchord import CodeSandbox, ExecutionResult, Limits, ToolRegistry, create_registry
from toolchord.errors import CallPaused, ConfigurationError
from toolchord_llama_index import (
    AnswerRefused,
    CodeEnded,
    CodeOrchestratorToolSpec,
    CodeOutput,
    answer,
    code_act_agent,
    open_questions,
    registry_from,
)

ROOT = Path(__file__).parents[2]

# What LlamaIndex itself does: it looks at every attribute of an agent, deprecated ones of pydantic's too, its ReAct agent
# asks what it need not ask, and it says that it does not serialise an agent's memory.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step"),
    pytest.mark.filterwarnings("ignore:Skipping serialization of known unserializable key. memory"),
]


@dataclass
class House:
    """A shop with its ledger, a sandbox, and an agent that runs one program after the other."""

    ledger: Path
    registry: ToolRegistry
    sandbox: CodeSandbox
    model: ScriptedLLM = field(default_factory=lambda: ScriptedLLM([]))

    def agent(self, *programs: str, ask: Any = ("pay",), **options: Any) -> FunctionAgent:
        """An agent whose model runs these programs one after the other, as calls c1, c2, …, and then says "done"."""
        turns: list[Turn] = [[(f"c{n}", "run_code", {"code": code})] for n, code in enumerate(programs, 1)]
        return self.plays([*turns, "done"], ask=ask, **options)

    def plays(self, script: Sequence[Turn], ask: Any = ("pay",), **options: Any) -> FunctionAgent:
        self.model = ScriptedLLM(script)
        return FunctionAgent(tools=self.spec(ask=ask, **options).to_tool_list(), llm=self.model)

    def spec(self, **options: Any) -> CodeOrchestratorToolSpec:
        return CodeOrchestratorToolSpec(self.sandbox, self.registry, **options)

    @property
    def ran(self) -> list[str]:
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    @property
    def told(self) -> str:
        """What the model was told last."""
        return self.model.seen[-1][-1].content or ""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    registry = shop(tmp_path / "ledger")
    with CodeSandbox(registry, limits=Limits(wall_time=20)) as sandbox:
        yield House(tmp_path / "ledger", registry, sandbox)


Person = Callable[[InputRequiredEvent], Sequence[Event]]


def says(choice: Any, **more: Any) -> Person:
    return lambda question: [answer(question, choice, **more)]


async def played(handler: WorkflowHandler, person: Person | None = None) -> list[Event]:
    """All events of a run to its end; `person` answers what is asked."""
    seen: list[Event] = []
    async with asyncio.timeout(60):
        async for event in handler.stream_events():
            seen.append(event)
            if isinstance(event, InputRequiredEvent) and person is not None:
                for one in person(event):
                    handler.ctx.send_event(one)
        await handler
    return seen


async def idle(handler: WorkflowHandler, wanted: Callable[[list[Event]], bool] = lambda seen: True) -> list[Event]:
    """The events until the workflow waits for somebody and `wanted` holds of them."""
    seen: list[Event] = []
    async with asyncio.timeout(60):
        async for event in handler.stream_events(expose_internal=True):
            seen.append(event)
            if isinstance(event, WorkflowIdleEvent) and wanted(seen):
                break
    return seen


async def until(handler: WorkflowHandler, questions: int) -> list[Any]:
    """The next questions of a run."""
    return of(InputRequiredEvent, await idle(handler, lambda seen: len(of(InputRequiredEvent, seen)) == questions))


@asynccontextmanager
async def running(agent: Any, message: str = "go") -> AsyncIterator[WorkflowHandler]:
    handler = agent.run(user_msg=message, ctx=Context(agent))
    try:
        yield handler
    finally:
        if not handler.is_done():
            await handler.cancel_run()


def of(kind: type[Event], events: Sequence[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


# Running programs


async def test_an_agent_runs_a_program_and_streams_its_calls_and_its_output(house: House) -> None:
    events = await played(house.agent(PAYMENTS, ask=None).run(user_msg="pay them"))
    calls = [(event.tool_id, event.tool_name, event.tool_kwargs) for event in of(ToolCall, events)]
    assert calls[0] == ("c1", "run_code", {"code": PAYMENTS})
    assert sorted((id, name) for id, name, _ in calls[1:]) == [
        ("c1:1", "look"),
        ("c1:2", "pay"),
        ("c1:3", "send"),
        ("c1:4", "pay"),
        ("c1:5", "look"),
        ("c1:6", "pay"),
    ]
    results = {event.tool_id: event for event in of(ToolCallResult, events)}
    assert set(results) == {id for id, _, _ in calls}
    assert (results["c1:4"].tool_output.raw_output, results["c1:4"].tool_output.content) == ("pay cid 2", "pay cid 2")
    assert results["c1:4"].tool_kwargs == {"to": "cid", "amount": 2}
    order = [(type(event).__name__, getattr(event, "tool_id", None)) for event in events]
    for id in results:
        assert order.index(("ToolCall", id)) < order.index(("ToolCallResult", id))
    assert order.index(("CodeOutput", "c1")) < order.index(("ToolCall", "c1:1"))
    assert order.index(("CodeEnded", "c1")) < order.index(("ToolCallResult", "c1"))
    assert "".join(event.text for event in of(CodeOutput, events)) == "looking\npaid\n"
    (ended,) = of(CodeEnded, events)
    assert (ended.ok, ended.tool_calls, ended.error) == (True, 6, None)
    assert isinstance(ended.result, ExecutionResult)
    assert results["c1"].tool_output.raw_output == [
        "look a",
        "pay ann 1",
        "send bob",
        "pay cid 2",
        "look b",
        "pay dan 3",
    ]
    assert house.told.startswith('["look a", "pay ann 1"')
    assert str(events[-1].result) == "done"


async def test_the_model_is_told_of_the_tools_by_typed_stubs(house: House) -> None:
    await played(house.agent("return 1").run(user_msg="go"))
    (offered,) = house.model.offered
    assert offered["function"]["name"] == "run_code"
    assert "async def pay(to: str, amount: int) -> str:" in offered["function"]["description"]
    assert offered["function"]["parameters"]["required"] == ["code"]
    brief = house.spec(max_tokens=60).to_tool_list()[0]
    assert len(brief.metadata.description) < len(offered["function"]["description"])
    searching = CodeOrchestratorToolSpec(house.sandbox, name="python", description=None).to_tool_list()[0]
    assert "search_tools" in searching.metadata.description
    assert searching.metadata.name == "python"


async def test_a_program_that_fails_is_an_answer_which_the_model_can_repair(house: House) -> None:
    events = await played(
        house.agent("given = {'kee': 'a'}\nreturn look(**given)", "return look(key='a')").run(user_msg="go")
    )
    first, second = (event for event in of(ToolCallResult, events) if ":" not in event.tool_id)
    assert first.tool_output.is_error
    assert "It is called as look(key: str)" in first.tool_output.content
    assert (second.tool_output.is_error, second.tool_output.raw_output) == (False, "look a")
    inner = next(event for event in of(ToolCallResult, events) if event.tool_id == "c1:1")
    assert inner.tool_output.is_error
    assert inner.tool_output.content.startswith("InvalidArguments: look: ")
    assert [event.ok for event in of(CodeEnded, events)] == [False, True]


async def test_an_agents_context_reaches_the_tools_and_no_program(house: House) -> None:
    async def remember(ctx: Any, what: str) -> int:
        """Remember something for the whole workflow."""
        notes = await ctx.store.get("notes", default=[])
        await ctx.store.set("notes", [*notes, what])
        return len(notes) + 1

    remember.__annotations__["ctx"] = Context
    registry_from(FunctionTool.from_defaults(async_fn=remember), registry=house.registry)
    agent = house.agent("return [remember('a'), remember(what='b')]", "return remember('c', ctx={})")
    handler = agent.run(user_msg="go", ctx=Context(agent))
    events = await played(handler)
    assert await handler.ctx.store.get("notes") == ["a", "b"]
    assert [event.ok for event in of(CodeEnded, events)] == [True, False]


async def test_several_agents_hand_over_and_run_programs(house: House) -> None:
    tools = house.spec(ask=["pay"]).to_tool_list()
    first = FunctionAgent(
        name="clerk",
        description="Looks things up.",
        tools=tools,
        llm=ScriptedLLM(
            [
                [("a1", "run_code", {"code": "return look('x')"})],
                [("a2", "handoff", {"to_agent": "payer", "reason": "pay"})],
            ]
        ),
    )
    second = FunctionAgent(
        name="payer",
        description="Pays.",
        tools=tools,
        llm=ScriptedLLM(["", "", [("b1", "run_code", {"code": "return pay('x', 1)"})], "paid"]),
    )
    workflow = AgentWorkflow([first, second], root_agent="clerk")
    events = await played(workflow.run(user_msg="go"), says("approve"))
    assert house.ran == ["look x", "pay x 1"]
    assert [event.tool_id for event in of(ToolCallResult, events)] == ["a1:1", "a1", "a2", "b1:1", "b1"]
    assert str(events[-1].result) == "paid"


async def test_a_react_agent_runs_programs_and_asks_too(house: House) -> None:
    thought = 'Thought: I need a tool.\nAction: run_code\nAction Input: {"code": "return pay(\'ann\', 5)"}'
    model = ScriptedLLM([thought, "Thought: I can answer.\nAnswer: paid"])
    agent = ReActAgent(tools=house.spec(ask=["pay"]).to_tool_list(), llm=model)
    events = await played(agent.run(user_msg="go"), says("approve"))
    assert house.ran == ["pay ann 5"]
    assert len(of(InputRequiredEvent, events)) == 1
    assert str(events[-1].result) == "paid"


async def test_a_code_act_agent_has_the_tools_in_its_programs_and_asks_too(house: House) -> None:
    model = ScriptedLLM(
        [
            "Let me see.\n<execute>\nprint(look('a'))\nreturn pay(to='ann', amount=2)\n</execute>",
            "Paid.",
        ]
    )
    agent = code_act_agent(house.sandbox, house.registry, llm=model, ask=["pay"])
    events = await played(agent.run(user_msg="go"), says("approve"))
    assert house.ran == ["look a", "pay ann 2"]
    assert model.seen[-1][-1].content == "Result of executing the code given:\n\npay ann 2\n\nPrinted:\nlook a"
    assert "async def pay(to: str, amount: int) -> str:" in (model.seen[0][0].content or "")
    assert "tool_descriptions" not in (model.seen[0][0].content or "")
    assert [event.tool_name for event in of(ToolCall, events)] == ["execute", "look", "execute", "pay"]
    assert str(events[-1].result) == "Paid."


async def test_stubs_with_braces_survive_the_prompt_template(house: House) -> None:
    def odd(what: str = "{x}") -> dict[str, int]:
        """Give {braces} and {tool_descriptions}."""
        return {}

    registry = create_registry()
    registry.add(odd)
    model = ScriptedLLM(["nothing to do"])
    await played(code_act_agent(house.sandbox, registry, llm=model).run(user_msg="go"))
    assert "Give {braces} and { tool_descriptions }." in (model.seen[0][0].content or "")


def test_the_tool_works_without_an_agent_and_outside_of_a_loop(house: House) -> None:
    (tool,) = house.spec(ask=["pay"]).to_tool_list()
    assert tool(code="return look('a')").raw_output == "look a"
    assert tool("return {1, 2}").raw_output in ([1, 2], [2, 1])
    refused = tool.call(code="return pay('ann', 1)")
    assert refused.is_error
    assert "nobody can be asked here" in refused.content
    assert house.ran == ["look a"]
    for wrong in ({}, {"code": 3}, {"code": "1", "ctx": None, "other": 1}):
        with pytest.raises((TypeError, ConfigurationError)):
            tool.call(**wrong)


async def test_return_direct_makes_the_programs_value_the_answer(house: House) -> None:
    result = await house.plays([[("c1", "run_code", {"code": "return look('a')"})]], return_direct=True).run(
        user_msg="go"
    )
    assert str(result) == "look a"


@pytest.mark.parametrize("ask", [["pya"], ["pay", "nothing.such"], ["default.pay", ""]])
async def test_a_name_that_is_no_tool_is_told_at_once(house: House, ask: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="ask= names a tool that programs can't call"):
        house.spec(ask=ask)
    with pytest.raises(ConfigurationError, match="must be a CodeSandbox"):
        CodeOrchestratorToolSpec(house.registry)  # type: ignore[arg-type]


# Asking a person


async def test_several_questions_are_open_at_once_and_answered_in_any_order(house: House) -> None:
    async with running(house.agent(PAYMENTS)) as handler:
        ann, cid = await until(handler, 2)
        assert sorted(house.ran) == ["look a", "look b", "send bob"]  # the others went on to their ends
        assert ann.prefix == "Run pay(to='ann', amount=1)?"
        assert (ann.request_id, ann.tool_id, ann.tool_name, ann.tool_kwargs, ann.line) == (
            "c1:2",
            "c1",
            "pay",
            {"to": "ann", "amount": 1},
            4,
        )
        assert cid.request_id == "c1:4"
        assert ann.digest != cid.digest
        assert [question["request_id"] for question in await open_questions(handler.ctx)] == ["c1:2", "c1:4"]
        json.dumps(handler.ctx.to_dict())
        handler.ctx.send_event(answer(cid))
        await idle(handler, lambda seen: [event.tool_id for event in of(ToolCallResult, seen)] == ["c1:4"])
        assert house.ran[3:] == ["pay cid 2"]
        handler.ctx.send_event(answer(ann))
        (dan,) = await until(handler, 1)
        assert house.ran[3:] == ["pay cid 2", "pay ann 1"]
        handler.ctx.send_event(answer(dan))
        assert str(await asyncio.wait_for(handler, 60)) == "done"
    assert house.ran[3:] == ["pay cid 2", "pay ann 1", "pay dan 3"]
    assert len(set(house.ran)) == len(house.ran) == 6


@pytest.mark.parametrize(
    ("choice", "more", "value", "ran"),
    [
        ("approve", {}, "pay ann 1", ["pay ann 1"]),
        ("edit", {"arguments": {"to": "eve", "amount": 7}}, "pay eve 7", ["pay eve 7"]),
        ("reject", {"message": "too much"}, "CallDenied: default.pay was refused: too much", []),
        ("reject", {}, "CallDenied: default.pay was refused", []),
        ("respond", {"value": {"paid": [1, None]}}, {"paid": [1, None]}, []),
    ],
)
async def test_what_an_answer_does(house: House, choice: Any, more: dict[str, Any], value: Any, ran: list[str]) -> None:
    code = "try:\n    return await pay('ann', 1)\nexcept PermissionError as e:\n    return f'{type(e).__name__}: {e}'"
    events = await played(house.agent(code).run(user_msg="go"), says(choice, **more))
    assert of(CodeEnded, events)[0].result.value == value
    assert house.ran == ran
    (inner,) = (event for event in of(ToolCallResult, events) if event.tool_id == "c1:1")
    assert inner.tool_output.is_error == (choice == "reject")


async def test_a_function_decides_by_the_arguments_and_blocking_tools_are_held_too(house: House) -> None:
    def ask(tool: Any, arguments: Any) -> bool:
        return bool(tool.name == "send" or arguments.get("amount", 0) > 10)

    code = "return [pay('ann', 10), pay('bob', 11), send('cid')]"
    events = await played(house.agent(code, ask=ask).run(user_msg="go"), says("approve"))
    assert [event.tool_kwargs for event in of(InputRequiredEvent, events)] == [
        {"to": "bob", "amount": 11},
        {"to": "cid"},
    ]
    assert house.ran == ["pay ann 10", "pay bob 11", "send cid"]


async def test_a_tool_that_is_imported_only_when_it_is_called_is_held_too(house: House) -> None:
    house.registry.add(None, "later", import_path="tests.integrations.llama_script:later", defer_loading=True)
    code = "found = await search_tools('later')\nreturn call_tool(found[0]['name'], n=1), later(n=2)"
    events = await played(house.agent(code, ask=["later"]).run(user_msg="go"), says("reject"))
    assert [event.tool_kwargs for event in of(InputRequiredEvent, events)] == [{"n": 1}, {"n": 2}]
    assert "CallDenied" in of(CodeEnded, events)[0].error
    found = next(event for event in of(ToolCallResult, events) if event.tool_id == "c1:1")
    assert (found.tool_name, found.tool_output.content[-6:]) == ("search_tools", " bytes")
    events = await played(house.agent(code, ask=["later"]).run(user_msg="go"), says("approve"))
    assert [event.tool_kwargs for event in of(InputRequiredEvent, events)] == [{"n": 1}, {"n": 2}]
    assert of(CodeEnded, events)[0].result.value == (2, 3)


async def test_answers_that_come_all_at_once_and_twice_are_each_taken_once(house: House) -> None:
    code = "import asyncio\nreturn await asyncio.gather(*(pay(f'p{n}', n) for n in range(6)))"
    async with running(house.agent(code)) as handler:
        asked = await until(handler, 6)
        for question in [*reversed(asked), *asked]:
            handler.ctx.send_event(answer(question))
        rest = await played(handler)
    assert sorted(house.ran) == [f"pay p{n} {n}" for n in range(6)]
    assert of(AnswerRefused, rest) == []
    assert len([event for event in of(ToolCallResult, rest) if event.tool_id == "c1"]) == 1
    assert len(of(CodeEnded, rest)) == 1
    assert str(rest[-1].result) == "done"


async def test_one_event_may_hold_several_answers(house: House) -> None:
    async with running(house.agent(PAYMENTS)) as handler:
        ann, cid = await until(handler, 2)
        both = [answer(ann, "reject").model_dump()["_data"], answer(cid, "respond", value=0).model_dump()["_data"]]
        handler.ctx.send_event(HumanResponseEvent(answers=both))
        await asyncio.wait_for(handler, 60)
    assert "CallDenied" in house.told
    assert not [line for line in house.ran if line.startswith("pay")]


async def test_an_answer_that_does_not_fit_its_question_is_refused_and_the_question_stays_open(house: House) -> None:
    def wrong(question: Any) -> list[Event]:
        given = {"request_id": question.request_id, "digest": question.digest}
        other = {**given, "digest": "0" * 64}
        return [
            HumanResponseEvent(response="approve", **other),
            HumanResponseEvent(response="approve", request_id=question.request_id),
            HumanResponseEvent(response="yes please", **given),
            HumanResponseEvent(response="edit", arguments={"to": "eve", "amount": "much"}, **given),
            HumanResponseEvent(response="edit", arguments={"to": "eve", "amount": 1, "by": "me"}, **given),
            HumanResponseEvent(response="edit", **given),
            HumanResponseEvent(response="just text, for another tool"),
            HumanResponseEvent(response="approve", request_id="c9:1", digest=question.digest),
        ]

    async with running(house.agent("return pay('ann', 1)")) as handler:
        (question,) = await until(handler, 1)
        reasons: list[str] = []
        for one in wrong(question):
            handler.ctx.send_event(one)
            reasons += [event.reason for event in of(AnswerRefused, await idle(handler))]
        assert [asked["request_id"] for asked in await open_questions(handler.ctx)] == ["c1:1"]
        assert house.ran == []
        handler.ctx.send_event(answer(question))
        assert of(AnswerRefused, await played(handler)) == []
    assert house.ran == ["pay ann 1"]
    expected = [
        "not bound to the call",
        "not bound to the call",
        "its response is 'yes please'",
        "amount: Input should be a valid integer",
        "unexpected argument 'by'",
        "needs all arguments",
    ]
    assert len(reasons) == len(expected)
    assert all(text in reason for text, reason in zip(expected, reasons, strict=True)), reasons


def test_an_answer_is_checked_where_it_is_made() -> None:
    question = {"request_id": "c1:1", "digest": "0" * 64}
    wrong_ones: list[Callable[[], object]] = [
        lambda: answer({}, "approve"),
        lambda: answer(InputRequiredEvent(prefix="Name?")),
        lambda: answer(question, "yes"),  # type: ignore[arg-type]
        lambda: answer(question, "edit"),
        lambda: answer(question, "approve", arguments={}),
    ]
    for wrong in wrong_ones:
        with pytest.raises(ConfigurationError):
            wrong()


async def test_an_answer_is_for_the_call_that_was_asked_about_and_for_no_other(house: House) -> None:
    """The same program text and tool id a second time: nothing of the first run counts."""
    script: list[Turn] = [
        [("same", "run_code", {"code": "return pay('ann', 1)"})],
        [("same", "run_code", {"code": "return pay('ann', 1)"})],
        "done",
    ]
    events = await played(house.plays(script).run(user_msg="go"), says("approve"))
    assert len(of(InputRequiredEvent, events)) == 2
    assert house.ran == ["pay ann 1", "pay ann 1"]


async def test_programs_of_one_turn_ask_and_go_on_each_for_itself(house: House) -> None:
    turn: Turn = [
        (f"t{n}", "run_code", {"code": f"print({n})\nreturn [look('{n}'), pay('p{n}', {n})]"}) for n in range(3)
    ]
    async with running(house.plays([turn, "done"])) as handler:
        asked = await until(handler, 3)
        for question in asked[::-1]:
            handler.ctx.send_event(answer(question, "approve"))
        rest = await played(handler)
    assert sorted(house.ran) == [f"look {n}" for n in range(3)] + [f"pay p{n} {n}" for n in range(3)]
    results = {
        event.tool_id: event.tool_output.raw_output for event in of(ToolCallResult, rest) if ":" not in event.tool_id
    }
    assert results == {f"t{n}": [f"look {n}", f"pay p{n} {n}"] for n in range(3)}


async def test_more_programs_and_answers_than_a_workflow_has_workers_lose_nothing(house: House) -> None:
    """LlamaIndex runs four tool calls at a time, and keeps the last event only for one that waits."""
    code = "import asyncio\nreturn sum(len(x) for x in await asyncio.gather(*(pay(f'{who}{n}', n) for n in range(4))))"
    turn: Turn = [(f"t{who}", "run_code", {"code": f"who = '{who}'\n{code}"}) for who in "abcdef"]
    late: list[InputRequiredEvent] = []
    async with running(house.plays([turn, [("z", "run_code", {"code": "return pay('z', 0)"})], "done"])) as handler:
        late = await until(handler, 24)
        for question in late:
            handler.ctx.send_event(answer(question))
        rest = await played(handler, lambda question: [answer(one) for one in [*late, question]])
    assert sorted(house.ran) == sorted([*(f"pay {who}{n} {n}" for who in "abcdef" for n in range(4)), "pay z 0"])
    outer = [event.tool_id for event in of(ToolCallResult, rest) if ":" not in event.tool_id]
    assert sorted(outer) == ["ta", "tb", "tc", "td", "te", "tf", "z"]
    assert len(of(InputRequiredEvent, rest)) == 1
    assert str(rest[-1].result) == "done"


class Counted(BaseModel):
    """A workflow's state, with fields of its own only."""

    count: int = 0


async def test_a_state_without_room_is_told(house: House) -> None:
    (tool,) = house.spec().to_tool_list()

    class Typed(Workflow):
        @step
        async def start(self, ctx: Context[Counted], ev: StartEvent) -> StopEvent:
            return StopEvent(result=await tool.acall(ctx=ctx, code="return 1"))

    with pytest.raises(ConfigurationError, match="give its type a field: toolchord: dict"):
        await Typed().run()


async def test_a_tool_that_waits_by_itself_is_asked_about(house: House) -> None:
    ready: list[int] = []

    async def build(what: str) -> str:
        """Build something elsewhere."""
        if not ready:
            raise CallPaused("the build runs")
        return what

    house.registry.add(build)

    def later(question: InputRequiredEvent) -> list[Event]:
        ready.append(1)
        return [answer(question)]

    events = await played(house.agent("return build('house')").run(user_msg="go"), later)
    (question,) = of(InputRequiredEvent, events)
    assert question.prefix == "build(what='house') waits for something outside. Call it again?"
    assert of(CodeEnded, events)[0].result.value == "house"


async def test_a_tool_that_waits_in_llama_indexs_own_way_works_inside_a_program(house: House) -> None:
    async def confirm(ctx: Any, what: str) -> str:
        """Ask a person by LlamaIndex's own means."""
        reply = await ctx.wait_for_event(
            HumanResponseEvent,
            waiter_id=f"confirm {what}",
            waiter_event=InputRequiredEvent(prefix=what),
            requirements={"about": what},
        )
        return f"{what}: {reply.response}"

    confirm.__annotations__["ctx"] = Context
    registry_from(FunctionTool.from_defaults(async_fn=confirm), registry=house.registry)
    code = "import asyncio\nlook('first')\nreturn await asyncio.gather(confirm('a'), pay('ann', 1), confirm('b'))"

    def person(question: Any) -> list[Event]:
        if question.get("request_id", None):
            return [answer(question)]
        return [HumanResponseEvent(response="yes", about=question.prefix)]

    events = await played(house.agent(code).run(user_msg="go"), person)
    assert of(CodeEnded, events)[0].result.value == ["a: yes", "pay ann 1", "b: yes"]
    assert house.ran == ["look first", "pay ann 1"]


async def test_a_program_waits_in_any_workflow_that_hands_it_a_context(house: House) -> None:
    (tool,) = house.spec(ask=["pay"]).to_tool_list()

    class Plain(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            output = await tool.acall(ctx=ctx, code="return [look('a'), pay('ann', 1)]")
            return StopEvent(result=output.raw_output)

    events = await played(Plain().run(), says("approve"))
    assert events[-1].result == ["look a", "pay ann 1"]
    assert house.ran == ["look a", "pay ann 1"]


# Going on in another process


def process(folder: Path, ask: str, when: str, *answers: str) -> str:
    """Run the agent in a process of its own until it kills itself, or to its end; what it streamed."""
    command = [sys.executable, "-m", "tests.integrations.llama_process", str(folder), ask, when, *answers]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, env=ENVIRONMENT)
    assert ran.returncode == (0 if when == "end" else -signal.SIGKILL), ran.stdout + ran.stderr
    return ran.stdout


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("core", "integrations", ""))}


def ledger(folder: Path) -> list[str]:
    return (folder / "ledger").read_text().splitlines()


def test_a_killed_run_goes_on_in_other_processes_and_repeats_nothing(tmp_path: Path) -> None:
    process(tmp_path, "pay", "questions:2")
    assert sorted(ledger(tmp_path)) == ["look a", "look b", "send bob"]
    kept = json.loads((tmp_path / "context.json").read_text())  # plain JSON data
    assert [question["request_id"] for question in kept["questions"]] == ["outer:2", "outer:4"]
    second = process(tmp_path, "pay", "questions:1", "outer:4=approve")
    assert ledger(tmp_path)[3:] == ["pay cid 2"]
    assert "InputRequiredEvent" not in second  # the other one is still open, and not asked again
    assert "CodeOutput" not in second  # what it printed was streamed before
    last = process(tmp_path, "pay", "end", "outer:2=approve", "*=approve")
    assert ledger(tmp_path)[3:] == ["pay cid 2", "pay ann 1", "pay dan 3"]
    assert "InputRequiredEvent outer outer:6" in last
    assert "answered all paid" in last


def test_a_call_that_was_cut_off_is_asked_about_and_not_repeated(tmp_path: Path) -> None:
    process(tmp_path, "nothing", "hang:ann")  # killed when the payment has had its effect, and no end
    before = ledger(tmp_path)
    assert "pay ann 1" in before
    last = process(tmp_path, "nothing", "end", "*=respond")
    assert "InputRequiredEvent outer outer:2" in last
    assert "answered all paid" in last
    after = ledger(tmp_path)
    assert after.count("pay ann 1") == 1
    assert after.count("look a") == 1
    assert set(after) >= {"look b", "pay dan 3"}


async def test_a_context_goes_on_in_the_same_process_too(house: House) -> None:
    agent = house.agent(PAYMENTS)
    async with running(agent) as handler:
        await until(handler, 2)
        snapshot = json.loads(json.dumps(handler.ctx.to_dict()))
        memory = await handler.ctx.store.get("memory")
    resumed = agent.run(ctx=Context.from_dict(agent, snapshot))
    await resumed.ctx.store.set("memory", memory)
    for question in await open_questions(resumed.ctx):
        resumed.ctx.send_event(answer(question))
    events = await played(resumed, says("approve"))
    assert str(events[-1].result) == "done"
    assert sorted(house.ran) == ["look a", "look b", "pay ann 1", "pay cid 2", "pay dan 3", "send bob"]
    assert "".join(event.text for event in of(CodeOutput, events)) == "paid\n"


async def test_a_context_that_was_saved_while_a_program_ran_goes_on_and_asks_what_is_open(house: House) -> None:
    """Saved while the step still runs, or has just asked; and answered before the step waits again."""
    agent = house.agent("look('a')\nreturn await pay('ann', 1)")
    handler = agent.run(user_msg="go", ctx=Context(agent))
    snapshots: list[tuple[dict[str, Any], Any]] = []
    async with asyncio.timeout(60):
        begun = False
        async for event in handler.stream_events(expose_internal=True):
            # Before, LlamaIndex's own steps are under way, which it runs again if it is saved then.
            begun = begun or getattr(event, "tool_id", "") == "c1:1"
            if begun:
                memory = await handler.ctx.store.get("memory")
                snapshots.append((json.loads(json.dumps(handler.ctx.to_dict())), list(memory.get_all())))
            if await open_questions(handler.ctx) and not await handler.ctx.running_steps():
                break
    await handler.cancel_run()
    assert house.ran == ["look a"]
    for snapshot, messages in snapshots:
        house.ledger.unlink(missing_ok=True)
        again = house.agent("look('a')\nreturn await pay('ann', 1)")
        resumed = again.run(ctx=Context.from_dict(again, snapshot))
        await resumed.ctx.store.set("memory", ChatMemoryBuffer.from_defaults(list(messages)))
        known = await open_questions(resumed.ctx)
        for question in known:
            resumed.ctx.send_event(answer(question))
        events = await played(resumed, says("approve"))
        assert str(events[-1].result) == "done"
        assert house.ran in ([["pay ann 1"]] if known else [["pay ann 1"], ["look a", "pay ann 1"]])
    assert len(snapshots) >= 3  # a call began, it ended, a question came up


async def test_what_a_context_keeps_of_ended_programs_stays_small(house: House) -> None:
    agent = house.agent(*(f"return [look('{n}'), '{'x' * 1000}']" for n in range(18)))
    handler = agent.run(user_msg="go", ctx=Context(agent), max_iterations=30)
    await played(handler)
    kept = await handler.ctx.store.get("toolchord")
    assert len(kept) == 16
    assert all(set(entry) == {"ended", "paused"} for entry in kept.values())
