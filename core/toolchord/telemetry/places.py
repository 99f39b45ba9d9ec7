"""Owns where a span belongs: below the current one, or below one of another instrumentation that is not current."""

from __future__ import annotations

from opentelemetry import context, trace
from opentelemetry.trace import Span

from toolchord import observing


def is_suppressed() -> bool:
    """Whether the application has switched instrumentation off for this code; the key is private, and may be gone."""
    key = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", None)
    return key is not None and bool(context.get_value(key))


def foreign_span() -> Span | None:
    """The innermost span of another instrumentation around this code, if that one does not make its spans current."""
    for find in observing.foreign_spans:
        span = find()
        if isinstance(span, Span) and span.get_span_context().is_valid:
            return span
    return None


def around() -> context.Context:
    """The context that a new span belongs to: the current one, or that of a foreign span that began later."""
    here = context.get_current()
    foreign = foreign_span()
    if foreign is None:
        return here
    mine = trace.get_current_span(here)
    later = (getattr(foreign, "start_time", None) or 0) > (getattr(mine, "start_time", None) or 0)
    return trace.set_span_in_context(foreign, here) if later or not mine.get_span_context().is_valid else here
