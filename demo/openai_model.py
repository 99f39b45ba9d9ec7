"""A model behind any OpenAI-compatible server; OPENAI_BASE_URL and OPENAI_API_KEY say which."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from openai import AsyncOpenAI

from demo.models import Call, Message


def to_openai(message: Message) -> dict[str, Any]:
    """Write a message in the chat format."""
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": message.text}
    calls = [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": json.dumps(c.arguments)}}
        for c in message.calls
    ]
    return {"role": message.role, "content": message.text} | ({"tool_calls": calls} if calls else {})


def arguments_of(text: str) -> dict[str, Any]:
    """Read a call's arguments; what is no JSON object becomes none, and the tool's own check tells the model."""
    try:
        parsed = json.loads(text or "{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


class OpenAIModel:
    """Chat completions with tools."""

    def __init__(self, name: str) -> None:
        self.name = f"openai:{name}"
        self._model = name
        # A local server asks for no key, but the SDK wants one.
        self._client = AsyncOpenAI(api_key=os.environ.get("OPENAI_API_KEY", "none"))

    async def complete(self, system: str, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Message:
        """Continue the conversation by one message."""
        body: Any = [{"role": "system", "content": system}, *map(to_openai, messages)]
        offered: Any = list(tools)
        response = await self._client.chat.completions.create(model=self._model, messages=body, tools=offered)
        reply = response.choices[0].message
        calls = tuple(
            Call(call.id, call.function.name, arguments_of(call.function.arguments))
            for call in reply.tool_calls or ()
            if call.type == "function"
        )
        return Message("assistant", reply.content or "", calls)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._client.close()
