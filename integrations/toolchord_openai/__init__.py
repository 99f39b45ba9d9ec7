"""Toolchord's tools with OpenAI's models: in their own programs through the Responses API, or in our sandbox.

`run_openai` does the whole loop of programmatic tool calling, `run_chat` the same for Chat Completions and the many
servers that copy it, with programs in a `CodeSandbox`. Each has a `stream_` form, and both have a `_sync` form.
`openai_tools` gives what goes into ``tools=[...]`` for a loop of your own.
`chat_model` makes a model for `toolchord.Orchestrator` of an SDK client.
"""

from __future__ import annotations

from toolchord.errors import MissingExtraError

try:
    import openai  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "openai":
        raise
    raise MissingExtraError("toolchord_openai", "openai") from None

from toolchord.native import Ledger, ModelRun, NativeCall, Program, Restarted, TokenUsage
from toolchord_openai.chat_runs import run_chat, run_chat_sync, stream_chat, stream_chat_sync
from toolchord_openai.completions import CompletionsModel, chat_model
from toolchord_openai.request import openai_tools
from toolchord_openai.runs import run_openai, run_openai_sync, stream_openai, stream_openai_sync

__all__ = [
    "CompletionsModel",
    "Ledger",
    "ModelRun",
    "NativeCall",
    "Program",
    "Restarted",
    "TokenUsage",
    "chat_model",
    "openai_tools",
    "run_chat",
    "run_chat_sync",
    "run_openai",
    "run_openai_sync",
    "stream_chat",
    "stream_chat_sync",
    "stream_openai",
    "stream_openai_sync",
]
