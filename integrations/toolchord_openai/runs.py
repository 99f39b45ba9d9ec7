"""The whole loop over the Responses API in one call, asynchronous or not, with a stream or without."""

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
from toolchord_openai.request import check, exported, form_of
from toolchord_openai.responses import ResponsesConversation

_OURS = ("input", "stream", "background", "background_options", "conversation")


async def run_openai(
    client: Any,
    tools: Source,
    messages: Messages,
    *,
    model: str,
    store: bool = False,
    previous_response_id: str | None = None,
    ledger: Ledger | None = None,
    extra_tools: Sequence[Mapping[str, Any]] = (),
    max_requests: int = 50,
    max_chars: int = 20_000,
    call_deadline: float | None = None,
    **request: Any,
) -> ModelRun:
    """Let an OpenAI model answer with tools that its programs call: request, calls, outputs, until it is done.

    The programs (JavaScript) run at OpenAI, the tools run here. Several programs, calls at a time, direct calls beside
    them and a program's output without an answer yet are taken care of.

    Args:
        client: `openai.AsyncOpenAI` or `openai.OpenAI`; the calls of the latter run in threads.
        tools: a registry, or whatever else a `Catalogue` is made of. Tools that declare no callers are offered to
            programs.
        messages: the user's text, or items of a conversation; calls without an output are answered first.
        model: the model's name.
        store: let OpenAI keep the responses, and name the last one in the next request. Without it each request carries
            the whole conversation, and nothing is kept there.
        previous_response_id: with `store`, an earlier run's `response_id`, which `messages` continue.
        ledger: an earlier run's `ledger`, or one that is saved as it is written.
        extra_tools: tools of OpenAI's own, in its form.
        max_requests: requests to the model at most.
        max_chars: characters of a result that the model reads itself; longer ones lose their middle.
        call_deadline: seconds in which calls from programs are answered. A call that takes longer goes on; the answer
            says so, and the next call that is the same gets its result.
        **request: whatever else `responses.create` takes, such as `instructions` and `reasoning`. A forced
            `tool_choice` applies to the first request.

    Raises:
        ConfigurationError: what makes no sense, with what to do instead.
        ModelRunError: the API failed or the model was not done in time; its `run` can be continued.
    """
    return await last(
        _items(
            client,
            tools,
            messages,
            stream=False,
            model=model,
            store=store,
            previous_response_id=previous_response_id,
            ledger=ledger,
            extra_tools=extra_tools,
            max_requests=max_requests,
            max_chars=max_chars,
            call_deadline=call_deadline,
            request=request,
        )
    )


def stream_openai(
    client: Any,
    tools: Source,
    messages: Messages,
    *,
    model: str,
    store: bool = False,
    previous_response_id: str | None = None,
    ledger: Ledger | None = None,
    extra_tools: Sequence[Mapping[str, Any]] = (),
    max_requests: int = 50,
    max_chars: int = 20_000,
    call_deadline: float | None = None,
    **request: Any,
) -> AsyncGenerator[Any, None]:
    """`run_openai` as a stream.

    Yields:
        The SDK's events as they come; each `NativeCall` when it has been answered; a `Restarted` where a stream broke
        off and its request was made again; last the `ModelRun`.
    """
    return _items(
        client,
        tools,
        messages,
        stream=True,
        model=model,
        store=store,
        previous_response_id=previous_response_id,
        ledger=ledger,
        extra_tools=extra_tools,
        max_requests=max_requests,
        max_chars=max_chars,
        call_deadline=call_deadline,
        request=request,
    )


def run_openai_sync(client: Any, tools: Source, messages: Messages, *, model: str, **given: Any) -> ModelRun:
    """`run_openai` for code that is not asynchronous, with an `openai.OpenAI`; works inside a running event loop too
    (and blocks it)."""
    blocking(client)
    run: ModelRun = waited(run_openai(client, tools, messages, model=model, **given))
    return run


def stream_openai_sync(client: Any, tools: Source, messages: Messages, *, model: str, **given: Any) -> Iterator[Any]:
    """`stream_openai` for code that is not asynchronous, with an `openai.OpenAI`."""
    blocking(client)
    return iterate(lambda: stream_openai(client, tools, messages, model=model, **given))


def blocking(client: Any) -> None:
    """Refuse an asynchronous client."""
    if is_async(client):
        raise ConfigurationError("an asynchronous client needs the functions without _sync; or give OpenAI()")


async def _items(
    client: Any,
    tools: Source,
    messages: Messages,
    *,
    stream: bool,
    model: str,
    store: bool,
    previous_response_id: str | None,
    ledger: Ledger | None,
    extra_tools: Sequence[Mapping[str, Any]],
    max_requests: int,
    max_chars: int,
    call_deadline: float | None,
    request: dict[str, Any],
) -> AsyncGenerator[Any, None]:
    check(client.responses.create, request, ours=_OURS)
    if previous_response_id is not None and not store:
        raise ConfigurationError("previous_response_id needs store=True; or give the earlier run's messages instead")
    require_positive(max_requests=max_requests, max_chars=max_chars, call_deadline=call_deadline)
    conversation = conversation_of(messages)
    known = exported(tools)
    run = ModelRun()
    desk = CallDesk(
        {name: one.tool for name, one in known.items()}, ledger_of(ledger), direct_chars=max_chars, nan="null"
    )
    talk = ResponsesConversation(
        client,
        run,
        desk,
        {**request, "model": model, "tools": form_of(known, extra_tools)},
        conversation,
        previous_response_id=previous_response_id,
        store=store,
        call_deadline=call_deadline,
    )
    async for item in drive(talk, desk, stream=stream, max_requests=max_requests):
        yield item
