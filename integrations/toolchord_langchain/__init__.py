"""LangChain's tools in programs, and Toolchord's tools in LangChain.

`registry_from` takes a toolkit or a list of tools, `tool_from` one tool; `langchain_tools` goes the other way, and
`code_tool` is the one tool with which a LangChain model runs a program. `chat_model` makes a chat model one for
`toolchord.Orchestrator`.
"""

from __future__ import annotations

from toolchord.errors import MissingExtraError

try:
    import langchain_core  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "langchain_core":
        raise
    raise MissingExtraError("toolchord_langchain", "langchain") from None

from toolchord_langchain import tracing as tracing  # it registers itself
from toolchord_langchain.chatmodel import LangChainModel, chat_model
from toolchord_langchain.inbound import Injected, registry_from, tool_from
from toolchord_langchain.outbound import ToolchordTool, code_tool, langchain_tools

__all__ = [
    "Injected",
    "LangChainModel",
    "ToolchordTool",
    "chat_model",
    "code_tool",
    "langchain_tools",
    "registry_from",
    "tool_from",
]
