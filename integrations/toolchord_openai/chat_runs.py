"""The whole loop over Chat Completions in one call, with programs in our sandbox."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

from toolchord import Catalogue, CodeSandbox, Limits, ToolSpec, current_call, tool_from
from toolchord.catalogue import Source
from toolchord.errors import ConfigurationError
from toolchord.native import (
    CallDesk,
    Ledger,
    Messages,
    ModelRun,
    NativeCall,
    conversation_of,
    drive,
    export,
    iterate,
    last,
    ledger_of,
    require_positive,
)
from toolchord.prompt import PROGRAMS, format_tools_for_llm
from toolchord.results import ExecutionResult
from toolchord.tools import waited
from toolchord_openai.chat import ChatConversation
from toolchord_openai.request import check
from toolchord_openai.runs import blocking

_OURS = ("messages", "stream", "tools", "functions", "function_call", "n")


async def run_chat(
    client: Any,
    tools: Source,
    messages: Messages,
    *,
    model: str,
    sandbox: CodeSandbox | None = None,
    limits: Limits | None = None,
    code_tool: str = "run_code",
    ledger: Ledger | None = None,
    max_requests: int = 50,
    max_chars: int = 20_000,
    **request: Any,
) -> ModelRun:
    """Let any model behind Chat Completions answer with programs that run in our sandbox.

    The model gets one tool that runs a program, described with a typed stub of each tool that is open to the sandbox,
    and beside it those that are open to direct calls only.

    Args:
        client: `openai.AsyncOpenAI` or `openai.OpenAI`, of OpenAI or any server that copies it.
        tools: a registry, or whatever else a `Catalogue` is made of.
        messages: the user's text, or the conversation so far; calls without a result are answered first.
        model: the model's name.
        sandbox: where programs run; one is made for this run if None.
        limits: what one program may spend; None: the sandbox's own.
        code_tool: the name of the tool that runs a program.
        ledger: an earlier run's `ledger`, or one that is saved as it is written.
        max_requests: requests to the model at most.
        max_chars: characters of a result that the model reads; longer ones lose their middle.
        **request: whatever else `chat.completions.create` takes, such as `temperature`. A forced `tool_choice` applies
            to the first request.

    Raises:
        ConfigurationError: what makes no sense, with what to do instead.
        ModelRunError: the API failed or the model was not done in time; its `run` can be continued.
        IsolationUnavailable: this machine can't give the sandbox.
    """
    return await last(
        _items(
            client,
            tools,
            messages,
            stream=False,
            model=model,
            sandbox=sandbox,
            limits=limits,
            code_tool=code_tool,
            ledger=ledger,
            max_requests=max_requests,
            max_chars=max_chars,
            request=request,
        )
    )


def stream_chat(
    client: Any,
    tools: Source,
    messages: Messages,
    *,
    model: str,
    sandbox: CodeSandbox | None = None,
    limits: Limits | None = None,
    code_tool: str = "run_code",
    ledger: Ledger | None = None,
    max_requests: int = 50,
    max_chars: int = 20_000,
    **request: Any,
) -> AsyncGenerator[Any, None]:
    """`run_chat` as a stream.

    Yields:
        The SDK's chunks as they come; each `NativeCall` when it has been answered; a `Restarted` where a stream broke
        off and its request was made again; last the `ModelRun`.
    """
    return _items(
        client,
        tools,
        messages,
        stream=True,
        model=model,
        sandbox=sandbox,
        limits=limits,
        code_tool=code_tool,
        ledger=ledger,
        max_requests=max_requests,
        max_chars=max_chars,
        request=request,
    )


def run_chat_sync(client: Any, tools: Source, messages: Messages, *, model: str, **given: Any) -> ModelRun:
    """`run_chat` for code that is not asynchronous, with an `openai.OpenAI`."""
    blocking(client)
    run: ModelRun = waited(run_chat(client, tools, messages, model=model, **given))
    return run


def stream_chat_sync(client: Any, tools: Source, messages: Messages, *, model: str, **given: Any) -> Iterator[Any]:
    """`stream_chat` for code that is not asynchronous, with an `openai.OpenAI`."""
    blocking(client)
    return iterate(lambda: stream_chat(client, tools, messages, model=model, **given))


class _Programs:
    """The tool that runs programs, and what they leave."""

    def __init__(
        self, sandbox: CodeSandbox, tools: Catalogue, run: ModelRun, limits: Limits | None, chars: int
    ) -> None:
        self._sandbox = sandbox
        self._tools = tools
        self._run = run
        self._limits = limits
        self._chars = chars

    async def execute(self, code: str) -> str:
        """Run a program; what it gives is text for the model, whatever it does."""
        identity = current_call()
        assert identity is not None
        id = next(call.id for call in self._run.ledger.calls if call.number == identity.number)
        result = await self._sandbox.execute(code, self._tools, limits=self._limits)
        text = result.for_model(self._chars)
        program = self._run.program(id, code)
        program.output, program.ok, program.result = text, result.ok, result
        self._run.calls.extend(_inner(id, result))
        return text


def _inner(program: str, result: ExecutionResult) -> Iterator[NativeCall]:
    """A program's calls, in the form that they have elsewhere; their results stay in the sandbox."""
    for call in result.calls:
        settled = call.status in ("ok", "error")
        yield NativeCall(
            number=call.id,
            id=f"{program}/{call.id}",
            tool=call.tool,
            arguments=call.arguments,
            caller="sandbox",
            program=program,
            status="unfinished" if not settled else "error" if call.error else "ok",
            error=call.error,
            duration=call.duration,
        )


async def _items(
    client: Any,
    tools: Source,
    messages: Messages,
    *,
    stream: bool,
    model: str,
    sandbox: CodeSandbox | None,
    limits: Limits | None,
    code_tool: str,
    ledger: Ledger | None,
    max_requests: int,
    max_chars: int,
    request: dict[str, Any],
) -> AsyncGenerator[Any, None]:
    check(client.chat.completions.create, request, ours=_OURS)
    require_positive(max_requests=max_requests, max_chars=max_chars)
    conversation = conversation_of(messages)
    catalogue = Catalogue.of(tools)
    direct = _direct(catalogue, code_tool)
    if not catalogue.tools and not direct:
        raise ConfigurationError("there is no tool that the model may call; register one")
    run = ModelRun()
    async with AsyncExitStack() as stack:
        offered = dict(direct)
        form = [spec.to_openai(api="chat") for spec, _ in direct.values()]
        if catalogue.tools:
            if sandbox is None:
                sandbox = await stack.enter_async_context(CodeSandbox(limits=limits))
            programs = tool_from(
                _Programs(sandbox, catalogue, run, limits, max_chars).execute,
                name=code_tool,
                description=f"{PROGRAMS}\n\n{format_tools_for_llm(catalogue)}",
                argument_schema=_CODE,
            )
            spec = ToolSpec(name=code_tool, description=programs.metadata.description, parameters=_CODE)
            offered = {code_tool: (spec, programs), **offered}
            form = [spec.to_openai(api="chat"), *form]
        desk = CallDesk({name: tool for name, (_, tool) in offered.items()}, ledger_of(ledger), direct_chars=max_chars)
        talk = ChatConversation(
            client,
            run,
            {**request, "model": model, "tools": form},
            conversation,
        )
        async for item in drive(talk, desk, stream=stream, max_requests=max_requests):
            yield item


_CODE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "description": "Python 3.11. Its value is what it returns at the top level."}
    },
    "required": ["code"],
    "additionalProperties": False,
}


def _direct(catalogue: Catalogue, code_tool: str) -> Mapping[str, Any]:
    """The tools that only the model itself may call; the others are functions in its programs."""
    if not catalogue.closed:
        return {}
    exported = export(list(catalogue.closed), undeclared=lambda spec: ["direct"], reserved=[code_tool])
    # Chat Completions has no deferred tools: they are listed.
    return {name: (one.spec.model_copy(update={"defer_loading": False}), one.tool) for name, one in exported.items()}
