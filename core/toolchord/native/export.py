"""Which tools a provider is told about, under names that are flat and its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from toolchord.catalogue import Catalogue, Source
from toolchord.errors import ConfigurationError
from toolchord.tools import Tool, ToolSpec

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Exported(NamedTuple):
    """A tool as a provider is told about it: `spec` has the exported name and its callers."""

    spec: ToolSpec
    tool: Tool


def export(
    source: Source, *, undeclared: Callable[[ToolSpec], list[str]], reserved: Iterable[str] = ()
) -> dict[str, Exported]:
    """The tools that may leave the host, by exported name, in order.

    A tool keeps its registered name where the provider takes it and no other tool has it; else the namespace comes in
    front: ``sales_get_orders``. Deferred tools are imported, since a provider needs their definitions. Tools that are
    open to the local sandbox only are left out.

    Args:
        source: whatever a `Catalogue` is made of.
        undeclared: the callers of a tool that declares none.
        reserved: names that are the provider's own.

    Raises:
        ConfigurationError: there is no tool to export.
    """
    catalogue = Catalogue.of(source)
    tools = [exposed.tool for exposed in catalogue.tools] + list(catalogue.closed)
    exported: dict[str, Exported] = {}
    counted: dict[str, int] = {}
    for tool in tools:
        counted[tool.name] = counted.get(tool.name, 0) + 1
    taken = set(reserved)
    for known in tools:
        tool = known.load()
        if tool.metadata.allowed_callers is not None and not set(tool.metadata.allowed_callers) - {"sandbox"}:
            continue
        name = _free(known, alone=counted[known.name] == 1, taken=taken)
        taken.add(name)
        spec = ToolSpec.from_metadata(tool.metadata)
        changed: dict[str, object] = {"name": name}
        if spec.allowed_callers is None:
            changed["allowed_callers"] = undeclared(spec)
        if known in catalogue.unlisted:
            changed["defer_loading"] = True
        exported[name] = Exported(spec.model_copy(update=changed), tool)
    if not exported:
        raise ConfigurationError(
            "there is no tool that a provider's model may call; register one, or add 'direct' or 'programmatic' to "
            "allowed_callers"
        )
    return exported


def _free(tool: Tool, *, alone: bool, taken: set[str]) -> str:
    name = tool.name
    if not (alone or tool.namespace == "default") or not _NAME.fullmatch(name):
        prefix = "" if tool.namespace == "default" else f"{tool.namespace}_"
        name = re.sub(r"[^a-zA-Z0-9_-]", "_", prefix + name)[:64]
    free, number = name, 2
    while free in taken:
        free = f"{name[:60]}_{number}"
        number += 1
    return free
