"""Serves the calls that come from a provider's model: who may call what, every call once, an answer in time, as text.

Calls take the same way through the host as a program's (`toolchord.dispatch`); only their form is another one.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import PydanticSerializationError, to_json

from toolchord.catalogue import Catalogue
from toolchord.dispatch import Dispatcher, Prepared, is_small
from toolchord.errors import CallPaused, InvalidArguments, ToolCallError, ToolNotAvailable
from toolchord.identity import CallIdentity, current
from toolchord.models.tool_spec import ToolCapability, ToolMetadata
from toolchord.native.ledger import Ledger, NativeCall, digest_of
from toolchord.recording import Outcome
from toolchord.results import shorten
from toolchord.search import near
from toolchord.tools import Tool

_REPEATABLE = {ToolCapability.IDEMPOTENT, ToolCapability.READ_ONLY}

_STILL_RUNNING = (
    "StillRunning: {tool} has not ended yet and goes on. Call it again with the same arguments to get its result: it "
    "does not start a second time."
)
_UNKNOWN = (
    "OutcomeUnknown: an equal call of {tool} began before and it is not known how it ended. It is not repeated, since "
    "the tool is not known to be idempotent. Find out what happened by other means."
)


@dataclass(frozen=True)
class Asked:
    """A call as a provider asks for it.

    Attributes:
        id: the provider's id.
        name: the exported name.
        arguments: by parameter name, or JSON text of that.
        caller: ``"direct"``, or the provider's name for its code.
        program: the id of the program that makes it.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] | str
    caller: str = "direct"
    program: str | None = None

    @property
    def by_code(self) -> bool:
        return self.caller != "direct"


@dataclass(frozen=True)
class Answer:
    """What a call is answered with; `call` may still be running."""

    asked: Asked
    call: NativeCall
    text: str
    ok: bool


@dataclass
class CallDesk:
    """Serves the calls of one run.

    Attributes:
        tools: the tools by exported name, and nothing else can be called.
        ledger: what already happened.
        direct_chars: characters of a result at most that a model reads; its middle is cut out.
        code_chars: characters of a result at most that code gets; past that it is an error, for half a JSON text is
            worth nothing.
        nan: how JSON text says what is no JSON number: as Python's ``NaN``, or as ``null``.
        concurrency: calls that run at the same time.
    """

    tools: Mapping[str, Tool]
    ledger: Ledger
    direct_chars: int = 20_000
    code_chars: int = 4_000_000
    nan: Literal["constants", "null"] = "constants"
    concurrency: int = 64
    calls: list[NativeCall] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dispatcher = Dispatcher(Catalogue.of(list(self.tools.values())), {}, self.concurrency)
        self._turn = asyncio.Semaphore(self.concurrency)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._kept: set[int] = set()
        self._by_full_name = {tool.full_name: tool for tool in self.tools.values()}
        # What an earlier run has not handed over; calls that are still pending are found by their ids.
        self.ledger.lose(*(call for call in self.ledger.calls if not call.received))

    async def serve(self, asked: Sequence[Asked], deadline: float | None = None) -> list[Answer]:
        """Answer calls that were made together, in their order.

        Args:
            asked: the calls.
            deadline: seconds after which a call that has not ended is answered with that; it goes on, and is joined
                by the next call that is the same.
        """
        begun = [self._begin(one) for one in asked]
        tasks = {task for _, task in begun if task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=deadline)
            for task in tasks:
                if task.done() and (error := task.exception()) is not None:
                    raise error  # a ledger that can't be written, or a defect of ours
        return [self._answer(one, call) for one, (call, _) in zip(asked, begun, strict=True)]

    def received(self, answers: Sequence[Answer]) -> None:
        """The provider has the answers: such calls are new ones from now on."""
        for answer in answers:
            if answer.call.settled and not answer.call.received:
                answer.call.received = True
                self.ledger.write(answer.call)

    def repeatable(self, call: NativeCall) -> bool:
        """Whether making a call twice does no harm: its tool says so, or it was refused."""
        tool = self._by_full_name.get(call.tool)
        return tool is None or bool(_REPEATABLE & tool.metadata.capabilities)

    async def close(self) -> None:
        """End what still runs; its outcome is not known then."""
        running = dict(self._running)
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)
        self._dispatcher.close()
        for call in self.ledger.calls:
            if call.number in running and call.status == "running":
                call.status = "unfinished"
                self.ledger.write(call)

    # one call

    def _begin(self, asked: Asked) -> tuple[NativeCall, asyncio.Task[None] | None]:
        tool, problem = self._permitted(asked)
        arguments: dict[str, Any] = {}
        try:
            arguments = _arguments(asked, tool)
            bound = arguments if tool is None else tool.bind((), arguments)
        except InvalidArguments as error:
            bound, problem = arguments, problem or error
        name = tool.full_name if tool is not None else asked.name
        digest = digest_of(name, arguments)
        call = self.ledger.find(asked.id, digest)
        if problem is not None and call is not None and call.status != "error":
            call = None  # whoever was served before, this caller is not
        if call is None and problem is None and (earlier := self.ledger.claim(digest)) is not None:
            return self._repeated(asked, earlier, tool)
        if call is None or call.status == "paused":
            if call is None:
                call = NativeCall(
                    number=len(self.ledger.calls) + 1,
                    id=asked.id,
                    tool=name,
                    arguments=arguments,
                    caller=asked.caller,
                    program=asked.program,
                    digest=digest,
                )
                self.ledger.add(call)
            self._keep(call)
            call.status, call.pause = "running", None
            return call, self._start(call, Prepared(name, tool, bound, digest, problem), asked)
        call.lost = False
        self._keep(call)
        return call, self._resumed(asked, call, tool, bound)

    def _keep(self, call: NativeCall) -> None:
        if call.number not in self._kept:
            self._kept.add(call.number)
            self.calls.append(call)

    def _repeated(
        self, asked: Asked, earlier: NativeCall, tool: Tool | None
    ) -> tuple[NativeCall, asyncio.Task[None] | None]:
        """The same call as one whose result was lost: a record of its own, that other one's outcome."""
        call = NativeCall(
            number=len(self.ledger.calls) + 1,
            id=asked.id,
            tool=earlier.tool,
            arguments=earlier.arguments,
            caller=asked.caller,
            program=asked.program,
            digest=earlier.digest,
            same_as=earlier.same_as or earlier.id,
        )
        self.ledger.add(call)
        self._keep(call)
        task = asyncio.create_task(self._follow(call, earlier, self._resumed(asked, earlier, tool, None)))
        return call, self._tracked(call, task)

    async def _follow(self, call: NativeCall, earlier: NativeCall, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            await asyncio.wait({task})  # its failure is its own
        call.status, call.text, call.error, call.pause = earlier.status, earlier.text, earlier.error, earlier.pause
        self.ledger.write(call)

    def _resumed(
        self, asked: Asked, call: NativeCall, tool: Tool | None, bound: dict[str, Any] | None
    ) -> asyncio.Task[None] | None:
        """What is to be waited for before a known call's outcome can be told."""
        if call.settled:
            return None
        if (task := self._running.get(call.number)) is not None:
            return task
        if call.same_as and (origin := self.ledger.find(call.same_as, call.digest)) is not None:
            return self._tracked(
                call, asyncio.create_task(self._follow(call, origin, self._resumed(asked, origin, tool, bound)))
            )
        # It began in a run that broke off: nobody knows whether it did what it does.
        known = call.status == "paused"
        if tool is not None and (known or _REPEATABLE & tool.metadata.capabilities):
            again = tool.bind((), call.arguments) if bound is None else bound
            call.status = "running"
            return self._start(call, Prepared(call.tool, tool, again, call.digest), asked)
        call.text, call.status = f"Error: {_UNKNOWN.format(tool=call.tool)}", "unfinished"
        return None

    def _start(self, call: NativeCall, prepared: Prepared, asked: Asked) -> asyncio.Task[None]:
        identity = CallIdentity(call.number, call.tool, call.digest, 0)
        context = contextvars.copy_context()
        context.run(current.set, identity)
        return self._tracked(
            call, asyncio.get_running_loop().create_task(self._run(call, prepared, asked, identity), context=context)
        )

    def _tracked(self, call: NativeCall, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._running[call.number] = task
        task.add_done_callback(lambda done: self._running.pop(call.number, None))
        return task

    async def _run(self, call: NativeCall, prepared: Prepared, asked: Asked, identity: CallIdentity) -> None:
        async with self._turn:
            started = time.monotonic()
            try:
                served = await self._dispatcher.direct(prepared, identity)
            except CallPaused as pause:
                call.status, call.pause = "paused", pause
            else:
                await self._settle(call, served, prepared, asked)
            call.duration = time.monotonic() - started
        self.ledger.write(call)

    async def _settle(self, call: NativeCall, served: Outcome, prepared: Prepared, asked: Asked) -> None:
        value = served.value()
        if not served.ok:
            return self._fail(call, str(value["type"]), str(value["message"]))
        declared = prepared.tool is not None and prepared.tool.metadata.result_schema is not None
        write = functools.partial(as_text, value, as_json=asked.by_code and declared, nan=self.nan)
        try:
            text = write() if is_small(value) else await asyncio.to_thread(write)
        except ValueError as error:
            return self._fail(call, "UnsupportedValue", f"the result can't be written as JSON: {error}")
        call.status = "ok"
        call.text = self._bounded(call, text, asked)  # which may think otherwise

    def _fail(self, call: NativeCall, kind: str, message: str) -> None:
        call.status, call.error = "error", (kind, message)
        call.text = shorten(f"Error: {kind}: {_sendable(message)}", self.direct_chars)

    def _bounded(self, call: NativeCall, text: str, asked: Asked) -> str:
        if not asked.by_code:
            return shorten(text, self.direct_chars)
        if len(text) <= self.code_chars:
            return text
        size = f"{len(text):,} characters, {self.code_chars:,} at most"
        self._fail(call, "ResultTooLarge", f"the result has {size}; ask {call.tool} for less, in parts")
        return call.text

    def _answer(self, asked: Asked, call: NativeCall) -> Answer:
        if call.status == "running":
            self.ledger.lose(call)  # whoever asks for the same again is the one to get it
            return Answer(asked, call, f"Error: {_STILL_RUNNING.format(tool=call.tool)}", False)
        return Answer(asked, call, call.text, call.status == "ok")

    # who may call what

    def _permitted(self, asked: Asked) -> tuple[Tool | None, ToolCallError | None]:
        tool = self.tools.get(asked.name)
        if tool is None:
            hint = ", ".join(near(asked.name[:200], self.tools, 3)) or ", ".join(list(self.tools)[:10])
            message = f"no tool named {asked.name[:80]!r}; there are {hint}" if hint else "there are no tools"
            return None, ToolNotAvailable(message, tool=asked.name)
        if may_call(tool.metadata, by_code=asked.by_code):
            return tool, None
        callers = tool.metadata.allowed_callers
        how = "call it directly, not from code" if asked.by_code else "call it from code, not directly"
        return tool, ToolNotAvailable(
            f"tool {asked.name!r} is not open to {asked.caller} calls (allowed_callers={callers}); {how}",
            tool=asked.name,
        )


def may_call(tool: ToolMetadata, *, by_code: bool) -> bool:
    """Whether a provider's model may call a tool, directly or from code that runs at the provider.

    A tool that is open to the local sandbox only is closed to both.
    """
    if tool.allowed_callers is None:
        return True
    names = set(tool.allowed_callers) - {"sandbox"}
    return bool(names - {"direct"}) if by_code else "direct" in names


def as_text(value: Any, *, as_json: bool, nan: Literal["constants", "null"] = "constants") -> str:
    """A result as text: text as it is, unless JSON was promised; data as JSON.

    Raises:
        ValueError: JSON can't say it.
    """
    if isinstance(value, str) and not as_json:
        return _sendable(value)
    try:
        return to_json(value, bytes_mode="base64", inf_nan_mode=nan, fallback=str).decode()
    except (UnicodeEncodeError, PydanticSerializationError):  # a lone surrogate perhaps, which JSON can escape
        pass
    try:
        return json.dumps(value, default=str, allow_nan=nan == "constants")
    except TypeError as error:
        raise ValueError(str(error)) from None


def _sendable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _arguments(asked: Asked, tool: Tool | None) -> dict[str, Any]:
    given: Any = asked.arguments
    if isinstance(given, str):
        try:
            given = json.loads(given or "{}")
        except ValueError as error:
            raise InvalidArguments(f"the arguments are no JSON: {error}", tool=asked.name) from None
    if not isinstance(given, Mapping):
        raise InvalidArguments(f"the arguments must be a JSON object, not {type(given).__name__}", tool=asked.name)
    return dict(given)


def by_status(answers: Sequence[Answer], status: str) -> Iterator[Answer]:
    """The answers of calls that are in a state."""
    return (answer for answer in answers if answer.call.status == status)
