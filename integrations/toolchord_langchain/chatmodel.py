"""Owns LangChain's chat models as models of the orchestrator."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages, message_to_dict, messages_from_dict

from toolchord import Reply, TokenUsage, ToolRequest
from toolchord.errors import ConfigurationError

_KEPT = "langchain"
"""Where a message keeps LangChain's own, as data: providers want their reasoning and signatures back unchanged."""


class LangChainModel:
    """A chat model that takes tools. Made by `chat_model`."""

    def __init__(self, model: BaseChatModel) -> None:
        self.name = str(getattr(model, "model_name", None) or getattr(model, "model", None) or "")
        self._model = model

    async def __call__(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> Reply:
        """One turn."""
        bound = self._model.bind_tools(tools) if tools else self._model
        answer = await bound.ainvoke(_langchain(messages))
        if not isinstance(answer, AIMessage):
            raise ConfigurationError(f"{type(self._model).__name__} answered with a {type(answer).__name__}")
        return _reply(answer)


class _TextOnly(LangChainModel):
    async def __call__(self, messages: list[dict[str, Any]]) -> Reply:  # type: ignore[override]
        """One turn, without tools."""
        return await super().__call__(messages)


def chat_model(model: BaseChatModel, *, tools: bool | None = None) -> LangChainModel:
    """A LangChain chat model as a model for `toolchord.Orchestrator`.

    Args:
        model: any chat model; retries, rate limits, caches and callbacks of its own stay as they are.
        tools: offer it tools; False: programs are read from its text. None: whether the model has `bind_tools`.

    Raises:
        ConfigurationError: it is no chat model.
    """
    if not isinstance(model, BaseChatModel):
        raise ConfigurationError(f"{type(model).__name__} is no chat model of LangChain; give a BaseChatModel")
    if tools is None:
        tools = type(model).bind_tools is not BaseChatModel.bind_tools
    return LangChainModel(model) if tools else _TextOnly(model)


def _langchain(messages: list[dict[str, Any]]) -> list[BaseMessage]:
    found: list[BaseMessage] = []
    for message in messages:
        kept = message.get(_KEPT)
        found += messages_from_dict([kept]) if kept is not None else convert_to_messages([message])
    return found


def _reply(answer: AIMessage) -> Reply:
    calls = [
        ToolRequest(call["id"] or f"call_{n}", call["name"], call["args"]) for n, call in enumerate(answer.tool_calls)
    ]
    calls += [  # arguments that are no JSON; a program may be found in them all the same
        ToolRequest(call["id"] or f"bad_{n}", call["name"] or "", call["args"] or "")
        for n, call in enumerate(answer.invalid_tool_calls)
    ]
    usage = answer.usage_metadata
    told = None
    if usage is not None:
        cached = (usage.get("input_token_details") or {}).get("cache_read") or 0
        told = TokenUsage(usage["input_tokens"], usage["output_tokens"], cached)
    reply = Reply(str(answer.text), calls, told)
    message = {**reply.as_message(), _KEPT: message_to_dict(answer)}
    return Reply(reply.text, calls, told, message)
