"""Who of a team went over the travel budget: the example of Anthropic's cookbook, built anew.

Source: "Programmatic tool calling", Claude Cookbooks, November 2025, whose recorded run with a live model went from
110,473 to 15,919 tokens. The question and the shape of the data follow its description: eight engineers, 20 to 50 bulky
expense rows each, a budget of 5,000 dollars with exceptions for some. Code and data are our own; rows come from a seed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random

from typing_extensions import TypedDict  # pydantic can't read typing's own before Python 3.12

from benchmarks.savings.ways import Attempt, Exchange, Task
from demo.recorded import Script, call
from toolchord import ToolRegistry, create_registry

SEED = 2025
BUDGET = 5_000.0
EXCEPTIONS = {"E05": 9_500.0, "E07": 5_600.0}
NAMES = ("Ada Park", "Ben Osei", "Cora Lind", "Dev Mehta", "Eva Ruiz", "Finn Berg", "Gia Conti", "Hal Novak")
TRIPS = {"E05": 9, "E07": 12}
"""Trips that two of the team made beside the usual: one has an exception that covers them, one has not."""

SYSTEM = "You answer questions about a company's expenses with the tools that you are given."
QUESTION = """\
Which members of the engineering team went over their travel budget in Q3? The standard budget for a quarter is 5,000 \
dollars; for whoever is over it, look up whether there is an exception, and hold the spending against that. Only \
approved expenses of the category "travel" count. Answer with one JSON object: over, a list of {name, spent, budget}, \
by name."""

PROGRAM = """\
import asyncio

team = await get_team_members(department="engineering")
expenses = await asyncio.gather(*(get_expenses(employee_id=m["id"], quarter="Q3") for m in team))
over = []
for member, rows in zip(team, expenses):
    spent = round(sum(r["amount"] for r in rows if r["category"] == "travel" and r["status"] == "approved"), 2)
    if spent > 5000:
        limit = (await get_custom_budget(user_id=member["id"]))["travel_budget"]
        if spent > limit:
            over.append({"name": member["name"], "spent": spent, "budget": limit})
return {"over": sorted(over, key=lambda o: o["name"])}
"""


class Member(TypedDict):
    """One of a team."""

    id: str
    name: str
    role: str
    email: str


class Expense(TypedDict):
    """One expense, with all that the accounts keep of it."""

    expense_id: str
    date: str
    category: str
    description: str
    amount: float
    currency: str
    status: str
    receipt_url: str
    approved_by: str | None
    store_name: str
    store_location: str
    reimbursement_date: str | None
    payment_method: str
    project_code: str
    notes: str


class Budget(TypedDict):
    """What one may spend in a quarter, in dollars."""

    user_id: str
    has_custom_budget: bool
    travel_budget: float
    reason: str


KINDS = {
    "travel": ("Flight to a customer's site", "Hotel, two nights", "Train to the conference", "Rental car, two days"),
    "meals": ("Dinner with a customer's team", "Lunch during the workshop", "Breakfast before the early flight"),
    "software": ("Licence of a profiling tool, one month", "Hosted test machines, one month"),
    "equipment": ("Adapter and cables for the laptop", "Headset for remote meetings"),
}
PRICES = {"travel": (120.0, 620.0), "meals": (12.0, 140.0), "software": (15.0, 300.0), "equipment": (20.0, 450.0)}
PLACES = ("Rotterdam, NL", "Austin, TX", "Lyon, FR", "Osaka, JP", "Tromso, NO", "Porto, PT")
STORES = ("Northline Air", "Harbour Hotels", "Station Cafe", "Greenfield Rentals", "Byte and Board", "Corner Bistro")
NOTES = (
    "Receipt handed in late, since the portal was not reachable on the day itself; approved by phone before the trip.",
    "Shared with two colleagues, whose part was settled among ourselves; the invoice names all three of us.",
    "Booked through the usual agency at the agreed rate. The invoice with the tax shown apart will follow by post.",
)


def _expense(random: Random, employee: str, number: int, category: str, status: str) -> Expense:
    month, day = random.randint(7, 9), random.randint(1, 28)
    return {
        "expense_id": f"{employee}-Q3-{number:04}",
        "date": f"2024-{month:02}-{day:02}",
        "category": category,
        "description": random.choice(KINDS[category]),
        "amount": round(random.uniform(*PRICES[category]), 2),
        "currency": "USD",
        "status": status,
        "receipt_url": f"https://receipts.example.com/2024/{month:02}/{random.getrandbits(64):016x}",
        "approved_by": f"manager-{random.randint(1, 5)}" if status == "approved" else None,
        "store_name": random.choice(STORES),
        "store_location": random.choice(PLACES),
        "reimbursement_date": f"2024-{month + 1:02}-{day:02}" if status == "approved" else None,
        "payment_method": random.choice(("corporate card", "own card", "cash")),
        "project_code": f"PRJ-{random.randint(100, 999)}",
        "notes": random.choice(NOTES),
    }


def accounts() -> dict[str, list[Expense]]:
    """All expenses of the third quarter, by employee."""
    random = Random(SEED)
    books: dict[str, list[Expense]] = {}
    for index in range(len(NAMES)):
        employee = f"E{index + 1:02}"
        rows = random.randint(20, 40)
        categories = random.choices(list(KINDS), weights=(2, 5, 2, 1), k=rows) + ["travel"] * TRIPS.get(employee, 0)
        random.shuffle(categories)
        statuses = random.choices(("approved", "pending", "rejected"), weights=(8, 1, 1), k=len(categories))
        pairs = enumerate(zip(categories, statuses, strict=True), 1)
        books[employee] = [_expense(random, employee, number, category, status) for number, (category, status) in pairs]
    return books


def registry() -> ToolRegistry:
    """The three tools, over fresh data."""
    books = accounts()
    tools = create_registry()

    async def get_team_members(department: str) -> list[Member]:
        """List the members of a department."""
        if department != "engineering":
            return []
        return [
            {"id": f"E{n:02}", "name": name, "role": "engineer", "email": f"{name.split()[0].lower()}@example.com"}
            for n, name in enumerate(NAMES, 1)
        ]

    async def get_expenses(employee_id: str, quarter: str) -> list[Expense]:
        """List all expenses of an employee in a quarter (Q1 to Q4), approved or not; often 20 to 50."""
        return books[employee_id] if quarter == "Q3" else []

    async def get_custom_budget(user_id: str) -> Budget:
        """Look up the travel budget of an employee for a quarter; it is the standard one if there is no exception."""
        custom = EXCEPTIONS.get(user_id)
        reason = "travels to customers" if custom else "standard"
        return {
            "user_id": user_id,
            "has_custom_budget": custom is not None,
            "travel_budget": custom or BUDGET,
            "reason": reason,
        }

    for tool in (get_team_members, get_expenses, get_custom_budget):
        tools.add(tool)
    return tools


def script() -> Script:
    """What a model does that calls the tools itself, and adds up a hundred amounts without a slip."""
    [team] = yield [call("get_team_members", department="engineering")]
    expenses = yield [call("get_expenses", employee_id=member["id"], quarter="Q3") for member in team]
    spent = {
        member["id"]: round(
            sum(r["amount"] for r in rows if r["category"] == "travel" and r["status"] == "approved"), 2
        )
        for member, rows in zip(team, expenses, strict=True)
    }
    suspects = [member for member in team if spent[member["id"]] > BUDGET]
    budgets = yield [call("get_custom_budget", user_id=member["id"]) for member in suspects]
    over = [
        {"name": member["name"], "spent": spent[member["id"]], "budget": found["travel_budget"]}
        for member, found in zip(suspects, budgets, strict=True)
        if spent[member["id"]] > found["travel_budget"]
    ]
    return {"over": sorted(over, key=lambda one: str(one["name"]))}


def truth() -> list[dict[str, object]]:
    """The answer straight from the accounts."""
    over: list[dict[str, object]] = []
    for (employee, rows), name in zip(accounts().items(), NAMES, strict=True):
        cents = sum(round(100 * r["amount"]) for r in rows if (r["category"], r["status"]) == ("travel", "approved"))
        budget = EXCEPTIONS.get(employee, BUDGET)
        if cents > 100 * budget:
            over.append({"name": name, "spent": cents / 100, "budget": budget})
    return sorted(over, key=lambda one: str(one["name"]))


def _wrong(answers: Sequence[str]) -> int:
    return sum(json.loads(answer) != {"over": truth()} for answer in answers)


def tasks() -> list[Task]:
    """The one task."""
    return [
        Task(
            "team expenses",
            SYSTEM,
            [Exchange(QUESTION, script, PROGRAM)],
            lambda: Attempt(registry(), _wrong),
        )
    ]
