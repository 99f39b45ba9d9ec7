"""The notebooks' model: one that follows a script, so that they need no key, or a real one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, ChatResult

Turn: TypeAlias = str | AIMessage | Callable[[list[BaseMessage]], str]


def chat_model(name: str, script: Sequence[Turn]) -> BaseChatModel:
    """The model of a name.

    Args:
        name: ``scripted``, or what LangChain's `init_chat_model` knows, such as ``openai:gpt-5``. That needs
            langchain and the provider's package, here langchain-openai.
        script: what the scripted one says, see `ScriptedModel`; real ones think for themselves.
    """
    if name == "scripted":
        return ScriptedModel(script=list(script))
    from langchain.chat_models import init_chat_model

    model: BaseChatModel = init_chat_model(name)
    return model


class ScriptedModel(BaseChatModel):
    """Says one turn of its script after another; a conversation that goes on in another process is found again.

    Args:
        script: each turn is a text, calls of tools (see `calls` and `program`), or a function of the conversation so
            far that gives the text. The last one is repeated.

    Its messages carry `usage_metadata` as those of real models do. Its tokens are estimates: four characters each.
    """

    script: list[Any]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Any:
        """See `BaseChatModel.bind_tools`."""
        return self.bind(tools=list(tools), **options)

    def _generate(self, messages: list[BaseMessage], *_args: Any, tools: Any = (), **_options: Any) -> ChatResult:
        number = sum(isinstance(message, AIMessage) for message in messages)
        turn: Turn = self.script[min(number, len(self.script) - 1)]
        if callable(turn):
            turn = turn(messages)
        message = AIMessage(turn) if isinstance(turn, str) else turn.model_copy()
        read = count_tokens_approximately(messages, tools=list(tools))
        written = count_tokens_approximately([message])
        message.usage_metadata = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
        return ChatResult(generations=[ChatGeneration(message=message)])


def calls(*made: tuple[str, dict[str, Any]]) -> AIMessage:
    """A turn that calls tools, all at once: pairs of a tool's name and its arguments."""
    ids = ("-".join((name, *map(str, arguments.values())))[:40] for name, arguments in made)
    return AIMessage(
        "",
        tool_calls=[
            {"type": "tool_call", "id": id, "name": name, "args": arguments}
            for id, (name, arguments) in zip(ids, made, strict=True)
        ],
    )


def program(code: str) -> AIMessage:
    """A turn that runs a program."""
    return AIMessage("", tool_calls=[{"type": "tool_call", "id": "p", "name": "run_code", "args": {"code": code}}])
