"""Owns the middleware: the code tool for agents of `create_agent` and `create_deep_agent`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from toolchord.errors import ConfigurationError, MissingExtraError

try:
    from langchain.agents.middleware import AgentMiddleware
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "langchain":
        raise
    raise MissingExtraError("CodeOrchestratorMiddleware", "agents") from None

from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolRuntime
from langgraph.prebuilt.tool_node import ToolCallRequest

from toolchord import Catalogue, CodeSandbox, Limits, Policy
from toolchord_langgraph.approvals import Approvals, Asked
from toolchord_langgraph.code_tool import (
    CODE_NAME,
    Given,
    catalogue_of,
    code_tool,
    described,
    for_code_only,
    for_direct_only,
    tools_of,
)
from toolchord_langgraph.program import Frame


class CodeOrchestratorMiddleware(AgentMiddleware[Any, Any]):
    """Gives an agent the code tool: programs call the agent's tools as functions.

    Inner calls pass through every middleware that is listed after this one (`wrap_tool_call`) and through the tool
    node's injection, each as a sub-task of its own in the agent's checkpointer. So list it first: before those that
    retry, handle errors or ask a person.

    Args:
        tools: more tools, which only programs call. The agent's own are open to the model and to programs, unless
            their ``extras["allowed_callers"]`` say otherwise.
        exclusive: the model sees the code tool alone.
        interrupt_on: tools whose calls inside of programs wait for a person, see `toolchord_langgraph.approvals`.
        policy: rules for the calls of programs, see docs/policy.md; what they ask is an interrupt too.
        sandbox: where programs run; one of its own if None.
        limits: what a program may spend; the sandbox's own if None.
        code_name: the name of the code tool.
        max_chars: the length of a program's answer to the model, at most.
        variables: a program finds the variables that the thread's last one left. They travel in its message, so they
            are checkpointed, forked and deleted with the thread; `Limits.variables` bounds them.

    Raises:
        ConfigurationError: arguments that make no sense.
    """

    def __init__(
        self,
        tools: Given = (),
        *,
        exclusive: bool = False,
        interrupt_on: Asked | None = None,
        policy: Policy | None = None,
        sandbox: CodeSandbox | None = None,
        limits: Limits | None = None,
        code_name: str = CODE_NAME,
        max_chars: int = 20_000,
        variables: bool = True,
    ) -> None:
        super().__init__()
        inner = tools_of(tools)
        if code_name in (tool.name for tool in inner):
            raise ConfigurationError(f"there is a tool {code_name!r} already; pass code_name= for the code tool")
        self._code_only = frozenset(tool.name for tool in inner)
        self._exclusive = exclusive
        self._approvals = Approvals(interrupt_on)
        self._sandbox = sandbox or CodeSandbox(limits=limits)
        self._limits = limits
        self._policy = policy
        self._max_chars = max_chars
        self._variables = variables
        self._catalogues: dict[tuple[int, ...], tuple[list[BaseTool], Catalogue, BaseTool]] = {}
        self._code_tool = code_tool(self._frame, name=code_name, description="Run a Python program.")
        self.tools = [self._code_tool, *inner]

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Show the model the code tool with what programs can call, and hide what only they call."""
        return handler(request.override(tools=self._shown(request.tools)))

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """See `wrap_model_call`."""
        return await handler(request.override(tools=self._shown(request.tools)))

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """Keep the way that calls take from here on, for those that a program makes."""
        if request.tool_call["name"] != self._code_tool.name:
            return handler(request)
        token = _handler.set(handler)
        try:
            return handler(request)
        finally:
            _handler.reset(token)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        """See `wrap_tool_call`."""
        if request.tool_call["name"] != self._code_tool.name:
            return await handler(request)
        token = _handler.set(handler)
        try:
            return await handler(request)
        finally:
            _handler.reset(token)

    def _shown(self, tools: list[Any]) -> list[Any]:
        """The tools that the model is told of; those of providers are theirs."""
        inner = [tool for tool in tools if isinstance(tool, BaseTool) and tool.name != self._code_tool.name]
        hidden = {
            tool.name for tool in inner if (self._exclusive and not for_direct_only(tool)) or self._is_code_only(tool)
        }
        told = self._offered(inner)[1]
        return [
            told if isinstance(tool, BaseTool) and tool.name == told.name else tool
            for tool in tools
            if not (isinstance(tool, BaseTool) and tool.name in hidden)
        ]

    def _is_code_only(self, tool: BaseTool) -> bool:
        return tool.name in self._code_only or for_code_only(tool)

    def _frame(self, runtime: ToolRuntime[Any, Any]) -> Frame:
        handler = _handler.get()
        tools = [tool for tool in runtime.tools if tool.name != self._code_tool.name]
        self._approvals.check({tool.name for tool in tools})  # only here all of them are known
        catalogue, _ = self._offered(tools)
        return Frame(
            self._sandbox,
            catalogue,
            handler,
            handler,
            self._approvals,
            self._policy,
            self._limits,
            "messages",
            self._max_chars,
            self._variables,
        )

    def _offered(self, tools: list[BaseTool]) -> tuple[Catalogue, BaseTool]:
        """What programs can call of these tools, and the code tool that says so; made once for the same tools."""
        key = tuple(map(id, tools))
        if key not in self._catalogues:
            catalogue = catalogue_of(tools)
            told = self._code_tool.model_copy(update={"description": described(catalogue, self._variables)})
            while len(self._catalogues) >= _KEPT:
                del self._catalogues[next(iter(self._catalogues))]
            self._catalogues[key] = (tools, catalogue, told)  # with the tools, so that their ids stay theirs
        _, catalogue, told = self._catalogues[key]
        return catalogue, told


_KEPT = 32
"""Sets of tools for which a catalogue is kept."""

_handler: ContextVar[Callable[[ToolCallRequest], Any]] = ContextVar("toolchord_langgraph_handler")
