"""A model of Anthropic's Messages API; ANTHROPIC_API_KEY is read by the SDK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anthropic import AsyncAnthropic

from demo.models import Call, Message


def to_anthropic(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Write a conversation as content blocks; results in a row belong into one user message."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            block = {"type": "tool_result", "tool_use_id": message.call_id, "content": message.text}
            if turns and turns[-1]["role"] == "user":
                turns[-1]["content"].append(block)
            else:
                turns.append({"role": "user", "content": [block]})
            continue
        blocks: list[dict[str, Any]] = [{"type": "text", "text": message.text}] if message.text else []
        blocks += [{"type": "tool_use", "id": c.id, "name": c.name, "input": c.arguments} for c in message.calls]
        turns.append({"role": message.role, "content": blocks})
    return turns


class AnthropicModel:
    """Messages with tools."""

    def __init__(self, name: str) -> None:
        self.name = f"anthropic:{name}"
        self._model = name
        self._client = AsyncAnthropic()

    async def complete(self, system: str, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Message:
        """Continue the conversation by one message."""
        functions = [tool["function"] for tool in tools]
        offered: Any = [
            {"name": f["name"], "description": f.get("description", ""), "input_schema": f["parameters"]}
            for f in functions
        ]
        body: Any = to_anthropic(messages)
        reply = await self._client.messages.create(
            model=self._model, max_tokens=4096, system=system, tools=offered, messages=body
        )
        text = "".join(block.text for block in reply.content if block.type == "text")
        calls = tuple(
            Call(block.id, block.name, dict(block.input)) for block in reply.content if block.type == "tool_use"
        )
        return Message("assistant", text, calls)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._client.close()
