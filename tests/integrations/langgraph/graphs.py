"""Graphs with scripted models, and tools that leave a trace."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import START, StateGraph, add_messages
from langgraph.prebuilt import tools_condition
from langgraph.types import Command
from pydantic import PrivateAttr
from typing_extensions import TypedDict


class Script(BaseChatModel):
    """A model that says what its script says, and keeps what it was asked."""

    turns: list[Any]
    _asked: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _bound: list[list[Any]] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "script"

    @property
    def asked(self) -> list[list[BaseMessage]]:
        return self._asked

    @property
    def bound(self) -> list[list[Any]]:
        return self._bound

    def bind_tools(self, tools: Sequence[Any], **_options: Any) -> Any:
        self._bound.append(list(tools))
        return self

    def _generate(self, messages: list[BaseMessage], *_args: Any, **_options: Any) -> ChatResult:
        self._asked.append(list(messages))
        said = sum(isinstance(message, AIMessage) for message in messages)  # so a resumed process goes on where it was
        turn = self.turns[min(said, len(self.turns) - 1)]
        message = turn.model_copy() if isinstance(turn, AIMessage) else AIMessage(turn)
        return ChatResult(generations=[ChatGeneration(message=message)])


def calls(*made: tuple[str, dict[str, Any]], start: int = 1) -> AIMessage:
    """A turn that calls tools; their ids are c1, c2, ..."""
    tool_calls = [
        {"type": "tool_call", "id": f"c{number}", "name": name, "args": args}
        for number, (name, args) in enumerate(made, start)
    ]
    return AIMessage("", tool_calls=tool_calls)


def program(code: str, number: int = 1) -> AIMessage:
    """A turn that runs a program."""
    return calls(("run_code", {"code": code}), start=number)


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    notes: Annotated[list[str], operator.add]


def graph_of(node: Any, model: Script, saver: Any = None, *, state: Any = State, key: str = "messages") -> Any:
    """A model and a tool node in a loop."""
    builder = StateGraph(state)
    builder.add_node("model", lambda s: {key: [model.invoke(_messages(s, key))]})
    builder.add_node("tools", node)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", lambda s: tools_condition(s, messages_key=key))
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=saver)


def _messages(state: Any, key: str) -> list[Any]:
    found = state[key] if isinstance(state, dict) else getattr(state, key)
    return list(found)


def thread(name: str = "1") -> dict[str, Any]:
    return {"configurable": {"thread_id": name}}


GO = {"messages": [("user", "go")], "notes": []}


async def invoke(graph: Any, given: Any, config: Any, how: str, **options: Any) -> Any:
    """Run a graph synchronously or asynchronously."""
    if how == "async":
        return await graph.ainvoke(given, config, **options)
    import asyncio

    return await asyncio.to_thread(graph.invoke, given, config, **options)


def answers(result: Any, answer: Callable[[Any], Any]) -> Command[Any]:
    """Answer every question that a graph waits for."""
    return Command(resume={asked.id: answer(asked.value) for asked in result["__interrupt__"]})


def tool_messages(result: Any, key: str = "messages") -> Iterator[ToolMessage]:
    return (message for message in _messages(result, key) if isinstance(message, ToolMessage))
