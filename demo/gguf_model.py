"""A model in a local GGUF file, run in this process by xllamacpp. It sees text only: calls are fenced blocks."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo.models import Call, Message

CONTEXT = 16_384  # tokens; a long classic conversation will not fit, and the demo then says so
FENCE = re.compile(r"```(?:python|py|json)?\s*\n(.*?)(?:```|\Z)", re.DOTALL)


def is_program(tools: Sequence[dict[str, Any]]) -> bool:
    """Tell whether the one tool on offer runs a program."""
    return [tool["function"]["name"] for tool in tools] == ["run_program"]


def protocol(tools: Sequence[dict[str, Any]]) -> str:
    """Explain to a model without tool calls how to make one."""
    if is_program(tools):
        return "To run a program, answer with one ```python block and nothing else."
    listed = "\n".join(json.dumps(tool["function"]) for tool in tools)
    return (
        f"Tools:\n{listed}\nTo call one, answer with one ```json block and nothing else: "
        '{"name": "...", "arguments": {...}}. When you know the answer, give it without a block.'
    )


def parse(text: str, tools: Sequence[dict[str, Any]], number: int) -> Message:
    """Turn a fenced block into a tool call."""
    block = FENCE.search(text)
    if block is None:
        return Message("assistant", text)
    body = block[1].strip()
    if is_program(tools):
        return Message("assistant", calls=(Call(f"call_{number}", "run_program", {"code": body}),))
    try:
        asked = json.loads(body)
        call = Call(f"call_{number}", asked["name"], dict(asked["arguments"]))
    except (ValueError, KeyError, TypeError):
        return Message("assistant", text)  # a block that is no call is an answer
    return Message("assistant", calls=(call,))


def to_chat(message: Message) -> dict[str, str]:
    """Write a message as plain chat; a model without tool calls reads results as the user's words."""
    if message.role == "tool":
        return {"role": "user", "content": f"Result:\n{message.text}"}
    blocks = [
        f"```python\n{c.arguments['code']}\n```"
        if c.name == "run_program"
        else f"```json\n{json.dumps({'name': c.name, 'arguments': c.arguments})}\n```"
        for c in message.calls
    ]
    return {"role": message.role, "content": "\n".join([message.text, *blocks]).strip()}


class GGUFModel:
    """A local model; the file is loaded at once."""

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no model file {path}")
        llama = importlib.import_module("xllamacpp")  # pip install xllamacpp
        parameters = llama.CommonParams()
        parameters.model.path = path
        parameters.n_ctx = CONTEXT
        parameters.n_parallel = 1
        parameters.sampling.temp = 0.0
        parameters.verbosity = 0  # its log would run through the progress
        self.name = f"gguf:{Path(path).name}"
        self._server = llama.Server(parameters)

    async def complete(self, system: str, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Message:
        """Continue the conversation by one message."""
        chat = [{"role": "system", "content": f"{system}\n\n{protocol(tools)}"}, *map(to_chat, messages)]
        response = await asyncio.to_thread(
            self._server.handle_chat_completions, {"messages": chat, "max_tokens": 1024, "temperature": 0.0}
        )
        return parse(response["choices"][0]["message"]["content"], tools, len(messages))

    async def close(self) -> None:
        """Let go of the file."""
        del self._server
