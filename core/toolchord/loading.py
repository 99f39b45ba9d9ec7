"""Owns how a command finds tools by name: ``module:attribute``, or a module that registers its tools when imported."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from toolchord.catalogue import Catalogue
from toolchord.errors import ConfigurationError
from toolchord.registry import ToolRegistry, get_default_registry

__all__ = ["load_tools"]


def load_tools(names: Sequence[str]) -> ToolRegistry | Catalogue:
    """The tools behind some names, looked up from the current folder as well.

    Args:
        names: each ``module:attribute``, where the attribute is a registry, tools, functions, or a function without
            parameters that gives these; or ``module``, whose tools are those of the default registry.

    Returns:
        The registry, if there is one only; else a catalogue of all.

    Raises:
        ConfigurationError: no such module or attribute, it can't be imported, or it holds no tools.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found = [_loaded(name) for name in names]
    sources = list({id(source): source for source in found}.values())
    if len(sources) == 1 and isinstance(sources[0], ToolRegistry):
        return sources[0]
    return Catalogue.of(sources)


def _loaded(name: str) -> Any:
    path, colon, attribute = name.partition(":")
    if not all(part.isidentifier() for part in path.split(".")) or path.endswith(".py"):
        raise ConfigurationError(
            f"{name!r} names no module; tools are named as in 'module:registry', without folder or .py"
        )
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not (path == error.name or path.startswith(f"{error.name}.")):
            raise _broken(path, error) from error  # it is there, and lacks something itself
        raise ConfigurationError(
            f"there is no module {path!r} in this folder or among what is installed; run this in the module's folder"
        ) from None
    except Exception as error:
        raise _broken(path, error) from error
    if not colon:
        registry = asyncio.run(get_default_registry())
        if not registry.tools() and not registry.deferred():
            raise ConfigurationError(
                f"the module {path!r} registers no tools by itself; name them, as in '{path}:registry'"
            )
        return registry
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise ConfigurationError(f"the module {path!r} has no {attribute!r}")
        value = getattr(value, part)
    # A function may be a tool or give tools: one without a return type of its own that holds tools is a tool.
    if callable(value) and getattr(value, "__annotations__", {}).get("return") in _GIVERS:
        value = value()
    return value


_GIVERS = (ToolRegistry, "ToolRegistry", "toolchord.ToolRegistry", Catalogue, "Catalogue")


def _broken(path: str, error: Exception) -> ConfigurationError:
    """Why a module can't be imported, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.endswith(f"{path.rpartition('.')[2]}.py")] or frames
    where = f" ({os.path.basename(own[-1].filename)}, line {own[-1].lineno})" if own else ""
    if isinstance(error, SyntaxError):
        where = f" ({os.path.basename(error.filename or path)}, line {error.lineno})"
        return ConfigurationError(f"the module {path!r} can't be imported: SyntaxError: {error.msg}{where}")
    return ConfigurationError(f"the module {path!r} can't be imported: {type(error).__name__}: {error}{where}")
