"""A model that needs no key: it replays what was written down for a question, through the same loop as a live one.

Programmatic: the stored programs, in order; then it answers with what the last one returned. Classic: a stored script
of calls, a generator that is sent the results *as they stand in the history*, so that its answer is made of
nothing but what went through the conversation. It makes no mistake and never asks for anything twice.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from itertools import count
from typing import Any

from demo.models import Call, Message

# Yields calls that do not need each other's results, is sent those results, returns the answer.
Script = Generator[list[Call], list[Any], Any]


def call(name: str, **arguments: Any) -> Call:
    """Write down a call; it gets its id when it is made."""
    return Call("", name, arguments)


def result_of(message: Message) -> Any:
    """Read a tool's result from the history; None for a failed call."""
    try:
        return json.loads(message.text)
    except ValueError:
        return None


class RecordedCaller:
    """Replays a script of calls: one a turn, or together what a perfect model could send together."""

    name = "recorded"

    def __init__(self, script: Script, *, together: bool) -> None:
        self._ids = map("call_{}".format, count(1))
        self._turns = self._replies(script, together)
        next(self._turns)

    async def complete(self, system: str, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Message:
        """Play the next turn."""
        return self._turns.send(list(messages))

    def _replies(self, script: Script, together: bool) -> Generator[Message, list[Message], None]:
        messages = yield Message("assistant")  # primed here, see __init__
        try:
            batch = next(script)
            while True:
                results: list[Any] = []
                for calls in [batch] if together else [[one] for one in batch]:
                    named = tuple(Call(next(self._ids), one.name, one.arguments) for one in calls)
                    messages = yield Message("assistant", calls=named)
                    results += [result_of(message) for message in messages[-len(named) :]]
                batch = script.send(results)
        except StopIteration as end:
            yield Message("assistant", json.dumps(end.value))


class RecordedProgrammer:
    """Replays stored programs, and answers with what the last one gave."""

    name = "recorded"

    def __init__(self, programs: Sequence[str]) -> None:
        self._programs: Iterator[tuple[int, str]] = enumerate(programs, 1)

    async def complete(self, system: str, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Message:
        """Play the next turn."""
        for number, program in self._programs:
            return Message("assistant", calls=(Call(f"call_{number}", "run_program", {"code": program}),))
        return Message("assistant", messages[-1].text)
