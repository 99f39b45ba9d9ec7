"""Checks what a user gives to a run, and makes plain data of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from toolchord.errors import ConfigurationError
from toolchord.native.ledger import Ledger

Messages: TypeAlias = str | Sequence[Any]


def conversation_of(messages: Messages) -> list[dict[str, Any]]:
    """A conversation as plain data: a text is one message of the user; the SDK's own objects become dicts.

    Raises:
        ConfigurationError: it is no list of messages.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping) or not isinstance(messages, Sequence):
        raise ConfigurationError(f"messages must be a text or a list of messages, not {type(messages).__name__}")
    found = [_plain(one) for one in messages]
    for number, one in enumerate(found):
        if not isinstance(one, dict):
            raise ConfigurationError(f"messages[{number}] must be a message of the SDK, not {type(one).__name__}")
    return found


def _plain(value: Any) -> Any:
    if callable(to_dict := getattr(value, "to_dict", None)):
        return to_dict(mode="json", warnings=False)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def ledger_of(ledger: Ledger | None) -> Ledger:
    """The ledger that was given, or a new one."""
    if ledger is None:
        return Ledger()
    if not isinstance(ledger, Ledger):
        raise ConfigurationError(f"ledger must be a Ledger, not {type(ledger).__name__}; see Ledger.from_json")
    return ledger


def require_positive(**numbers: float | None) -> None:
    """Refuse numbers that allow nothing."""
    for name, number in numbers.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float) or not number > 0):
            raise ConfigurationError(f"{name} must be a positive number, not {number!r}")
