"""Programs in graphs: a drop-in for langgraph's `ToolNode`, and a middleware for LangChain's agents.

Inner calls are journalled in the graph's own checkpointer: a thread that was paused or cut off goes on where it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchord.errors import MissingExtraError

try:
    import langgraph  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "langgraph":
        raise
    raise MissingExtraError("toolchord_langgraph", "langgraph") from None

from toolchord_langgraph.agent import create_code_agent
from toolchord_langgraph.approvals import InterruptOn, RejectedError
from toolchord_langgraph.code_tool import TakenOver
from toolchord_langgraph.fenced import has_program
from toolchord_langgraph.node import CodeOrchestrator
from toolchord_langgraph.program import CannotGoOn

if TYPE_CHECKING:
    from toolchord_langgraph.middleware import CodeOrchestratorMiddleware

__all__ = [
    "CannotGoOn",
    "CodeOrchestrator",
    "CodeOrchestratorMiddleware",
    "InterruptOn",
    "RejectedError",
    "TakenOver",
    "create_code_agent",
    "has_program",
]


def __getattr__(name: str) -> Any:
    # It needs the package langchain, which a graph without LangChain's agents does not.
    if name == "CodeOrchestratorMiddleware":
        from toolchord_langgraph.middleware import CodeOrchestratorMiddleware

        return CodeOrchestratorMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
