"""Owns plain tool calls: a model asks for one, it runs, and its result is the model's to read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from toolchord.catalogue import Catalogue, Exposed
from toolchord.chat import ToolRequest
from toolchord.choice import plain_name
from toolchord.dispatch import Dispatcher
from toolchord.errors import CallPaused, ConfigurationError
from toolchord.identity import CallIdentity, current
from toolchord.results import CallRecord, render, shorten
from toolchord.schema import shape
from toolchord.search import near
from toolchord.tools import Tool

__all__ = ["PlainCalls"]


class PlainCalls:
    """The tools that a model may call directly, under flat names.

    Args:
        catalogue: tools that are open to direct calls.
        names: which of them, by `plain_name`.
        threads: how many blocking tools may run at a time.
    """

    def __init__(self, catalogue: Catalogue, names: Iterable[str], threads: int) -> None:
        wanted = set(names)
        self._tools: dict[str, Exposed] = {}
        for exposed in catalogue.tools:
            name = plain_name(catalogue, exposed)
            if name in wanted and name in self._tools:
                raise ConfigurationError(
                    f"two tools are called {name!r} in plain calls; register one under another name"
                )
            if name in wanted:
                self._tools[name] = exposed
        self._dispatcher = Dispatcher(catalogue, {}, threads)
        self.calls: list[CallRecord] = []

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """The tools in the form of Chat Completions."""
        return [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": _described(exposed.tool),
                    "parameters": {"type": "object", "properties": {}, **(exposed.tool.metadata.argument_schema or {})},
                },
            }
            for name, exposed in self._tools.items()
        ]

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    async def serve(self, request: ToolRequest, max_chars: int) -> str:
        """Run one call; the text that the model reads."""
        exposed = self._tools.get(request.name)
        if exposed is None:
            close = ", ".join(near(request.name, self._tools, 3)) or ", ".join(list(self._tools)[:10])
            return f"There is no tool named {request.name!r}; there are {close}."
        arguments = request.arguments
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except ValueError as error:
                return f"The arguments are no JSON: {error}. Send an object such as {{}}."
        if not isinstance(arguments, Mapping):
            return f"The arguments must be a JSON object, not {type(arguments).__name__}."
        record = CallRecord(len(self.calls) + 1, exposed.tool.full_name, dict(arguments))
        self.calls.append(record)
        return shorten(await self._run(record, exposed), max_chars)

    async def _run(self, record: CallRecord, exposed: Exposed) -> str:
        prepared = self._dispatcher.prepare(exposed.tool.full_name, [], dict(record.arguments), "", 0)
        identity = CallIdentity(record.id, prepared.name, prepared.digest, 0, arguments=prepared.arguments)
        token = current.set(identity)
        record.started = time.monotonic()
        try:
            served = await self._dispatcher.direct(prepared, identity)
        except CallPaused as pause:
            record.status, record.pause = "paused", pause
            return f"The call of {exposed.tool.name} waits for an answer from outside."
        finally:
            record.duration = time.monotonic() - record.started
            current.reset(token)
        value = served.value()
        record.cost = served.cost
        if served.ok:
            record.status, record.result_bytes = "ok", served.size
            return render(value)
        record.status, record.error = "error", (str(value["type"]), str(value["message"]))
        return f"The call failed. {value['type']}: {value['message']}"

    def close(self) -> None:
        """No call is served any more."""
        self._dispatcher.close()


def _described(tool: Tool) -> str:
    returns = tool.metadata.result_schema
    told = f"Returns: {shape(returns)}" if returns is not None else ""
    return "\n\n".join(part for part in (tool.metadata.description, told) if part)
