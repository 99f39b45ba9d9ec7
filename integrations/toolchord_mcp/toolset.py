"""Owns which of a server's tools are in a registry, and keeps them as the server lists them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from mcp import types

from toolchord import Tool, ToolMetadata, ToolRegistry, create_registry
from toolchord.errors import RegistrationError, ToolNotFoundError
from toolchord_mcp.inbound import Call, described, tool_from

log = logging.getLogger("toolchord_mcp")


class Toolset:
    """The tools of one server in a registry.

    Args:
        call: runs a tool.
        namespace: where they go.
        registry: where to register; a new one when None.
        only: names of the tools to take; None: all.
        metadata: fields of `ToolMetadata` for each of them.

    Raises:
        RegistrationError: `metadata` has an unknown field.
    """

    def __init__(
        self,
        call: Call,
        *,
        namespace: str,
        registry: ToolRegistry | None,
        only: Iterable[str] | None,
        metadata: dict[str, Any],
    ) -> None:
        self.registry = create_registry() if registry is None else registry
        self.refused: dict[str, RegistrationError] = {}
        self._call = call
        self._namespace = namespace
        self._only = None if only is None else frozenset([only] if isinstance(only, str) else only)
        self._metadata = metadata
        self._registered: dict[str, tuple[types.Tool, Tool]] = {}
        ToolMetadata(name="any", **metadata)  # what is wrong with it is not the server's fault

    def missing(self) -> list[str]:
        """Names that were asked for and that the server does not list."""
        return sorted((self._only or frozenset()) - self._registered.keys() - self.refused.keys())

    def update(self, entries: Iterable[Any], server: str) -> bool:
        """Make the registry hold what the server lists; whether anything changed.

        Tools that are as they were stay the same objects. What can't be registered is left out, and kept in `refused`.
        """
        listed = self._described(entries)
        changed = False
        for name, (description, tool) in list(self._registered.items()):
            if listed.get(name) != description:
                self._remove(name, tool)
                changed = True
        for name, description in listed.items():
            if name in self._registered:
                continue
            try:
                tool = tool_from(description, self._call, namespace=self._namespace, server=server, **self._metadata)
                self._registered[name] = (description, self.registry.add(tool))
                changed = True
            except RegistrationError as error:
                self._refuse(name, error)
        return changed

    def clear(self) -> None:
        """Take every tool of the server out of the registry."""
        for name, (_, tool) in list(self._registered.items()):
            self._remove(name, tool)

    def _described(self, entries: Iterable[Any]) -> dict[str, types.Tool]:
        self.refused = {}
        listed: dict[str, types.Tool] = {}
        for number, entry in enumerate(entries, 1):
            name = entry.get("name") if isinstance(entry, dict) else None
            label = name if isinstance(name, str) and name else f"tool {number}"
            if self._only is not None and label not in self._only:
                continue
            try:
                tool = described(entry)
                if tool.name in listed:
                    raise RegistrationError("the server lists another tool of that name")
                listed[tool.name] = tool
            except RegistrationError as error:
                self._refuse(label[:200], error)
        return listed

    def _refuse(self, name: str, error: RegistrationError) -> None:
        self.refused[name] = error
        log.warning("the tool %r of an MCP server is left out: %s", name, error)

    def _remove(self, name: str, tool: Tool) -> None:
        del self._registered[name]
        try:
            if self.registry.find(tool.name, tool.namespace) is tool:
                self.registry.remove(tool.name, tool.namespace)
        except ToolNotFoundError:  # somebody took it out in the meantime
            pass
