"""Sums over the orders of some customers, small and large: where a program begins to pay. Data of `benchmarks.ways`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from benchmarks.savings.ways import Attempt, Exchange, Task
from benchmarks.ways import CALLS, ROWS, registry_of
from demo.recorded import Script, call

SYSTEM = "You answer questions about orders with the tools that you are given."


def program(calls: int) -> str:
    """What a model writes for one customer, and for several."""
    if calls == 1:
        return "orders = await get_orders(customer_id=1)\nreturn {1: sum(o['amount'] for o in orders)}"
    return (
        "import asyncio\n"
        f"found = await asyncio.gather(*[get_orders(customer_id=i) for i in range(1, {calls + 1})])\n"
        "return {i: sum(o['amount'] for o in orders) for i, orders in enumerate(found, 1)}"
    )


def script(calls: int) -> Script:
    """All calls can be made together."""
    found = yield [call("get_orders", customer_id=customer) for customer in range(1, calls + 1)]
    return {customer: sum(order["amount"] for order in orders) for customer, orders in enumerate(found, 1)}


def _wrong(rows: int, calls: int, answers: Sequence[str]) -> int:
    right = {str(customer): sum(12.5 + number for number in range(rows)) for customer in range(1, calls + 1)}
    return sum(json.loads(answer) != right for answer in answers)


def _begin(rows: int, calls: int) -> Attempt:
    return Attempt(registry_of(rows), partial(_wrong, rows, calls))


def tasks() -> list[Task]:
    """Every size of a result with every number of calls."""
    return [
        Task(
            f"{label}, {calls} calls",
            SYSTEM,
            [Exchange(f"Sum up the orders of customers 1 to {calls}.", partial(script, calls), program(calls))],
            partial(_begin, rows, calls),
        )
        for label, rows in ROWS.items()
        for calls in CALLS
    ]
