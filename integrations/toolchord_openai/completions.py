"""Owns Chat Completions as a model of the orchestrator: its messages are that API's own, so little is translated."""

from __future__ import annotations

import asyncio
from typing import Any

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessage

from toolchord import Reply, TokenUsage, ToolRequest
from toolchord.errors import ConfigurationError

Client = AsyncOpenAI | OpenAI


class CompletionsModel:
    """A model that takes tools. Made by `chat_model`."""

    def __init__(self, client: Client, model: str, options: dict[str, Any]) -> None:
        self.name = model
        self._client = client
        self._options = options

    async def __call__(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> Reply:
        """One turn."""
        offered: dict[str, Any] = {"tools": tools} if tools else {}
        request: dict[str, Any] = {"model": self.name, "messages": messages, **offered, **self._options}
        create: Any = self._client.chat.completions.create
        if isinstance(self._client, AsyncOpenAI):
            return _reply(await create(**request))
        return _reply(await asyncio.to_thread(create, **request))


class _TextOnly(CompletionsModel):
    async def __call__(self, messages: list[dict[str, Any]]) -> Reply:  # type: ignore[override]
        """One turn, without tools."""
        return await super().__call__(messages)


def chat_model(client: Client, model: str, *, tools: bool = True, **options: Any) -> CompletionsModel:
    """A model behind an OpenAI-compatible server.

    Args:
        client: `openai.AsyncOpenAI` or `openai.OpenAI`, with the server's ``base_url`` if it is not OpenAI's; it also
            retries. Calls of the latter run in threads.
        model: the model's name there.
        tools: offer it tools; False for servers and models that don't take them: programs are read from its text then.
        **options: more of Chat Completions' parameters, such as ``temperature`` or ``max_completion_tokens``.

    Raises:
        ConfigurationError: options that the orchestrator sets itself.
    """
    if taken := {"messages", "tools", "stream", "n"} & options.keys():
        raise ConfigurationError(f"{', '.join(sorted(taken))} can't be set: the orchestrator does that")
    return (CompletionsModel if tools else _TextOnly)(client, model, options)


def _reply(response: ChatCompletion) -> Reply:
    if not response.choices:  # some servers answer so to what they can't do
        return Reply()
    message = response.choices[0].message
    calls = [
        ToolRequest(call.id, call.function.name, call.function.arguments)
        for call in message.tool_calls or ()
        if call.type == "function"
    ]
    return Reply(message.content or message.refusal or "", calls, _usage(response), _kept(message))


def _kept(message: ChatCompletionMessage) -> dict[str, Any]:
    """The message as it goes back: with what else a server has put into it, such as its reasoning."""
    kept = message.model_dump(exclude_none=True, exclude={"annotations", "audio", "function_call"})
    kept.setdefault("content", "")
    return kept


def _usage(response: ChatCompletion) -> TokenUsage | None:
    usage = response.usage
    if usage is None:
        return None
    details = usage.prompt_tokens_details
    return TokenUsage(usage.prompt_tokens, usage.completion_tokens, (details.cached_tokens if details else None) or 0)
