"""Owns what a run came to: tokens, turns, time and money, per tool and in all, beside what plain calls would have cost.

The comparison is with a model that calls the same tools itself, and makes no mistake. Each call is then a request that
it writes and a result that it reads; calls that don't depend on each other share a turn. It is an estimate of that
conversation, not a measurement: a model that calls tools one at a time may well call others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from toolchord.recording import Outcome
from toolchord.results import CallRecord, ExecutionResult, render, shown

__all__ = ["RunLedger", "ToolTotals", "ledger_of"]

_DECODED = 1 << 20
_PER_TOKEN = 4

Count = Callable[[str], int]


class ToolTotals(msgspec.Struct, omit_defaults=True):
    """What the calls of one tool came to.

    Attributes:
        tool: its full name.
        calls: how many were made, of which some `failed` and some were `replayed` (the tool did not run).
        time: seconds in its calls; those that ran together count each.
        result_bytes: size of their encoded results.
        tokens: what requests and results would have weighed as plain calls.
        money: what they cost, replayed ones left out.
    """

    tool: str
    calls: int = 0
    failed: int = 0
    replayed: int = 0
    time: float = 0.0
    result_bytes: int = 0
    tokens: int = 0
    money: float = 0.0


class RunLedger(msgspec.Struct, omit_defaults=True):
    """What a run came to.

    Attributes:
        tools: per tool, in the order of their first calls.
        program_tokens: the program, which the model wrote.
        answer_tokens: what the model reads of the run.
        plain_tokens: requests and results of the same calls, had the model made them itself.
        plain_turns: turns that this would have taken, with all calls at once that can be.
        duration: seconds from start to end.
        money: what the tools cost, calls that were answered from a record left out; in your own money, see `charge`.
        exact: tokens were counted with a tokenizer; else four characters count as one.
        programs: how many programs these figures are of.
        finished: it came to its end.
    """

    tools: list[ToolTotals] = []
    program_tokens: int = 0
    answer_tokens: int = 0
    plain_tokens: int = 0
    plain_turns: int = 0
    duration: float = 0.0
    money: float = 0.0
    exact: bool = False
    programs: int = 1
    finished: bool = True

    @property
    def calls(self) -> int:
        """Calls of all tools."""
        return sum(one.calls for one in self.tools)

    @property
    def tokens(self) -> int:
        """What the run put into the model's context: the program and what the model reads of the run."""
        return self.program_tokens + self.answer_tokens

    @property
    def tokens_saved(self) -> int:
        """Tokens that stayed out of the context; negative where plain calls would have been shorter."""
        return self.plain_tokens - self.tokens

    @property
    def turns_saved(self) -> int:
        """Turns of the model that programs made needless, each of which took one; negative where they made no call."""
        return self.plain_turns - self.programs

    def verdict(self) -> str:
        """In a sentence, which way was cheaper."""
        if not self.finished:
            return "The program did not come to its end, so there is nothing to compare yet."
        if not self.calls:
            return "The program called no tool; the model could have answered without one."
        about = "" if self.exact else "about "
        tokens, turns = self.tokens_saved, self.turns_saved
        saved = f"{about}{abs(tokens):,} token{'s' * (abs(tokens) != 1)}"
        more = f"{turns:,} turn{'s' * (turns != 1)}"
        if tokens == 0 and turns <= 0:
            return "Plain calls would have cost as much."
        if tokens >= 0:
            return f"The program kept {saved} out of the context" + (f" and saved {more}." if turns > 0 else ".")
        if turns > 0:
            return (
                f"Plain calls would have put {saved} fewer into the context, but taken {more} more, each of which "
                "reads the whole context again."
            )
        return f"Plain calls would have been cheaper, by {saved}."

    @classmethod
    def total(cls, ledgers: Iterable[RunLedger]) -> RunLedger:
        """What several runs came to together."""
        whole = cls(exact=True, programs=0)
        tools: dict[str, ToolTotals] = {}
        for ledger in ledgers:
            for one in ledger.tools:
                known = tools.setdefault(one.tool, ToolTotals(one.tool))
                for name in ToolTotals.__struct_fields__[1:]:
                    setattr(known, name, getattr(known, name) + getattr(one, name))
            for name in (
                "program_tokens",
                "answer_tokens",
                "plain_tokens",
                "plain_turns",
                "duration",
                "money",
                "programs",
            ):
                setattr(whole, name, getattr(whole, name) + getattr(ledger, name))
            whole.exact = whole.exact and ledger.exact
            whole.finished = whole.finished and ledger.finished
        whole.tools = list(tools.values())
        return whole


def approximate(text: str) -> int:
    """Tokens of a text, four characters each."""
    return math.ceil(len(text) / _PER_TOKEN)


def ledger_of(result: ExecutionResult, *, count: Count | None = None) -> RunLedger:
    """What a run came to.

    Args:
        result: what it left.
        count: gives the number of tokens of a text, such as ``lambda text: len(encoding.encode(text))``.
    """
    counted = count or approximate
    record = result.record
    told = record.outcomes() if record is not None else {}
    ledger = RunLedger(
        program_tokens=counted(record.code) if record is not None else 0,
        answer_tokens=counted(result.for_model()),
        plain_turns=_turns(result),
        duration=result.duration,
        exact=count is not None,
        finished=result.ok,
    )
    tools: dict[str, ToolTotals] = {}
    for call in result.calls:
        one = tools.setdefault(call.tool, ToolTotals(call.tool))
        one.calls += 1
        one.failed += call.status == "error"
        one.replayed += call.replayed
        one.time += call.duration
        one.result_bytes += call.result_bytes
        one.tokens += _tokens(call, told.get(call.id), counted)
        one.money += 0.0 if call.replayed else call.cost
    ledger.tools = list(tools.values())
    ledger.plain_tokens = sum(one.tokens for one in ledger.tools)
    ledger.money = math.fsum(one.money for one in ledger.tools)
    return ledger


def _tokens(call: CallRecord, outcome: Outcome | None, count: Count) -> int:
    """Request and result as a model would write and read them."""
    request = count(f'{{"name": "{call.tool.removeprefix("default.")}", "arguments": {_json(call.arguments)}}}')
    if call.error is not None:
        return request + count(f"{call.error[0]}: {call.error[1]}")
    if outcome is None or outcome.missing or outcome.size > _DECODED:
        return request + math.ceil(call.result_bytes / _PER_TOKEN)
    return request + count(render(outcome.value()))


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return shown(value)


def _turns(result: ExecutionResult) -> int:
    """How deep the calls depend on each other.

    A program goes on when it is told of an event, so a call that it makes then depends on what that event told: on the
    deepest of its calls, or, where only time has passed, on those of the last event that told any.
    """
    events = result.record.events if result.record is not None else []
    depth: dict[int, int] = {}
    after = [0]  # the depth that calls depend on, by how many events were told
    calls = iter(result.calls)
    call = next(calls, None)
    for told in range(len(events) + 1):
        while call is not None and call.heard <= told:
            depth[call.id] = after[-1] + 1
            call = next(calls, None)
        if told < len(events):
            woken = [depth[one.call] for one in events[told].outcomes if one.call in depth]
            after.append(max(woken, default=after[-1]))
    return max(depth.values(), default=0)
