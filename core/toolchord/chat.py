"""Owns the words between us and a model: messages in the chat form that most APIs know, and what a reply says.

A model is any function of messages, asynchronous or not. It returns text, a message, or a `Reply`. One that has a
parameter named ``tools`` is offered tools, in the form of Chat Completions, and may ask for calls.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolchord.errors import ConfigurationError
from toolchord.native.results import TokenUsage

__all__ = ["Message", "ModelFunction", "Reply", "TokenUsage", "ToolRequest", "ask", "offers_tools"]

Message = dict[str, Any]
"""A message: ``role`` (system, user, assistant, tool), ``content``, and ``tool_calls`` or ``tool_call_id``."""

ModelFunction = Callable[..., Any]
"""``async (messages)`` or ``async (messages, tools)``; see the module."""


@dataclass(frozen=True)
class ToolRequest:
    """A tool call that a model asks for; `arguments` are an object, or the text of one."""

    id: str
    name: str
    arguments: Mapping[str, Any] | str


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
        text: its words.
        calls: the tool calls that it asks for.
        usage: what the turn cost, if the provider tells.
        message: the assistant's message as it goes into the conversation; made of text and calls if None.
    """

    text: str = ""
    calls: Sequence[ToolRequest] = ()
    usage: TokenUsage | None = None
    message: Message | None = field(default=None, repr=False)

    def as_message(self) -> Message:
        """The assistant's message."""
        if self.message is not None:
            return self.message
        message: Message = {"role": "assistant", "content": self.text}
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.name,
                        "arguments": call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments),
                    },
                }
                for call in self.calls
            ]
        return message


def offers_tools(model: ModelFunction) -> bool:
    """Whether a model takes tools: it has a parameter of that name."""
    try:
        return "tools" in inspect.signature(model).parameters
    except (TypeError, ValueError):
        return False


async def ask(model: ModelFunction, messages: list[Message], tools: list[dict[str, Any]] | None) -> Reply:
    """One turn of a model.

    Raises:
        ConfigurationError: it returned something that is no reply.
    """
    given = [dict(message) for message in messages]  # what the model does to them is its own business
    options = {"tools": tools} if tools is not None else {}
    function = model if inspect.isroutine(model) else getattr(type(model), "__call__", model)  # noqa: B004
    if inspect.iscoroutinefunction(function):
        said = await model(given, **options)
    else:
        said = await asyncio.to_thread(model, given, **options)
        said = await said if inspect.isawaitable(said) else said
    return _read(said)


def _read(said: Any) -> Reply:
    if isinstance(said, Reply):
        return said
    if isinstance(said, str):
        return Reply(said)
    if isinstance(said, Mapping) and ("content" in said or "tool_calls" in said):
        calls = [
            ToolRequest(str(call.get("id") or f"call_{number}"), function["name"], function.get("arguments") or "{}")
            for number, call in enumerate(said.get("tool_calls") or (), 1)
            if isinstance(function := call.get("function"), Mapping) and "name" in function
        ]
        return Reply(text_of(said.get("content")), calls, message={**said, "role": "assistant"} if calls else None)
    raise ConfigurationError(
        f"the model returned {type(said).__name__}; return its text, a Reply, or a message with 'content'"
    )


def text_of(content: Any) -> str:
    """The text in a message's content, which may be text or a list of blocks."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        texts = (block if isinstance(block, str) else block.get("text") for block in content if block)
        return "".join(text for text in texts if isinstance(text, str))
    return str(content)
