"""A process that runs an agent, or goes on with one from a serialised Context, and is killed in the middle.

``python -m tests.integrations.llama_process FOLDER ASK WHEN [ANSWER...]`` goes on from FOLDER/context.json if that is
there.

ASK is the tool whose calls need a yes, or ``nothing``. Each ANSWER is ``request_id=choice``; that of ``*`` is given to
every question that comes up. It writes the Context and its questions down and kills itself when WHEN has happened:

- ``questions:N`` the workflow waits and N questions are open,
- ``hang:NAME`` the payment to NAME has begun, which then never ends;
- ``end`` goes on until the agent has answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.agent.workflow.workflow_events import ToolCall
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.workflow import Context, InputRequiredEvent
from workflows.events import WorkflowIdleEvent
from workflows.handler import WorkflowHandler

from tests.integrations.llama_script import PAYMENTS, ScriptedLLM, shop
from toolchord import CodeSandbox, Limits
from toolchord_llama_index import CodeOrchestratorToolSpec, answer, open_questions


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


async def saved(folder: Path, ctx: Context[Any]) -> None:
    """Write down what another process needs; LlamaIndex leaves the memory of a chat to its host."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Skipping serialization of known unserializable key: memory")
        snapshot = ctx.to_dict()
    memory = await ctx.store.get("memory")
    state = {"context": snapshot, "memory": [message.model_dump(mode="json") for message in memory.get_all()]}
    state["questions"] = await open_questions(ctx)
    (folder / "context.json").write_text(json.dumps(state))


async def continued(folder: Path, agent: FunctionAgent) -> WorkflowHandler:
    state = json.loads((folder / "context.json").read_text())
    handler = agent.run(ctx=Context.from_dict(agent, state["context"]))
    memory = ChatMemoryBuffer.from_defaults([ChatMessage.model_validate(one) for one in state["memory"]])
    await handler.ctx.store.set("memory", memory)
    return handler


async def main(folder: Path, ask: str, when: str, answers: list[str]) -> None:
    registry = shop(folder / "ledger", hang=when.removeprefix("hang:") if when.startswith("hang:") else None)
    sandbox = CodeSandbox(registry, limits=Limits(wall_time=30))
    spec = CodeOrchestratorToolSpec(sandbox, registry, ask=[name for name in [ask] if name != "nothing"])
    model = ScriptedLLM([[("outer", "run_code", {"code": PAYMENTS})], "all paid"])
    agent = FunctionAgent(tools=spec.to_tool_list(), llm=model)
    given = dict(text.split("=") for text in answers)
    if (folder / "context.json").exists():
        handler = await continued(folder, agent)
        questions = {question["request_id"]: question for question in await open_questions(handler.ctx)}
        for request_id, choice in given.items():
            if request_id == "*":
                continue
            handler.ctx.send_event(answer(questions[request_id], choice))  # type: ignore[arg-type]
    else:
        handler = agent.run(user_msg="pay them", ctx=Context(agent))
    event_name, _, wanted = when.partition(":")
    async for event in handler.stream_events(expose_internal=True):
        print(type(event).__name__, getattr(event, "tool_id", ""), event.get("request_id", ""), flush=True)
        if isinstance(event, InputRequiredEvent) and "*" in given:
            handler.ctx.send_event(answer(event, given["*"]))  # type: ignore[arg-type]
        begun = isinstance(event, ToolCall) and event_name == "hang" and event.tool_kwargs.get("to") == wanted
        waits = isinstance(event, WorkflowIdleEvent) and event_name == "questions"
        if begun or (waits and len(await open_questions(handler.ctx)) == int(wanted)):
            await saved(folder, handler.ctx)
            die()
    print("answered", str(await handler), flush=True)
    sandbox.close()


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]), 60))
