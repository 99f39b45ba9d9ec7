"""Owns what is streamed while a program runs, beside LlamaIndex's own `ToolCall` and `ToolCallResult`."""

from __future__ import annotations

from typing import Any, Literal

from llama_index.core.workflow import Event
from pydantic import Field


class CodeOutput(Event):
    """A program printed something.

    Attributes:
        tool_id: the id of the tool call that runs the program.
        stream: stdout or stderr.
        text: what was printed at once, at most 64 KiB.
    """

    tool_id: str
    stream: Literal["stdout", "stderr"]
    text: str


class CodeEnded(Event):
    """A program came to its end, or failed.

    Attributes:
        tool_id: the id of the tool call that ran it.
        ok: whether it came to its end.
        error: why not, in one line or a few.
        duration: seconds that it took since it was last started or continued.
        tool_calls: how many calls it made.
        result: the `ExecutionResult`; not part of the event's serialised form.
    """

    tool_id: str
    ok: bool
    error: str | None = None
    duration: float = 0.0
    tool_calls: int = 0
    result: Any = Field(default=None, exclude=True)


class AnswerRefused(Event):
    """An answer was not taken; the question is still open, unless it was answered before.

    Attributes:
        request_id: which question it was meant for.
        reason: why, and what to send instead.
    """

    request_id: str
    reason: str
