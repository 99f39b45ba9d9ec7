"""One program in every kind of graph. Large packages are imported where they are needed: workers start often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langgraph.graph import START, StateGraph

from tests.integrations.langgraph.graphs import Script, State, graph_of
from tests.integrations.langgraph.shop import tools_of
from toolchord_langgraph import CodeOrchestrator, CodeOrchestratorMiddleware, create_code_agent


def graph(kind: str, ledger: Path, checkpointer: Any, *turns: Any) -> Any:
    model = Script(turns=[*turns, "done"])
    tools, asked = tools_of(ledger), {"pay": {"allowed_decisions": ["approve"], "when": _asked_about}}
    if kind == "node":
        return graph_of(CodeOrchestrator(tools, interrupt_on=asked), model, checkpointer)
    if kind == "subgraph":
        inner = graph_of(CodeOrchestrator(tools, interrupt_on=asked), model)
        outer = StateGraph(State).add_node("inner", inner).add_edge(START, "inner")
        return outer.compile(checkpointer=checkpointer)
    if kind == "agent":
        middleware = [CodeOrchestratorMiddleware(exclusive=True, interrupt_on=asked)]
        from langchain.agents import create_agent

        return create_agent(model, tools, middleware=middleware, checkpointer=checkpointer)
    if kind == "deep":
        from deepagents import create_deep_agent

        return create_deep_agent(
            model, tools=tools, middleware=[CodeOrchestratorMiddleware(interrupt_on=asked)], checkpointer=checkpointer
        )
    return create_code_agent(model, tools, interrupt_on=asked, checkpointer=checkpointer)


def _asked_about(request: Any) -> bool:
    return request.tool_call["args"]["amount"] in (2, 299)
