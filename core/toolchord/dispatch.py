"""The one way that every tool call takes through the host.

allowlist and caller -> arguments -> digest -> (journal, budget and turn: the run's) -> timeout -> run -> plain data.
"""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import functools
import inspect
import itertools
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from toolchord.catalogue import Catalogue
from toolchord.errors import CallPaused, InvalidArguments, ToolCallError, ToolNotAvailable
from toolchord.journal import RecordedPart
from toolchord.observed import ShapeStore
from toolchord.redact import redact
from toolchord.tools import Tool, ToolCapability
from toolchord_guest.values import Encoder, Unsupported

_EXPLAINED = 50
"""Unknown names for which a run is told what is near."""

_SMALL = 2000
"""Nodes up to which a value is encoded on the spot; larger ones in a thread, so that the event loop goes on."""

_HARMLESS = frozenset({ToolCapability.READ_ONLY, ToolCapability.IDEMPOTENT})

_RETRYABLE = (TimeoutError, ConnectionError)


def _four_bytes(number: int) -> int:
    return number % (2**32 - 1) + 1


# Pieces of large results travel with results of earlier runs, so their numbers never repeat. Four bytes hold one.
_refs: Iterator[int] = map(_four_bytes, itertools.count(random.SystemRandom().randrange(2**32)))

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
    """

    name: str
    tool: Tool | None
    arguments: dict[str, Any]
    digest: str
    problem: ToolCallError | None = None
    large: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether running it twice does no harm: the tool says so, or nothing will run."""
        return self.tool is None or self.problem is not None or bool(_HARMLESS & self.tool.metadata.capabilities)


@dataclass(frozen=True)
class Served:
    """How a call ended: the encoded value, or the encoded error."""

    ok: bool
    body: bytes
    parts: list[RecordedPart] = field(default_factory=list)


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

    def prepare(self, name: str, args: list[Any], kwargs: dict[str, Any], made: str, *, large: bool) -> Prepared:
        """Find the tool and arrange its arguments. `made` is the digest of the call as it was made."""
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
        return Prepared(tool.full_name, tool, arguments, made, large=large)

    async def serve(self, call: Prepared) -> Served:
        """Run a prepared call to its end; only a cancellation gets out."""
        try:
            if call.problem is not None:
                raise call.problem
            if call.tool is None:
                raise ToolNotAvailable(await self._explain(call.name), tool=call.name)
            # The record keeps what the program sent, whatever the tool does to it; of a large call it keeps nothing.
            arguments = call.arguments if call.large else {name: _copied(v) for name, v in call.arguments.items()}
            value = await self._run(call.tool, call.tool.validate(arguments))
            return await self._encode(call.tool, value)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self._failed(call.name, error)
        except (KeyboardInterrupt, GeneratorExit, CallPaused):
            raise
        except BaseException as error:
            return self._failed(call.name, error)

    async def _explain(self, name: str) -> str:
        """Why there is no such tool; looking for what is near takes time, so in a thread and for few names."""
        if name not in self._explained:
            if len(self._explained) >= _EXPLAINED:
                return f"no tool named {name!r}; see search_tools()"
            loop = asyncio.get_running_loop()
            self._explained[name] = await loop.run_in_executor(self._executor, self._catalogue.explain, name)
        return self._explained[name]

    async def _run(self, tool: Tool, arguments: dict[str, Any]) -> Any:
        if tool.is_async and tool.metadata.timeout is None:
            return await tool.call(arguments)
        async with asyncio.timeout(tool.metadata.timeout):
            if tool.is_async:
                return await tool.call(arguments)
            work = functools.partial(contextvars.copy_context().run, _called, tool, arguments)
            value = await asyncio.get_running_loop().run_in_executor(self._executor, work)
            return await value if inspect.isawaitable(value) else value

    async def _encode(self, tool: Tool, value: Any) -> Served:
        if is_small(value):
            return self._written(tool, value)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._written, tool, value)

    def _written(self, tool: Tool, value: Any) -> Served:
        parts: list[RecordedPart] = []
        encoder = Encoder(lambda p: parts.append(RecordedPart(p.ref, p.kind, p.data)), refs=_refs)
        served = Served(True, encoder.encode(value), parts)
        if self._shapes is not None and tool.name not in self._helpers:
            self._shapes.observe(tool, value)
        return served

    def _failed(self, name: str, error: BaseException) -> Served:
        message = redact(_text(error))
        type_name, base = _class_name(type(error)), _builtin_base(error)
        if isinstance(error, Unsupported):
            type_name, base = "UnsupportedValue", "TypeError"
            message = f"the tool {name} returned what can't be handed over: {error}"
        elif isinstance(error, InvalidArguments):
            base = "TypeError"
        elif isinstance(error, ToolNotAvailable):
            base = "LookupError"
        elif isinstance(error, TimeoutError) and not message:
            message = f"the tool {name} took too long"
        details = {
            "type": type_name,
            "base": base,
            "message": message,
            "args": _plain_arguments(error, message),
            "tool": name,
            "retryable": isinstance(error, _RETRYABLE),
        }
        return Served(False, Encoder().encode(details))


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
