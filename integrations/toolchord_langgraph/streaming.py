"""Owns what those who stream a graph see of a program while it runs, and what is left of it in its message."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from langgraph.prebuilt import ToolRuntime

from toolchord import CallRecord, ExecutionResult, Output, Variables
from toolchord.results import shorten, shown

_ARGUMENT = 2_000
"""Characters of an argument or value that is shown as text."""


def watcher(runtime: ToolRuntime[Any, Any], outer: str) -> Callable[[Output | CallRecord], None]:
    """What tells the streams of a run. Events of the mode ``custom`` are dicts of two types:

    - ``code_output``: tool_call_id of the code call, stream, text;
    - ``code_tool_call``: tool_call_id (``outer:n``, the same on every replay), parent_tool_call_id, name, args, line,
      status (running, ok, error, cancelled, paused), replayed, and error or duration in seconds when it has ended.

    Output goes to the mode ``tools`` too, as deltas of the code call.
    """

    def watch(news: Output | CallRecord) -> None:
        if isinstance(news, Output):
            runtime.stream_writer(
                {"type": "code_output", "tool_call_id": outer, "stream": news.stream, "text": news.text}
            )
            runtime.emit_output_delta(news.text)
        else:
            runtime.stream_writer({"type": "code_tool_call", **_call(news, outer)})

    return watch


def transcript(result: ExecutionResult, outer: str) -> dict[str, Any]:
    """A program's result as plain data that any checkpointer can keep: the artifact of its message.

    Keys: ok, value (as text where JSON can't say it), stdout, stderr, error, calls, duration in seconds; and variables,
    the bytes of `toolchord.Variables`, if the thread's next program is to find them.
    """
    left = {} if result.variables is None else {"variables": result.variables.to_bytes()}
    return {
        **left,
        "ok": result.ok,
        "value": _data(result.value),
        "stdout": result.stdout,
        "stderr": result.stderr,
        "error": None if result.error is None else str(result.error),
        "calls": [_call(call, outer) for call in result.calls],
        "duration": result.duration,
    }


_TRANSCRIPT = {"ok", "value", "stdout", "stderr", "error", "calls", "duration"}
"""What tells a transcript from the artifacts of other tools."""


def left_in(messages: Sequence[Any]) -> Variables:
    """What the last program left whose answer is among the messages; nothing if none did."""
    for message in reversed(messages):
        artifact = getattr(message, "artifact", None) or getattr(message, "additional_kwargs", {}).get("artifact")
        left = artifact.get("variables") if isinstance(artifact, dict) and artifact.keys() >= _TRANSCRIPT else None
        if isinstance(left, bytes):
            return Variables.from_bytes(left)
    return Variables()


def arguments(call: CallRecord) -> dict[str, Any]:
    """A call's arguments as the program gave them; as text what JSON can't say."""
    return {name: _data(value) for name, value in call.arguments.items()}


def _call(call: CallRecord, outer: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "tool_call_id": f"{outer}:{call.id}",
        "parent_tool_call_id": outer,
        "name": call.tool.rpartition(".")[2],
        "args": arguments(call),
        "line": call.line,
        "status": call.status,
        "replayed": call.replayed,
    }
    if call.status in ("ok", "error"):
        told["duration"] = call.duration
    if call.error is not None:
        told["error"] = {"type": call.error[0], "message": call.error[1]}
    return told


def _data(value: Any) -> Any:
    """A value as it is if JSON can say it, else as text."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()  # half of a surrogate pair is no text that can be written down
    except (TypeError, ValueError, RecursionError):
        return shorten(shown(value), _ARGUMENT).encode(errors="replace").decode()
    return value if len(text) <= 64 << 10 and _fits(value) else shorten(text, _ARGUMENT)


def _fits(value: Any) -> bool:
    """Whether all integers have 64 bits, which is what checkpointers can keep, and all keys are text."""
    if isinstance(value, dict):
        return all(type(key) is str and _fits(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_fits, value))
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return value is None or type(value) in (str, float, bool)
