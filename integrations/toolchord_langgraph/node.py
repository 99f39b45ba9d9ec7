"""Owns the node: langgraph's `ToolNode` with one more tool, which runs programs that call the others."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Literal

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.config import get_config
from langgraph.errors import GraphInterrupt, ParentCommand
from langgraph.prebuilt import ToolNode, ToolRuntime
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.runtime import Runtime

from toolchord import CodeSandbox, Limits, Policy
from toolchord.errors import ConfigurationError
from toolchord_langgraph import fenced, private
from toolchord_langgraph.approvals import Approvals, Asked
from toolchord_langgraph.code_tool import (
    CODE_NAME,
    Given,
    catalogue_of,
    code_tool,
    described,
    for_code_only,
    for_direct_only,
    tools_of,
)
from toolchord_langgraph.program import Frame, Output


class CodeOrchestrator(ToolNode):
    """A tool node that also runs programs: put it where a `ToolNode` is.

    It takes what `ToolNode` takes and gives what that gives. Besides the tools, it serves calls of the code tool, whose
    programs call the tools as functions. Inner calls pass through `wrap_tool_call`, injection and the checkpointer as
    ordinary ones do: on resume, what has ended does not run again.

    Args:
        tools: tools, functions, toolkits, or registries and tools of Toolchord's.
        exclusive: the model sees the code tool alone; a direct call of another one is answered with how to call it.
        fenced: a message without tool calls that holds a fenced block of Python is run too, for models that have no
            tool calling; the answer is a human message.
        interrupt_on: tools whose calls inside of programs wait for a person, see `toolchord_langgraph.approvals`.
        policy: rules for the calls of programs, see docs/policy.md; what they ask is an interrupt too.
        sandbox: where programs run; one of its own if None.
        limits: what a program may spend; the sandbox's own if None.
        code_name: the name of the code tool.
        max_chars: the length of a program's answer to the model, at most.
        variables: a program finds the variables that the thread's last one left. They travel in its message, so they
            are checkpointed, forked and deleted with the thread; `Limits.variables` bounds them.
        name, tags, handle_tool_errors, messages_key, wrap_tool_call, awrap_tool_call: as for `ToolNode`. Errors of
            inner calls are raised in the program, whatever `handle_tool_errors` says.

    Raises:
        ConfigurationError: arguments that make no sense.
    """

    def __init__(
        self,
        tools: Given,
        *,
        exclusive: bool = False,
        fenced: bool = False,
        interrupt_on: Asked | None = None,
        policy: Policy | None = None,
        sandbox: CodeSandbox | None = None,
        limits: Limits | None = None,
        code_name: str = CODE_NAME,
        max_chars: int = 20_000,
        variables: bool = True,
        messages_key: str = "messages",
        **options: Any,
    ) -> None:
        inner = tools_of(tools)
        if code_name in (tool.name for tool in inner):
            raise ConfigurationError(f"there is a tool {code_name!r} already; pass code_name= for the code tool")
        approvals = Approvals(interrupt_on)
        approvals.check({tool.name for tool in inner})
        catalogue = catalogue_of(inner)
        self._inner = _Inner(inner, **{**options, "handle_tool_errors": False, "messages_key": messages_key})
        frame = Frame(
            sandbox or CodeSandbox(limits=limits),
            catalogue,
            self._inner.run,
            self._inner.arun,
            approvals,
            policy,
            limits,
            messages_key,
            max_chars,
            variables,
        )
        self.code_tool = code_tool(lambda runtime: frame, name=code_name, description=described(catalogue, variables))
        self._fenced = fenced
        hidden = {tool.name for tool in inner if for_code_only(tool) or (exclusive and not for_direct_only(tool))}
        self._hidden = frozenset(hidden)
        visible = [tool for tool in inner if tool.name not in self._hidden]
        super().__init__([*visible, self.code_tool], messages_key=messages_key, **options)

    @property
    def model_tools(self) -> list[BaseTool]:
        """What to bind to the model: `model.bind_tools(node.model_tools)`."""
        return list(self.tools_by_name.values())

    # Each of several calls is a sub-task of its own, so that one that pauses makes no other run again, and an answer
    # reaches the one that asked.

    def _func(self, input: Any, config: RunnableConfig, runtime: Runtime[Any]) -> Any:
        _places.set(_placed(self._parse_input(input)[0]))
        return super()._func(input, config, runtime)

    async def _afunc(self, input: Any, config: RunnableConfig, runtime: Runtime[Any]) -> Any:
        _places.set(_placed(self._parse_input(input)[0]))
        return await super()._afunc(input, config, runtime)

    def _run_one(
        self, call: ToolCall, input_type: Literal["list", "dict", "tool_calls"], tool_runtime: ToolRuntime[Any, Any]
    ) -> Any:
        if (refusal := self._refusal(call)) is not None:
            return refusal
        config = tool_runtime.config
        if len(_places.get({})) < 2 or not private.can_call(config):
            return super()._run_one(call, input_type, tool_runtime)
        plain = super()._run_one
        task = _Task(self._messages_key, call, tool_runtime)

        def run() -> Any:
            try:
                return task.ended(plain(call, input_type, task.runtime()))
            except ParentCommand as error:
                return task.left(error)

        try:
            return task.outcome(private.call(config, call["name"], task.key, run).result())
        except GraphInterrupt as pause:
            return _Paused(pause)

    async def _arun_one(
        self, call: ToolCall, input_type: Literal["list", "dict", "tool_calls"], tool_runtime: ToolRuntime[Any, Any]
    ) -> Any:
        if (refusal := self._refusal(call)) is not None:
            return refusal
        config = tool_runtime.config
        if len(_places.get({})) < 2 or not private.can_call(config):
            return await super()._arun_one(call, input_type, tool_runtime)
        plain = super()._arun_one
        task = _Task(self._messages_key, call, tool_runtime)

        async def run() -> Any:
            try:
                return task.ended(await plain(call, input_type, task.runtime()))
            except ParentCommand as error:
                return task.left(error)

        try:
            return task.outcome(await private.result(private.call(config, call["name"], task.key, run)))
        except GraphInterrupt as pause:
            return _Paused(pause)

    def _combine_tool_outputs(self, outputs: Any, input_type: Literal["list", "dict", "tool_calls"]) -> Any:
        if pauses := [output.pause for output in outputs if isinstance(output, _Paused)]:
            raise GraphInterrupt(tuple(asked for pause in pauses for asked in pause.args[0]))
        for output in outputs:
            if isinstance(output, _Left):
                raise output.error
        combined = super()._combine_tool_outputs(outputs, input_type)
        return fenced.answered(combined, self._messages_key) if self._fenced else combined

    def _parse_input(self, input: Any) -> Any:
        if self._fenced and (call := fenced.call_in(input, self._messages_key, self.code_tool.name)) is not None:
            return [call], "list" if isinstance(input, list) else "dict"
        return super()._parse_input(input)

    def _refusal(self, call: ToolCall) -> ToolMessage | None:
        """What a model is told that calls a hidden tool."""
        if call["name"] not in self._hidden:
            return None
        text = (
            f"{call['name']} is not called directly: write a program that calls it, and run that with "
            f"{self.code_tool.name}(code=...)."
        )
        return ToolMessage(text, name=call["name"], tool_call_id=call["id"], status="error")


class _Inner(ToolNode):
    """The way that a program's call takes to its tool, once it has been approved."""

    def run(self, request: ToolCallRequest) -> Output:
        def execute(request: ToolCallRequest) -> Any:
            return self._execute_tool_sync(request, _kind(request), request.runtime.config)

        output: Output = self._wrap_tool_call(request, execute) if self._wrap_tool_call else execute(request)
        return output

    async def arun(self, request: ToolCallRequest) -> Output:
        async def execute(request: ToolCallRequest) -> Any:
            return await self._execute_tool_async(request, _kind(request), request.runtime.config)

        output: Output
        if self._awrap_tool_call is not None:
            output = await self._awrap_tool_call(request, execute)
        elif self._wrap_tool_call is not None:
            output = await asyncio.to_thread(self.run, request)  # what it runs is written down on this loop
        else:
            output = await execute(request)
        return output


def _kind(request: ToolCallRequest) -> Literal["list", "dict"]:
    """What kind of input an inner call stands for."""
    return "list" if isinstance(request.state, list) else "dict"


class _Paused:
    """A call that waits, among others that go on."""

    def __init__(self, pause: GraphInterrupt) -> None:
        self.pause = pause


class _Left:
    """A call in which another graph said where to go: nothing else of the node counts."""

    def __init__(self, error: ParentCommand) -> None:
        self.error = error


class _Task:
    """One of several calls, as a sub-task: what it gave is kept, and what it wrote to the state."""

    def __init__(self, messages_key: str, call: ToolCall, runtime: ToolRuntime[Any, Any]) -> None:
        self.key = f"{_places.get()[id(call)]}\0{call['id']}\0{call['name']}"  # some models give calls no ids
        self._messages_key = messages_key
        self._runtime = runtime
        self._writes: list[tuple[str, Any]] = []
        self._output: Any = None

    def runtime(self) -> ToolRuntime[Any, Any]:
        """The call's own; asked for within the sub-task."""
        config = private.bridged(get_config(), self._runtime.config, self._writes.extend)
        return dataclasses.replace(self._runtime, config=config)

    def ended(self, output: Any) -> dict[str, Any]:
        """What the sub-task gives, for the checkpointer and those who stream the graph."""
        self._output = output
        outputs = output if isinstance(output, list) else [output]
        told: dict[str, Any] = {self._messages_key: [one for one in outputs if isinstance(one, ToolMessage)]}
        if len(told[self._messages_key]) < len(outputs):
            told["outputs"] = outputs
        if self._writes:
            told["writes"] = [list(write) for write in self._writes]
        return told

    def left(self, error: ParentCommand) -> dict[str, Any]:
        """What the sub-task gives when a graph inside of the tool has left it."""
        return {"left": private.handed_over(error, get_config())}

    def outcome(self, told: dict[str, Any]) -> Any:
        """What the node gets; from what was kept, if the sub-task had ended before."""
        if "left" in told:
            return _Left(private.hand_over(told["left"], self._runtime.config))
        if self._output is not None:
            return self._output
        private.sends(self._runtime.config, [(channel, value) for channel, value in told.get("writes", ())])
        return told.get("outputs", told[self._messages_key])


def _placed(calls: Sequence[ToolCall]) -> dict[int, int]:
    """The place of each call among those of its message."""
    return {id(call): place for place, call in enumerate(calls)}


_places: ContextVar[dict[int, int]] = ContextVar("toolchord_langgraph_places")
