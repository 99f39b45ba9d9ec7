"""A process that is killed while it pays an order back, on the thread ``cut-off`` of the page on LangGraph."""

from __future__ import annotations

import os
import signal

from langgraph.types import Command

from tests.docs.page import Reader, blocks

THREAD = {"configurable": {"thread_id": "cut-off"}}


def main() -> None:
    """Read the page as far as the graph that asks, answer two questions, and die in the second call."""
    reader = Reader()
    for block in blocks("langgraph.md"):
        reader.read(block)
        if "careful" in reader.names:
            break
    graph, refund = reader.names["careful"], reader.names["refund"]
    [first, second] = graph.invoke(reader.names["question"], THREAD)["__interrupt__"]
    graph.invoke(Command(resume={first.id: {"type": "approve"}}), THREAD)
    refund.func = lambda order: os.kill(os.getpid(), signal.SIGKILL)
    graph.invoke(Command(resume={second.id: {"type": "approve"}}), THREAD)


if __name__ == "__main__":
    main()
