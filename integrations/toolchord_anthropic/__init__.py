"""Toolchord's tools in Anthropic's code execution: Claude's program runs in Anthropic's container, its calls run here.

`run_anthropic` does the whole loop in one call, `stream_anthropic` shows the events as they come, and both have a
`_sync` form. `anthropic_tools` gives what goes into ``tools=[...]`` for a loop of your own.
"""

from __future__ import annotations

from toolchord.errors import MissingExtraError

try:
    import anthropic  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "anthropic":
        raise
    raise MissingExtraError("toolchord_anthropic", "anthropic") from None

from toolchord.native import Ledger, ModelRun, NativeCall, Program, Restarted, TokenUsage
from toolchord_anthropic.request import anthropic_tools
from toolchord_anthropic.runs import run_anthropic, run_anthropic_sync, stream_anthropic, stream_anthropic_sync

__all__ = [
    "Ledger",
    "ModelRun",
    "NativeCall",
    "Program",
    "Restarted",
    "TokenUsage",
    "anthropic_tools",
    "run_anthropic",
    "run_anthropic_sync",
    "stream_anthropic",
    "stream_anthropic_sync",
]
