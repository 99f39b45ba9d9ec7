"""Owns one run of a program in a step of a workflow: what it streams, whom it asks, how it is continued.

A step that waits for a person ends without a result, and is started again for the answer: LlamaIndex's own way, which a
serialised Context survives. The run then goes on from what the Context's store holds of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llama_index.core.tools import ToolOutput
from llama_index.core.workflow import Context, HumanResponseEvent, InputRequiredEvent
from pydantic_core import to_jsonable_python

from toolchord import (
    Approvals,
    CallRecord,
    Catalogue,
    CodeSandbox,
    DurableJournal,
    ExecutionResult,
    Journal,
    Limits,
    Policy,
    Tool,
    current_call,
)
from toolchord.errors import CallPaused
from toolchord.tools import around
from toolchord_llama_index.approvals import NobodyToAsk, Waits, asked, read_answer, resumed
from toolchord_llama_index.calls import surrounding
from toolchord_llama_index.events import AnswerRefused
from toolchord_llama_index.private import Step, Wait, WaitingForEvent
from toolchord_llama_index.state import Kept, is_over, seat_of
from toolchord_llama_index.stream import Stream

_LATER = 0.05
"""Seconds after which a question has expired by every clock."""


@dataclass(frozen=True)
class Setting:
    """What every run of an orchestrator has: where, which tools, which rules, how much."""

    sandbox: CodeSandbox
    catalogue: Catalogue
    policy: Policy | None
    limits: Limits | None
    max_chars: int

    @property
    def paths(self) -> dict[str, str]:
        """How a program writes each tool, by its full name."""
        return {exposed.tool.full_name: self.catalogue.path(exposed) for exposed in self.catalogue.tools}


class CodeRun:
    """One program that is run, or continued, by one start of a step.

    Args:
        setting: the orchestrator's.
        ctx: the Context of the step, or what tools get as one; None for none.
        code: the program.
    """

    def __init__(self, setting: Setting, ctx: Context[Any] | None, code: str) -> None:
        self._setting = setting
        self._ctx = ctx
        self._code = code
        self._stream: Stream | None = None
        self._given: dict[str, dict[str, Any]] = {}

    async def without_step(self) -> ExecutionResult:
        """Run it to its end; nothing is streamed or kept, and calls that need a person's yes fail."""
        return await self._execute(NobodyToAsk())

    async def in_step(self, step: Step) -> ToolOutput:
        """Run it, or go on with it.

        Raises:
            WaitingForEvent: it waits for a person, or another start of the step goes on with it.
        """
        assert self._ctx is not None
        tool_id = step.tool_id or step.work_item
        kept = Kept(self._ctx.store, f"{tool_id}\n{step.work_item}\n{self._code}")
        name = f"toolchord:{kept.run}"
        question, never = Wait(name, HumanResponseEvent), Wait(f"{name}:never")
        await kept.open()
        seat = seat_of(self._ctx.store, kept.run)
        if not step.waits(name) and await kept.questions() and await kept.read("ended") is None:
            # It was cut off before it waited. An answer that comes now would start nothing, so it waits first.
            step.park([question, Wait(f"{name}:again", timeout=0.0)])
        async with seat.reading:
            answers, seat.read = step.received(self._ctx, question, since=seat.read)
            for event in answers:
                await self._take(event, kept)
        if not await seat.take():
            step.park([never])
        try:
            ended = await kept.read("ended")
            if ended is None:
                going_on = await self._attempt(kept, tool_id, name)
                if isinstance(going_on, list):
                    step.park([never if seat.awaited else question, *going_on])
                output = going_on
            elif await kept.read("paused") and not step.waits(name):
                step.park([never])  # its result was given by the start that this one came too late for
            else:
                output = ToolOutput(**ended)
            seat.ended = True
            step.forget(name)
            return output
        finally:
            seat.leave()

    async def _attempt(self, kept: Kept, tool_id: str, name: str) -> ToolOutput | list[Wait | WaitingForEvent[Any]]:
        """Run the program as far as it gets: its output, or what else its step waits for, with new questions."""
        setting, ctx = self._setting, self._ctx
        assert ctx is not None
        self._given = given = await kept.read("answers")
        self._stream = stream = Stream(ctx, tool_id, await kept.read("printed"), setting.paths)
        for number, answer in given.items():
            if answer["choice"] == "respond":
                stream.answered(int(number), answer["value"])
        journal = await DurableJournal.open(kept, kept.run)
        result = await self._execute(journal)
        if result.error is None or result.error.kind != "paused":
            output = output_of(result, self._code, setting.max_chars)
            await kept.end(
                {
                    "tool_name": output.tool_name,
                    "content": output.content,
                    "raw_input": output.raw_input,
                    "raw_output": output.raw_output,
                    "is_error": output.is_error,
                }
            )
            stream.end(result)
            return output
        await kept.write("printed", stream.printed)
        waits: list[Wait | WaitingForEvent[Any]] = []
        for call in result.pending:
            if (fields := await self._put(call, kept, tool_id)) is not None:
                # Streamed when the step waits, so that no answer can come too early.
                left = None if fields["expires"] is None else max(0.0, fields["expires"] - time.time()) + _LATER
                says = InputRequiredEvent(**fields)
                waits.append(Wait(f"{name}:{fields['request_id']}", says=says, timeout=left))
            elif call.pause is not None and isinstance(call.pause.reason, WaitingForEvent):
                waits.append(call.pause.reason)
        return waits

    async def _put(self, call: CallRecord, kept: Kept, tool_id: str) -> dict[str, Any] | None:
        """Write down what to ask a person; None if that very question is open."""
        number = str(call.id)
        before = (await kept.questions()).get(number)
        name = self._setting.paths.get(call.tool, call.tool)
        fields = asked(call, tool_id, before, self._given.get(number), name)
        if fields is not None:
            answers = {n: one for n, one in (await kept.read("answers")).items() if n != number}
            await kept.write("answers", answers)
            await kept.write(f"asked.{number}", fields)
        return fields

    async def _take(self, event: Any, kept: Kept) -> None:
        """Keep what a person answered."""
        assert self._ctx is not None
        for one in event.get("answers", None) or [event]:
            questions, answers = await kept.questions(), await kept.read("answers") or {}
            request_id = one.get("request_id", None)
            if all(question["request_id"] != request_id for question in questions.values()):
                continue  # another program's, or another tool's
            taken = read_answer(one, questions, answers, self._setting.catalogue)
            if isinstance(taken, str):
                if taken:
                    self._ctx.write_event_to_stream(AnswerRefused(request_id=request_id, reason=taken))
                continue
            number, kept_answer, decision = taken
            question = questions[number]
            if question["kind"] != "waiting":
                counts = await Approvals(kept).answer(kept.run, question["request"], decision)
                if not counts and is_over(question):
                    reason = "it came too late: the question has expired"
                    self._ctx.write_event_to_stream(AnswerRefused(request_id=request_id, reason=reason))
                    continue
            await kept.write(f"answers.{number}", kept_answer)

    # the program

    async def _execute(self, journal: Journal) -> ExecutionResult:
        setting = self._setting
        tools = [around(exposed.tool, self._watched) for exposed in setting.catalogue.tools]
        token = surrounding.set(self._ctx) if self._ctx is not None else None
        try:
            return await setting.sandbox.execute(
                self._code,
                [*tools, *setting.catalogue.closed],
                limits=setting.limits,
                journal=journal,
                watch=self._stream.watch if self._stream is not None else None,
                policy=setting.policy,
            )
        finally:
            if token is not None:
                surrounding.reset(token)

    def _watched(self, tool: Tool) -> Callable[[dict[str, Any]], Any]:
        """How a tool's calls run here: what happens is streamed, and one that waited may have been answered."""

        def begin(arguments: dict[str, Any]) -> tuple[bool, Any]:
            call = current_call()
            assert call is not None
            answered, value = resumed(tool, self._given.get(str(call.number)))
            if self._stream is not None and not answered:
                self._stream.begin(tool, arguments)
            return answered, value

        def end(value: Any) -> Any:
            if self._stream is not None:
                self._stream.keep(value)
            return value

        async def arun(arguments: dict[str, Any]) -> Any:
            answered, value = begin(arguments)
            try:
                return end(value if answered else await tool.call(arguments))
            except CallPaused as pause:
                raise _paused(pause) from None

        def run(arguments: dict[str, Any]) -> Any:
            answered, value = begin(arguments)
            try:
                return end(value if answered else tool.call(arguments))
            except CallPaused as pause:
                raise _paused(pause) from None

        return arun if tool.is_async else run


def _paused(pause: CallPaused) -> CallPaused:
    """A tool's own pause, as a question to a person if it waits for nothing else in the workflow."""
    return pause if isinstance(pause.reason, WaitingForEvent) else CallPaused(Waits())


def output_of(result: ExecutionResult, code: str, max_chars: int) -> ToolOutput:
    """What the agent gets: the text for the model, and the value as JSON data, which a Context can keep."""
    return ToolOutput(
        tool_name="run_code",
        content=result.for_model(max_chars),
        raw_input={"kwargs": {"code": code}},
        raw_output=to_jsonable_python(result.value, bytes_mode="base64", fallback=str),
        is_error=not result.ok,
    )
