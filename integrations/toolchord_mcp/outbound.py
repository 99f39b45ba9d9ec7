"""Owns the way out: an MCP server with which any client runs programs that call the tools."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from importlib.metadata import version
from typing import Any

from mcp import types
from mcp.server.lowlevel import Server
from mcp.shared.context import RequestContext
from pydantic import BaseModel, Field, ValidationError

from toolchord import (
    Catalogue,
    CodeSandbox,
    ExecutionResult,
    Limits,
    Policy,
    ToolCapability,
    ToolRegistry,
    format_tools_for_llm,
)
from toolchord.catalogue import Source
from toolchord.errors import ConfigurationError
from toolchord.observing import within
from toolchord.prompt import describe
from toolchord_mcp.approvals import Client, ClientJournal, Rules, asking
from toolchord_mcp.progress import ProgressReport

_RUN = """\
Run a Python program in a sandbox and get back what it returns. The tools below are functions in it; await them, and \
use asyncio.gather for calls that don't depend on each other. Work on the data in the program and `return` only what \
you need: nothing else reaches you."""

_SEARCH = "Find the tools that programs of run_code can call, by words. Gives names, arguments and what each is for."

_DESCRIBE = "The full signatures of tools that programs of run_code can call: arguments, results, documentation."


class _RunCode(BaseModel, extra="forbid"):
    code: str = Field(description="The program: Python 3.11. Its value is what it returns at the top level.")


class _SearchTools(BaseModel, extra="forbid"):
    query: str = Field(description="Words, or a pattern such as get_.*|list_", min_length=1)
    limit: int = Field(default=10, ge=1, le=100)


class _DescribeTools(BaseModel, extra="forbid"):
    names: list[str] = Field(description="As search_tools writes them", min_length=1, max_length=50)


def code_server(
    sandbox: CodeSandbox,
    tools: Source,
    *,
    name: str = "toolchord",
    ask: Iterable[str] = (),
    allow: Iterable[str] = (),
    policy: Policy | None = None,
    limits: Limits | None = None,
    concurrency: int = 8,
    max_chars: int = 20_000,
    max_tokens: int = 4_000,
) -> Server[Any, Any]:
    """An MCP server of three tools: ``run_code``, ``search_tools`` and ``describe_tools``.

    A client that asks for progress is told of calls and output as they happen. A tool that is DESTRUCTIVE, or named in
    `ask`, runs only after the client's user has said yes (elicitation); without one the program gets CallDenied.

    Args:
        sandbox: where programs run.
        tools: what they may call; a registry is read anew for every program.
        name: how the server introduces itself.
        ask: names of tools, or patterns such as ``files.*``, that ask too.
        allow: names or patterns of tools that never ask.
        policy: rules instead of these, see docs/policy.md; by default the sandbox's own where it has some. What they
            ask, the client's user is asked.
        limits: what a program may spend; None: the sandbox's own. Time in which a person is asked does not count.
        concurrency: programs that run at a time; more wait their turn.
        max_chars: length of an answer at most.
        max_tokens: of the stubs in run_code's description, about; past it they are cut to names.

    Returns:
        A server of the SDK, for `serve_stdio`, `serve_http`, or any of the SDK's own transports.

    Raises:
        ConfigurationError: arguments that make no sense; a pattern that fits no tool; names and a policy together.
    """
    if policy is not None and not isinstance(policy, Policy):
        raise ConfigurationError(f"policy must be a Policy, not {type(policy).__name__}; write Policy(ask('pay'))")
    rules = Rules(ask, allow)
    if policy is None:
        policy = sandbox.policy
    if policy is not None and rules:
        raise ConfigurationError("a policy says what asks: write ask= and allow= as rules of it, or give no policy")
    if policy is None:
        policy = rules.policy()
    server = _CodeServer(sandbox, tools, name, policy, limits, concurrency, max_chars, max_tokens)
    rules.check(server.catalogue())
    return server.server


class _CodeServer:
    def __init__(
        self,
        sandbox: CodeSandbox,
        tools: Source,
        name: str,
        policy: Policy,
        limits: Limits | None,
        concurrency: int,
        max_chars: int,
        max_tokens: int,
    ) -> None:
        if concurrency < 1:
            raise ConfigurationError(f"concurrency must be at least 1, not {concurrency!r}")
        self._sandbox = sandbox
        if tools is None:
            raise ConfigurationError("tools says what programs may call: a registry, tools or functions")
        self._tools = tools if isinstance(tools, ToolRegistry) else Catalogue.of(tools)
        self._policy = policy
        self._limits = limits
        self._slots = asyncio.Semaphore(concurrency)
        self._max_chars = max_chars
        self._max_tokens = max_tokens
        self._handlers: dict[str, tuple[type[BaseModel], Callable[[Any], Awaitable[types.CallToolResult]]]] = {
            "run_code": (_RunCode, self._run_code),
            "search_tools": (_SearchTools, self._search),
            "describe_tools": (_DescribeTools, self._describe),
        }
        self.server: Server[Any, Any] = Server(name, version=version("toolchord"))
        self.server.request_handlers[types.ListToolsRequest] = self._list
        self.server.request_handlers[types.CallToolRequest] = self._call

    def catalogue(self) -> Catalogue:
        """The tools as they are now."""
        return Catalogue.of(self._tools)

    # the protocol's side

    async def _list(self, request: types.ListToolsRequest) -> types.ServerResult:
        catalogue = self.catalogue()
        stubs = await asyncio.to_thread(format_tools_for_llm, catalogue, max_tokens=self._max_tokens)
        capabilities = [exposed.tool.metadata.capabilities for exposed in catalogue.tools]
        reads = all(ToolCapability.READ_ONLY in one for one in capabilities)
        hints = types.ToolAnnotations(
            readOnlyHint=reads,
            destructiveHint=not reads,
            openWorldHint=any(ToolCapability.OPEN_WORLD in one for one in capabilities) or None,
        )
        looks = types.ToolAnnotations(readOnlyHint=True, openWorldHint=False)
        return types.ServerResult(
            types.ListToolsResult(
                tools=[
                    _tool("run_code", f"{_RUN}\n\n{stubs}", _RunCode, hints),
                    _tool("search_tools", _SEARCH, _SearchTools, looks),
                    _tool("describe_tools", _DESCRIBE, _DescribeTools, looks),
                ]
            )
        )

    async def _call(self, request: types.CallToolRequest) -> types.ServerResult:
        name = request.params.name
        if name not in self._handlers:
            known = ", ".join(self._handlers)
            hint = " (the tools are functions inside a program: call them with run_code)"
            answer = _said(f"no tool named {name!r}; there are {known}{hint}", failed=True)
        else:
            model, handler = self._handlers[name]
            try:
                arguments = model.model_validate(request.params.arguments or {})
            except ValidationError as error:
                lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
                answer = _said(f"{name}: {lines}", failed=True)
            else:
                answer = await handler(arguments)
        return types.ServerResult(answer)

    # the tools

    async def _search(self, arguments: _SearchTools) -> types.CallToolResult:
        catalogue = self.catalogue()
        found = await asyncio.to_thread(catalogue.search, arguments.query, arguments.limit)
        if not found:
            return _said(
                f"no tool fits {arguments.query[:200]!r}; there are {len(catalogue.tools)} tools, try other words"
            )
        lines = []
        for exposed in found:
            first = exposed.tool.metadata.description.strip().partition("\n")[0][:200]
            given = ", ".join(exposed.tool.parameter_texts())
            lines.append(f"{catalogue.path(exposed)}({given}){f'  # {first}' if first else ''}")
        return _said("\n".join(lines))

    async def _describe(self, arguments: _DescribeTools) -> types.CallToolResult:
        catalogue = self.catalogue()

        def texts() -> list[tuple[bool, str]]:
            found = []
            for name in arguments.names:
                exposed = catalogue.resolve(name)
                if exposed is None:
                    found.append((False, f"# {catalogue.explain(name[:200])}"))
                else:
                    found.append((True, describe(exposed, path=catalogue.path(exposed))))
            return found

        described = await asyncio.to_thread(texts)
        return _said("\n\n".join(text for _, text in described), failed=not any(known for known, _ in described))

    async def _run_code(self, arguments: _RunCode) -> types.CallToolResult:
        context: RequestContext[Any, Any, Any] = self.server.request_context
        token = context.meta.progressToken if context.meta is not None else None
        client = Client(context.session, context.request_id)
        carried = context.meta.model_extra if context.meta is not None else None
        async with ProgressReport(context.session, context.request_id, token) as report:
            with within(carried):
                result = await self._run(arguments.code, client, report)
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=result.for_model(self._max_chars))],
            isError=not result.ok,
            _meta={"toolchord/run": _summary(result)},
        )

    async def _run(self, code: str, client: Client, report: ProgressReport) -> ExecutionResult:
        """Run a program; each time that it waits for a person's yes, ask, and let it go on from its journal."""
        journal = ClientJournal.of(client)
        catalogue = self.catalogue()
        while True:
            async with self._slots:
                result = await self._sandbox.execute(
                    code, catalogue, limits=self._limits, journal=journal, watch=report.watch, policy=self._policy
                )
            record = result.record
            if record is None or not (waiting := asking(result.pending, record)):
                return result
            decisions = await client.ask(waiting)
            journal = ClientJournal.of(client, record)
            for request, decision in decisions.items():
                journal.answer(request, decision)  # one that has expired meanwhile is refused when it goes on
            report.restart()


def _tool(name: str, description: str, model: type[BaseModel], hints: types.ToolAnnotations) -> types.Tool:
    schema = model.model_json_schema()
    schema.pop("title", None)
    return types.Tool(name=name, description=description, inputSchema=schema, annotations=hints)


def _said(text: str, *, failed: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], isError=failed)


def _summary(result: ExecutionResult) -> dict[str, Any]:
    """What a client's own code may want to know of a run; it is not for the model."""
    error = result.error
    return {
        "ok": result.ok,
        "error": None if error is None else {"type": error.type, "kind": error.kind, "line": error.line},
        "seconds": round(result.duration, 3),
        "calls": [
            {"tool": call.tool, "status": call.status, "seconds": round(call.duration, 3)}
            for call in result.calls[:100]
        ],
        "calls_made": len(result.calls),
    }
