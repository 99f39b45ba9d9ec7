"""`toolchord demo`: one question, answered by one program over tools that come with the package; no key, no network.

The question is that of Anthropic's cookbook on programmatic tool calling: who of a team went over the travel budget?
The people and their bills are made up, the same ones each time.
"""

from __future__ import annotations

import random
from typing import Any

import typer

from toolchord.cli.options import AsJson, note
from toolchord.registry import ToolRegistry

QUESTION = "Who in engineering spent more on travel in the third quarter than their budget allows?"
PROGRAM = """\
import asyncio

team = await get_team("engineering")
budgets = dict(zip(levels := sorted({p["level"] for p in team}), await asyncio.gather(*map(get_budget, levels))))
bills = await asyncio.gather(*[get_bills(p["id"], "Q3") for p in team])

over = []
for person, list_ in zip(team, bills):
    travel = sum(bill["amount"] for bill in list_ if bill["kind"] == "travel" and bill["approved"])
    limit = budgets[person["level"]]["travel"]
    if travel > limit:
        over.append({"name": person["name"], "spent": round(travel, 2), "budget": limit})
return sorted(over, key=lambda one: one["budget"] - one["spent"])
"""
_NAMES = "Ada Ben Cleo Dan Eve Finn Gia Hal Ida Jon Kim Leo Mia Ned Ola Pia Quin Rea Sam Tess".split()
_LEVELS = {"junior": 2000, "senior": 3500, "staff": 5000}


def registry() -> ToolRegistry:
    """The demonstration's tools."""
    chance = random.Random(2026)
    team = [{"id": n, "name": name, "level": chance.choice([*_LEVELS])} for n, name in enumerate(_NAMES, 1)]
    bills = {
        (person["id"], quarter): [
            {
                "id": f"{person['id']}-{quarter}-{n}",
                "kind": chance.choice(["travel", "travel", "meals", "software"]),
                "amount": round(chance.uniform(20, 400), 2),
                "day": f"2026-{3 * (int(quarter[1]) - 1) + chance.randint(1, 3):02}-{chance.randint(1, 28):02}",
                "shop": chance.choice(["Rail", "Skyways", "Inn", "Corner Cafe", "Softhouse"]),
                "approved": chance.random() < 0.9,
            }
            for n in range(chance.randint(20, 40))
        ]
        for person in team
        for quarter in ("Q1", "Q2", "Q3", "Q4")
    }
    tools = ToolRegistry()

    async def get_team(department: str) -> list[dict[str, Any]]:
        """The people of a department: id, name, level."""
        return team if department == "engineering" else []

    async def get_bills(person: int, quarter: str) -> list[dict[str, Any]]:
        """A person's bills of a quarter ("Q1" to "Q4"): id, kind, amount in dollars, day, shop, approved."""
        return bills.get((person, quarter), [])

    async def get_budget(level: str) -> dict[str, int]:
        """What a level may spend in a quarter, in dollars: travel, meals."""
        return {"travel": _LEVELS[level], "meals": 600}

    for tool in (get_team, get_bills, get_budget):
        tools.add(tool, capabilities=["read_only"])
    return tools


def demo(as_json: AsJson = False) -> None:
    """Answer a question with one program over made-up bills, and say what plain calls would have cost."""
    from toolchord import CodeSandbox

    with CodeSandbox(registry()) as sandbox:
        result = sandbox.execute_sync(PROGRAM)
    trace = result.trace()
    if as_json:
        typer.echo(trace.to_json(record=False))
    else:
        note(f"{QUESTION}\n\n{PROGRAM}")
        typer.echo(result.for_model())
        assert trace.ledger is not None
        ledger = trace.ledger
        note(
            f"\n{ledger.calls} calls in {result.duration:.2f} s. One program: 1 turn, about {ledger.tokens:,} tokens.\n"
            f"The same calls one by one: {ledger.calls} turns (at the fewest {ledger.plain_turns}), about "
            f"{ledger.plain_tokens:,} tokens of requests and results."
        )
    if not result.ok:
        raise typer.Exit(1)
