"""Pauses and resumes: on every saver, in every kind of graph, nothing that has ended runs again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, RetryPolicy

from tests.integrations.langgraph.apps import graph
from tests.integrations.langgraph.graphs import (
    GO,
    Script,
    State,
    answers,
    calls,
    graph_of,
    invoke,
    program,
    thread,
    tool_messages,
)
from tests.integrations.langgraph.savers import KINDS, saver
from tests.integrations.langgraph.shop import answer, forget, happened, tools_of
from toolchord_langgraph import CodeOrchestrator, CodeOrchestratorMiddleware, TakenOver

GATHER = """\
import asyncio
first = await look(key="a")
rest = await asyncio.gather(pay(1), ask("x"), look("b"), ask("y"), pay(2))
return [first.key, *rest, await pay(3)]
"""
GAVE = '["a", "paid 1", "yes-x", {"key": "b"}, "yes-y", "paid 2", "paid 3"]'
HOW = ("async", "sync")


@pytest.fixture(params=KINDS)
async def kept(request: pytest.FixtureRequest, tmp_path: Path, how: str, postgres: str) -> AsyncIterator[Any]:
    async with saver(request.param, how, path=tmp_path / "threads.db", postgres=postgres) as made:
        yield made


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", ["node", "subgraph", "agent", "deep", "prebuilt"])
async def test_a_paused_program_goes_on_where_it_was(kind: str, how: str, kept: Any, ledger: Path) -> None:
    app = graph(kind, ledger, kept, program(GATHER))
    here = thread(f"{kind}-{how}-{ledger}")
    result = await invoke(app, GO, here, how)
    asked = {one.value.get("what") or one.value["args"]["amount"]: one for one in result["__interrupt__"]}
    assert set(asked) == {"x", "y", 2}
    assert forget(ledger) == ["look a", "look b", "pay 1"]
    result = await invoke(app, Command(resume={asked["y"].id: "yes-y"}), here, how)
    assert {one.id for one in result["__interrupt__"]} == {asked["x"].id, asked[2].id}
    assert forget(ledger) == ["ask y yes-y"]
    result = await invoke(app, answers(result, answer), here, how)
    assert forget(ledger) == ["ask x yes-x", "pay 2", "pay 3"]
    assert next(tool_messages(result)).text == GAVE


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_every_durability(durability: str, how: str, tmp_path: Path, postgres: str, ledger: Path) -> None:
    for step in range(2):  # each with a connection of its own
        async with saver("sqlite", how, path=tmp_path / "threads.db", postgres=postgres) as kept:
            app = graph("node", ledger, kept, program(GATHER))
            if step == 0:
                await invoke(app, GO, thread(), how, durability=durability)
                assert forget(ledger) == ["look a", "look b", "pay 1"]
                continue
            asked = (
                await app.aget_state(thread()) if how == "async" else await asyncio.to_thread(app.get_state, thread())
            )
            resume: Command[Any] = Command(resume={one.id: answer(one.value) for one in asked.interrupts})
            result = await invoke(app, resume, thread(), how, durability=durability)
            assert forget(ledger) == ["ask x yes-x", "ask y yes-y", "pay 2", "pay 3"]
            assert next(tool_messages(result)).text == GAVE


RACE = """\
import asyncio
tasks = [slow(n) for n in range(5)]
first = await next(asyncio.as_completed(tasks))
return await pay(first)
"""


@pytest.mark.parametrize("how", HOW)
async def test_an_approval_stays_with_the_call_that_it_was_given_for(how: str, ledger: Path) -> None:
    """The order of completions is not langgraph's to keep: after a resume it would run another call."""
    order = iter(range(5))

    @tool
    async def slow(n: int) -> int:
        """The later ones are faster at first."""
        turn = next(order)
        for _ in range(10 * (5 - n) if turn < 5 else 10 * n):
            await asyncio.sleep(0)
        return n

    tools = [*tools_of(ledger), slow]
    app = graph_of(
        CodeOrchestrator(tools, interrupt_on={"pay": True}), Script(turns=[program(RACE), "done"]), InMemorySaver()
    )
    result = await invoke(app, GO, thread(), how)
    (asked,) = result["__interrupt__"]
    order = iter(range(100, 105))
    result = await invoke(app, answers(result, answer), thread(), how)
    assert forget(ledger) == [f"pay {asked.value['args']['amount']}"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("with_saver", [True, False])
async def test_a_retried_node_repeats_nothing(how: str, with_saver: bool, ledger: Path) -> None:
    """langgraph does not reset its counter of sub-tasks on a retry, so results would be mixed up."""
    failed: list[str] = []

    class Flaky(CodeOrchestrator):
        def _func(self, input: Any, config: RunnableConfig, runtime: Runtime[Any]) -> Any:
            return self._fail(super()._func(input, config, runtime))

        async def _afunc(self, input: Any, config: RunnableConfig, runtime: Runtime[Any]) -> Any:
            return self._fail(await super()._afunc(input, config, runtime))

        def _fail(self, output: Any) -> Any:
            if len(failed) < 2:
                failed.append("once more")
                raise ConnectionError("after the program has ended")
            return output

    code = "a = await look('a')\nb = await pay(1)\nc = await pay(5)\nreturn [a, b, c]"
    node = Flaky(tools_of(ledger), name="tools")
    builder = StateGraph(State)
    builder.add_node("tools", node, retry_policy=RetryPolicy(max_attempts=3, initial_interval=0.001))
    builder.add_edge(START, "tools")
    app = builder.compile(checkpointer=InMemorySaver() if with_saver else None)
    given = {"messages": [program(code)], "notes": []}
    result = await invoke(app, given, thread(), how)
    assert failed == ["once more"] * 2
    assert happened(ledger) == ["look a", "pay 1", "pay 5"]
    assert next(tool_messages(result)).text == '[{"key": "a"}, "paid 1", "paid 5"]'


@pytest.mark.parametrize("how", HOW)
async def test_two_programs_in_one_node_keep_apart(how: str, ledger: Path) -> None:
    one = "a = await look('one')\nb = await ask('one')\nreturn [a.key, b, await pay(1)]"
    two = "b = await ask('two')\na = await look('two')\nc = await look('more')\nreturn [a.key, b, c.key]"
    made = calls(
        ("run_code", {"code": one}), ("run_code", {"code": two}), ("ask", {"what": "direct"}), ("pay", {"amount": 7})
    )
    app = graph_of(CodeOrchestrator(tools_of(ledger)), Script(turns=[made, "done"]), InMemorySaver())
    result = await invoke(app, GO, thread(), how)
    assert sorted(one.value["what"] for one in result["__interrupt__"]) == ["direct", "one", "two"]
    assert forget(ledger) == ["look one", "pay 7"]
    by_name = {one.value["what"]: one for one in result["__interrupt__"]}
    result = await invoke(app, Command(resume={by_name["two"].id: "yes-two"}), thread(), how)
    assert forget(ledger) == ["ask two yes-two", "look more", "look two"]
    result = await invoke(app, answers(result, answer), thread(), how)
    assert forget(ledger) == ["ask direct yes-direct", "ask one yes-one", "pay 1"]
    assert [m.text for m in tool_messages(result)] == [
        '["one", "yes-one", "paid 1"]',
        '["two", "yes-two", "more"]',
        "yes-direct",
        "paid 7",
    ]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
async def test_two_resumes_at_once_run_nothing_twice(
    kind: str, how: str, tmp_path: Path, postgres: str, ledger: Path
) -> None:
    code = "await ask('x')\nreturn [await pay(n) for n in range(10, 15)]"
    here = thread(str(ledger))
    path = tmp_path / "threads.db"
    async with (
        saver(kind, how, path=path, postgres=postgres) as first,
        saver(kind, how, path=path, postgres=postgres) as other,
    ):
        second = first if kind == "memory" else other
        apps = [graph("node", ledger, kept, program(code)) for kept in (first, second)]
        result = await invoke(apps[0], GO, here, how)
        resume = answers(result, answer)
        both = await asyncio.gather(*(invoke(app, resume, here, how) for app in apps), return_exceptions=True)
        assert [line for line in forget(ledger) if line.startswith("pay")] == [f"pay {n}" for n in range(10, 15)]
        assert sum(isinstance(one, TakenOver) for one in both) == 1
        (ended,) = (one for one in both if not isinstance(one, BaseException))
        assert next(tool_messages(ended)).text.startswith('["paid 10"')


@pytest.mark.parametrize("how", HOW)
async def test_a_fork_runs_everything_anew(how: str, ledger: Path) -> None:
    """Time travel to before the node is another history; that is said in the documentation."""
    app = graph("node", ledger, InMemorySaver(), program("return await pay(1)"))
    await invoke(app, GO, thread(), how)
    before = next(one for one in app.get_state_history(thread()) if one.next == ("tools",))
    await invoke(app, None, before.config, how)
    assert forget(ledger) == ["pay 1", "pay 1"]


DECISIONS: dict[str, tuple[Any, str, list[str]]] = {
    "approve": ({"type": "approve"}, '"paid 1"', ["pay 1"]),
    "edit": ({"type": "edit", "edited_action": {"name": "pay", "args": {"amount": 20}}}, '"paid 20"', ["pay 20"]),
    "reject": ({"type": "reject", "message": "too much"}, "too much", []),
    "respond": ({"type": "respond", "message": {"paid": 0}}, '{"paid": 0}', []),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", ["node", "agent"])
@pytest.mark.parametrize("decision", DECISIONS)
async def test_every_decision(decision: str, kind: str, how: str, ledger: Path) -> None:
    said, gave, did = DECISIONS[decision]
    code = "try:\n    return [await pay(1)]\nexcept Exception as error:\n    return type(error).__name__, str(error)"
    tools, model = tools_of(ledger), Script(turns=[program(code), "done"])
    asked: Any = {"pay": True}
    app = (
        graph_of(CodeOrchestrator(tools, interrupt_on=asked), model, InMemorySaver())
        if kind == "node"
        else create_agent(
            model, tools, middleware=[CodeOrchestratorMiddleware(interrupt_on=asked)], checkpointer=InMemorySaver()
        )
    )
    result = await invoke(app, GO, thread(), how)
    assert result["__interrupt__"][0].value["tool_call_id"] == "c1:1"
    result = await invoke(app, answers(result, lambda _: said), thread(), how)
    assert gave in next(tool_messages(result)).text
    assert forget(ledger) == did


WRONG = [
    {"type": "maybe"},
    {"type": "edit"},
    {"type": "edit", "edited_action": {"name": "look", "args": {"key": "x"}}},
    {"type": "edit", "edited_action": {"name": "pay", "args": {"amount": "lots"}}},
    {"type": "respond"},
    "yes",
    None,
]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("wrong", WRONG, ids=str)
async def test_a_wrong_answer_loses_nothing(wrong: Any, how: str, ledger: Path) -> None:
    app = graph_of(
        CodeOrchestrator(tools_of(ledger), interrupt_on={"pay": True}),
        Script(turns=[program("await look('a')\nreturn await pay(1)"), "done"]),
        InMemorySaver(),
    )
    result = await invoke(app, GO, thread(), how)
    with pytest.raises(Exception, match=r"validation error"):
        await invoke(app, answers(result, lambda _: wrong), thread(), how)
    result = await invoke(app, answers(result, answer), thread(), how)
    assert next(tool_messages(result)).text == "paid 1"
    assert forget(ledger) == ["look a", "pay 1"]


async def test_a_program_can_not_catch_a_question(ledger: Path) -> None:
    code = "try:\n    await ask('x')\nexcept BaseException:\n    pass\nreturn await pay(1)"
    app = graph("node", ledger, InMemorySaver(), program(code))
    result = await app.ainvoke(GO, thread())
    assert forget(ledger) == []
    await app.ainvoke(answers(result, answer), thread())
    assert forget(ledger) == ["ask x yes-x", "pay 1"]


@pytest.mark.parametrize("how", HOW)
async def test_variables_stay_with_their_thread(how: str, ledger: Path) -> None:
    turns = [program("seen = [await look('a')]\ndef more(): return len(seen)"), AIMessage("ok")]
    turns += [program("seen.append(1)\nreturn more()", number=2), AIMessage("ok")]
    kept = InMemorySaver()
    app = graph("prebuilt", ledger, kept, *turns)
    for name in ("ann", "bob"):
        await invoke(app, GO, thread(name), how)
    fresh = graph("prebuilt", ledger, kept, *turns)  # nothing is kept but the checkpoint
    result = await invoke(fresh, GO, thread("ann"), how)
    assert [m.text for m in tool_messages(result)][-1] == "2"
    alone = graph("prebuilt", ledger, kept, program("return more()"))
    result = await invoke(alone, GO, thread("eve"), how)
    assert "NameError" in next(tool_messages(result)).text


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("most", [None, 1, 2])
async def test_calls_never_wait_for_each_others_place(most: int | None, how: str, ledger: Path) -> None:
    """A task keeps its place in langgraph's executor while it waits for its sub-tasks."""
    code = "import asyncio\nreturn await asyncio.gather(*(look(str(n)) for n in range(8)))"
    made = calls(*[("run_code", {"code": code}) for _ in range(8)])
    app = graph_of(CodeOrchestrator(tools_of(ledger)), Script(turns=[made, "done"]), InMemorySaver())
    config = {**thread(), **({"max_concurrency": most} if most else {})}
    result = await invoke(app, GO, config, how)
    assert len(forget(ledger)) == 64
    assert {message.status for message in tool_messages(result)} == {"success"}
