"""Runs to look at: real ones of a small team's expenses, and made-up traces of any size."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

from toolchord import CodeSandbox, ExecutionResult, RunError, RunLedger, Trace, TracedCall, charge
from toolchord.errors import CallPaused

PEOPLE = (
    "Ada Bela Chen Dora Emil Fatma Goran Hana Ivo Jun Kofi Lena Mira Noor Olga Piet Quinn Rosa Sven Tariq Uma Vera Wei "
    "Xenia Yusuf Zoe"
).split()


def _number(*of: object) -> int:
    """A number that is the same in every run."""
    return zlib.crc32(repr(of).encode())


async def get_team(team: str) -> list[dict[str, str]]:
    """People of a team."""
    await asyncio.sleep(0.12)
    return [
        {"id": f"E{n:03}", "name": name, "team": team, "level": "junior" if n % 3 else "senior"}
        for n, name in enumerate(PEOPLE)
    ]


async def get_expenses(person: str, quarter: str) -> list[dict[str, Any]]:
    """A person's receipts."""
    await asyncio.sleep(0.05 + _number(person) % 300 / 1000)
    return [
        {"amount": _number(person, quarter, n) % 20_000 / 100, "what": ("hotel", "train", "meal")[n % 3]}
        for n in range(40)
    ]


async def get_budget(level: str) -> float:
    """What one may spend in a quarter."""
    await asyncio.sleep(0.08)
    charge(0.002)
    if level not in ("senior", "junior"):
        raise KeyError(f"no budget for {level!r}; there are: junior, senior")
    return {"senior": 5000.0, "junior": 4000.0}[level]


async def send_report(to: str, text: str) -> str:
    """Mail it, once somebody has agreed."""
    raise CallPaused("finance has to approve it")


TOOLS = [get_team, get_expenses, get_budget, send_report]

TEAM = """\
# Who went over budget in the third quarter?
import asyncio

team = await get_team(team="engineering")
receipts = await asyncio.gather(
    *(get_expenses(person=one["id"], quarter="Q3") for one in team)
)
budgets = {level: await get_budget(level=level) for level in ("junior", "senior")}

over = []
for person, items in zip(team, receipts):
    spent = sum(item["amount"] for item in items)
    if spent > budgets[person["level"]]:
        over.append({"name": person["name"], "spent": round(spent, 2)})

print(f"looked at {sum(map(len, receipts))} receipts of {len(team)} people")
return sorted(over, key=lambda one: -one["spent"])
"""
PROGRAMS = {
    "done": TEAM,
    "failed": TEAM.replace('("junior", "senior")', '("junior", "senior", "principal")'),
    "paused": TEAM.replace("return", 'await send_report(to="finance@example.com", text=str(over))\nreturn'),
    "single": 'budget = await get_budget(level="junior")\nf"{budget:.0f} euros"',
}


async def results() -> dict[str, ExecutionResult]:
    """One real run of each program."""
    async with CodeSandbox(tools=TOOLS) as sandbox:
        return {name: await sandbox.execute(code) for name, code in PROGRAMS.items()}


def many(count: int = 5000) -> Trace:
    """A loop's calls, four at a time; one failed."""
    calls = [
        TracedCall(
            n + 1,
            "default.get",
            3,
            {"n": str(n)},
            "error" if n == count // 2 else "ok",
            n // 4 * 0.01 + 0.01,
            0.004 + n % 7 / 1000,
            error=("ValueError", "no such item") if n == count // 2 else None,
            result="" if n == count // 2 else str(n),
        )
        for n in range(count)
    ]
    code = "import asyncio\nfor n in range(0, many, 4):\n    await asyncio.gather(*(get(n=n + m) for m in range(4)))\n"
    return Trace(code, "ok", 1.7e9, count / 4 * 0.01 + 0.05, calls)


def every_kind(text: str = "text") -> Trace:
    """A trace with one call of each status and mark, and `text` wherever a text may stand."""
    statuses: list[Any] = ["ok", "error", "cancelled", "unfinished", "paused", "running"]
    calls = [
        TracedCall(
            n,
            f"default.{text}",
            n,
            {text: text},
            status,
            0.1 * n,
            0.2,
            error=(text, text) if status == "error" else None,
            result=text,
            result_bytes=12,
            cost=0.5,
            waits=text,
        )
        for n, status in enumerate(statuses, 1)
    ]
    calls.append(TracedCall(7, f"{text}.{text}", 7, {}, "ok", 0.8, 0.0, replayed=True))
    calls.append(TracedCall(8, f"{text}.{text}", 0, {}, "ok", 0.9, 0.0, held=True))
    calls += [TracedCall(n, f"default.{text}", 2, {text: text}, "ok", n / 100, 0.1) for n in range(9, 40)]
    ledger = RunLedger(plain_tokens=99, plain_turns=3, money=1.0)
    ledger.tools = [_totals(f"default.{text}"), _totals(f"{text}.{text}")]
    error = RunError(text, text, line=2, hint=text, traceback=text)
    code = "\n".join([text.replace("\n", " ").replace("\r", " ")] * 9)
    return Trace(code, "failed", 1.7e9, 1.0, calls, 3, text, text, text, error, ledger=ledger)


def _totals(tool: str) -> Any:
    from toolchord import ToolTotals

    return ToolTotals(tool, calls=4, failed=1, replayed=1, time=1.0, result_bytes=12, tokens=9, money=0.5)
