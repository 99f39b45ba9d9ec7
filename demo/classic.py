"""The classic way: the model calls tools itself, and every result goes into its context."""

from __future__ import annotations

import json
from typing import Any

from demo.conversation import ANSWER, Outcome, Watch, converse
from demo.models import Call, Model
from toolchord import ToolMetadata, ToolRegistry, ToolSpec

SYSTEM = f"You answer questions about the flights from New York in 2013 with the tools you are given. {ANSWER}"


def definition(metadata: ToolMetadata) -> dict[str, Any]:
    """Describe a tool in the chat format, as briefly as it goes: without the shape of its result.

    `ToolSpec.to_openai` adds that shape; a fair comparison gives the classic way the least to read.
    """
    spec = ToolSpec.from_metadata(metadata)
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": function}


async def ask(model: Model, question: str, registry: ToolRegistry, *, max_turns: int, watch: Watch) -> Outcome:
    """Answer a question by single tool calls."""
    offered = [definition(tool.metadata) for tool in registry.tools()]
    outcome = Outcome()

    async def serve(call: Call) -> str:
        outcome.tool_calls += 1
        try:
            tool = await registry.get_tool_strict(call.name)
            return json.dumps(await tool.execute(**call.arguments))
        except Exception as error:  # whatever a tool raises is for the model to read
            return f"{type(error).__name__}: {error}"

    await converse(model, SYSTEM, offered, question, serve, outcome, max_turns=max_turns, watch=watch)
    return outcome
