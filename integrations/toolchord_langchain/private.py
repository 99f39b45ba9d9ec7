"""The private names of langchain-core that this adapter needs, checked when it is imported.

Only LangChain itself knows which parameters it fills in at run time: the markers have subclasses in langgraph, and one
of them is private. Read against langchain-core 1.5.0 to 1.7.2.
"""

from __future__ import annotations

import contextlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolCallId, base
from langchain_core.version import VERSION

from toolchord.errors import ConfigurationError

_NAMES = {"_injected_args_keys": BaseTool, "_is_injected_arg_type": base, "get_all_basemodel_annotations": base}

if missing := [name for name, owner in _NAMES.items() if not hasattr(owner, name)]:
    raise ConfigurationError(
        f"langchain-core {VERSION} has no {', '.join(missing)}, which keeps injected arguments out of programs; "
        f"use another version (1.5 to 1.7 are known to work), or a newer toolchord"
    )


def injected_parameters(tool: BaseTool) -> frozenset[str]:
    """The parameters of a tool's functions that are marked as injected."""
    return tool._injected_args_keys | {name for name, hint in _hints(tool) if is_injected(hint)}


def config_parameters(tool: BaseTool) -> frozenset[str]:
    """The parameters of a tool's functions that take the run's config."""
    return frozenset(
        name for name, hint in _hints(tool) if hint is RunnableConfig or RunnableConfig in typing.get_args(hint)
    )


def call_id_parameters(tool: BaseTool) -> frozenset[str]:
    """Those among them that take the id of the tool call."""
    return frozenset(name for name, hint in _hints(tool) if is_injected(hint, InjectedToolCallId))


def is_injected(hint: Any, marker: type | None = None) -> bool:
    """Whether a type hint marks an injected argument; one of `marker`'s kind, if given."""
    return bool(base._is_injected_arg_type(hint, marker))


def field_hints(model: Any) -> dict[str, Any]:
    """The type hints of a pydantic model's fields, of either version, with their markers."""
    return dict(base.get_all_basemodel_annotations(model))


def implementations(tool: BaseTool) -> list[Callable[..., Any]]:
    """The functions behind a tool, the one that says most about arguments and result first."""
    own = [getattr(tool, name, None) for name in ("coroutine", "func")]
    return [function for function in own if callable(function)] or [tool._run, tool._arun]


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Resolved annotations, without those that can't be resolved: one of them must not hide the others."""
    while hasattr(function, "func"):  # a partial
        function = function.func
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # any error may come out of evaluating an annotation
        scope = getattr(inspect.unwrap(function), "__globals__", {})
        hints: dict[str, Any] = {}
        for name, annotation in getattr(function, "__annotations__", {}).items():
            alone = types.SimpleNamespace(__annotations__={name: annotation})
            with contextlib.suppress(Exception):
                hints |= typing.get_type_hints(alone, scope, include_extras=True)
        return hints


def _hints(tool: BaseTool) -> Iterator[tuple[str, Any]]:
    for function in implementations(tool):
        yield from ((name, hint) for name, hint in hints_of(function).items() if name != "return")
