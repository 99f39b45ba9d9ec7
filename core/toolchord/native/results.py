"""What a run with a provider's model leaves: text, conversation, programs, every call, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from toolchord.native.ledger import Ledger, NativeCall
from toolchord.results import ExecutionResult


@dataclass
class TokenUsage:
    """Tokens of all requests of a run.

    Attributes:
        input_tokens: read by the model, cached ones included.
        output_tokens: written by it.
        cache_read_tokens: those of the input that came from a cache.
        cache_write_tokens: those of the input that were put into one.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass
class Program:
    """A program that the model wrote.

    Attributes:
        id: the provider's id of it.
        code: Python, or JavaScript at OpenAI.
        output: what came back to the model; None while it has not ended.
        ok: whether it came to its end; None if that is not known.
        result: the full result of a program that ran in our sandbox.
    """

    id: str
    code: str
    output: str | None = None
    ok: bool | None = None
    result: ExecutionResult | None = field(default=None, repr=False)


@dataclass
class ModelRun:
    """A conversation of a model with its tools, up to its answer.

    Attributes:
        text: the answer.
        messages: the whole conversation, plain data in the provider's form, ready to be continued.
        calls: every tool call, in the order of their arrival, each with its caller.
        programs: every program, in order.
        usage: tokens of all requests together.
        requests: how many requests were made to the model.
        stop_reason: why it ended, in the provider's word; ``"paused"`` if calls wait for something outside.
        container: the id of the provider's container, for the next run.
        container_expires: when the provider says that it expires.
        response_id: the provider's id of the last response.
        response: the SDK's last response.
        notes: what was done differently from what was asked for, and why.
        ledger: what its calls came to; give it to the next run of the same conversation.
    """

    text: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    calls: list[NativeCall] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)
    usage: TokenUsage = field(default_factory=TokenUsage)
    requests: int = 0
    stop_reason: str = ""
    container: str | None = None
    container_expires: datetime | None = None
    response_id: str | None = None
    response: Any = field(default=None, repr=False)
    notes: list[str] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger, repr=False)

    @property
    def pending(self) -> list[NativeCall]:
        """The calls that wait for something outside; run `messages` again with `ledger` and they are made again."""
        return [call for call in self.calls if call.status == "paused"]

    def program(self, id: str, code: str = "") -> Program:
        """The program of that id, new if it is not known yet."""
        for known in self.programs:
            if known.id == id:
                return known
        self.programs.append(Program(id, code))
        return self.programs[-1]

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True)
class Restarted:
    """A stream broke off and its request was sent again: forget what it had sent since the last response."""

    reason: str
    type: str = "restarted"


def count(usage: TokenUsage, **tokens: int | None) -> None:
    """Add one response's tokens."""
    for name, number in tokens.items():
        setattr(usage, name, getattr(usage, name) + (number or 0))
