"""Owns what a program is started with: its text, its inputs, what it is told of its tools, and the way to its guest."""

from __future__ import annotations

import asyncio
import functools
import keyword
import logging
from collections.abc import Mapping
from typing import Any

from toolchord.catalogue import Catalogue
from toolchord.channel import Channel
from toolchord.dispatch import Dispatcher, is_small
from toolchord.errors import ConfigurationError
from toolchord.gate import Gate
from toolchord.journal import Journal
from toolchord.limits import Limits
from toolchord.observed import ShapeStore
from toolchord.observing import running
from toolchord.prompt import describe
from toolchord.recording import RunRecord
from toolchord.restoring import without
from toolchord.results import ExecutionResult, RunError, Watch
from toolchord.run import Run
from toolchord.tools import Tool, tool_from
from toolchord.variables import Variables
from toolchord_guest import wire
from toolchord_guest.values import Encoder, Unsupported


class Prepared:
    """A program with everything it needs but a guest."""

    def __init__(
        self,
        catalogue: Catalogue,
        journal: Journal,
        record: RunRecord,
        shapes: ShapeStore | None,
        *,
        offline: bool = False,
    ) -> None:
        self._catalogue = catalogue
        self._shapes = shapes
        self.journal = journal
        self.gate = Gate(None, journal)
        self._record = record
        self._offline = offline
        self._begun = False
        self._stuck: str | None = None
        self.left = Variables()

    async def run(self, channel: Channel, limits: Limits, watch: Watch | None = None) -> ExecutionResult:
        record = self._record
        if not self._begun and (reason := await self.journal.begin(record)) is not None:
            return ExecutionResult(error=RunError("ReplayDivergence", reason, kind="divergence", position=0))
        self._begun = True
        if (began := getattr(watch, "began", None)) is not None:
            began(record.code)
        start = {
            "code": record.code,
            "inputs": record.inputs,
            "tools": record.tools,
            "builtin_tools": _HELPER_STUBS,
            "seed": record.seed,
            "epoch": record.epoch,
            "variables": _left(record),
            "keep": record.keep,
        }
        parts: list[wire.Part] = []
        body = Encoder(parts.append).encode(start)
        helpers = _helpers(self._catalogue, self._shapes)
        dispatcher = Dispatcher(self._catalogue, helpers, limits.concurrency, self._shapes)
        try:
            run = Run(channel, dispatcher, self.journal, limits, gate=self.gate, offline=self._offline, watch=watch)
            result = await run.go(wire.Start(body), parts)
            self._stuck = run.restoring.stuck(result.error)
            if (note := running.get()) is not None:
                note.guest.peak_memory = channel.guest.peak_memory()
        finally:
            dispatcher.close()
        self.journal.write_to(record)
        result.record = record
        if self._shapes is not None:
            try:
                await asyncio.to_thread(self._shapes.save)
            except OSError:  # what the run gave is worth more than what was learnt from it
                _logger.warning("shapes of results could not be saved", exc_info=True)
        if (ended := getattr(watch, "ended", None)) is not None:
            ended(result)
        return result

    def let_go(self, result: ExecutionResult) -> bool:
        """Whether a run ended while variables were restored, and is to begin again without what stopped it."""
        if self._stuck is None or result.error is None or not self.left.names:
            return False
        self.left = without(self.left, self._stuck, f"{result.error.type}: {result.error.message}")
        self._record.variables = self.left.to_bytes()
        return True

    def told(self, result: ExecutionResult) -> None:
        """Complete a result with what became of the variables that an earlier program had left."""
        result.variables = result.variables or Variables(self.left.data, self.left.definitions)
        for name, reason in self.left.lost.items():
            note = f"The variable {name} of an earlier program could not be restored: {reason}\n"
            result.stderr = note + result.stderr


MANY = 500

_logger = logging.getLogger("toolchord")


def _left(record: RunRecord) -> dict[str, Any] | None:
    """What an earlier program left, as a guest takes it."""
    if not record.variables:
        return None
    variables = Variables.from_bytes(record.variables)
    return {"data": variables.data, "definitions": variables.definitions}


_HELPER_STUBS = [
    {"name": "search_tools", "tool": "search_tools", "doc": "Find tools by words.", "async": True},
    {"name": "describe_tool", "tool": "describe_tool", "doc": "A tool's full signature.", "async": True},
]


@functools.lru_cache(16)
def _helpers(catalogue: Catalogue, shapes: ShapeStore | None) -> dict[str, Tool]:
    """The tools about tools, over one run's catalogue."""

    def search_tools(query: str, limit: int = 5) -> list[dict[str, str]]:
        found = catalogue.search(query, limit)
        return [{"name": catalogue.path(e), "description": e.tool.metadata.description} for e in found]

    def describe_tool(name: str) -> str:
        exposed = catalogue.resolve(name)
        if exposed is None:
            return catalogue.explain(name)
        return describe(exposed, path=catalogue.path(exposed), shapes=shapes)

    return {function.__name__: tool_from(function) for function in (search_tools, describe_tool)}


async def encoded(inputs: Mapping[str, Any] | None, catalogue: Catalogue) -> bytes:
    """The inputs as bytes; large ones are written in a thread, so that the event loop goes on."""
    if inputs is not None and not isinstance(inputs, Mapping):
        raise ConfigurationError(f"inputs must be a mapping of names to values, not {type(inputs).__name__}")
    for name in inputs or ():
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__"):
            raise ConfigurationError(f"inputs must have variable names, not {name!r}")
        if name in catalogue.names or name in catalogue.namespaces:
            raise ConfigurationError(f"the input {name!r} would hide the tool of that name; give it another one")
    if is_small(inputs):
        return _encode_inputs(inputs)
    return await asyncio.to_thread(_encode_inputs, inputs)


def _encode_inputs(inputs: Mapping[str, Any] | None) -> bytes:
    try:
        return Encoder().encode(dict(inputs or {}))
    except Unsupported as error:
        raise ConfigurationError(f"inputs{error.path[1:]}: {error.reason}") from None


def unreadable(code: str, limits: Limits) -> RunError | None:
    """Why a program's text is not even handed to a guest, or None."""
    if not isinstance(code, str):
        raise ConfigurationError(f"code must be str, not {type(code).__name__}")
    try:
        size = len(code.encode())
    except UnicodeEncodeError:
        return RunError("SyntaxError", "the program's text holds lone surrogates; send valid Unicode", kind="syntax")
    if size <= limits.source:
        return None
    message = f"source: a program of {size:,} bytes; at most {limits.source:,} are read. Pass data as inputs."
    return RunError("LimitExceeded", message, kind="limit", limit="source")
