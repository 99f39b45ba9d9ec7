"""Owns where a LangChain run's own span is, for instrumentations that don't make it the current one.

OpenInference's writes OpenTelemetry spans from callbacks, which may run anywhere, so it attaches none to the context. A
span of Toolchord would become a trace of its own beside it; with this it becomes a child.
"""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables.config import var_child_runnable_config

from toolchord import observing


def current_span() -> Any:
    """The span of the LangChain run around this code, from the callback handler that has it; None if none has."""
    config = var_child_runnable_config.get()
    manager = config.get("callbacks") if config else None
    if not isinstance(manager, BaseCallbackManager) or manager.parent_run_id is None:
        return None
    for handler in manager.handlers:
        get_span = getattr(handler, "get_span", None)
        if callable(get_span) and (span := get_span(manager.parent_run_id)) is not None:
            return span
    return None


observing.foreign_spans.append(current_span)
