"""Owns what a run streams: its calls as LlamaIndex's own events, and what it prints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal

from llama_index.core.agent.workflow.workflow_events import ToolCall, ToolCallResult
from llama_index.core.tools import ToolOutput
from llama_index.core.workflow import Context, Event

from toolchord import CallRecord, ExecutionResult, Output, Tool, current_call
from toolchord.dispatch import is_small
from toolchord.results import render, shorten
from toolchord.schema import brief
from toolchord_llama_index.events import CodeEnded, CodeOutput

_SHOWN = 2_000
"""Characters of a call's result in the content of its event; `raw_output` has it in full."""


class Stream:
    """Writes the events of one attempt to the Context's stream. What an earlier attempt wrote is not written again.

    Args:
        ctx: where to.
        tool_id: the id of the tool call that runs the program.
        printed: characters that were streamed before, by stream.
        paths: how the program writes a tool, by its full name.

    Attributes:
        printed: characters that were printed so far, by stream.
    """

    def __init__(self, ctx: Context[Any], tool_id: str, printed: Mapping[str, int], paths: Mapping[str, str]) -> None:
        self.printed: dict[str, int] = {"stdout": 0, "stderr": 0}
        self._ctx = ctx
        self._tool_id = tool_id
        self._before = printed
        self._paths = paths
        self._loop = asyncio.get_running_loop()
        self._begun: set[int] = set()
        self._values: dict[int, Any] = {}
        self._waiting: tuple[Literal["stdout", "stderr"], str] | None = None
        self._over = False

    def begin(self, tool: Tool, arguments: Mapping[str, Any]) -> None:
        """A call begins; in whatever thread."""
        call = current_call()
        assert call is not None
        self._on_loop(self._called, call.number, tool.full_name, dict(arguments))

    def keep(self, value: Any) -> None:
        """The call that is served now gave this; in whatever thread."""
        call = current_call()
        assert call is not None
        self._values[call.number] = value

    def answered(self, number: int, value: Any) -> None:
        """A person gave this in a tool's place."""
        self._values[number] = value

    def watch(self, news: Output | CallRecord) -> None:
        """See `CodeSandbox.execute`."""
        if isinstance(news, Output):
            self._printed(news)
        elif news.status in ("ok", "error", "cancelled") and not news.replayed:
            self._called(news.id, news.tool, news.arguments)
            self._write(self._result(news))

    def end(self, result: ExecutionResult) -> None:
        """The program has ended."""
        self._write(
            CodeEnded(
                tool_id=self._tool_id,
                ok=result.ok,
                error=None if result.error is None else str(result.error),
                duration=result.duration,
                tool_calls=len(result.calls),
                result=result,
            )
        )
        self._over = True

    def _printed(self, output: Output) -> None:
        start = self.printed[output.stream]
        self.printed[output.stream] += len(output.text)
        text = output.text[max(0, self._before.get(output.stream, 0) - start) :]
        if not text:
            return
        if self._waiting and self._waiting[0] != output.stream:
            self._flush()
        if self._waiting is None:
            self._waiting = output.stream, text
            self._loop.call_soon(self._flush)  # a line and its end are printed one after the other
        else:
            self._waiting = output.stream, self._waiting[1] + text

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._write(CodeOutput(tool_id=self._tool_id, stream=waiting[0], text=waiting[1]))

    def _called(self, number: int, tool: str, arguments: Mapping[str, Any]) -> None:
        if number not in self._begun:
            self._begun.add(number)
            name = self._name(tool)
            self._write(ToolCall(tool_name=name, tool_kwargs=dict(arguments), tool_id=self._inner(number)))

    def _result(self, call: CallRecord) -> ToolCallResult:
        name = self._name(call.tool)
        known, value = call.id in self._values, self._values.pop(call.id, None)
        if call.status == "ok" and not known:  # one of the sandbox's own, such as search_tools
            text = f"{call.result_bytes:,} bytes"
        elif call.status == "ok":
            text = shorten(render(value), _SHOWN) if is_small(value) else brief(value)
        elif call.error is not None:
            text = f"{call.error[0]}: {call.error[1]}"
        else:
            text = "cancelled: the program waited for it no more"
        return ToolCallResult(
            tool_name=name,
            tool_kwargs=call.arguments,
            tool_id=self._inner(call.id),
            tool_output=ToolOutput(
                tool_name=name,
                content=text,
                raw_input={"kwargs": call.arguments},
                raw_output=value,
                is_error=call.status != "ok",
            ),
            return_direct=False,
        )

    def _name(self, tool: str) -> str:
        """How the program writes a tool; the sandbox's own have no namespace there."""
        return self._paths.get(tool, tool.removeprefix("default."))

    def _inner(self, number: int) -> str:
        return f"{self._tool_id}:{number}"

    def _on_loop(self, function: Callable[..., None], *args: Any) -> None:
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            function(*args)
        else:
            self._loop.call_soon_threadsafe(function, *args)

    def _write(self, event: Event) -> None:
        if self._waiting is not None:
            self._flush()
        if not self._over:
            self._ctx.write_event_to_stream(event)
