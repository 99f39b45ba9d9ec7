"""The whole loop with Claude in one call, asynchronous or not, with a stream or without."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any

from toolchord.catalogue import Source
from toolchord.errors import ConfigurationError
from toolchord.native import (
    CallDesk,
    Ledger,
    Messages,
    ModelRun,
    conversation_of,
    drive,
    is_async,
    iterate,
    last,
    ledger_of,
    require_positive,
)
from toolchord.tools import waited
from toolchord_anthropic.conversation import ClaudeConversation
from toolchord_anthropic.request import by_code, check, exported, form_of


async def run_anthropic(
    client: Any,
    tools: Source,
    messages: Messages,
    *,
    model: str,
    max_tokens: int = 8192,
    container: str | Mapping[str, Any] | None = None,
    ledger: Ledger | None = None,
    extra_tools: Sequence[Mapping[str, Any]] = (),
    max_requests: int = 50,
    max_chars: int = 20_000,
    call_deadline: float | None = 240.0,
    check_model: bool = True,
    **request: Any,
) -> ModelRun:
    """Let Claude answer with tools that its code calls: request, calls, results, until it is done.

    The code runs in Anthropic's container, the tools run here. Every pause of a program, several calls at a time,
    direct calls beside them, `pause_turn`, and a container that expires are taken care of. A result that can't have
    reached the program answers the next call that is the same, so that nothing is done twice.

    Args:
        client: `anthropic.AsyncAnthropic` or `anthropic.Anthropic`; the calls of the latter run in threads.
        tools: a registry, or whatever else a `Catalogue` is made of. Tools that declare no callers are offered to code.
        messages: the user's text, or the conversation so far; one that ends with an assistant's message whose calls are
            unanswered is continued there.
        model: the model's name.
        max_tokens: of one response.
        container: an earlier run's `container`, to go on with its files and variables.
        ledger: an earlier run's `ledger`, or one that is saved as it is written.
        extra_tools: tools of Anthropic's own, such as web search, in its form.
        max_requests: requests to the model at most.
        max_chars: characters of a result that Claude reads itself; longer ones lose their middle. Code gets all.
        call_deadline: seconds in which calls from code are answered, since the container gives up after about 270. A
            call that takes longer goes on; the answer says so, and the next call that is the same gets its result.
        check_model: ask the API first whether the model's code can call tools.
        **request: whatever else `messages.create` takes, such as `system` and `thinking`. A forced `tool_choice`
            applies to the first request.

    Raises:
        ConfigurationError: what the API would refuse, with what to do instead.
        ModelRunError: the API failed or the model was not done in time; its `run` can be continued.
    """
    return await last(
        _items(
            stream=False,
            request=request,
            client=client,
            tools=tools,
            messages=messages,
            model=model,
            max_tokens=max_tokens,
            container=container,
            ledger=ledger,
            extra_tools=extra_tools,
            max_requests=max_requests,
            max_chars=max_chars,
            call_deadline=call_deadline,
            check_model=check_model,
        )
    )


def stream_anthropic(
    client: Any,
    tools: Source,
    messages: Messages,
    *,
    model: str,
    max_tokens: int = 8192,
    container: str | Mapping[str, Any] | None = None,
    ledger: Ledger | None = None,
    extra_tools: Sequence[Mapping[str, Any]] = (),
    max_requests: int = 50,
    max_chars: int = 20_000,
    call_deadline: float | None = 240.0,
    check_model: bool = True,
    **request: Any,
) -> AsyncGenerator[Any, None]:
    """`run_anthropic` as a stream.

    Yields:
        The events of the SDK's `messages.stream` as they come; each `NativeCall` when it has been answered; a
        `Restarted` where a stream broke off and its request was made again; last the `ModelRun`.
    """
    return _items(
        stream=True,
        request=request,
        client=client,
        tools=tools,
        messages=messages,
        model=model,
        max_tokens=max_tokens,
        container=container,
        ledger=ledger,
        extra_tools=extra_tools,
        max_requests=max_requests,
        max_chars=max_chars,
        call_deadline=call_deadline,
        check_model=check_model,
    )


def run_anthropic_sync(
    client: Any, tools: Source, messages: Messages, *, model: str, max_tokens: int = 8192, **given: Any
) -> ModelRun:
    """`run_anthropic` for code that is not asynchronous, with an `anthropic.Anthropic`; works inside a running event
    loop too (and blocks it)."""
    _blocking(client)
    run: ModelRun = waited(run_anthropic(client, tools, messages, model=model, max_tokens=max_tokens, **given))
    return run


def stream_anthropic_sync(
    client: Any, tools: Source, messages: Messages, *, model: str, max_tokens: int = 8192, **given: Any
) -> Iterator[Any]:
    """`stream_anthropic` for code that is not asynchronous, with an `anthropic.Anthropic`."""
    _blocking(client)
    return iterate(lambda: stream_anthropic(client, tools, messages, model=model, max_tokens=max_tokens, **given))


def _blocking(client: Any) -> None:
    if is_async(client):
        raise ConfigurationError("an asynchronous client needs run_anthropic or stream_anthropic; or give Anthropic()")


async def _items(
    *,
    client: Any,
    tools: Source,
    messages: Messages,
    model: str,
    max_tokens: int,
    container: str | Mapping[str, Any] | None,
    ledger: Ledger | None,
    extra_tools: Sequence[Mapping[str, Any]],
    max_requests: int,
    max_chars: int,
    call_deadline: float | None,
    check_model: bool,
    stream: bool,
    request: dict[str, Any],
) -> AsyncGenerator[Any, None]:
    require_positive(max_tokens=max_tokens, max_requests=max_requests, max_chars=max_chars, call_deadline=call_deadline)
    conversation = conversation_of(messages)
    known = exported(tools)
    check(client, known, request)
    form = form_of(known, extra_tools)
    run = ModelRun()
    for name, one in known.items():
        if one.tool.metadata.allowed_callers is None and not by_code(one.spec):
            why = "it is strict" if one.spec.strict else "its schema is recursive"
            run.note(f"{name} is offered for direct calls only: {why}")
    desk = CallDesk({name: one.tool for name, one in known.items()}, ledger_of(ledger), direct_chars=max_chars)
    talk = ClaudeConversation(
        client,
        run,
        desk,
        {**request, "model": model, "max_tokens": max_tokens, "tools": form},
        conversation,
        container,
        code=any(by_code(one.spec) for one in known.values()),
        call_deadline=call_deadline,
        check_model=check_model,
    )
    async for item in drive(talk, desk, stream=stream, max_requests=max_requests):
        yield item
