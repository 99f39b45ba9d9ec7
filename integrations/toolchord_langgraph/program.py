"""Owns one program that runs in a graph: how its calls reach the tools, and what the graph gets of it."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeAlias

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool, ToolException
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.config import get_config
from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand, is_invalid_resume
from langgraph.prebuilt import ToolRuntime
from langgraph.prebuilt.tool_node import ToolCallRequest, ToolInvocationError
from langgraph.types import Command, interrupt
from pydantic import Discriminator, ValidationError
from pydantic.v1 import ValidationError as ValidationErrorV1

from toolchord import (
    ApprovalRequest,
    CallIdentity,
    CallRecord,
    Catalogue,
    CodeSandbox,
    Decision,
    ExecutionResult,
    JournalStore,
    Limits,
    MemoryStore,
    Policy,
    current_call,
)
from toolchord.errors import CallPaused, DeveloperError, JournalConflict
from toolchord.recording import Outcome
from toolchord.results import Output as Printed
from toolchord.results import shorten
from toolchord_langgraph import approvals, private, streaming
from toolchord_langgraph.approvals import Answered, Approvals, GiveUp, Repeat, Respond
from toolchord_langgraph.capture import Captured
from toolchord_langgraph.journal import TaskJournal
from toolchord_langgraph.kept import Kept, without_message
from toolchord_langgraph.store import CheckpointStore

Output: TypeAlias = "ToolMessage | Command[Any] | list[ToolMessage | Command[Any]]"

_PATIENCE = 10.0
"""Seconds within which an attempt that langgraph has given up must have stopped."""

_SHOWN = 2_000
"""Characters of an inner call's result that streams show."""


class CannotGoOn(DeveloperError, GraphBubbleUp):
    """A program does not go the way that is written down, mostly because what it was begun with has changed.

    Nothing is lost: deploy again what it was begun with, and resume. Or end the call without it: look into the state's
    history for what it has done, and put an answer to the call into the state with `update_state`. No tool node makes a
    message of it, for a model would write the program anew, and what it has done would be done twice.

    Attributes:
        tool_call_id: of the call that ran the program.
        reason: what is different.
    """

    def __init__(self, tool_call_id: str, reason: str) -> None:
        self.tool_call_id = tool_call_id
        self.reason = reason
        super().__init__(
            f"the program of call {tool_call_id} can't go on: {reason}; resume it with the tools and versions that it "
            f"was begun with, or answer the call with update_state"
        )


@dataclass(frozen=True)
class Frame:
    """What a program needs of the node that runs it.

    Attributes:
        sandbox: where it runs.
        catalogue: what it may call.
        run, arun: take an inner call to its tool as the graph takes an ordinary one; the second in async graphs.
        approvals: asked before.
        policy: the rules for its calls; the sandbox's own if None.
        limits: what it may spend.
        messages_key: where the state keeps its messages.
        max_chars: length of the answer to the model.
        variables: whether a program finds what the thread's last one left.
    """

    sandbox: CodeSandbox
    catalogue: Catalogue
    run: Callable[[ToolCallRequest], Output]
    arun: Callable[[ToolCallRequest], Awaitable[Output]]
    approvals: Approvals
    policy: Policy | None
    limits: Limits | None
    messages_key: str
    max_chars: int
    variables: bool


class Program:
    """One program: the host of its journal, and the way of its calls."""

    def __init__(self, frame: Frame, code: str, runtime: ToolRuntime[Any, Any], *, name: str, blocking: bool) -> None:
        self.blocking = blocking
        self._name = name
        self._frame = frame
        self._code = code
        self._runtime = runtime
        self._config = get_config()
        self._id = runtime.tool_call_id or "code"
        self._attempt = ""
        self._kept: dict[int, Kept] = {}
        self._written: list[tuple[Kept, tuple[str, Any]]] = []
        self._read = private.reading(self._config, self._writes) if private.can_call(self._config) else None
        self._messages: dict[int, ToolMessage] = {}
        self._records: dict[int, CallRecord] = {}
        self._serde: SerializerProtocol

    async def go(self) -> Output:
        """Run it to its end, or to where it waits for a person.

        Raises:
            GraphInterrupt: what it waits for, all at once.
            JournalConflict: somebody else has taken the run up.
            CannotGoOn: it is not the program that was begun.
        """
        info = self._runtime.execution_info
        place = private.location(self._config, info.checkpoint_id if info else None)
        store: JournalStore
        if place is not None:
            memory = None if place.durable else _memory.of(self._run)
            store, self._serde = CheckpointStore(place, memory, blocking=self.blocking), place.saver.serde
        else:  # nothing can be answered later, and what langgraph remembers of sub-tasks is not asked for
            self._attempt = uuid.uuid4().hex
            store = self._serde = _memory.of(self._run) if private.can_call(self._config) else _LocalStore()
        self._tell = streaming.watcher(self._runtime, self._id)
        journal = await self._opened(store)
        journal.host = self
        self._journal = journal
        token = _current.set(self)
        try:
            for number in journal.in_order(journal.kept):
                kept = self._kept[number] = Kept.read(journal.kept[number], self._serde)
                self._written.extend((kept, write) for write in kept.writes)
            result = await self._frame.sandbox.execute(
                self._code,
                self._frame.catalogue,
                limits=self._limits(),
                journal=journal,
                watch=self._watch,
                policy=self._frame.policy,
                variables=streaming.left_in(self._messages_before()) if self._frame.variables else None,
            )
        finally:
            _current.reset(token)
            await journal.end()  # also if it never came to run
        if result.error is not None and result.error.kind == "divergence":
            raise CannotGoOn(self._id, result.error.message)
        self._raise_what_waits(result)
        message = self._answer(result)
        self._kept = {number: kept for number, kept in sorted(self._kept.items()) if journal.has_ended(number)}
        if self._read is not None:  # only now: a node that fails after it has written is taken for one that has ended
            private.sends(self._config, private.settled(self._config, self._writes()))
        commands = [command for kept in self._kept.values() for command in kept.commands]
        return [*commands, message] if commands else message

    def _watch(self, news: Printed | CallRecord) -> None:
        if isinstance(news, CallRecord):
            self._records[news.id] = news
        self._tell(news)

    async def _opened(self, store: JournalStore) -> TaskJournal:
        """The journal. A node that is retried after its timeout may be here before the last attempt has stopped."""
        info = self._runtime.execution_info
        patience = _PATIENCE if info is not None and info.node_attempt > 1 else 0.0
        deadline = asyncio.get_running_loop().time() + patience
        while True:
            try:
                return await TaskJournal.open(store, self._run, unclear=self._ask_what_became_of)
            except JournalConflict:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
            await asyncio.sleep(0.01)

    def _limits(self) -> Limits:
        limits = self._frame.limits or self._frame.sandbox.limits
        most = self._config.get("max_concurrency")
        return limits if not most else dataclasses.replace(limits, concurrency=min(most, limits.concurrency))

    @property
    def _run(self) -> str:
        """The run's name, the same whenever the node is run again."""
        info = self._runtime.execution_info
        identity = (info.task_id if info else "", self._id, self._code)
        return hashlib.sha256("\0".join(identity).encode()).hexdigest()[:32]

    def _messages_before(self) -> Sequence[Any]:
        state, key = self._runtime.state, self._frame.messages_key
        found = (
            state
            if isinstance(state, list)
            else (state.get(key) if isinstance(state, dict) else getattr(state, key, None))
        )
        return found or ()

    # the journal's host

    def subtask(self, call: CallIdentity, function: Callable[[], Any]) -> Any:
        """See `journal.Host`."""
        name = call.tool.rpartition(".")[2]
        return private.call(self._config, name, f"{self._run}{self._attempt}\0{call.number}\0{call.digest}", function)

    def shown(self, call: CallIdentity, outcome: Outcome) -> Any:
        """See `journal.Host`."""
        status = "success" if outcome.ok else "error"
        name = call.tool.rpartition(".")[2]
        made = self._messages.get(call.number)
        text = ": ".join(outcome.error) if outcome.error else str(made.text) if made is not None else ""
        message = ToolMessage(shorten(text, _SHOWN), name=name, tool_call_id=self._inner_id(call), status=status)
        return {self._frame.messages_key: [message]}

    def kept(self, call: CallIdentity) -> bytes | None:
        """See `journal.Host`."""
        kept = self._kept.get(call.number)
        return None if kept is None else kept.written(self._serde)

    # a call

    async def call(self, tool: BaseTool, request: ToolCall, hidden: frozenset[str]) -> Any:
        """Run one inner call and give its value; see `toolchord_langchain.inbound.Runner`."""
        call = current_call()
        assert call is not None
        kept = self._kept[call.number] = Kept()
        config = private.bridged(
            private.only_new_answers(get_config()), self._config, partial(self._write, kept), self._read
        )
        capture = Captured(tool, config, partial(self._journal.acting, call), blocking=self.blocking)
        state = self._runtime.state
        if self._read is not None and (writes := self._writes()):
            state = private.current_state(self._read, state, writes)
        runtime = dataclasses.replace(self._runtime, state=state, tool_call_id=self._inner_id(call), config=config)
        made = ToolCall(name=tool.name, args=request["args"], id=self._inner_id(call), type="tool_call")
        try:
            with private.as_child(config):
                asked = self._frame.approvals.ask(
                    ToolCallRequest(tool_call=made, tool=tool, state=runtime.state, runtime=runtime)
                )
                if isinstance(asked, Answered):
                    return asked.value
                asked = asked.override(tool=capture.view)
                try:
                    output = self._frame.run(asked) if self.blocking else await self._frame.arun(asked)
                except ParentCommand as error:  # a graph that the tool ran hands over; the program goes on
                    output = private.handed_over(error, config)
            return self._value(call, capture, output)
        except asyncio.CancelledError:
            kept.clear()
            raise
        except (GraphBubbleUp, CallPaused) as pause:
            kept.clear()  # it runs again, and writes again
            raise pause if isinstance(pause, CallPaused) else CallPaused(pause) from None
        except ToolInvocationError as error:
            raise capture.refused(error.source, hidden) from None
        except (ValidationError, ValidationErrorV1) as error:
            if is_invalid_resume(error):
                kept.clear()
                raise CallPaused(error) from None
            raise capture.refused(error, hidden) from None
        finally:
            if not kept:
                del self._kept[call.number]

    def _value(self, call: CallIdentity, capture: Captured, output: Output) -> Any:
        """What the program gets of what the graph would have got."""
        message: ToolMessage | None = None
        for one in output if isinstance(output, list) else [output]:
            if isinstance(one, Command):
                found, rest = without_message(one, self._frame.messages_key, self._inner_id(call))
                message = found or message
                if rest is not None:
                    self._apply(call, rest)
            else:
                message = one
        if message is None:
            return None
        self._messages[call.number] = message
        if message.status == "error":
            raise ToolException(str(message.text))
        return capture.native(message)

    def _write(self, kept: Kept, writes: Sequence[tuple[str, Any]]) -> None:
        """A call writes to the state; the graph gets it when the program has ended."""
        kept.writes.extend(writes)
        self._written.extend((kept, write) for write in writes)

    def _writes(self) -> list[tuple[str, Any]]:
        """What calls have written so far, one after another."""
        valid = {id(kept) for kept in list(self._kept.values()) if kept.writes}
        return [write for kept, write in list(self._written) if id(kept) in valid]

    def _apply(self, call: CallIdentity, command: Command[Any]) -> None:
        """Do what a tool's command says: update the state at once, for later calls to see; go elsewhere at the end."""
        kept = self._kept[call.number]
        if command.graph is None and private.can_call(self._config):
            self._write(kept, private.updates(command))
            command = dataclasses.replace(command, update=None)
            if not command.goto and command.resume is None:
                return
        kept.commands.append(command)

    async def _ask_what_became_of(self, call: CallIdentity) -> Decision | None:
        """A call that acts was cut off: only a person knows whether to repeat it."""
        name, args = call.tool.rpartition(".")[2], streaming.arguments(self._records[call.number])
        question = {
            "type": "unclear_call",
            "tool_call_id": self._inner_id(call),
            "name": name,
            "args": args,
            "description": f"It is not known whether this call took effect. Find out, then let it run again, or say "
            f"what it gave. A program had called {name} in line {call.line}{approvals.given(args)}",
            "allowed_decisions": ["repeat", "respond", "give_up"],
        }
        # A sub-task of its own: an approval that the call was given before must not be taken for this answer.
        key = f"{self._run}\0{call.number}\0{self._journal.cut_off(call.number)}"

        def ask() -> Any:
            with private.as_child(private.only_new_answers(get_config())):
                return interrupt(question, response_schema=_BecameOf)

        async def ask_async() -> Any:
            return ask()

        try:
            future = private.call(get_config(), "unclear_call", key, ask if self.blocking else ask_async)
            answer = await private.result(future)
        except GraphBubbleUp as pause:
            raise CallPaused(pause) from None
        match answer:
            case {"type": "respond", "message": message}:
                return Decision.respond(message)
            case {"type": "give_up", **rest}:
                return Decision.reject(str(rest.get("message") or "it was given up"))
        return None

    def ask(self, call: CallIdentity, reason: object) -> tuple[str, Decision] | None:
        """See `journal.Host`."""
        if not isinstance(reason, ApprovalRequest):
            interrupt({"type": "call_paused", "tool_call_id": self._inner_id(call), "reason": str(reason)})
            return None
        return reason.id, approvals.ask_for_policy(reason, self._inner_id(call))

    def _inner_id(self, call: CallIdentity) -> str:
        return f"{self._id}:{call.number}"

    # the end

    @staticmethod
    def _raise_what_waits(result: ExecutionResult) -> None:
        if result.error is None or result.error.kind != "paused":
            return
        reasons = [call.pause.reason for call in result.pending if call.pause is not None]
        for reason in reasons:
            if isinstance(reason, Exception) and not isinstance(reason, GraphInterrupt):
                raise reason  # an answer that does not fit, or a graph that is being drained
        asked = (one for reason in reasons if isinstance(reason, GraphInterrupt) for one in reason.args[0])
        raise GraphInterrupt(tuple({one.id: one for one in asked}.values()))  # a graph within may tell one twice

    def _answer(self, result: ExecutionResult) -> ToolMessage:
        return ToolMessage(
            result.for_model(self._frame.max_chars),
            name=self._name,
            artifact=streaming.transcript(result, self._id),
            tool_call_id=self._id,
            status="success" if result.ok else "error",
        )


_BecameOf: Any = Annotated[Repeat | Respond | GiveUp, Discriminator("type")]


_current: ContextVar[Program] = ContextVar("toolchord_langgraph_program")


async def run_inner(tool: BaseTool, request: ToolCall, hidden: frozenset[str]) -> Any:
    """Run a call of the program that runs here; the `Runner` of every tool in a graph."""
    return await _current.get().call(tool, request, hidden)


class _LocalStore(MemoryStore):
    """A store in a graph without a checkpointer. It keeps things as they are: nothing says that they can be written."""

    def __init__(self) -> None:
        super().__init__()
        self._things: list[Any] = []

    async def delete(self, run: str) -> None:
        await super().delete(run)
        self._things.clear()

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        self._things.append(obj)
        return "local", str(len(self._things) - 1).encode()

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return self._things[int(data[1])]


class _Memory:
    """Stores of runs in graphs without a checkpointer, for a node that is retried. The oldest are forgotten."""

    def __init__(self, most: int) -> None:
        self._stores: OrderedDict[str, _LocalStore] = OrderedDict()
        self._most = most

    def of(self, run: str) -> _LocalStore:
        store = self._stores.setdefault(run, _LocalStore())
        self._stores.move_to_end(run)
        while len(self._stores) > self._most:
            self._stores.popitem(last=False)
        return store


_memory = _Memory(64)
