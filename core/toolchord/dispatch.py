"""The one way that every tool call takes through the host.

allowlist and caller -> arguments -> digest -> (journal and turn: the run's) -> validate -> gate (policy) -> the tool's
lane (concurrency, rate, circuit) -> (journal: written ahead) -> timeout -> run -> retry -> plain data.
"""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import functools
import inspect
import itertools
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from toolchord.catalogue import Catalogue
from toolchord.errors import (
    CallDenied,
    CallPaused,
    CircuitOpen,
    InvalidArguments,
    ToolCallError,
    ToolNotAvailable,
)
from toolchord.gate import Gate
from toolchord.identity import CallIdentity, current
from toolchord.journal import Journal, check_same
from toolchord.lanes import is_passing, lane_of, retried
from toolchord.observed import ShapeStore
from toolchord.observing import CallNote, on, seen
from toolchord.recording import Outcome, RecordedPart
from toolchord.redact import redact
from toolchord.sameness import LARGE, sameness
from toolchord.tools import Tool
from toolchord_guest.values import Encoder, Unsupported

_EXPLAINED = 50
"""Unknown names for which a run is told what is near."""

T = TypeVar("T")

Starting = Callable[[], Awaitable[None]]

_SMALL = 2000
"""Nodes up to which a value is encoded on the spot; larger ones in a thread, so that the event loop goes on."""

_REFS = 1 << 12
"""Numbers for the large pieces of one value."""


_LONGEST_NAME = 200
_LONGEST_MESSAGE = 20_000


@dataclass(frozen=True)
class Prepared:
    """A call that is ready to run, or known to fail.

    Attributes:
        name: what the program called; `tool.full_name` where the tool is known.
        arguments: by parameter name, not yet validated.
        digest: of name and arguments as the program sent them, so that a record can be checked without the tools.
        large: nobody but the tool keeps the arguments.
        own: it is a helper of the sandbox's own, such as search_tools, which no policy is about.
        same: of name and arguments, however the program wrote them; empty where they are large, or fit no tool.
    """

    name: str
    tool: Tool | None
    arguments: dict[str, Any]
    digest: str
    problem: ToolCallError | None = None
    large: bool = False
    own: bool = False
    same: str = ""

    @property
    def repeatable(self) -> bool:
        """Whether running it twice does no harm: the tool says so, or nothing will run."""
        return self.tool is None or self.problem is not None or self.tool.metadata.repeatable


class Dispatcher:
    """Serves the calls of one run.

    Args:
        catalogue: the tools that the run may call, and nothing else.
        helpers: tools of the sandbox's own, such as search_tools, by name.
        threads: how many blocking tools may run at a time.
        shapes: is told what tools give.
    """

    def __init__(
        self, catalogue: Catalogue, helpers: Mapping[str, Tool], threads: int, shapes: ShapeStore | None = None
    ) -> None:
        self._catalogue = catalogue
        self._shapes = shapes
        self._helpers = helpers
        # A run has threads of its own: a tool that outlives its run takes none from the next one.
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="toolchord")
        self._explained: dict[str, str] = {}

    def close(self) -> None:
        """No call is served any more; blocking tools that still run are left to their end."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def prepare(self, name: str, args: list[Any], kwargs: dict[str, Any], made: str, size: int) -> Prepared:
        """Find the tool and arrange its arguments.

        Args:
            name: of the tool, as the program has it.
            args, kwargs: as the program sent them.
            made: the digest of the call as it was made.
            size: bytes of the encoded arguments.
        """
        if len(name) > _LONGEST_NAME:  # looking for what is near costs time
            shown = f"{name[:40]}…"
            problem = ToolNotAvailable(
                f"no tool named {shown!r} ({len(name):,} characters); see search_tools()", tool=shown
            )
            return Prepared(shown, None, _named(args, kwargs), made, problem)
        exposed = self._catalogue.resolve(name)
        tool = exposed.tool if exposed is not None else self._helpers.get(name)
        if tool is None:
            return Prepared(name, None, _named(args, kwargs), made)
        try:
            arguments = tool.bind(args, kwargs)
        except InvalidArguments as error:
            return Prepared(tool.full_name, tool, _named(args, kwargs), made, error)
        same = sameness(tool.full_name, arguments, size)
        own = exposed is None
        return Prepared(tool.full_name, tool, arguments, made, large=size > LARGE, own=own, same=same)

    async def serve(self, call: Prepared, identity: CallIdentity, gate: Gate, starting: Starting) -> Outcome:
        """Run a prepared call to its end; only a cancellation, a pause and a journal's trouble get out.

        Args:
            call: what to run.
            identity: who it is.
            gate: decides whether it may run.
            starting: called before the tool runs for the first time.
        """
        begun = _Begun(starting)
        if not on():
            return await self._serve(call, identity, gate, begun)
        note = CallNote(call, identity)
        with seen(note):
            try:
                note.outcome = await self._serve(call, identity, gate, begun)
            finally:
                note.cause = begun.error
        return note.outcome

    async def _serve(self, call: Prepared, identity: CallIdentity, gate: Gate, begun: _Begun) -> Outcome:
        try:
            if call.problem is not None:
                raise call.problem
            if call.tool is None:
                raise ToolNotAvailable(await self._explain(call.name), tool=call.name)
            # The record keeps what the program sent, whatever the tool does to it; of a large call it keeps nothing.
            arguments = call.arguments if call.large else {name: _copied(v) for name, v in call.arguments.items()}
            checked = call.tool.validate(arguments)
            if not call.own:
                admitted = await guarded(gate.admit(identity, call.tool, call.arguments, checked))
                if isinstance(admitted, Outcome):
                    return admitted
                checked = admitted
            value = await self._laned(call.tool, checked, identity, begun)
            return await self._encode(value, identity, call.tool)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            failed, begun.error = self._failed(call.name, error), error
        except JournalTrouble as trouble:
            raise trouble.error from None
        except (KeyboardInterrupt, GeneratorExit, CallPaused):
            raise
        except BaseException as error:
            failed, begun.error = self._failed(call.name, error), error
        replay = "record" if call.tool is None else call.tool.metadata.replay
        number, digest, occurrence = identity.number, identity.digest, identity.occurrence
        return Outcome(
            number, digest, False, failed, occurrence=occurrence, ran=begun.yes, replay=replay, cost=identity.cost
        )

    async def direct(self, call: Prepared, identity: CallIdentity) -> Outcome:
        """Run a call that no policy is about, and that is written down elsewhere or not at all; see `serve`."""

        async def nothing() -> None:
            pass

        return await self.serve(call, identity, Gate(None, Journal()), nothing)

    async def again(self, call: Prepared, identity: CallIdentity, known: Outcome, journal: Journal) -> Outcome:
        """A recorded outcome; if its value was not kept, the tool runs again, and must give the same where it is to.

        It runs with what a person has put in place of its arguments, if the journal says so.

        Raises:
            ReplayDivergence: it gave something else.
        """
        if not known.missing:
            return known

        decision = journal.decision_about(identity)
        if decision is not None and decision.kind == "edit" and call.tool is not None:
            call = replace(call, arguments=call.tool.bind((), decision.value))
        given = await self.direct(call, identity)
        check_same(known, given)
        return given

    async def _explain(self, name: str) -> str:
        """Why there is no such tool; looking for what is near takes time, so in a thread and for few names."""
        if name not in self._explained:
            if len(self._explained) >= _EXPLAINED:
                return f"no tool named {name!r}; see search_tools()"
            loop = asyncio.get_running_loop()
            self._explained[name] = await loop.run_in_executor(self._executor, self._catalogue.explain, name)
        return self._explained[name]

    async def _laned(self, tool: Tool, arguments: dict[str, Any], identity: CallIdentity, begun: _Begun) -> Any:
        """Run a tool when it is its turn, and again where that is asked for and safe."""
        lane = lane_of(tool)

        async def attempt() -> Any:
            await lane.enter()
            leave = _Once(lane.leave)
            try:
                await lane.pace()
                with lane.checked():
                    await begun()
                    return await self._run(tool, arguments, identity, leave)
            finally:
                leave.unless_kept()

        return await retried(attempt, tool.metadata.retry)

    async def _run(self, tool: Tool, arguments: dict[str, Any], identity: CallIdentity, leave: _Once) -> Any:
        """One attempt at a call; its tool learns from `call_cancelled` when nobody waits any more."""
        mine = replace(identity, ended=threading.Event())
        current.set(mine)
        if tool.metadata.price:
            identity.charges.append(tool.metadata.price)
        try:
            if tool.is_async and tool.metadata.timeout is None:
                return await tool.call(arguments)
            async with asyncio.timeout(tool.metadata.timeout):
                if tool.is_async:
                    return await tool.call(arguments)
                future = self._executor.submit(contextvars.copy_context().run, _called, tool, arguments)
                leave.kept = True  # a thread can't be stopped: its place is free when it ends
                future.add_done_callback(leave)
                value = await asyncio.wrap_future(future)
                return await value if inspect.isawaitable(value) else value
        finally:
            mine.ended.set()

    async def _encode(self, value: Any, identity: CallIdentity, tool: Tool) -> Outcome:
        if is_small(value):
            return self._written(value, identity, tool)
        work = functools.partial(self._written, value, identity, tool)
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _written(self, value: Any, identity: CallIdentity, tool: Tool) -> Outcome:
        parts: list[RecordedPart] = []
        # Numbered by the call, so that a tool that is run again writes the same bytes.
        refs = itertools.count(identity.number % (1 << 19) * _REFS + 1)
        encoder = Encoder(lambda p: parts.append(RecordedPart(p.ref, p.kind, p.data)), refs=refs)
        body = encoder.encode(value)
        if self._shapes is not None and tool.name not in self._helpers:
            self._shapes.observe(tool, value)
        number, digest, occurrence = identity.number, identity.digest, identity.occurrence
        return Outcome(
            number, digest, True, body, parts, occurrence=occurrence, replay=tool.metadata.replay, cost=identity.cost
        )

    def _failed(self, name: str, error: BaseException) -> bytes:
        message = redact(_text(error))
        type_name, base = _class_name(type(error)), _builtin_base(error)
        if isinstance(error, Unsupported):
            type_name, base = "UnsupportedValue", "TypeError"
            message = f"the tool {name} returned what can't be handed over: {error}"
        elif isinstance(error, InvalidArguments):
            base = "TypeError"
        elif isinstance(error, ToolNotAvailable):
            base = "LookupError"
        elif isinstance(error, CallDenied):
            base = "PermissionError"
        elif isinstance(error, CircuitOpen):
            base = "ConnectionError"
        elif isinstance(error, TimeoutError) and not message:
            message = f"the tool {name} took too long"
        details = {
            "type": type_name,
            "base": base,
            "message": message,
            "args": _plain_arguments(error, message),
            "tool": name,
            "retryable": is_passing(error),
        }
        return Encoder().encode(details)


class JournalTrouble(BaseException):
    """What a journal raised while a call was served: no tool's error, and no program's business."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


async def guarded(work: Awaitable[T]) -> T:
    try:
        return await work
    except InvalidArguments:  # edited arguments
        raise
    except Exception as error:
        raise JournalTrouble(error) from error


class _Begun:
    """Says once that a tool is about to run; keeps why its call failed, for those who look on."""

    def __init__(self, starting: Starting) -> None:
        self.yes = False
        self.error: BaseException | None = None
        self._starting = starting

    async def __call__(self) -> None:
        if not self.yes:
            await guarded(self._starting())
            self.yes = True


class _Once:
    """Gives a place back, once: at the end of an attempt, or when its thread ends if that is later."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self.kept = False
        self._leave = leave

    def __call__(self, ended: object) -> None:
        self._leave()

    def unless_kept(self) -> None:
        """The attempt has ended; nothing to do if a thread still runs for it."""
        if not self.kept:
            self._leave()


def _called(tool: Tool, arguments: dict[str, Any]) -> Any:
    """Run a blocking tool. A future can't carry StopIteration, which a bare `next()` raises."""
    try:
        return tool.call(arguments)
    except StopIteration as error:
        raise RuntimeError(f"the tool {tool.full_name} raised StopIteration") from error


def _copied(value: Any) -> Any:
    """A copy of plain data's containers."""
    kind = type(value)
    if kind is dict:
        return {key: _copied(item) for key, item in value.items()}
    if kind is list:
        return [_copied(item) for item in value]
    if kind is tuple:
        return tuple(map(_copied, value))
    return set(value) if kind is set else value


def _named(args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name for the record of a call that can't be arranged: positional ones by number."""
    return {**{str(n): value for n, value in enumerate(args)}, **kwargs}


def _text(error: BaseException) -> str:
    if isinstance(error, ToolCallError):
        return error.message[:20_000]
    try:
        return str(str.__str__(str(error)))[:_LONGEST_MESSAGE]
    except BaseException as worse:  # the tool's own code: what it raises here must not end the host
        return f"(its text could not be had: {type(worse).__name__})"


def _class_name(cls: type) -> str:
    """A class's name, as a program can have it."""
    return "".join(c if c.isalnum() or c in "_." else "_" for c in cls.__name__[:100]) or "Exception"


def _builtin_base(error: BaseException) -> str:
    """The builtin exception class that an error's own class derives from."""
    for cls in type(error).__mro__:
        name = cls.__name__
        if getattr(builtins, name, None) is cls:
            return name
    return "Exception"


def _plain_arguments(error: BaseException, message: str) -> list[Any]:
    try:
        given = list(error.args)
    except BaseException:  # the tool's own code
        return [message]
    plain = all(a is None or type(a) in (str, int, float, bool) for a in given)
    if not given or not plain or sum(len(a) if isinstance(a, str) else 8 for a in given) > _LONGEST_MESSAGE:
        return [message]
    if any(isinstance(a, int) and a.bit_length() > 64 for a in given):
        return [message]
    return [redact(a) if isinstance(a, str) else a for a in given]


def is_small(value: Any) -> bool:
    """Whether a value has few nodes and no long text."""
    if value is None or type(value) in (bool, int, float):
        return True
    stack, seen = [value], 0
    while stack:
        item = stack.pop()
        seen += 1
        if isinstance(item, str | bytes):
            seen += len(item) // 64
        elif isinstance(item, list | tuple | set | frozenset):
            seen += len(item)
            if seen <= _SMALL:
                stack.extend(item)
        elif isinstance(item, dict):
            seen += len(item)
            if seen <= _SMALL:
                stack.extend(item.values())
        else:
            slots = getattr(type(item), "__slots__", ())
            fields = [*getattr(item, "__dict__", {}).values(), *(getattr(item, name, None) for name in slots)]
            seen += len(fields)
            stack.extend(fields)
        if seen > _SMALL:
            return False
    return True
