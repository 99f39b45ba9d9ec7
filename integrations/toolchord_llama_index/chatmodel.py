"""Owns LlamaIndex's LLMs as models of the orchestrator."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.llms import LLM

from toolchord import Reply
from toolchord.errors import ConfigurationError


class LlamaIndexModel:
    """An LLM whose programs are read from its text. Made by `chat_model`."""

    def __init__(self, llm: LLM) -> None:
        self.name = llm.metadata.model_name
        self._llm = llm

    async def __call__(self, messages: list[dict[str, Any]]) -> Reply:
        """One turn."""
        history = [ChatMessage(role=MessageRole(one["role"]), content=str(one["content"] or "")) for one in messages]
        response = await self._llm.achat(history)
        return Reply(str(response.message.content or ""))


def chat_model(llm: LLM) -> LlamaIndexModel:
    """An LLM of LlamaIndex as a model for `toolchord.Orchestrator`.

    LlamaIndex has no common form for offering tools that are no tools of its own, so the model writes its programs as
    fenced blocks; retries, callbacks and settings of the LLM stay as they are.

    Raises:
        ConfigurationError: it is no LLM.
    """
    if not isinstance(llm, LLM):
        raise ConfigurationError(f"{type(llm).__name__} is no LLM of LlamaIndex; give an LLM, such as Settings.llm")
    return LlamaIndexModel(llm)
