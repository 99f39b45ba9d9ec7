"""The programmatic way: the model writes one program; only what it returns goes into the context."""

from __future__ import annotations

from typing import Any

from demo.conversation import ANSWER, Outcome, Watch, converse
from demo.models import Call, Model
from toolchord import CodeSandbox, ToolRegistry, format_tools_for_llm

RUN_PROGRAM: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "run_program",
        "description": "Run a Python program that may call the tools. What it returns comes back to you.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "Python source; top-level await and return work"}},
            "required": ["code"],
        },
    },
}
SYSTEM = f"""\
You answer questions about the flights from New York in 2013. Write one Python program that calls the functions below \
and hand it to run_program; start calls that are independent together, with asyncio.gather. Return only what the \
answer needs. {ANSWER}

"""


async def ask(
    model: Model, question: str, registry: ToolRegistry, sandbox: CodeSandbox, *, max_turns: int, watch: Watch
) -> Outcome:
    """Answer a question by a program; a failed one goes back to the model, to be repaired."""
    outcome = Outcome()

    async def serve(call: Call) -> str:
        if call.name != "run_program" or not isinstance(call.arguments.get("code"), str):
            return "There is one tool, run_program, and its one argument is `code`."
        result = await sandbox.execute(call.arguments["code"])
        outcome.tool_calls += len(result.calls)
        outcome.failed_programs += not result.ok
        return result.for_model(max_chars=8_000)

    system = SYSTEM + format_tools_for_llm(registry)
    await converse(model, system, [RUN_PROGRAM], question, serve, outcome, max_turns=max_turns, watch=watch)
    return outcome
