"""Programs in graphs: a drop-in for langgraph's `ToolNode`, and a middleware for LangChain's agents.

Inner calls are journalled in the graph's own checkpointer: a thread that was paused or cut off goes on where it was.
"""

from __future__ import annotations

from toolchord.errors import MissingExtraError

try:
    import langgraph  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "langgraph":
        raise
    raise MissingExtraError("toolchord_langgraph", "langgraph") from None

from toolchord_langgraph.approvals import InterruptOn, RejectedError
from toolchord_langgraph.code_tool import TakenOver
from toolchord_langgraph.fenced import has_program
from toolchord_langgraph.node import CodeOrchestrator

__all__ = ["CodeOrchestrator", "InterruptOn", "RejectedError", "TakenOver", "has_program"]
