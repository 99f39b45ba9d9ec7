"""What a review found: each of these lost, repeated or mixed up something."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeTimeoutError
from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy

from tests.integrations.langgraph.graphs import (
    State,
    calls,
    program,
    thread,
    tool_messages,
)
from toolchord import CodeSandbox
from toolchord_langgraph import CodeOrchestrator


class Ledger:
    """Tools that note what they do."""

    def __init__(self) -> None:
        self.did: list[str] = []

        @tool
        async def pay(amount: int) -> str:
            """Pay."""
            self.did.append(f"pay {amount}")
            return f"paid {amount}"

        self.pay = pay


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def sandbox() -> Iterator[CodeSandbox]:
    with CodeSandbox() as made:
        yield made


def one_node(node: Any, saver: Any, **options: Any) -> Any:
    """A graph of one node."""
    return StateGraph(State).add_node("tools", node, **options).add_edge(START, "tools").compile(checkpointer=saver)


def asks(message: Any) -> dict[str, Any]:
    return {"messages": [message], "notes": []}


def texts(result: Any) -> list[str]:
    return [message.text for message in tool_messages(result)]


@pytest.mark.parametrize("made", [program("return await pay(1)"), calls(("pay", {"amount": 1}), ("pay", {"amount": 2}))])
async def test_a_node_may_have_a_timeout(made: Any, ledger: Ledger, sandbox: CodeSandbox) -> None:
    app = one_node(CodeOrchestrator([ledger.pay], sandbox=sandbox), InMemorySaver(), timeout=60.0)
    result = await app.ainvoke(asks(made), thread())
    assert texts(result)[0] == "paid 1"


async def test_a_node_that_ran_out_of_time_is_retried_and_repeats_nothing(ledger: Ledger, sandbox: CodeSandbox) -> None:
    waits = [True]

    @tool(extras={"capabilities": ["read_only"]})
    async def look(key: str) -> str:
        """Look something up."""
        ledger.did.append(f"look {key}")
        if waits:
            waits.pop()
            await asyncio.Event().wait()
        return key

    retry = RetryPolicy(max_attempts=2, initial_interval=0.0, jitter=False, retry_on=NodeTimeoutError)
    node = CodeOrchestrator([ledger.pay, look], sandbox=sandbox)
    app = one_node(node, InMemorySaver(), timeout=3.0, retry_policy=retry)
    result = await app.ainvoke(asks(program("return [await pay(1), await look('a'), await pay(2)]")), thread())
    assert texts(result) == ['["paid 1", "a", "paid 2"]']
    assert ledger.did == ["pay 1", "look a", "look a", "pay 2"]
