"""Owns what is counted: the tokens of every request and reply of one conversation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from demo.models import Call, Model
from demo.models import Message as DemoMessage
from demo.tokens import count
from toolchord import Reply, ToolRequest
from toolchord.instructions import RUN_CODE

Message = dict[str, Any]


@dataclass(slots=True)
class Cost:
    """What one conversation came to; tokens unless said otherwise.

    Attributes:
        requests: how often the model was asked.
        calls: tool calls that ran.
        programs: programs that ran, failed ones too.
        fixed: instructions and tools, as every request repeats them.
        tokens_in: all requests.
        tokens_out: all replies.
        again: the part of `tokens_in` that the request before sent as well; a provider's cache may hold it.
        wrong: answers, results or effects that were not those of the ground truth.
    """

    requests: int = 0
    calls: int = 0
    programs: int = 0
    fixed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    again: int = 0
    wrong: int = 0

    @property
    def tokens(self) -> int:
        """All tokens, in and out."""
        return self.tokens_in + self.tokens_out

    def priced(self, again: float, out: float) -> float:
        """In units of the price of one new input token.

        Args:
            again: the price of an input token that the request before sent as well.
            out: the price of an output token.
        """
        return self.tokens_in - self.again + again * self.again + out * self.tokens_out

    def as_json(self) -> dict[str, int]:
        """Everything, as plain data."""
        return asdict(self)


def total(costs: Iterable[Cost]) -> Cost:
    """What several conversations came to together."""
    summed = Cost()
    for cost in costs:
        for field in fields(Cost):
            setattr(summed, field.name, getattr(summed, field.name) + getattr(cost, field.name))
    return summed


def of_message(message: Message) -> int:
    """Tokens of a message: its text, and of each call the name and the arguments.

    A provider's framing (a few tokens a message) is left out, for every way alike.
    """
    functions = [call["function"] for call in message.get("tool_calls", ())]
    return count(message["content"] or "") + sum(count(f["name"]) + count(f["arguments"]) for f in functions)


def of_tools(tools: Sequence[dict[str, Any]] | None) -> int:
    """Tokens of tool definitions, written as SDKs send them."""
    return count(json.dumps(list(tools or ()), separators=(",", ":")))


class Counted:
    """A model for the orchestrator that plays one of the demo's, and counts.

    Attributes:
        speaker: who says the next replies.
        answer: what the model says at the end; None: what its speaker says.
        cost: what all requests so far came to.
    """

    name = "scripted"

    def __init__(self) -> None:
        self.speaker: Model
        self.answer: str | None = None
        self.cost = Cost()
        self._before = 0

    async def __call__(self, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> Reply:
        """Give the next reply."""
        said = await self.speaker.complete("", [_heard(message) for message in messages], ())
        reply = Reply(
            said.text if said.calls or self.answer is None else self.answer, [_request(call) for call in said.calls]
        )
        fixed = of_tools(tools) + sum(of_message(message) for message in messages if message["role"] == "system")
        read = fixed + sum(of_message(message) for message in messages if message["role"] != "system")
        self.cost.requests += 1
        self.cost.fixed = fixed
        self.cost.tokens_in += read
        self.cost.tokens_out += of_message(reply.as_message())
        self.cost.again += self._before
        self._before = read
        return reply


def _heard(message: Message) -> DemoMessage:
    """A message as the demo's models read it; what the assistant itself said is of no use to them."""
    role = "tool" if message["role"] == "tool" else "user"
    return DemoMessage(role, message["content"] or "")  # type: ignore[arg-type]


def _request(call: Call) -> ToolRequest:
    return ToolRequest(call.id, RUN_CODE if call.name == "run_program" else call.name, call.arguments)
