"""Owns programs that a model writes as a fenced block of its text, because it has no tool calling."""

from __future__ import annotations

import hashlib
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolCall, ToolMessage

from toolchord import extract_program

_PREFIX = "fenced-"


def program_in(message: Any) -> str | None:
    """The fenced program of a message that calls no tools; None if there is none."""
    if not isinstance(message, AIMessage) or message.tool_calls:
        return None
    text = str(message.text)
    return extract_program(text) if any(fence in text for fence in ("```", "~~~")) else None


def call_in(input: Any, messages_key: str, tool: str) -> ToolCall | None:
    """The call of the code tool that a node's input amounts to; None if its last message holds no program."""
    messages = input if isinstance(input, list) else _messages(input, messages_key)
    code = program_in(messages[-1]) if messages else None
    if code is None:
        return None
    identity = hashlib.sha256(f"{len(messages)}\0{messages[-1].id}\0{code}".encode()).hexdigest()[:16]
    return ToolCall(type="tool_call", id=f"{_PREFIX}{identity}", name=tool, args={"code": code})


def has_program(state: Any, messages_key: str = "messages") -> bool:
    """Whether the last message holds tool calls or a fenced program: the condition of the edge to the node."""
    messages = state if isinstance(state, list) else _messages(state, messages_key)
    last = messages[-1] if messages else None
    return bool(getattr(last, "tool_calls", None)) or program_in(last) is not None


def answered(combined: Any, messages_key: str) -> Any:
    """A node's output, with answers to fenced programs as human messages."""
    if isinstance(combined, dict):
        return {**combined, messages_key: [_as_human(message) for message in combined[messages_key]]}
    return [answered(one, messages_key) if isinstance(one, dict | list) else _as_human(one) for one in combined]


def _as_human(message: Any) -> Any:
    if not isinstance(message, ToolMessage) or not message.tool_call_id.startswith(_PREFIX):
        return message
    return HumanMessage(f"Result of the program:\n{message.text}", additional_kwargs={"artifact": message.artifact})


def _messages(state: Any, key: str) -> list[Any]:
    found = state.get(key, []) if isinstance(state, dict) else getattr(state, key, [])
    return list(found)
