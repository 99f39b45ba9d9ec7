"""Policies: rules over single calls and over all calls of a run, answered elsewhere, and held back in a dry run."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchord import (
    ApprovalRequest,
    Approvals,
    Bounds,
    CodeSandbox,
    Decision,
    DurableJournal,
    ExecutionResult,
    Journal,
    Limits,
    MemoryStore,
    Policy,
    RunRecord,
    SQLiteStore,
    Tool,
    allow,
    ask,
    create_registry,
    deny,
    tool_from,
)
from toolchord.errors import CallPaused, ConfigurationError
from toolchord.identity import CallIdentity
from toolchord.policy import Judge


class Bank:
    """Tools that write down what they did."""

    def __init__(self) -> None:
        self.did: list[Any] = []
        self.registry = create_registry()
        self.registry.add(self.balance, capabilities=["read_only"])
        self.registry.add(self.pay, capabilities=["destructive"])
        self.registry.add(self.mail, namespace="post")

    async def balance(self, of: str) -> int:
        """What an account holds."""
        return 1000 + len(of)

    async def pay(self, to: str, amount: float = 1.0) -> dict[str, Any]:
        """Pay somebody."""
        self.did.append(("pay", to, amount))
        return {"to": to, "amount": amount}

    async def mail(self, to: str | list[str]) -> str:
        """Send mail."""
        self.did.append(("mail", to))
        return f"sent to {to}"


@pytest.fixture
def bank() -> Bank:
    return Bank()


SANDBOX = CodeSandbox(limits=Limits(wall_time=20.0))


@pytest.fixture(autouse=True, scope="module")
def closed() -> Iterator[None]:
    with SANDBOX:
        yield


async def execute(bank: Bank, code: str, policy: Policy | None, **options: Any) -> ExecutionResult:
    return await SANDBOX.execute("import asyncio\n" + code, bank.registry, policy=policy, **options)


def requests(result: ExecutionResult) -> list[ApprovalRequest]:
    assert result.error is not None
    assert result.error.kind == "paused", result.error
    found = [call.pause.reason for call in result.pending if call.pause is not None]
    assert all(isinstance(one, ApprovalRequest) for one in found)
    return found  # type: ignore[return-value]


def continued(result: ExecutionResult) -> Journal:
    assert result.record is not None
    return Journal.continuing(RunRecord.from_json(result.record.to_json()))  # it may have travelled


TRY = """
async def tried(call):
    try:
        return await call
    except PermissionError as error:
        return f'{type(error).__name__}: {error}'
"""


# rules


@pytest.mark.parametrize("wrong", [{"total": 500}, {"only": ["a"]}, {"distinct": 3}])
async def test_bounds_by_argument_are_told_what_they_take(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="takes a dict by argument name"):
        Bounds(**wrong)


async def test_an_edit_takes_arguments_by_name() -> None:
    with pytest.raises(ConfigurationError, match="by parameter name"):
        Decision.edit("x")  # type: ignore[arg-type]  # wrong on purpose


async def test_a_rule_may_name_tools_by_a_pattern(bank: Bank) -> None:
    code = f"{TRY}\nreturn [await tried(mail(to='a')), await tried(balance(of='a')), await tried(pay(to='a'))]"
    policy = Policy(deny("post.*", why="no post"), deny("*ay"), otherwise="allow")
    result = await execute(bank, code, policy)
    assert result.value == [
        "CallDenied: post.mail was refused: no post",
        1001,
        "CallDenied: default.pay was refused: the policy says deny",
    ]
    assert bank.did == []


async def test_the_first_rule_that_is_about_a_call_decides(bank: Bank) -> None:
    policy = Policy(
        deny("pay", when=lambda a: a["amount"] > 100, why="too much"),
        allow("default.pay"),
        deny(namespace="post"),
        allow(capability="read_only"),
        otherwise="deny",
    )
    code = (
        TRY
        + "return [await balance('x'), await tried(pay('a', 5)), await tried(pay('b', 101)), await tried(mail('c'))]"
    )
    result = await execute(bank, code, policy)
    assert result.value[:2] == [1001, {"to": "a", "amount": 5}]
    assert result.value[2] == "CallDenied: default.pay was refused: too much"
    assert result.value[3] == "CallDenied: post.mail was refused: the policy says deny"
    assert bank.did == [("pay", "a", 5.0)]
    assert [call.status for call in result.calls] == ["ok", "ok", "error", "error"]


async def test_what_no_rule_is_about_is_asked(bank: Bank) -> None:
    (request,) = requests(await execute(bank, "return await balance('x')", Policy(allow("pay"))))
    assert request.why == "no rule of the policy is about it"
    assert bank.did == []


async def test_a_predicate_sees_what_the_tool_gets_and_closes_when_it_fails(bank: Bank) -> None:
    policy = Policy(allow("pay", when=lambda a: a["amount"] < 10 and a["to"] != "eve"), deny("pay"))
    code = TRY + "return [await tried(pay('a', '5')), await tried(pay('b', '50')), await tried(pay('c'))]"
    value = (await execute(bank, code, policy)).value
    assert value[0] == {"to": "a", "amount": 5.0}
    assert value[1].startswith("CallDenied")
    assert value[2] == {"to": "c", "amount": 1.0}  # the default is what it gets
    broken = Policy(allow("pay", when=lambda a: a["nothing"]), otherwise="allow")
    value = (await execute(bank, TRY + "return await tried(pay('a'))", broken)).value
    assert value == "CallDenied: default.pay was refused: a rule's predicate failed (KeyError: 'nothing')"


async def test_rules_know_who_calls(bank: Bank) -> None:
    policy = Policy(allow("pay", caller="billing"), deny("pay"), otherwise="allow")
    code = TRY + "return await tried(pay('a'))"
    assert isinstance((await execute(bank, code, policy, caller="billing")).value, dict)
    assert (await execute(bank, code, policy)).value.startswith("CallDenied")


async def test_the_sandboxs_own_helpers_are_never_asked_about(bank: Bank) -> None:
    result = await execute(bank, "return search_tools('mail')[0]['name']", Policy(otherwise="deny"))
    assert result.value == "mail"


@pytest.mark.parametrize(
    "make",
    [
        lambda: allow("pay", whenever=1),
        lambda: ask("pay", capability="writes"),
        lambda: deny("pay", within=Bounds(count=1)),
        lambda: allow("pay", within=5),
        lambda: allow("pay", when="amount > 5"),
        lambda: allow("pay", beyond="allow"),
        lambda: ask("pay", expires=-1),
        lambda: Bounds(count=-1),
        lambda: Bounds(total={"amount": float("nan")}),
        lambda: Policy("pay"),  # type: ignore[arg-type]
        lambda: Policy(otherwise="maybe"),  # type: ignore[arg-type]
        lambda: CodeSandbox(policy=[ask("pay")]),  # type: ignore[arg-type]
        lambda: Decision.respond(object()),
    ],
)
def test_what_makes_no_sense_is_told_at_once(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make()


# asking


GATHERED = TRY + "return await asyncio.gather(*(tried(pay(who, n)) for n, who in enumerate('abcd', 1)), balance('x'))"


async def test_all_that_wait_are_shown_together_and_answered_in_any_order(bank: Bank) -> None:
    policy = Policy(ask("pay", why="money leaves"), otherwise="allow")
    result = await execute(bank, GATHERED, policy)
    asked = requests(result)
    assert [request.arguments for request in asked] == [{"to": who, "amount": n} for n, who in enumerate("abcd", 1)]
    assert {request.why for request in asked} == {"money leaves"}
    assert bank.did == []
    journal = continued(result)
    assert journal.answer(asked[3].id, Decision.respond({"paid": "in cash"}))
    assert journal.answer(asked[1].id, Decision.edit({"to": "b", "amount": 0.5}))
    result = await execute(bank, GATHERED, policy, journal=journal)
    assert [one.id for one in requests(result)] == [asked[0].id, asked[2].id]
    assert bank.did == [("pay", "b", 0.5)]
    journal = continued(result)
    assert journal.answer(asked[2].id, Decision.reject("not him"))
    assert journal.answer(asked[0].id, Decision.approve(by="ann"))
    result = await execute(bank, GATHERED, policy, journal=journal)
    assert result.value == [
        {"to": "a", "amount": 1},
        {"to": "b", "amount": 0.5},
        "CallDenied: default.pay was refused: not him",
        {"paid": "in cash"},
        1001,
    ]
    assert bank.did == [("pay", "b", 0.5), ("pay", "a", 1.0)]
    assert [d.by for d in result.record.decisions.values() if d.kind == "approve"] == ["ann"]  # type: ignore[union-attr]


async def test_an_answer_fits_its_call_only_and_a_stale_one_does_nothing(bank: Bank) -> None:
    policy = Policy(ask("pay"), otherwise="allow")
    result = await execute(bank, "return await pay('a', 1)", policy)
    (request,) = requests(result)
    journal = continued(result)
    other = request.id[:-1] + ("0" if request.id[-1] != "0" else "1")
    assert not journal.answer(other, Decision.approve())
    assert journal.answer(request.id, Decision.approve())
    assert not journal.answer(request.id, Decision.reject())
    # The same program with other arguments gets nothing of it.
    (again,) = requests(await execute(bank, "return await pay('a', 1000)", policy, journal=journal))
    assert again.id != request.id
    assert bank.did == []


async def test_an_edit_is_held_to_the_schema_and_to_what_is_denied(bank: Bank) -> None:
    policy = Policy(deny("pay", when=lambda a: a["amount"] > 100), ask("pay"), otherwise="allow")
    for arguments, expected in (
        ({"to": "a", "amount": 500}, "CallDenied: default.pay was refused: as edited: the policy says deny"),
        ({"to": "a", "much": 1}, "unexpected argument 'much'"),
    ):
        code = TRY + "try:\n    return await tried(pay('a', 1))\nexcept TypeError as error:\n    return str(error)"
        result = await execute(bank, code, policy)
        (request,) = requests(result)
        journal = continued(result)
        assert journal.answer(request.id, Decision.edit(arguments))
        assert expected in (await execute(bank, code, policy, journal=journal)).value
    assert bank.did == []


async def test_a_request_expires(bank: Bank) -> None:
    policy = Policy(ask("pay", expires=1e-9), otherwise="allow")
    code = TRY + "return await tried(pay('a', 1))"
    result = await execute(bank, code, policy)
    (request,) = requests(result)
    assert request.expires is not None
    assert request.expires < time.time()
    journal = continued(result)
    assert not journal.answer(request.id, Decision.approve())
    result = await execute(bank, code, policy, journal=journal)
    assert result.value == "CallDenied: default.pay was refused: the request expired before anybody answered"
    assert bank.did == []


async def test_answers_come_from_another_process_by_the_store(bank: Bank, tmp_path: Path) -> None:
    policy = Policy(ask("pay", expires=3600), otherwise="allow")
    async with SQLiteStore(tmp_path / "j.db") as store, SQLiteStore(tmp_path / "j.db") as elsewhere:
        desk = Approvals(elsewhere)
        assert await desk.pending("run") == []
        result = await execute(bank, GATHERED, policy, journal=await DurableJournal.open(store, "run"))
        assert await desk.pending("run") == requests(result)
        first, second, third, fourth = await desk.pending("run")
        assert await desk.answer("run", fourth.id, Decision.approve())
        assert not await desk.answer("run", fourth.id, Decision.reject())
        assert not await desk.answer("run", "7:abc", Decision.approve())
        assert not await desk.answer("no such run", first.id, Decision.approve())
        assert await desk.pending("run") == [first, second, third]
        both = await asyncio.gather(
            desk.answer("run", first.id, Decision.approve()), desk.answer("run", first.id, Decision.reject())
        )
        assert sorted(both) == [False, True]
        for one in (second, third):
            await desk.answer("run", one.id, Decision.reject())
        result = await execute(bank, GATHERED, policy, journal=await DurableJournal.open(store, "run"))
        assert result.ok
        assert await desk.pending("run") == []
        assert not await desk.answer("run", second.id, Decision.approve())
    assert ("pay", "d", 4.0) in bank.did
    assert len(bank.did) == (2 if both[0] else 1)


async def test_an_expiry_in_a_store_is_final(bank: Bank) -> None:
    policy, store = Policy(ask("pay", expires=1e-9), otherwise="allow"), MemoryStore()
    code = TRY + "return await tried(pay('a', 1))"
    (request,) = requests(await execute(bank, code, policy, journal=await DurableJournal.open(store, "r")))
    assert await Approvals(store).pending("r") == []
    assert not await Approvals(store).answer("r", request.id, Decision.approve())
    result = await execute(bank, code, policy, journal=await DurableJournal.open(store, "r"))
    assert "expired" in result.value
    assert (await execute(bank, code, policy, journal=await DurableJournal.open(store, "r"))).value == result.value
    assert bank.did == []


async def test_a_session_starts_anew_after_a_pause(bank: Bank) -> None:
    async with CodeSandbox(bank.registry, policy=Policy(ask("pay"))) as sandbox, sandbox.session() as session:
        paused = await session.execute("x = 5\nreturn await pay('a', 1)")
        assert len(requests(paused)) == 1
        assert "variables are gone" in paused.stderr
        assert (await session.execute("y = 2")).ok
        assert (await session.execute("return y")).value == 2
    assert bank.did == []


# sets of calls


async def test_a_cap_holds_over_a_loop_and_a_gather(bank: Bank) -> None:
    policy = Policy(
        allow("pay", within=Bounds(count=5, total={"amount": 12.5}, distinct={"to": 2})),
        allow("mail", within=Bounds(only={"to": ["a@x", "b@x"]})),
        otherwise="allow",
    )
    code = TRY + "return await asyncio.gather(*(tried(pay('a', 2.5)) for _ in range(8)))"
    value = (await execute(bank, code, policy)).value
    assert [isinstance(one, dict) for one in value] == [True] * 5 + [False] * 3
    assert value[5] == "CallDenied: default.pay was refused: 5 of 5 calls were made"
    code = TRY + "return [await tried(pay(*p)) for p in [('a', 12), ('b', 1), ('b', 0.5), ('c', 0)]]"
    value = (await execute(bank, code, policy)).value
    assert value[1] == "CallDenied: default.pay was refused: the sum of 'amount' would be 13, more than 12.5"
    assert value[2] == {"to": "b", "amount": 0.5}
    assert value[3] == "CallDenied: default.pay was refused: 'to' would have 3 different values, more than 2"
    code = (
        TRY + "return [await tried(mail('a@x')), await tried(mail(['b@x', 'a@x'])), await tried(mail(['b@x', 'e@x']))]"
    )
    value = (await execute(bank, code, policy)).value
    assert value[2] == "CallDenied: post.mail was refused: 'to' may not be 'e@x'"
    assert bank.did[-2:] == [("mail", "a@x"), ("mail", ["b@x", "a@x"])]


@pytest.mark.parametrize("amount", ["-100", "float('nan')", "-float('inf')"])
async def test_a_sum_can_not_be_talked_down(bank: Bank, amount: str) -> None:
    policy = Policy(allow("pay", within=Bounds(total={"amount": 10})))
    code = TRY + f"return [await tried(pay('a', {amount})), await tried(pay('b', 10)), await tried(pay('c', 1))]"
    value = (await execute(bank, code, policy)).value
    assert "can't be summed" in value[0]
    assert bank.did == [("pay", "b", 10.0)]
    assert isinstance(value[2], str)


async def test_a_grant_asks_beyond_its_bounds(bank: Bank) -> None:
    policy = Policy(allow("pay", within=Bounds(count=2), beyond="ask"))
    code = "return await asyncio.gather(*(pay('a', n) for n in range(4)))"
    result = await execute(bank, code, policy)
    assert [one.arguments["amount"] for one in requests(result) if one.arguments] == [2, 3]
    assert [one.why for one in requests(result)] == ["2 of 2 calls were made", "3 of 2 calls were made"]
    journal = continued(result)
    for one in requests(result):
        assert journal.answer(one.id, Decision.approve())
    assert (await execute(bank, code, policy, journal=journal)).ok
    assert len(bank.did) == 4


async def test_what_was_counted_is_counted_after_a_restart(bank: Bank) -> None:
    policy, store = Policy(ask("balance"), allow("pay", within=Bounds(count=3))), MemoryStore()
    code = f"""{TRY}
done = [await tried(pay('a', n)) for n in range(2)]
await balance('x')
return done + [await tried(pay('b', n)) for n in range(2)]
"""
    for _ in range(2):
        result = await execute(bank, code, policy, journal=await DurableJournal.open(store, "r"))
        (request,) = requests(result)
    assert await Approvals(store).answer("r", request.id, Decision.approve())
    result = await execute(bank, code, policy, journal=await DurableJournal.open(store, "r"))
    assert [isinstance(one, dict) for one in result.value] == [True, True, True, False]
    assert len(bank.did) == 3


async def test_this_loops_writes_are_approved_at_once(bank: Bank) -> None:
    policy = Policy(ask("pay"), otherwise="allow")
    code = "for n in range(1, 6):\n    await pay('a', n)\nreturn await pay('a', 1)"
    result = await execute(bank, code, policy)
    (request,) = requests(result)
    journal = continued(result)
    assert journal.answer(request.id, Decision.approve(within=Bounds(count=10, total={"amount": 9})))
    result = await execute(bank, code, policy, journal=journal)
    (request,) = requests(result)  # 1 was approved, 2 + 3 + 4 = 9 are within, 5 is beyond
    assert request.arguments == {"to": "a", "amount": 5}
    journal = continued(result)
    assert journal.answer(request.id, Decision.approve())
    (request,) = requests(await execute(bank, code, policy, journal=journal))
    assert (request.line, request.arguments) == (4, {"to": "a", "amount": 1})  # another line
    assert len(bank.did) == 5


LOOP = """
total = await balance('x')
for who in 'abc':
    r = await pay(who, total)
await mail(r['to'])
return r['amount']
"""


async def test_a_dry_run_holds_writes_back_and_its_preview_can_be_granted(bank: Bank) -> None:
    policy = Policy(ask("pay"), ask("mail"), otherwise="allow")

    def pay(to: str, amount: float) -> dict[Literal["to", "amount"], Any]:
        """Pay."""
        bank.did.append((to, amount))
        return {"to": to, "amount": amount}

    bank.registry.remove("pay")
    schema = {"type": "object", "required": ["to"], "properties": {"to": {"type": "string"}, "amount": {}}}
    bank.registry.add(pay, result_schema=schema)
    preview = await execute(bank, LOOP.replace("return r['amount']", "return 1"), policy, dry_run=True)
    assert preview.value == 1
    assert bank.did == []
    assert [call.held for call in preview.calls] == [False, True, True, True, True]
    assert [call.arguments["to"] for call in preview.held] == ["a", "b", "c", ""]
    assert preview.record is not None
    with pytest.raises(ConfigurationError, match="repairing"):
        Journal.continuing(preview.record)
    with pytest.raises(ConfigurationError, match="dry run"):
        await execute(bank, "1", policy, dry_run=True, journal=await DurableJournal.open(MemoryStore(), "r"))
    granted = policy.granting(preview.held)
    result = await execute(bank, LOOP, granted, journal=Journal.repairing(preview.record))
    assert result.calls[0].replayed  # what was read stays, so that the writes are those of the preview
    (request,) = requests(result)
    assert request.tool == "post.mail"  # the real answer went to another address than the preview's stand-in
    assert bank.did == [("a", 1001), ("b", 1001), ("c", 1001)]
    # Each once, and nothing else.
    twice = "return await asyncio.gather(*(pay('a', 1001) for _ in range(2)), pay('a', 1002))"
    assert len(requests(await execute(bank, twice, granted))) == 2


async def test_a_dry_run_shows_what_is_denied(bank: Bank) -> None:
    policy = Policy(allow("pay", within=Bounds(count=2)))
    result = await execute(bank, TRY + "return [await tried(pay('a')) for _ in range(3)]", policy, dry_run=True)
    assert [call.status for call in result.calls] == ["ok", "ok", "error"]
    assert len(result.held) == 2
    assert bank.did == []


# against a model


def stub(name: str, namespace: str, capabilities: list[str]) -> Tool:
    def call(**arguments: Any) -> None: ...

    return tool_from(call, name=name, namespace=namespace, capabilities=capabilities)


TOOLS = [stub("a", "x", ["read_only"]), stub("b", "x", []), stub("a", "y", ["destructive"])]

bounds = st.builds(
    Bounds,
    count=st.none() | st.integers(0, 4),
    total=st.dictionaries(st.sampled_from("nm"), st.integers(0, 12), max_size=2),
    only=st.dictionaries(st.just("n"), st.lists(st.integers(0, 5), min_size=3), max_size=1),
    distinct=st.dictionaries(st.sampled_from("nm"), st.integers(0, 3), max_size=1),
)


@st.composite
def rules(draw: st.DrawFn) -> Any:
    verdict = draw(st.sampled_from([allow, ask, deny]))
    given_: dict[str, Any] = {
        "namespace": draw(st.sampled_from([None, None, "x", "y"])),
        "capability": draw(st.sampled_from([None, None, "read_only", "destructive"])),
        "when": draw(st.sampled_from([None, None, lambda a: a["n"] > 2, lambda a: a["m"] == a["n"]])),
    }
    if verdict is not deny:
        given_ |= {"within": draw(st.none() | bounds), "beyond": draw(st.sampled_from(["deny", "ask"]))}
    return verdict(draw(st.sampled_from([None, "a", "x.a", "b"])), **given_)


values = st.integers(0, 5) | st.sampled_from([Decimal("0.5"), 2.5, -1, "text", None, True])
calls = st.tuples(
    st.sampled_from(TOOLS), st.fixed_dictionaries({"n": values}, optional={"m": values}), st.booleans(), st.booleans()
)


def expected(policy: Policy, history: list[tuple[Tool, dict[str, Any], Any]], tool: Tool, a: dict[str, Any]) -> Any:
    """The verdict by the book: every rule is looked at anew, and all that counted is counted anew."""

    def number(value: Any) -> bool:
        return isinstance(value, int | float | Decimal) and not isinstance(value, bool) and value >= 0

    for rule in policy.rules:
        if rule.tool not in (None, tool.name, tool.full_name) or rule.namespace not in (None, tool.namespace):
            continue
        if rule.capability is not None and rule.capability not in tool.metadata.capabilities:
            continue
        try:
            if rule.when is not None and not rule.when(a):
                continue
        except Exception:
            return "deny", rule, False
        if rule.within is None:
            return rule.verdict, rule, rule.verdict != "deny"
        counted = [arguments for _, arguments, by in history if by is rule]
        within = rule.within
        fits = within.count is None or len(counted) < within.count
        for name, most in within.total.items():
            fits = fits and number(a.get(name))
            fits = fits and sum(Decimal(one[name]) for one in [*counted, a] if number(one.get(name))) <= most
        for name, allowed in within.only.items():
            fits = fits and any(type(a.get(name)) is type(v) and a[name] == v for v in allowed)
        for name, most in within.distinct.items():
            fits = fits and name in a and len({(type(one.get(name)), one.get(name)) for one in [*counted, a]}) <= most
        verdict = rule.verdict if fits else rule.beyond
        return verdict, rule, verdict != "deny"
    return policy.otherwise, None, False


@settings(max_examples=400)
@given(st.lists(rules(), max_size=4), st.sampled_from(["allow", "ask", "deny"]), st.lists(calls, max_size=14))
def test_the_judge_agrees_with_a_simple_model(given_rules: Any, otherwise: Any, made: Any) -> None:
    policy = Policy(*given_rules, otherwise=otherwise)
    judge = Judge(policy, "sandbox")
    history: list[tuple[Tool, dict[str, Any], Any]] = []
    for number, (tool, arguments, dropped, again) in enumerate(made, 1):
        verdict, rule, counts = expected(policy, history, tool, arguments)
        identity = CallIdentity(number, tool.full_name, "", 0)
        for _ in range(1 + again):  # judging a call twice counts it once
            found = judge.judge(identity, tool, arguments)
            assert (found[0], found[2]) == (verdict, rule)
        if dropped:
            judge.forget(number)
        elif counts:
            history.append((tool, arguments, rule))


@given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.sampled_from("abc"), max_size=12))
def test_a_grant_is_used_once_for_each_call_it_was_given_for(granted: list[str], made: list[str]) -> None:
    class Shown:
        def __init__(self, digest: str) -> None:
            self.digest = digest

    judge = Judge(Policy().granting(map(Shown, granted)), "sandbox")
    left = Counter(granted)
    for number, digest in enumerate(made, 1):
        verdict, _, _ = judge.judge(CallIdentity(number, "x.a", digest, 0), TOOLS[0], {})
        assert verdict == ("allow" if left[digest] > 0 else "ask")
        left[digest] -= 1


def test_a_pause_is_no_exception_that_a_host_catches_by_accident() -> None:
    assert not issubclass(CallPaused, Exception)
