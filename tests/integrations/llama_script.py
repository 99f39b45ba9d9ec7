"""A model of LlamaIndex's that plays a script, and a shop whose tools write a ledger; for tests and their processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from pydantic import PrivateAttr

from toolchord import ToolRegistry, create_registry

Turn = str | Sequence[tuple[str, str, dict[str, Any]]]
"""What the model says: text, or tool calls, each an id, a name and arguments."""


class ScriptedLLM(FunctionCallingLLM):
    """Says what its script says, one entry a turn; the turn is counted from the messages."""

    _script: list[Turn] = PrivateAttr()
    _seen: list[list[ChatMessage]] = PrivateAttr(default_factory=list)
    _tools: list[Any] = PrivateAttr(default_factory=list)

    def __init__(self, script: Sequence[Turn]) -> None:
        super().__init__()
        self._script = list(script)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_function_calling_model=True, is_chat_model=True)

    @property
    def seen(self) -> list[list[ChatMessage]]:
        """The messages of each turn."""
        return self._seen

    @property
    def offered(self) -> list[Any]:
        """The tools of the last turn, in the form of OpenAI's API."""
        return self._tools

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[Any],
        user_msg: Any = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        self._tools = [tool.metadata.to_openai_tool() for tool in tools]
        asked = [ChatMessage(role=MessageRole.USER, content=user_msg)] if user_msg else []
        return {"messages": [*(chat_history or []), *asked]}

    def _answer(self, messages: Sequence[ChatMessage]) -> ChatResponse:
        self._seen.append(list(messages))
        turn = self._script[sum(message.role == MessageRole.ASSISTANT for message in messages)]
        text, calls = (turn, []) if isinstance(turn, str) else ("", list(turn))
        message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
        message.additional_kwargs["calls"] = [list(call) for call in calls]
        return ChatResponse(message=message, delta=text)

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        calls = response.message.additional_kwargs.get("calls", [])
        return [ToolSelection(tool_id=id, tool_name=name, tool_kwargs=given) for id, name, given in calls]

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._answer(messages)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._answer(messages)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Generator[ChatResponse, None, None]:
        yield self._answer(messages)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> AsyncGenerator[ChatResponse, None]:
        async def stream() -> AsyncGenerator[ChatResponse, None]:
            yield self._answer(messages)

        return stream()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self._answer([ChatMessage(content=prompt)]).message.content or "")

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return self.complete(prompt)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        yield self.complete(prompt)

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        async def stream() -> CompletionResponseAsyncGen:
            yield self.complete(prompt)

        return stream()


def shop(ledger: Path, hang: str | None = None) -> ToolRegistry:
    """Tools that leave a line in the ledger each time they run. A payment to `hang` works, and never ends."""
    registry = create_registry()

    def note(line: str) -> str:
        with ledger.open("a") as file:
            file.write(line + "\n")
        return line

    async def look(key: str) -> str:
        """Look something up."""
        return note(f"look {key}")

    async def pay(to: str, amount: int) -> str:
        """Pay somebody."""
        line = note(f"pay {to} {amount}")
        if to == hang:
            await asyncio.Event().wait()
        return line

    def send(to: str) -> str:
        """Send a letter."""
        return note(f"send {to}")

    registry.add(look, capabilities=["read_only"])
    registry.add(pay)
    registry.add(send)
    return registry


def later(n: int) -> int:
    """One more; imported by its path."""
    return n + 1


PAYMENTS = """\
import asyncio
print("looking")
first = await look(key="a")
paid = await asyncio.gather(pay(to="ann", amount=1), send(to="bob"), pay(to="cid", amount=2), look(key="b"))
print("paid")
return [first, *paid, await pay(to="dan", amount=3)]
"""
