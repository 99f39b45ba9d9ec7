"""Owns programs for LlamaIndex's CodeActAgent: what runs its code, and what tells its model of the tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from llama_index.core.agent.workflow import CodeActAgent
from llama_index.core.llms import LLM

from toolchord import CodeSandbox, Limits, Policy, format_tools_for_llm
from toolchord.catalogue import Source
from toolchord_llama_index.approvals import Ask
from toolchord_llama_index.program import Orchestrator, with_context

_PROMPT = """\
You are a helpful assistant that writes and runs Python programs to solve problems.

You will be given a task. Answer with one of these:
- a Python program in <execute>...</execute> tags, which is run for you, or
- text for the user: the answer, or a question.

A program is run in a sandbox. The tools below are functions in it; await them, and use asyncio.gather for calls that \
don't depend on each other. What it returns at the top level, or prints, is given back to you, and nothing else. Each \
program starts anew: variables of earlier programs are gone, so return what you will need. Much of the standard \
library is there, but no files and no network.

<execute>
import asyncio
first, second = await asyncio.gather(some_tool(key="a"), some_tool(key="b"))
return first["total"] + second["total"]
</execute>

In your final answer give the result, not the program.

{tools}
{{tool_descriptions}}
"""


def code_execute_fn(
    sandbox: CodeSandbox,
    tools: Source = None,
    *,
    ask: Ask | None = None,
    policy: Policy | None = None,
    limits: Limits | None = None,
    max_chars: int = 20_000,
) -> Callable[..., Awaitable[str]]:
    """What a CodeActAgent runs its code with; the tools are functions in every program.

    It streams, asks and goes on as the tool of `CodeOrchestratorToolSpec` does. Tell the model of the tools with
    `code_act_prompt`, and give the agent itself no tools; `code_act_agent` does both.

    Args:
        sandbox: where programs run.
        tools: what they may call; None: the sandbox's own choice.
        ask: which calls need a person's yes.
        policy: rules instead, see docs/policy.md; by default the sandbox's own where it has some.
        limits: what a program may spend; None: the sandbox's own.
        max_chars: the length of the text that the model gets, at most.

    Raises:
        ConfigurationError: arguments that make no sense.
    """
    orchestrator = Orchestrator(sandbox, tools, ask, policy, limits, max_chars)

    async def execute(ctx: Any, code: str) -> str:
        """Run a program."""
        return (await orchestrator.run(ctx, code)).content

    return with_context(execute)


def code_act_prompt(tools: Source, *, max_tokens: int | None = None) -> str:
    """The `code_act_system_prompt` that tells a CodeActAgent's model of the tools, each with a typed stub.

    Args:
        tools: what programs may call.
        max_tokens: about how long the stubs may be; see `format_tools_for_llm`.
    """
    stubs = format_tools_for_llm(tools, max_tokens=max_tokens)
    return _PROMPT.format(tools=stubs.replace("{tool_descriptions}", "{ tool_descriptions }"))


def code_act_agent(
    sandbox: CodeSandbox,
    tools: Source = None,
    *,
    llm: LLM | None = None,
    ask: Ask | None = None,
    policy: Policy | None = None,
    limits: Limits | None = None,
    max_chars: int = 20_000,
    max_tokens: int | None = None,
    **options: Any,
) -> CodeActAgent:
    """A CodeActAgent whose programs run in a sandbox and have the tools.

    Args:
        sandbox, tools, ask, policy, limits, max_chars: see `code_execute_fn`.
        llm: the model; LlamaIndex's `Settings.llm` when None.
        max_tokens: see `code_act_prompt`.
        **options: whatever else a CodeActAgent takes, such as `name` or `system_prompt`.
    """
    shown = sandbox.catalogue() if tools is None else tools
    return CodeActAgent(
        code_execute_fn(sandbox, tools, ask=ask, policy=policy, limits=limits, max_chars=max_chars),
        llm=llm,
        code_act_system_prompt=code_act_prompt(shown, max_tokens=max_tokens),
        **options,
    )
