"""LlamaIndex's tools in programs, Toolchord's tools in LlamaIndex, and programs in LlamaIndex's agents.

`registry_from` takes tools, tool specs, query engines or retrievers, `tool_from` one of them; `llama_index_tools`
goes the other way. `CodeOrchestratorToolSpec` gives any agent the one tool that runs a program, `code_act_agent` makes
a CodeActAgent that has the tools in its programs. Both ask a person where you say so, by LlamaIndex's own events.
`chat_model` makes an LLM a model for `toolchord.Orchestrator`.
"""

from __future__ import annotations

from toolchord.errors import MissingExtraError

try:
    import llama_index.core  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("llama_index", "llama_index.core"):
        raise
    raise MissingExtraError("toolchord_llama_index", "llama-index") from None

from toolchord_llama_index.approvals import answer
from toolchord_llama_index.calls import ToolError
from toolchord_llama_index.chatmodel import chat_model
from toolchord_llama_index.codeact import code_act_agent, code_act_prompt, code_execute_fn
from toolchord_llama_index.events import AnswerRefused, CodeEnded, CodeOutput
from toolchord_llama_index.inbound import registry_from, tool_from
from toolchord_llama_index.outbound import ToolchordTool, llama_index_tools
from toolchord_llama_index.program import CodeOrchestratorToolSpec
from toolchord_llama_index.state import open_questions

__all__ = [
    "AnswerRefused",
    "CodeEnded",
    "CodeOrchestratorToolSpec",
    "CodeOutput",
    "ToolError",
    "ToolchordTool",
    "answer",
    "chat_model",
    "code_act_agent",
    "code_act_prompt",
    "code_execute_fn",
    "llama_index_tools",
    "open_questions",
    "registry_from",
    "tool_from",
]
