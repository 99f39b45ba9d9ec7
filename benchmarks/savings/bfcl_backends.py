"""The Python backends and the tool descriptions of BFCL's multi-turn tasks, read from the `bfcl-eval` package.

Berkeley Function Calling Leaderboard, version 4 (gorilla.cs.berkeley.edu, Apache 2.0). Nothing of it is kept here: the
package lies among the data packages, without its dependencies.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from demo.data import PACKAGES
from toolchord import ToolRegistry, create_registry

HOME = PACKAGES / "bfcl_eval"
CLASSES = {  # class: module of its code, file of its description
    "GorillaFileSystem": ("gorilla_file_system", "gorilla_file_system"),
    "MathAPI": ("math_api", "math_api"),
    "MessageAPI": ("message_api", "message_api"),
    "TicketAPI": ("ticket_api", "ticket_api"),
    "TradingBot": ("trading_bot", "trading_bot"),
    "TravelAPI": ("travel_booking", "travel_booking"),
    "TwitterAPI": ("posting_api", "posting_api"),
    "VehicleControlAPI": ("vehicle_control", "vehicle_control"),
}
TYPES = {"dict": "object", "float": "number", "tuple": "array"}
"""BFCL's words for types, and JSON Schema's."""


def read(path: Path) -> list[dict[str, Any]]:
    """The entries of one of the package's files, one a line.

    Raises:
        FileNotFoundError: the package is not installed; ``make savings`` installs it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; run `make savings`, which installs bfcl-eval there")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


@cache
def backend(name: str) -> type[Any]:
    """A backend's class. It is imported from the data packages, which are not on the path."""
    for package in ("mpmath", "bfcl_eval"):
        if package not in sys.modules:
            origin = PACKAGES / package / "__init__.py"
            spec = importlib.util.spec_from_file_location(package, origin)
            if spec is None or spec.loader is None or not origin.is_file():
                raise FileNotFoundError(f"no {origin}; run `make savings`, which installs it there")
            module = importlib.util.module_from_spec(spec)
            sys.modules[package] = module
            spec.loader.exec_module(module)
    source = f"bfcl_eval.eval_checker.multi_turn_eval.func_source_code.{CLASSES[name][0]}"
    return getattr(importlib.import_module(source), name)  # type: ignore[no-any-return]


def schema(described: Any) -> Any:
    """A description's types in JSON Schema's words; all else stays as it is."""
    if isinstance(described, list):
        return [schema(one) for one in described]
    if not isinstance(described, dict):
        return described
    return {
        key: TYPES.get(value, value) if key == "type" and isinstance(value, str) else schema(value)
        for key, value in described.items()
    }


@cache
def descriptions(name: str) -> list[dict[str, Any]]:
    """What a model is told of a backend's functions."""
    return [schema(one) for one in read(HOME / "data" / "multi_turn_func_doc" / f"{CLASSES[name][1]}.json")]


def plain(value: Any) -> Any:
    """A result as data: as BFCL's own executor does it, text where JSON can't say it. It is a copy."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return str(value)


class Backends:
    """The backends of one entry, fresh.

    Attributes:
        log: every call: name, arguments, result.
    """

    def __init__(self, entry: dict[str, Any]) -> None:
        self._entry = entry
        self.log: list[tuple[str, dict[str, Any], Any]] = []
        self._instances: dict[str, Any] = {}
        for name in entry["involved_classes"]:
            self._instances[name] = backend(name)()
            if name != "MathAPI":  # it has no state
                self._instances[name]._load_scenario(copy.deepcopy(entry["initial_config"].get(name, {})))

    def state(self) -> dict[str, Any]:
        """What BFCL's own checker compares: the public attributes of each instance."""
        return {
            f"{name}.{key}": value
            for name, instance in self._instances.items()
            for key, value in vars(instance).items()
            if not key.startswith("_")
        }

    def function(self, name: str) -> Callable[..., Any]:
        """A function of one of the backends, which logs its calls and gives plain data."""
        method = next(getattr(one, name) for one in self._instances.values() if hasattr(one, name))
        signature = inspect.signature(method)

        @functools.wraps(method)
        def called(*args: Any, **kwargs: Any) -> Any:
            arguments = dict(signature.bind(*args, **kwargs).arguments)
            result = plain(method(**copy.deepcopy(arguments)))  # some backends keep a list, and change it
            self.log.append((name, arguments, result))
            return copy.deepcopy(result)

        return called

    def registry(self) -> ToolRegistry:
        """All functions that the entry offers, with BFCL's descriptions.

        Arguments reach them as they are, without our checks, since BFCL's executor makes none.
        """
        tools = create_registry()
        for backend_name in self._entry["involved_classes"]:
            for one in descriptions(backend_name):
                if one["name"] not in self._entry.get("excluded_function", ()):
                    tools.add(
                        self.function(one["name"]),
                        name=one["name"],
                        description=one["description"],
                        argument_schema=one["parameters"],
                        result_schema=one.get("response"),
                        check=_unchecked,
                    )
        return tools


def _unchecked(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments
