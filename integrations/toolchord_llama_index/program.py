"""Owns the tool with which a LlamaIndex agent runs a program, and one such run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_index.core.tools import FunctionTool, ToolMetadata, ToolOutput
from llama_index.core.tools.tool_spec.base import BaseToolSpec
from llama_index.core.workflow import Context
from pydantic import BaseModel, Field

from toolchord import Catalogue, CodeSandbox, Limits, Policy, format_tools_for_llm
from toolchord.catalogue import Source
from toolchord.errors import ConfigurationError
from toolchord_llama_index.approvals import Ask, policy_of
from toolchord_llama_index.outbound import SchemaMetadata
from toolchord_llama_index.private import current_step
from toolchord_llama_index.runs import CodeRun, Setting, output_of

_DESCRIPTION = """\
Run a Python program in a sandbox and get back what it returns. The tools below are functions in it; await them, and \
use asyncio.gather for calls that don't depend on each other. Work on the data in the program and `return` only what \
you need: nothing else reaches you."""

_SEARCH = 'Find tools with `await search_tools("words")`; `await describe_tool("name")` tells how to call one.'


class Orchestrator:
    """Runs the programs of agents; what `CodeOrchestratorToolSpec` and `code_execute_fn` have in common."""

    def __init__(
        self,
        sandbox: CodeSandbox,
        tools: Source,
        ask: Ask | None,
        policy: Policy | None,
        limits: Limits | None,
        max_chars: int,
    ) -> None:
        if not isinstance(sandbox, CodeSandbox):
            raise ConfigurationError(f"the sandbox must be a CodeSandbox, not {type(sandbox).__name__}")
        if policy is not None and not isinstance(policy, Policy):
            raise ConfigurationError(f"policy must be a Policy, not {type(policy).__name__}; write Policy(ask('pay'))")
        if ask is not None and (policy is not None or sandbox.policy is not None):
            raise ConfigurationError("a policy says what asks: write ask= as rules of it, or give no policy")
        self._sandbox = sandbox
        self._policy = policy
        self._tools = tools
        self._ask = ask if ask is None or callable(ask) else frozenset(ask)
        self._limits = limits
        self._max_chars = max_chars
        self._setting()  # a wrong name is better told now

    async def run(self, ctx: Context[Any] | None, code: str) -> ToolOutput:
        """Run a program.

        Args:
            ctx: the Context of the step around it; without one nothing is streamed and nobody can be asked.
            code: the program.

        Raises:
            ConfigurationError: `code` is no text.
        """
        if not isinstance(code, str):
            raise ConfigurationError(f"code must be text, not {type(code).__name__}")
        step = current_step() if ctx is not None else None
        run = CodeRun(self._setting(), ctx, code)
        if ctx is None or step is None:
            return output_of(await run.without_step(), code, self._max_chars)
        return await run.in_step(step)

    def _setting(self) -> Setting:
        catalogue = self._sandbox.catalogue() if self._tools is None else Catalogue.of(self._tools)
        ask = self._ask if self._ask is None or callable(self._ask) else _full_names(catalogue, self._ask)
        policy = self._policy if ask is None else policy_of(ask)
        return Setting(self._sandbox, catalogue, policy, self._limits, self._max_chars)


def _full_names(catalogue: Catalogue, names: frozenset[str]) -> frozenset[str]:
    found = set()
    for name in names:
        exposed = catalogue.resolve(name)
        if exposed is None:
            raise ConfigurationError(f"ask= names a tool that programs can't call: {catalogue.explain(name)}")
        found.add(exposed.tool.full_name)
    return frozenset(found)


class CodeOrchestratorToolSpec(BaseToolSpec):
    """Gives any LlamaIndex agent the one tool that runs a program: ``spec.to_tool_list()``.

    In an agent's workflow the calls inside a program are streamed as `ToolCall` and `ToolCallResult` with ids
    ``<id of the outer call>:<number>``, what is printed as `CodeOutput`, the end as `CodeEnded`. A call that needs a
    person's yes is an `InputRequiredEvent`; see `answer`. Finished calls are kept in the Context, and never run again
    when the run goes on, in whatever process.

    Args:
        sandbox: where programs run.
        tools: what they may call, described to the model; None: the sandbox's own choice, which the model searches.
        ask: which calls need a person's yes.
        policy: rules instead, see docs/policy.md; by default the sandbox's own where it has some.
        name: the tool's name.
        description: what the model is told; None: how to write a program, with a typed stub of each tool.
        limits: what a program may spend; None: the sandbox's own.
        max_chars: the length of the text that the model gets, at most.
        max_tokens: about how long the stubs may be; see `format_tools_for_llm`.
        return_direct: the program's value is the agent's answer.

    Raises:
        ConfigurationError: arguments that make no sense, such as a name in `ask` that no tool has,
            or `ask` beside a policy.
    """

    spec_functions = ["run_code"]  # noqa: RUF012  (the base class declares it so)

    def __init__(
        self,
        sandbox: CodeSandbox,
        tools: Source = None,
        *,
        ask: Ask | None = None,
        policy: Policy | None = None,
        name: str = "run_code",
        description: str | None = None,
        limits: Limits | None = None,
        max_chars: int = 20_000,
        max_tokens: int | None = None,
        return_direct: bool = False,
    ) -> None:
        self._orchestrator = Orchestrator(sandbox, tools, ask, policy, limits, max_chars)
        if description is None:
            stubs = _SEARCH if tools is None else format_tools_for_llm(tools, max_tokens=max_tokens)
            description = f"{_DESCRIPTION}\n\n{stubs}"
        schema = _Program.model_json_schema()
        self._metadata = SchemaMetadata(description, name, _Program, return_direct, parameters=schema)

    async def run_code(self, code: str) -> ToolOutput:
        """Run a program outside of an agent.

        Args:
            code: Python text. Its value is what it returns at the top level.
        """
        return await self._orchestrator.run(None, code)

    def to_tool_list(
        self,
        spec_functions: Any = None,
        func_to_metadata_mapping: dict[str, ToolMetadata] | None = None,
    ) -> list[FunctionTool]:
        """The tool, in a list."""
        metadata = (func_to_metadata_mapping or {}).get("run_code", self._metadata)
        return [CodeTool(self._orchestrator, metadata)]


class _Program(BaseModel):
    code: str = Field(description="The program: Python 3.11. Its value is what it returns at the top level.")


class CodeTool(FunctionTool):
    """The tool. Agents hand it their Context; without one it runs all the same."""

    def __init__(self, orchestrator: Orchestrator, metadata: ToolMetadata) -> None:
        """Made by `CodeOrchestratorToolSpec`."""

        async def run_code(ctx: Any, code: str) -> ToolOutput:
            output = await orchestrator.run(ctx, code)
            output.tool_name = metadata.get_name()
            return output

        super().__init__(
            async_fn=with_context(run_code), metadata=metadata, callback=_itself, async_callback=_itself_async
        )

    def call(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """See FunctionTool."""
        return super().call(**_named(args, kwargs))

    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """See FunctionTool."""
        return await super().acall(**_named(args, kwargs))


def with_context(function: Callable[..., Any]) -> Callable[..., Any]:
    """Annotate the parameters as LlamaIndex looks for them: with the class, not with its name."""
    function.__annotations__ = {**function.__annotations__, "ctx": Context, "code": str}
    return function


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    if len(args) > 1 or (args and "code" in kwargs) or (not args and "code" not in kwargs):
        raise TypeError('it takes one program: call it as tool(code="...")')
    return {"ctx": None, **({"code": args[0]} if args else {}), **kwargs}


def _itself(output: ToolOutput) -> ToolOutput:
    """What LlamaIndex shall take as the output, instead of making its own of it."""
    return output


async def _itself_async(output: ToolOutput) -> ToolOutput:
    return output
