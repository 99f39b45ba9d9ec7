"""Owns the words that OpenTelemetry gets to read: names, types, masked and bounded texts, what a run came to."""

from __future__ import annotations

import builtins
import json
import math
import os
import traceback
from typing import Any

from toolchord.errors import CallPaused
from toolchord.observing import CallNote
from toolchord.redact import redact
from toolchord.results import ExecutionResult, RunError, shorten, shown

OTHER = "_OTHER"
"""OpenTelemetry's word for a value that is none of the known ones: names that programs make up make no time series."""

MESSAGE = 2_000
TEXT = 20_000
_COUNTED = 1 << 20
_HERE = os.path.dirname(os.path.dirname(__file__)) + os.sep

Attributes = dict[str, Any]


def decision_about(note: CallNote) -> str | None:
    """What was decided about a call that somebody was asked about: the decision's kind, or "waiting"."""
    if note.run is None:
        return None
    decision = note.run.journal.decision_about(note.identity)
    if decision is not None:
        return decision.kind
    return "waiting" if isinstance(note.error, CallPaused) else None


def spent_by(result: ExecutionResult) -> dict[str, Any]:
    """What a run came to. Where much would have to be written out to be counted, it is told by its bytes."""
    kept = sum(call.result_bytes for call in result.calls)
    cost = math.fsum(call.cost for call in result.calls if not call.replayed)
    saved = kept // 4
    if kept + result.usage.bytes_out <= _COUNTED:
        saved = result.ledger().tokens_saved
    return {"toolchord.results.bytes": kept, "toolchord.tokens.saved": saved, "toolchord.cost": cost}


def name_of(tool: str) -> str:
    """A tool's name as models know it."""
    return clean(tool.removeprefix("default.")[:200])


def clean(text: str) -> str:
    """A text without lone surrogates, which no exporter can write: one of them would lose the whole batch."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def type_of(error: BaseException | None) -> str | None:
    """An exception's type as OpenTelemetry writes it: with its module, but for builtins."""
    if error is None:
        return None
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def known_type(error: RunError) -> str:
    """The type of a program's error if it is a builtin one or ours; a program can define any number of its own."""
    ours = error.kind != "program" and error.kind != "syntax"
    return error.type if ours or hasattr(builtins, error.type) else OTHER


def stack_of(error: BaseException) -> str:
    """Where an error came from: the last twenty of its frames that are not this library's own."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith(_HERE)]
    return "".join(["Traceback (most recent call last):\n", *traceback.format_list(frames[-20:])])


def message_of(error: BaseException | None) -> str:
    """An exception's message, masked; "" if it can't be had."""
    try:
        return masked(str(error), MESSAGE) if error is not None else ""
    except Exception:  # the error's own code
        return ""


def as_text(value: Any) -> str:
    """A value as JSON text (text as it is), masked and bounded."""
    if isinstance(value, str):
        return masked(value, TEXT)
    try:
        return masked(json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str), TEXT)
    except (TypeError, ValueError, RecursionError):
        return masked(shown(value), TEXT)


def masked(text: str, limit: int) -> str:
    """A text without what looks like a credential, and no longer than that."""
    # Cut before it is masked as well, so that a credential at the cut is not shown in half.
    return clean(shorten(redact(shorten(text, 4 * limit)), limit))
