"""The classic way: the model calls tools itself, and every result goes into its context."""

from __future__ import annotations

import json

from demo.conversation import ANSWER, Outcome, Watch, converse
from demo.models import Call, Model
from toolchord import ToolRegistry, ToolSpec

SYSTEM = f"You answer questions about the flights from New York in 2013 with the tools you are given. {ANSWER}"


async def ask(model: Model, question: str, registry: ToolRegistry, *, max_turns: int, watch: Watch) -> Outcome:
    """Answer a question by single tool calls."""
    offered = [ToolSpec.from_metadata(tool.metadata).to_openai(api="chat") for tool in registry.tools()]
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
