"""A real model in a local GGUF file does small tasks through the orchestrator: how many right, which repairs, how fast.

Run it by hand as `python -m benchmarks.local_model PATH.gguf [transcripts.json] [--example]` after `pip install
xllamacpp`. It is no part of the tests, which keep its transcripts (tests/corpora/local_model.json) and replay them
without a model.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolchord import CodeSandbox, OrchestratedRun, Orchestrator, Reply, TokenUsage, extract_program

CONTEXT = 4096
THREADS = 1  # on a busy machine several wait for each other most of the time
MAX_TOKENS = 160  # of one turn; a program for one of these tasks takes 30 to 70
EXAMPLE = (
    {"role": "user", "content": "How many visits were there on monday?"},
    {
        "role": "assistant",
        "content": "```python\nvisits = await list_visits(day='monday')\nreturn len(visits)\n```",
    },
    {"role": "user", "content": "The program returned:\n7"},
    {"role": "assistant", "content": "There were 7 visits on monday."},
)
"""Said before each question with --example: small models copy the tools' stubs into their programs otherwise."""


class Shop:
    """The tools of one task; `done` is what they did to the world."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    async def list_orders(self, customer: str) -> list[dict[str, Any]]:
        """All orders of a customer: id, day (as "2024-03-01") and euros of each."""
        orders = {
            "ann": [
                {"id": 1, "day": "2024-03-01", "euros": 20.0},
                {"id": 2, "day": "2024-03-15", "euros": 35.5},
                {"id": 3, "day": "2024-02-20", "euros": 12.0},
            ],
            "bob": [{"id": 4, "day": "2024-01-05", "euros": 80.0}, {"id": 5, "day": "2024-03-02", "euros": 120.0}],
        }
        return orders[customer]

    async def refund(self, order_id: int) -> str:
        """Give a customer the money for an order back."""
        self.done.append(["refund", order_id])
        return f"order {order_id} refunded"

    async def exchange_rate(self, base: str, target: str) -> float:
        """How much one unit of a currency is in another, such as EUR and USD."""
        return 1.25 if (base, target) == ("EUR", "USD") else 0.8

    async def list_products(self) -> list[str]:
        """The names of all products."""
        return ["lamp", "chair", "table", "shelf"]

    async def pieces_in_stock(self, product: str) -> int:
        """How many pieces of a product there are."""
        return {"lamp": 3, "chair": 12, "table": 0, "shelf": 7}[product]

    async def temperature(self, city: str) -> float:
        """Today's temperature in a city, in degrees Celsius."""
        return {"Oslo": 4.5, "Rome": 18.0, "Cairo": 29.5}[city]

    async def get_customer(self, name: str) -> dict[str, Any]:
        """What is known of a customer: address, contact and so on."""
        return {
            "customer_name": name,
            "home": {"street": "Storgata 1", "town": "Bergen"},
            "contact": {"mail": f"{name}@example.org"},
        }

    async def list_tickets(self) -> list[dict[str, Any]]:
        """All tickets of the support."""
        teams = ["billing", "shipping", "billing", "billing", "web"]
        return [{"number": n, "assigned_team": team, "closed": n == 3} for n, team in enumerate(teams, 1)]

    async def send_mail(self, to: str, text: str) -> None:
        """Send a mail."""
        self.done.append(["mail", to])


@dataclass(frozen=True)
class Task:
    """A question, the tools that there are for it, what a right answer says, and what it does to the world."""

    name: str
    question: str
    tools: tuple[str, ...]
    says: tuple[str, ...]
    does: tuple[Any, ...] = ()

    def tools_of(self, shop: Shop) -> list[Callable[..., Any]]:
        return [getattr(shop, name) for name in self.tools]

    def right(self, run: OrchestratedRun, shop: Shop) -> bool:
        """Whether the last words say it and the world is as it should be; a claim without a program is not right."""
        return run.ok and bool(run.attempts) and self.said(run.text) and self.did(shop)

    def said(self, text: str) -> bool:
        return all(re.search(rf"(?<![\w.]){re.escape(word)}0?(?![\w]|\.\d)", text) for word in self.says)

    def did(self, shop: Shop) -> bool:
        return [*self.does] == shop.done


TASKS = (
    Task("sum", "How many euros do the orders of ann come to in all?", ("list_orders", "refund"), ("67.5",)),
    Task("customer", "In which town does the customer ann live?", ("get_customer", "list_orders"), ("Bergen",)),
    Task(
        "tickets",
        "How many tickets that are not closed does the team billing have?",
        ("list_tickets", "send_mail"),
        ("2",),
    ),
    Task(
        "days",
        "How many days lie between the first and the last order of ann?",
        ("list_orders", "get_customer"),
        ("24",),
    ),
    Task(
        "stock",
        "Which products have fewer than 5 pieces in stock?",
        ("list_products", "pieces_in_stock", "send_mail"),
        ("lamp", "table"),
    ),
    Task(
        "refund",
        "Refund the most expensive order of bob. Which one was it?",
        ("list_orders", "refund"),
        ("5",),
        (["refund", 5],),
    ),
    Task("dollars", "How many US dollars do bob's orders come to?", ("list_orders", "exchange_rate"), ("250",)),
    Task("warmest", "Which of the cities Oslo, Rome and Cairo is warmest today?", ("temperature",), ("Cairo",)),
    Task(
        "mail",
        "Write a mail to the customer ann that says how many orders ann has.",
        ("get_customer", "list_orders", "send_mail"),
        (),
        (["mail", "ann@example.org"],),
    ),
)


class LocalModel:
    """A model of a GGUF file, in this process; a function of messages that always takes the likeliest token."""

    def __init__(self, path: Path) -> None:
        try:
            llama = importlib.import_module("xllamacpp")
        except ImportError as error:
            raise SystemExit("xllamacpp runs the model: pip install xllamacpp") from error
        if not path.is_file():
            raise SystemExit(f"no model file {path}")
        parameters = llama.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = CONTEXT
        parameters.n_parallel = 1
        parameters.sampling.temp = 0.0
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = THREADS
        parameters.verbosity = 0
        self.name = path.stem
        self._server = llama.Server(parameters)
        self.seconds = 0.0
        self.written = 0

    def __call__(self, messages: list[dict[str, Any]]) -> Reply:
        began = time.perf_counter()
        answer = self._server.handle_chat_completions(
            {"messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0.0}
        )
        took = time.perf_counter() - began
        self.seconds += took
        if "choices" not in answer:
            raise RuntimeError(f"the model gave no answer: {answer}")
        usage = answer["usage"]
        self.written += usage["completion_tokens"]
        text = answer["choices"][0]["message"]["content"] or ""
        print(f"{took:.1f} s: {text!r}", file=sys.stderr, flush=True)
        return Reply(text, usage=TokenUsage(usage["prompt_tokens"], usage["completion_tokens"]))


def outcomes(run: OrchestratedRun) -> list[dict[str, Any]]:
    """What came of each program, as plain data that is the same each time."""
    return [
        {
            "program": attempt.code,
            "ok": attempt.result.ok,
            "value": repr(attempt.result.value),
            "stdout": attempt.result.stdout,
            "error": attempt.result.error.type if attempt.result.error is not None else None,
            "calls": [[call.tool, repr(call.arguments), call.replayed] for call in attempt.result.calls],
        }
        for attempt in run.attempts
    ]


async def do(
    task: Task, model: Callable[..., Any], before: Sequence[dict[str, Any]] = ()
) -> tuple[OrchestratedRun, Shop]:
    """One task, in a sandbox of its own."""
    shop = Shop()
    async with CodeSandbox(tools=task.tools_of(shop)) as sandbox:
        run = await Orchestrator(model, sandbox, way="sandbox", max_turns=6, max_repairs=2).run(
            [*before, {"role": "user", "content": task.question}]
        )
    return run, shop


def transcript(task: Task, run: OrchestratedRun, shop: Shop, skipped: int) -> dict[str, Any]:
    """What was said and what happened; the system message is left out, since it is made anew from the tools."""
    replies = [message["content"] for message in run.messages[1 + skipped :] if message["role"] == "assistant"]
    return {
        "task": task.name,
        "question": task.question,
        "messages": run.messages[1 + skipped :],
        "replies": [{"text": text, "program": extract_program(text)} for text in replies],
        "results": outcomes(run),
        "stop": run.stop,
        "turns": run.turns,
        "done": shop.done,
        "right": task.right(run, shop),
    }


async def main(path: Path, kept: Path | None, before: Sequence[dict[str, Any]]) -> None:
    model = LocalModel(path)
    transcripts = []
    for task in TASKS:
        seconds, written = model.seconds, model.written
        run, shop = await do(task, model, before)
        one = transcript(task, run, shop, len(before))
        repairs = sum(not attempt.result.ok for attempt in run.attempts)
        one["seconds"] = round(model.seconds - seconds, 1)
        one["usage"] = asdict(run.usage) if run.usage else None
        transcripts.append(one)
        print(
            f"{task.name:9} {'right' if one['right'] else 'wrong'}  {run.turns} turns, {repairs} failed programs, "
            f"{one['seconds']:.0f} s, {model.written - written} tokens written, stop={run.stop}",
            flush=True,
        )
        if kept is not None:  # after each task: the whole takes a while
            text = json.dumps({"model": model.name, "example": bool(before), "transcripts": transcripts}, indent=1)
            await asyncio.to_thread(kept.write_text, text + "\n")
    right = sum(one["right"] for one in transcripts)
    print(f"{right} of {len(transcripts)} right; {model.written} tokens written in {model.seconds:.0f} s")


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if word != "--example"]
    if len(given) not in (1, 2):
        raise SystemExit("usage: python -m benchmarks.local_model PATH.gguf [transcripts.json] [--example]")
    asyncio.run(
        main(Path(given[0]), Path(given[1]) if len(given) == 2 else None, EXAMPLE if "--example" in sys.argv else ())
    )
