"""What a model is to the demo: messages and tools in, text or tool calls out. And where the live ones come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that a model asks for."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; a tool's result carries the id of its call."""

    role: Literal["user", "assistant", "tool"]
    text: str = ""
    calls: tuple[Call, ...] = ()
    call_id: str = ""


class Model(Protocol):
    """Anything that continues a conversation. ``tools`` are function definitions in OpenAI's form."""

    name: str

    async def complete(self, system: str, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Message: ...


class LiveModel(Model, Protocol):
    """A model that holds on to a connection or a file."""

    async def close(self) -> None: ...


def live_model(spec: str) -> LiveModel:
    """Make the model that ``provider:name`` names; its SDK is imported only now.

    Raises:
        ValueError: no such provider.
        ImportError: the provider's package is not installed.
    """
    provider, _, name = spec.partition(":")
    if provider == "openai" and name:
        from demo.openai_model import OpenAIModel

        return OpenAIModel(name)
    if provider == "anthropic" and name:
        from demo.anthropic_model import AnthropicModel

        return AnthropicModel(name)
    if provider == "gguf" and name:
        from demo.gguf_model import GGUFModel

        return GGUFModel(name)
    raise ValueError(f"{spec!r} is no model; write openai:NAME, anthropic:NAME or gguf:/path/to/file.gguf")
