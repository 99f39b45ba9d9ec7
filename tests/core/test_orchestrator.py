# ruff: noqa: E501  (a program is kept on one line)
"""Any model: a task goes in, programs run and are repaired, an answer comes out; nothing runs twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from toolchord import (
    ApprovalRequest,
    CodeSandbox,
    Decision,
    Limits,
    Orchestrator,
    Policy,
    Reply,
    TokenUsage,
    ToolRequest,
    ask,
    create_registry,
)
from toolchord.errors import CallPaused, ConfigurationError
from toolchord.instructions import RUN_CODE

F = "```"
DONE: list[Any] = []


async def list_orders(status: str = "paid") -> list[dict[str, Any]]:
    """All orders."""
    DONE.append("list_orders")
    return [{"id": 1, "customer": "ann", "amount": 120.5}, {"id": 2, "customer": "bob", "amount": 80.0}]


async def refund(order_id: int) -> str:
    """Give the money back."""
    DONE.append(("refund", order_id))
    return f"refunded {order_id}"


REGISTRY = create_registry()
REGISTRY.add(list_orders)
REGISTRY.add(refund)

GOOD = "orders = await list_orders()\nreturn sum(o['amount'] for o in orders)"
BAD = "orders = await list_orders()\nx = await refund(order_id=orders[0]['id'])\nreturn sum(o['amont'] for o in orders), x"
MENDED = BAD.replace("amont", "amount")


class Script:
    """A model that says what it is told to, and remembers what it was told."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.asked: list[list[dict[str, Any]]] = []
        self.offered: list[Any] = []

    def next(self, messages: list[dict[str, Any]], tools: Any = None) -> Any:
        self.asked.append(json.loads(json.dumps(messages)))
        self.offered.append(json.dumps(tools))
        messages.append({"role": "user", "content": "a model may do what it likes to its copy"})
        reply = self.replies.pop(0)
        return reply(self.asked[-1]) if callable(reply) else reply

    @property
    def text_only(self) -> Callable[..., Any]:
        async def model(messages: list[dict[str, Any]]) -> Any:
            return self.next(messages)

        return model

    @property
    def with_tools(self) -> Callable[..., Any]:
        async def model(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Any:
            return self.next(messages, tools)

        return model


def block(code: str) -> str:
    return f"Let me see.\n{F}python\n{code}\n{F}"


def call(code: str, id: str = "c1", **usage: int) -> Reply:
    told = TokenUsage(**usage) if usage else None
    return Reply(calls=[ToolRequest(id, RUN_CODE, {"code": code})], usage=told)


@pytest_asyncio.fixture
async def sandbox() -> AsyncIterator[CodeSandbox]:
    DONE.clear()
    async with CodeSandbox(REGISTRY) as sandbox:
        yield sandbox


async def test_a_model_that_writes_text_does_a_task_in_two_turns(sandbox: CodeSandbox) -> None:
    script = Script(block(GOOD), "It is 200.5 euros.")
    run = await Orchestrator(script.text_only, sandbox).run("What is the sum of all orders?")
    assert (run.ok, run.stop, run.text, run.value, run.turns) == (True, "answered", "It is 200.5 euros.", 200.5, 2)
    assert run.usage is None
    assert [attempt.code for attempt in run.attempts] == [GOOD]
    opening, second = script.asked
    assert [message["role"] for message in opening] == ["system", "user"]
    assert "async def list_orders(status: str = 'paid')" in opening[0]["content"]
    assert second[-1] == {"role": "user", "content": "The program returned:\n200.5"}
    assert run.choice.way == "sandbox"
    assert "is not known to run programs" in run.choice.reason


async def test_a_model_that_takes_tools_gets_its_result_as_a_tool_message(sandbox: CodeSandbox) -> None:
    script = Script(
        call(GOOD, input_tokens=100, output_tokens=20),
        Reply("200.5", usage=TokenUsage(input_tokens=130, output_tokens=5, cache_read_tokens=100)),
    )
    run = await Orchestrator(script.with_tools, sandbox).run("Sum?")
    assert (run.text, run.value) == ("200.5", 200.5)
    assert run.usage == TokenUsage(230, 25, 100)
    assert [tool["function"]["name"] for tool in json.loads(script.offered[0])] == ["run_code", "list_orders", "refund"]
    assistant, answer = script.asked[1][-2:]
    assert assistant["tool_calls"][0]["function"]["name"] == "run_code"
    assert answer == {"role": "tool", "tool_call_id": "c1", "content": "200.5"}


async def test_a_failed_program_is_repaired_and_nothing_runs_twice(sandbox: CodeSandbox) -> None:
    script = Script(block(BAD), block(MENDED), "Done.")
    run = await Orchestrator(script.text_only, sandbox).run("Refund the first, and sum up.")
    assert run.ok
    assert run.value == (200.5, "refunded 1")
    assert DONE == ["list_orders", ("refund", 1)]
    assert [attempt.result.ok for attempt in run.attempts] == [False, True]
    assert all(one.replayed for one in run.attempts[1].result.calls)
    told = script.asked[1][-1]["content"]
    for part in ("KeyError (line 3)", "o is a dict with keys 'id' (int)", "write o['amount']", "refund(order_id=1) -> ok",
                 "Send the whole program again", "answered from the record"):  # fmt: skip
        assert part in told


async def test_work_after_a_success_is_new_work(sandbox: CodeSandbox) -> None:
    script = Script(call("return await refund(1)"), call("return await refund(1)  # once more"), "Twice.")
    run = await Orchestrator(script.with_tools, sandbox).run("Refund it twice.")
    assert (run.ok, DONE) == (True, [("refund", 1), ("refund", 1)])


async def test_repairs_and_turns_are_bounded(sandbox: CodeSandbox) -> None:
    script = Script(*[block(f"return missing_{n}") for n in range(9)])
    run = await Orchestrator(script.text_only, sandbox, max_repairs=2).run("x")
    assert (run.stop, run.ok, run.turns, len(run.attempts)) == ("repairs", False, 3, 3)
    script = Script(*[block(f"return {n}") for n in range(9)])
    run = await Orchestrator(script.text_only, sandbox, max_turns=4).run("x")
    assert (run.stop, run.ok, run.turns) == ("turns", False, 4)
    assert run.value == 3
    with pytest.raises(ConfigurationError, match="only a paused run"):
        await Orchestrator(script.text_only, sandbox).resume(run)


async def test_the_value_can_be_the_answer(sandbox: CodeSandbox) -> None:
    script = Script(block(BAD), block(MENDED))
    run = await Orchestrator(script.text_only, sandbox, finish="value").run("x")
    assert (run.stop, run.ok, run.value, run.turns) == ("value", True, (200.5, "refunded 1"), 2)
    assert run.text == "(200.5, 'refunded 1')" or json.loads(run.text) == [200.5, "refunded 1"]


async def test_a_program_shown_once_more_does_not_run_once_more(sandbox: CodeSandbox) -> None:
    script = Script(
        block("return await refund(1)"), f"Refunded. This is what I ran:\n{block('return await refund(1)')}"
    )
    run = await Orchestrator(script.text_only, sandbox).run("x")
    assert (run.stop, DONE) == ("answered", [("refund", 1)])


async def test_a_question_that_takes_no_tools_is_just_answered(sandbox: CodeSandbox) -> None:
    run = await Orchestrator(Script("Hello!").text_only, sandbox).run("Hi")
    assert (run.text, run.attempts, run.ok, run.value, run.result) == ("Hello!", [], True, None, None)


async def test_odd_replies_are_answered_with_what_to_do(sandbox: CodeSandbox) -> None:
    script = Script(
        Reply(calls=[ToolRequest("a", RUN_CODE, "{}")]),
        Reply(calls=[ToolRequest("b", "search_the_web", "{}")]),
        {
            "content": None,
            "tool_calls": [{"id": "c", "function": {"name": RUN_CODE, "arguments": '{"code": "return 1\n"}'}}],
        },
        "",
        {"role": "assistant", "content": [{"type": "text", "text": "one"}]},
    )
    run = await Orchestrator(script.with_tools, sandbox, way="sandbox").run("x")
    assert (run.text, run.value, run.turns) == ("one", 1, 5)
    contents = [message["content"] for message in run.messages if message["role"] in ("tool", "user")][1:]
    assert "There is no program in what you sent" in contents[0]
    assert "There is no tool named 'search_the_web'" in contents[1]
    assert contents[2] == "1"
    assert "Your answer was empty" in contents[3]


async def test_several_programs_in_one_reply_all_run(sandbox: CodeSandbox) -> None:
    both = Reply(calls=[ToolRequest("a", RUN_CODE, {"code": "return 1"}), ToolRequest("b", RUN_CODE, {"code": "1/0"})])
    run = await Orchestrator(Script(both, call("return 2"), "ok").with_tools, sandbox).run("x")
    assert [attempt.result.ok for attempt in run.attempts] == [True, False, True]
    answered = [message["tool_call_id"] for message in run.messages if message["role"] == "tool"]
    assert answered == ["a", "b", "c1"]


async def test_what_a_model_is_told_only_grows_and_is_always_the_same_bytes(sandbox: CodeSandbox) -> None:
    async def once() -> Script:
        script = Script(call(BAD, "a"), call(MENDED, "b"), call(GOOD, "c"), "done")
        await Orchestrator(script.with_tools, sandbox, system="You are brief.").run("x")
        return script

    first, second = await once(), await once()
    for earlier, later in zip(first.asked, first.asked[1:], strict=False):
        assert json.dumps(later[: len(earlier)]) == json.dumps(earlier)
    assert len(set(first.offered)) == 1
    assert json.dumps(first.asked) == json.dumps(second.asked)
    assert first.offered == second.offered
    assert first.asked[0][0]["content"].startswith("You are brief.\n\n")


async def test_a_conversation_is_gone_on_with(sandbox: CodeSandbox) -> None:
    orchestrator = Orchestrator(Script(block(GOOD), "200.5", "Ann.").text_only, sandbox)
    first = await orchestrator.run("Sum?")
    second = await orchestrator.run([*first.messages, {"role": "user", "content": "And who?"}])
    assert second.text == "Ann."
    assert second.messages[: len(first.messages)] == first.messages
    with pytest.raises(ConfigurationError, match="messages with a role"):
        await orchestrator.run([{"content": "x"}])


async def test_single_calls_stay_plain(sandbox: CodeSandbox) -> None:
    plain = Reply(calls=[ToolRequest("p", "list_orders", '{"status": "paid"}'), ToolRequest("q", "refund", "{}")])
    run = await Orchestrator(Script(plain, "Two orders.").with_tools, sandbox).run("Which orders?")
    assert (run.text, run.attempts) == ("Two orders.", [])
    assert DONE == ["list_orders"]
    assert run.choice.plain_tools == ("list_orders", "refund")
    ok, failed = run.plain_calls
    assert (ok.tool, ok.arguments, ok.status) == ("default.list_orders", {"status": "paid"}, "ok")
    assert failed.error is not None
    answers = [message["content"] for message in run.messages if message["role"] == "tool"]
    assert json.loads(answers[0])[0]["customer"] == "ann"
    assert "missing argument 'order_id'" in answers[1]


async def test_programs_only_if_that_is_asked_for(sandbox: CodeSandbox) -> None:
    script = Script(Reply(calls=[ToolRequest("p", "list_orders", "{}")]), "ok")
    run = await Orchestrator(script.with_tools, sandbox, way="sandbox").run("x")
    assert [tool["function"]["name"] for tool in json.loads(script.offered[0])] == ["run_code"]
    assert "list_orders is called from a program only" in run.messages[-2]["content"]
    assert DONE == []


async def test_plain_calls_only_if_that_is_asked_for(sandbox: CodeSandbox) -> None:
    script = Script(Reply(calls=[ToolRequest("p", "refund", {"order_id": 7})]), "ok")
    run = await Orchestrator(script.with_tools, sandbox, way="plain", system="Be brief.").run("x")
    assert [tool["function"]["name"] for tool in json.loads(script.offered[0])] == ["list_orders", "refund"]
    assert script.asked[0][0] == {"role": "system", "content": "Be brief."}
    assert (run.choice.way, run.choice.reason, DONE) == ("plain", "it was asked for", [("refund", 7)])


async def test_a_paused_program_goes_on_where_it_was() -> None:
    answer: list[str] = []
    asked: list[int] = []

    async def approve(what: str) -> str:
        asked.append(1)
        if not answer:
            raise CallPaused("may I?")
        return answer[0]

    DONE.clear()
    code = "x = await refund(order_id=3)\ny = await approve('it')\nreturn x, y"
    for script in (Script(call(code, "a"), "done"), Script(block(code), "done")):
        answer.clear()
        DONE.clear()
        async with CodeSandbox(tools=[refund, approve]) as sandbox:
            model = script.with_tools if not isinstance(script.replies[0], str) else script.text_only
            orchestrator = Orchestrator(model, sandbox)
            run = await orchestrator.run("x")
            assert (run.stop, run.ok, run.turns) == ("paused", False, 1)
            assert [pending.tool for pending in run.pending] == ["default.approve"]
            still = await orchestrator.resume(run)
            assert still.stop == "paused"
            answer.append("yes")
            run = await orchestrator.resume(still)
        assert (run.stop, run.text, run.value) == ("answered", "done", ("refunded 3", "yes"))
        assert DONE == [("refund", 3)]
        assert len(run.attempts) == 1


async def test_what_a_policy_asks_is_answered_when_the_run_is_resumed() -> None:
    DONE.clear()
    failed, repaired = (
        "await refund(order_id=3)\n1 / 0",
        "x = await refund(3)\ny = await refund(order_id=4)\nreturn x, y",
    )
    policy = Policy(ask("refund", when=lambda given: given["order_id"] == 4), otherwise="allow")
    async with CodeSandbox(tools=[refund], policy=policy) as sandbox:
        orchestrator = Orchestrator(Script(block(failed), block(repaired), "done").text_only, sandbox)
        run = await orchestrator.run("x")
        (waiting,) = run.pending
        assert waiting.pause is not None
        request = waiting.pause.reason
        assert isinstance(request, ApprovalRequest)
        run = await orchestrator.resume(run, {"stale": Decision.approve()})
        assert run.stop == "paused"
        run = await orchestrator.resume(run, {request.id: Decision.approve()})
    assert (run.stop, run.value) == ("answered", ("refunded 3", "refunded 4"))
    assert DONE == [("refund", 3), ("refund", 4)]


async def test_a_models_own_error_gets_through(sandbox: CodeSandbox) -> None:
    def broken(messages: Any) -> Any:
        raise RuntimeError("the provider is down")

    with pytest.raises(RuntimeError, match="the provider is down"):
        await Orchestrator(Script(broken).text_only, sandbox).run("x")
    with pytest.raises(ConfigurationError, match="the model returned int"):
        await Orchestrator(Script(5).text_only, sandbox).run("x")
    with pytest.raises(ConfigurationError, match="must be a function"):
        Orchestrator("gpt-5", sandbox)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match='"answer" or "value"'):
        Orchestrator(len, sandbox, finish="x")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="must be positive"):
        Orchestrator(len, sandbox, max_turns=0)


async def test_blocking_models_and_blocking_callers_work(sandbox: CodeSandbox) -> None:
    script = Script(block(GOOD), "done")

    def model(messages: list[dict[str, Any]]) -> Any:
        return script.next(messages)

    run = await asyncio.to_thread(Orchestrator(model, sandbox).run_sync, "x")
    assert (run.text, run.value) == ("done", 200.5)


async def test_limits_tools_and_watching_reach_the_program(sandbox: CodeSandbox) -> None:
    seen: list[Any] = []
    script = Script(block("print('hi')\nwhile True: pass"), block("return refund(1)"), block("return 1"), "ok")
    orchestrator = Orchestrator(script.text_only, sandbox, [list_orders], limits=Limits(cpu_time=0.3))
    run = await orchestrator.run("x", watch=seen.append)
    errors = [attempt.result.error for attempt in run.attempts]
    assert [error.kind if error else None for error in errors] == ["limit", "refused", None]
    assert seen[0].text.startswith("hi")
    assert "refund" not in script.asked[0][0]["content"]
    assert "Fix: look for a loop that does not end" in script.asked[1][-1]["content"]


async def test_a_large_catalogue_is_told_within_its_budget() -> None:
    registry = create_registry()
    for n in range(300):
        registry.add(lambda x: x, f"tool_{n}", description=f"Number {n}. " + "Words. " * 30)
    script = Script("no")
    async with CodeSandbox(registry) as sandbox:
        await Orchestrator(script.text_only, sandbox, max_prompt_tokens=1500).run("x")
    assert len(script.asked[0][0]["content"]) < 1500 * 4 + 3000
