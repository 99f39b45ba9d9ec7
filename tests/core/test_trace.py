"""What a person sees of a run, and what it came to: plain data, bounded, masked, kept and read back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from toolchord import (
    CodeSandbox,
    Decision,
    Journal,
    Limits,
    LiveTrace,
    Orchestrator,
    Policy,
    RunLedger,
    ToolTotals,
    Trace,
    ask,
    charge,
    create_registry,
)
from toolchord.errors import ConfigurationError
from toolchord.ledger import approximate

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "sk-abcdef0123456789abcdef"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def sandbox() -> AsyncIterator[CodeSandbox]:
    registry = create_registry()
    stuck = asyncio.Event()

    async def get(x: Any = 0) -> dict[str, Any]:
        """A row."""
        return {"x": x, "text": "a" * 40}

    async def metered(amount: float) -> float:
        """Costs what it is told."""
        charge(amount)
        charge(amount)
        return amount

    async def flat() -> None:
        """Costs the same each time."""

    async def breaks() -> None:
        """Costs something, and fails."""
        charge(1.5)
        raise ValueError(f"no {SECRET}")

    async def endless(amount: float) -> None:
        """Never ends."""
        charge(amount)
        await stuck.wait()

    async def secret(who: str) -> str:
        """Kept nowhere."""
        return f"{who} is 42"

    async def leak() -> str:
        """Gives a credential."""
        return SECRET

    def large(size: int) -> str:
        """Much text."""
        return "x" * size

    for tool in (get, metered, breaks, endless, leak, large):
        registry.add(tool)
    registry.add(flat, price=0.25)
    registry.add(secret, capabilities=["read_only"], replay="never")
    async with CodeSandbox(registry) as made:
        yield made


async def test_a_trace_tells_program_calls_and_end_and_is_read_back(sandbox: CodeSandbox) -> None:
    code = "print('hi')\na = await get(x=1)\ntry:\n    await breaks()\nexcept ValueError:\n    pass\nreturn a['x']"
    result = await sandbox.execute(code)
    trace = result.trace()
    assert (trace.status, trace.code, trace.value, trace.stdout) == ("ok", code, "1", "hi\n")
    first, second = trace.calls
    assert (first.tool, first.line, first.arguments, first.status) == ("default.get", 2, {"x": "1"}, "ok")
    assert first.result == repr({"x": 1, "text": "a" * 40})
    assert (second.line, second.status, second.error) == (4, "error", ("ValueError", "no [redacted]"))
    assert first.sha != second.sha
    assert Trace.from_json(trace.to_json()) == trace
    assert trace.record is not None
    bare = Trace.from_json(trace.to_json(record=False))
    assert bare.record is None
    assert bare.calls == trace.calls


async def test_credentials_are_masked_everywhere_but_in_program_and_record(sandbox: CodeSandbox) -> None:
    code = "key = await leak()\nprint(key)\nawait get(x=key)\nraise ValueError(key)"
    trace = (await sandbox.execute(code)).trace()
    assert SECRET not in trace.to_json(record=False)
    assert trace.calls[0].result == "'[redacted]'"
    assert trace.stdout == "[redacted]\n"


async def test_a_credential_at_the_cut_is_not_shown_in_half(sandbox: CodeSandbox) -> None:
    for before in (280, 290, 299, 1190):
        trace = (await sandbox.execute(f"await get(x='a' * {before} + ' {SECRET} ' + 'b' * 3000)")).trace()
        assert SECRET[:10] not in trace.calls[0].arguments["x"]


async def test_what_is_never_stored_is_in_no_trace(sandbox: CodeSandbox) -> None:
    live = LiveTrace("")
    result = await sandbox.execute("await secret(who='ann')\nreturn 1", watch=live)
    assert "ann" not in result.trace().to_json(record=False).replace("who='ann'", "")
    assert (result.trace().calls[0].arguments, result.trace().calls[0].result) == ({}, "")
    assert live.trace.calls[0].arguments == {}


async def test_a_trace_is_bounded(sandbox: CodeSandbox) -> None:
    code = "print('y' * 60_000)\nfor n in range(40):\n    await large(size=200_000)\nreturn 'z' * 90_000"
    trace = (await sandbox.execute(code)).trace()
    assert len(trace.to_json(record=False)) < 150_000
    shown = [call.result for call in trace.calls]
    assert shown[0].startswith("'xxx")
    assert shown[-1].endswith(" bytes)")  # past the budget only the size is told


async def test_paused_failed_held_and_limited_runs(sandbox: CodeSandbox) -> None:
    paused = (await sandbox.execute("await flat()", policy=Policy(ask("flat")))).trace()
    assert (paused.status, paused.calls[0].status) == ("paused", "paused")
    assert "waits for an approval" in paused.calls[0].waits
    held = (await sandbox.execute("await flat()\nreturn 1", dry_run=True)).trace()
    assert (held.calls[0].held, held.calls[0].cost) == (True, 0.0)
    cut = (await sandbox.execute("await endless(amount=2)", limits=Limits(wall_time=0.2))).trace()
    assert (cut.status, cut.calls[0].status, cut.calls[0].cost) == ("failed", "unfinished", 2.0)
    assert cut.error is not None
    assert cut.error.kind == "limit"
    refused = (await sandbox.execute("import os")).trace()
    assert (refused.status, refused.calls, refused.code) == ("failed", [], "import os")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"code": 1, "status": "ok"}', '{"code": "", "status": "odd"}'])
async def test_what_is_no_trace_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a trace"):
        Trace.from_json(text)


async def test_a_trace_of_another_version_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="format 99"):
        Trace.from_json('{"code": "", "status": "ok", "format": 99}')


async def test_a_live_trace_shows_how_far_it_is(sandbox: CodeSandbox) -> None:
    seconds = iter(float(n) for n in range(100))
    live = LiveTrace("await get(x=1)", clock=lambda: next(seconds))
    seen: list[Trace] = []

    def watch(news: Any) -> None:
        live(news)
        seen.append(live.trace)

    result = await sandbox.execute("print('hi')\nawait get(x=1)\nreturn 2", watch=watch)
    assert [trace.status for trace in seen] == ["running"] * len(seen)
    assert [[call.status for call in trace.calls] for trace in seen][-2:] == [["running"], ["ok"]]
    assert (seen[0].calls, seen[-1].stdout) == ([], "hi\n")
    assert seen[-2].duration < seen[-1].duration
    assert live.end(result) == live.trace == result.trace()


# the ledger


async def test_money_adds_up_over_attempts_and_failures(sandbox: CodeSandbox) -> None:
    code = (
        "await metered(amount=0.5)\nawait flat()\nawait flat()\ntry:\n    await breaks()\nexcept ValueError:\n    pass"
    )
    ledger = (await sandbox.execute(code)).ledger()
    assert {one.tool: (one.calls, one.money) for one in ledger.tools} == {
        "default.metered": (1, 1.0),
        "default.flat": (2, 0.5),
        "default.breaks": (1, 1.5),
    }
    assert ledger.money == 3.0
    assert ledger.tools[2].failed == 1


async def test_a_retried_call_costs_each_attempt() -> None:
    tries: list[int] = []

    async def flaky() -> int:
        """Fails twice."""
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("not now")
        return 1

    registry = create_registry()
    registry.add(flaky, capabilities=["idempotent"], retry={"attempts": 4, "wait": 0.0}, price=0.1)
    async with CodeSandbox(registry) as sandbox:
        result = await sandbox.execute("return await flaky()")
    assert result.calls[0].cost == pytest.approx(0.3)


async def test_what_a_record_answers_is_paid_once(sandbox: CodeSandbox) -> None:
    first = await sandbox.execute("await flat()\nawait breaks()")
    assert first.record is not None
    second = await sandbox.execute("await flat()\nawait metered(amount=1.0)", journal=Journal.repairing(first.record))
    assert [call.replayed for call in second.calls] == [True, False]
    assert (first.ledger().money, second.ledger().money) == (1.75, 2.0)
    assert RunLedger.total([first.ledger(), second.ledger()]).money == 3.75


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf"), True, "1"])
async def test_a_charge_is_an_amount(amount: Any) -> None:
    with pytest.raises(ConfigurationError, match="a charge is"):
        charge(amount)


async def test_a_charge_outside_of_a_tool_is_nobodys() -> None:
    charge(1.0)


TURNS = {
    "return 1": 0,
    "await get()": 1,
    "import asyncio\nawait asyncio.gather(*[get(x=n) for n in range(20)])": 1,
    "for n in range(5):\n    await get(x=n)": 5,
    # each chain goes on by itself, so the chains share their turns
    "import asyncio\nasync def chain(n):\n    a = await get(x=n)\n    b = await get(x=a['x'] + 100)\n    return await "
    "get(x=b['x'] + 100)\nawait asyncio.gather(*map(chain, range(7)))": 3,
    "import asyncio\nawait asyncio.gather(get(x=1), get(x=2))\nawait asyncio.sleep(0.01)\nawait get(x=3)": 2,
}


@pytest.mark.parametrize("code", TURNS)
async def test_turns_are_as_deep_as_calls_depend_on_each_other(sandbox: CodeSandbox, code: str) -> None:
    result = await sandbox.execute(code)
    result.raise_for_error()
    assert result.ledger().plain_turns == TURNS[code]
    assert result.record is not None
    again = await sandbox.replay(result.record)
    assert again.ledger().plain_turns == TURNS[code]


async def test_tokens_are_those_of_the_given_tokenizer(sandbox: CodeSandbox) -> None:
    code = "for n in range(3):\n    await get(x=n)\nreturn 'done'"
    result = await sandbox.execute(code)
    ledger = result.ledger(count=len)
    assert (ledger.exact, ledger.program_tokens, ledger.answer_tokens) == (True, len(code), len("done"))
    requests = [json.dumps({"name": "get", "arguments": {"x": n}}) for n in range(3)]
    results = [json.dumps({"x": n, "text": "a" * 40}) for n in range(3)]
    assert ledger.plain_tokens == sum(map(len, requests + results))
    about = result.ledger()
    assert (about.exact, about.program_tokens) == (False, approximate(code))


async def test_the_verdict_is_fair(sandbox: CodeSandbox) -> None:
    much = await sandbox.execute("rows = [await get(x=n) for n in range(40)]\nreturn len(rows)")
    assert "kept about" in much.ledger().verdict()
    assert "saved 39 turns" in much.ledger().verdict()
    one = await sandbox.execute("result = await get(x=1)\nprint(result)\nreturn result")
    assert one.ledger().verdict().startswith("Plain calls would have been cheaper, by about")
    failed = await sandbox.execute("await get(x=1)\nraise ValueError")
    assert "did not come to its end" in failed.ledger().verdict()
    none = await sandbox.execute("return 6 * 7")
    assert "called no tool" in none.ledger().verdict()
    long = await sandbox.execute(f"# {'why ' * 100}\na = await get(x=1)\nb = await get(x=a['x'])\nreturn 1")
    assert "but taken 1 turn more" in long.ledger().verdict()


async def test_an_orchestrated_run_adds_up_its_programs(sandbox: CodeSandbox) -> None:
    programs = iter(
        ["```python\nawait flat()\nreturn missing\n```", "```python\nawait flat()\nreturn await get(x=1)\n```"]
    )
    run = await Orchestrator(lambda messages: next(programs), sandbox, finish="value").run("do it")
    assert [attempt.result.ok for attempt in run.attempts] == [False, True]
    ledger = run.ledger()
    assert (ledger.money, ledger.calls) == (0.25, 3)
    assert ledger.program_tokens == sum(approximate(attempt.code) for attempt in run.attempts)
    last = run.attempts[-1].result.ledger()
    assert (ledger.plain_tokens, ledger.plain_turns) == (last.plain_tokens, last.plain_turns)
    assert (ledger.programs, ledger.turns_saved, ledger.finished) == (2, 0, True)


async def test_a_paused_and_resumed_run_is_paid_once_in_all(sandbox: CodeSandbox) -> None:
    code = "await flat()\nreturn await metered(amount=1.0)"
    policy = Policy(ask("metered"), otherwise="allow")
    first = await sandbox.execute(code, policy=policy)
    assert first.record is not None
    journal = Journal.continuing(first.record)
    [request] = journal.asked
    assert journal.answer(request, Decision.approve())
    second = await sandbox.execute(code, policy=policy, journal=journal)
    assert second.ok
    assert first.ledger().money + second.ledger().money == 2.25


amounts = st.integers(0, 1000)
money = amounts.map(float)
totals = st.builds(ToolTotals, st.sampled_from("abc"), amounts, amounts, amounts, money, amounts, amounts, money)
ledgers = st.builds(
    RunLedger,
    tools=st.lists(totals, unique_by=lambda one: one.tool),
    program_tokens=amounts,
    plain_tokens=amounts,
    plain_turns=amounts,
    money=money,
    exact=st.booleans(),
    programs=st.integers(0, 9),
    finished=st.booleans(),
)


@given(st.lists(ledgers), st.lists(ledgers))
async def test_totals_add_up_in_any_grouping(some: list[RunLedger], others: list[RunLedger]) -> None:
    whole = RunLedger.total([*some, *others])
    parts = RunLedger.total([RunLedger.total(some), RunLedger.total(others)])
    assert whole == parts
    assert whole.money == sum(one.money for one in [*some, *others])
    assert whole.calls == sum(one.calls for one in [*some, *others])
