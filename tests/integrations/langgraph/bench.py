"""A bench on which graphs run with one class of tool node, and everything that comes out is noted for comparison."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from langchain_core.messages import BaseMessage, ToolMessage
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.runtime import Runtime
from langgraph.types import Command, Send
from pydantic import BaseModel

from tests.integrations.langgraph.graphs import State, tool_messages

HOW = ["sync", "async"]


@dataclass
class Outcome:
    """What a graph or a node gave.

    Attributes:
        value: the last state, or what the node returned.
        error: what was raised, with its message.
        streams: (mode, chunk) in order.
    """

    value: Any = None
    error: tuple[str, str] | None = None
    streams: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def messages(self) -> list[ToolMessage]:
        """The answers to tool calls."""
        return list(tool_messages(self.value))

    @property
    def texts(self) -> list[Any]:
        return [message.content for message in self.messages]

    def told(self, mode: str) -> list[Any]:
        return [chunk for one, chunk in self.streams if one == mode]


class Bench:
    """Runs graphs with one class of node, and notes what comes out."""

    def __init__(self, cls: Callable[..., ToolNode], how: str) -> None:
        self.cls, self.how = cls, how
        self.noted: list[Any] = []

    def node(self, *tools: Any, **options: Any) -> ToolNode:
        return self.cls(list(tools), **options)

    def note(self, *things: Any) -> None:
        """Compare these, too."""
        self.noted.extend(map(plain, things))

    def graph(self, node: Any, state: Any = State, *, saver: Any = None, build: Any = None, **compiled: Any) -> Any:
        """A graph of the node alone."""
        options = {"context_schema": compiled.pop("context")} if "context" in compiled else {}
        builder = StateGraph(state, **options)
        builder.add_node("tools", node)
        builder.add_edge(START, "tools")
        if build is not None:
            build(builder)
        return builder.compile(checkpointer=saver, **compiled)

    async def run(
        self,
        graph: Any,
        given: Any,
        config: Any = None,
        *,
        modes: Sequence[str] = ("updates", "values"),
        several: bool = False,
        **options: Any,
    ) -> Outcome:
        """Stream a graph. Of several calls, the sub-tasks' chunks are not compared, and their order neither."""
        outcome = Outcome()

        def stream() -> None:
            for chunk in graph.stream(given, config, stream_mode=list(modes), **options):
                outcome.streams.append(chunk)

        try:
            if self.how == "sync":
                await asyncio.to_thread(stream)
            else:
                async for chunk in graph.astream(given, config, stream_mode=list(modes), **options):
                    outcome.streams.append(chunk)
        except Exception as error:
            outcome.error = type(error).__name__, str(error)
        values = outcome.told("values")
        outcome.value = values[-1] if values else None
        compared = [one for one in outcome.streams if not several or _of_the_graph(one, graph)]
        self.note(outcome.value, outcome.error, compared)
        return outcome

    async def ask(self, node: ToolNode, given: Any, **runtime: Any) -> Outcome:
        """Run a node outside of a graph, as unit tests do."""
        outcome = Outcome()
        config: Any = {"configurable": {"__pregel_runtime": Runtime(**runtime)}}
        try:
            if self.how == "sync":
                outcome.value = await asyncio.to_thread(node.invoke, given, config)
            else:
                outcome.value = await node.ainvoke(given, config)
        except Exception as error:
            outcome.error = type(error).__name__, str(error)
        self.note(outcome.value, outcome.error)
        return outcome


def _of_the_graph(chunk: tuple[str, Any], graph: Any) -> bool:
    mode, told = chunk
    return mode != "updates" or all(name in graph.nodes or name == "__interrupt__" for name in told)


def plain(thing: Any) -> Any:
    """A thing for comparison: without what differs from run to run."""
    match thing:
        case BaseMessage():
            return type(thing).__name__, plain(thing.model_dump(exclude={"id", "artifact"})), plain(_artifact(thing))
        case BaseModel():
            return type(thing).__name__, {name: plain(getattr(thing, name)) for name in type(thing).model_fields}
        case Command() | Send():
            return type(thing).__name__, {slot: plain(getattr(thing, slot)) for slot in _fields(thing)}
        case dict():
            return {key: plain(value) for key, value in thing.items() if key not in ("run_code",)}
        case list() | tuple():
            return [plain(one) for one in thing]
        case _ if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
            shown = {one.name: plain(getattr(thing, one.name)) for one in dataclasses.fields(thing)}
            return type(thing).__name__, {name: value for name, value in shown.items() if name != "id"}
        case None | bool() | int() | float() | str() | bytes():
            return thing
        case _:
            return type(thing).__name__


def _artifact(message: Any) -> Any:
    return getattr(message, "artifact", None)


def _fields(thing: Any) -> list[str]:
    return [one.name for one in dataclasses.fields(thing)] if isinstance(thing, Command) else ["node", "arg"]


Behaviour: TypeAlias = Callable[[Bench], Awaitable[None]]
