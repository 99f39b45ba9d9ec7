"""Owns what a call did to the graph besides giving a value, and how that is kept."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import ToolMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.types import Command


@dataclass
class Kept:
    """What a call did to the graph, besides giving a value."""

    commands: list[Command[Any]] = field(default_factory=list)
    writes: list[tuple[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.commands or self.writes)

    def clear(self) -> None:
        """Forget it: the call has not ended."""
        self.commands.clear()
        self.writes.clear()

    def written(self, serde: SerializerProtocol) -> bytes:
        """As bytes, for a store."""
        kind, data = serde.dumps_typed([self.commands, [list(write) for write in self.writes]])
        return kind.encode() + b":" + data

    @classmethod
    def read(cls, data: bytes, serde: SerializerProtocol) -> Kept:
        """From bytes."""
        kind, _, rest = data.partition(b":")
        commands, writes = serde.loads_typed((kind.decode(), rest))
        return cls(commands, [(channel, value) for channel, value in writes])


def without_message(command: Command[Any], key: str, inner_id: str) -> tuple[ToolMessage | None, Command[Any] | None]:
    """The message with which a command answers this call, and the command without it; None if nothing is left.

    The model never made the inner call, so a message that answers it has no place in the conversation.
    """
    update = command.update
    found: ToolMessage | None = None
    if isinstance(update, list) and not any(
        isinstance(one, tuple) for one in update
    ):  # the state is a list of messages
        found, rest = without_message(dataclasses.replace(command, update={key: update}), key, inner_id)
        return found, None if rest is None else dataclasses.replace(rest, update=(rest.update or {}).get(key))
    pairs = list(update.items()) if isinstance(update, dict) else update
    if not isinstance(pairs, list):
        return None, command
    left: list[tuple[str, Any]] = []
    for channel, value in pairs:
        if channel == key:
            messages = value if isinstance(value, list) else [value]
            mine = [m for m in messages if isinstance(m, ToolMessage) and m.tool_call_id == inner_id]
            found = mine[-1] if mine else found
            value = [m for m in messages if not any(m is one for one in mine)]
            if not value:
                continue
        left.append((channel, value))
    if not left and not command.goto and command.resume is None:
        return found, None
    return found, dataclasses.replace(command, update=dict(left) if isinstance(update, dict) else left)
