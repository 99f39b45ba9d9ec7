"""When a program costs fewer tokens than plain calls, and when it does not: the same tasks both ways, tokens counted.

Run it as `python -m benchmarks.ways` after `make demo`, which installs the tokenizer's vocabulary. Models are scripted:
each way does what a model that makes no mistake would do. A request counts in full, tools and history too.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from demo.tokens import count
from toolchord import CodeSandbox, Orchestrator, Reply, ToolRequest, create_registry
from toolchord.instructions import RUN_CODE

ROWS = {"small (1 row)": 1, "medium (12 rows)": 12, "large (120 rows)": 120}
CALLS = (1, 2, 3, 5, 10, 20)


def registry_of(rows: int) -> Any:
    registry = create_registry()

    async def get_orders(customer_id: int) -> list[dict[str, Any]]:
        """All orders of a customer: id, day, product and amount in euros."""
        return [
            {"id": 1000 * customer_id + n, "day": f"2024-03-{n % 28 + 1:02}", "product": f"A{n}", "amount": 12.5 + n}
            for n in range(rows)
        ]

    async def get_customer(customer_id: int) -> dict[str, Any]:
        """One customer: name, city and since when."""
        return {"name": "Ann", "city": "Oslo", "since": "2019-05-01"}

    async def send_report(to: str, text: str) -> None:
        """Send a text to an address."""

    for tool in (get_orders, get_customer, send_report):
        registry.add(tool)
    return registry


class Counted:
    """A scripted model; `tokens` is what its requests and replies came to."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.tokens = 0

    async def __call__(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> Reply:
        reply = self.replies.pop(0)
        said = [*messages, reply.as_message()]
        self.tokens += count(json.dumps(tools or [], separators=(",", ":")))
        self.tokens += sum(count(json.dumps(message, ensure_ascii=False)) for message in said)
        return reply


def asks(*customers: int) -> Reply:
    return Reply(calls=[ToolRequest(f"call_{n}", "get_orders", {"customer_id": n}) for n in customers])


def program(calls: int) -> Reply:
    code = (
        f"results = await asyncio.gather(*[get_orders(customer_id=i) for i in range(1, {calls + 1})])\n"
        "return {i: sum(o['amount'] for o in orders) for i, orders in enumerate(results, 1)}"
    )
    if calls == 1:
        code = "orders = await get_orders(customer_id=1)\nreturn sum(o['amount'] for o in orders)"
    return Reply(calls=[ToolRequest("call_1", RUN_CODE, {"code": f"import asyncio\n{code}" if calls > 1 else code})])


async def tokens_of(way: Any, rows: int, *replies: Reply) -> int:
    model = Counted(*replies, Reply("Their sums are as follows: 762.50 euros for each of them."))
    registry = registry_of(rows)
    async with CodeSandbox(registry) as sandbox:
        run = await Orchestrator(model, sandbox, way=way, max_turns=40).run("Sum up the orders of the customers.")
    assert run.ok, run
    return model.tokens


async def main() -> None:
    """Print the table."""
    print("| result of a call | calls | plain, together | plain, one a turn | one program | program / together |")
    print("| --- | --- | --- | --- | --- | --- |")
    for label, rows in ROWS.items():
        for calls in CALLS:
            numbers = range(1, calls + 1)
            together = await tokens_of("plain", rows, asks(*numbers))
            one_by_one = await tokens_of("plain", rows, *[asks(n) for n in numbers])
            coded = await tokens_of("sandbox", rows, program(calls))
            print(f"| {label} | {calls} | {together:,} | {one_by_one:,} | {coded:,} | {coded / together:.2f} |")


if __name__ == "__main__":
    asyncio.run(main())
