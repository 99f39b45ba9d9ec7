"""Owns the prebuilt agent: a model and a `CodeOrchestrator` in a loop."""

from __future__ import annotations

from typing import Annotated, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.managed import RemainingSteps
from langgraph.store.base import BaseStore
from typing_extensions import TypedDict

from toolchord_langgraph.code_tool import Given
from toolchord_langgraph.fenced import has_program
from toolchord_langgraph.node import CodeOrchestrator

_FENCED = """\
To run a program, answer with it in one fenced block (```python). You are told what it returned, and may then run \
another one. An answer without such a block is your final answer."""


class CodeAgentState(TypedDict):
    """The conversation."""

    messages: Annotated[list[AnyMessage], add_messages]
    remaining_steps: RemainingSteps


def create_code_agent(
    model: BaseChatModel,
    tools: Given,
    *,
    prompt: str | None = None,
    exclusive: bool = True,
    fenced: bool = False,
    checkpointer: Any = None,
    store: BaseStore | None = None,
    context_schema: type[Any] | None = None,
    name: str | None = None,
    **options: Any,
) -> Any:
    """An agent that works by programs, ready to be invoked.

    Args:
        model: the chat model.
        tools: what programs may call, see `CodeOrchestrator`.
        prompt: a system message.
        exclusive: the model sees the code tool alone; False shows it the tools too.
        fenced: the model has no tool calling: it is told of the tools in the system message, and writes programs as
            fenced blocks of its text.
        checkpointer, store, context_schema, name: as for `StateGraph` and its `compile`.
        **options: more of `CodeOrchestrator`, such as `interrupt_on`, `limits` or `handle_tool_errors`.

    Returns:
        A compiled graph over ``{"messages": [...]}`` with the nodes ``model`` and ``tools``.

    Raises:
        ConfigurationError: arguments that make no sense.
    """
    node = CodeOrchestrator(tools, exclusive=exclusive, fenced=fenced, **options)
    told = [prompt] if prompt else []
    if fenced:
        told += [str(node.code_tool.description), _FENCED]
    system = [SystemMessage("\n\n".join(told))] if told else []
    bound: Runnable[Any, AIMessage] = model if fenced else model.bind_tools(node.model_tools)

    def checked(state: CodeAgentState, message: AIMessage) -> dict[str, Any]:
        if state["remaining_steps"] < 3 and has_program([message]):  # the program, and an answer to it
            message = AIMessage("I need more steps to finish this.", id=message.id)
        return {"messages": [message]}

    def ask(state: CodeAgentState) -> dict[str, Any]:
        return checked(state, bound.invoke([*system, *state["messages"]]))

    async def aask(state: CodeAgentState) -> dict[str, Any]:
        return checked(state, await bound.ainvoke([*system, *state["messages"]]))

    def next_node(state: CodeAgentState) -> str:
        return "tools" if has_program(state) else END

    builder = StateGraph(CodeAgentState, context_schema=context_schema)
    builder.add_node("model", RunnableLambda(ask, aask))
    builder.add_node("tools", node)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", next_node, ["tools", END])
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=checkpointer, store=store, name=name)
