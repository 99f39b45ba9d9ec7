"""Owns a call's tool as the graph is given it, and the value that it gave before anybody made a message of it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.prebuilt.tool_node import msg_content_output

from toolchord.dispatch import JournalTrouble
from toolchord.errors import ConfigurationError
from toolchord.tools import waited
from toolchord_langchain.calls import Capture


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _await(acting: Callable[[], Awaitable[None]]) -> None:
    await acting()


class Captured(Capture):
    """A call's tool as the graph is given it: it runs under its sub-task's own config, whatever it is handed.

    A tool node hands the node's config to tools. Their interrupts would be numbered among the node's, and answers would
    reach the wrong one.

    Args:
        tool: the tool.
        config: the sub-task's.
        acting: awaited before the tool itself runs.
        blocking: the graph is synchronous.
    """

    def __init__(
        self, tool: BaseTool, config: RunnableConfig, acting: Callable[[], Awaitable[None]], *, blocking: bool
    ) -> None:
        super().__init__(tool)
        self._made: Any = None
        self._said: Any = None
        self._artifact: Any = None
        self._loop = None if blocking else _running_loop()
        cls = type(self.view)

        def invoke(given: Any, _config: Any = None, **options: Any) -> Any:
            self._written_down(acting)
            return self._noted(cls.invoke(self.view, given, config, **options))

        async def ainvoke(given: Any, _config: Any = None, **options: Any) -> Any:
            await acting()
            return self._noted(await cls.ainvoke(self.view, given, config, **options))

        object.__setattr__(self.view, "invoke", invoke)
        object.__setattr__(self.view, "ainvoke", ainvoke)

    def _written_down(self, acting: Callable[[], Awaitable[None]]) -> None:
        """`acting` for a tool that is run synchronously; a checkpointer of an async graph is bound to its loop."""
        if self._loop is None:
            waited(acting())
        elif _running_loop() is self._loop:
            raise JournalTrouble(
                ConfigurationError(
                    f"the tool {self._tool.name} was run synchronously in an async graph; a wrapper around it must use "
                    f"`await tool.ainvoke(...)`"
                )
            )
        else:
            asyncio.run_coroutine_threadsafe(_await(acting), self._loop).result()

    def _noted(self, made: Any) -> Any:
        """What LangChain made of the result; what it says is kept, for a wrapper may change the message in place."""
        self._made = made
        if isinstance(made, ToolMessage):
            self._said, self._artifact = msg_content_output(copy.deepcopy(made.content)), made.artifact
        return made

    def native(self, message: ToolMessage) -> Any:
        """The tool's own value, unless something between it and the program changed what the message says."""
        if not isinstance(self._made, ToolMessage) or message.artifact is not self._artifact:
            return self.message_value(message)
        said = self._said
        if message.content == said:
            return self.value(self._made)
        if said and isinstance(said, str) and isinstance(message.content, str) and message.content.endswith(said):
            return self.value(self._made)  # a note was put in front of it
        return self.message_value(message)

    def message_value(self, message: ToolMessage) -> Any:
        """What a message says, where it is all there is."""
        plain = Capture(self._tool)
        return plain.value(message)
