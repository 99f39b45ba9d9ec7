"""The one loop that drives every model, live or recorded, in both ways: ask, serve its calls, ask again."""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from demo import tokens
from demo.models import Call, Message, Model

ANSWER = "When you know the answer, give it as one JSON object with exactly the keys that the question names."

Serve = Callable[[Call], Awaitable[str]]


@dataclass(slots=True)
class Outcome:
    """What one way of answering a question cost, and what it gave; seconds without the counting of tokens."""

    turns: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tool_calls: int = 0
    failed_programs: int = 0
    seconds: float = 0.0
    answer: Any = None
    stopped: str = ""  # why there is no answer

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out


Watch = Callable[[Outcome], None]


def answer_in(text: str) -> Any:
    """Find the last JSON object (or Python dict) of a reply; None if there is none."""
    for start in reversed([match.start() for match in re.finditer(r"\{", text)]):
        if text.count("{", 0, start) != text.count("}", 0, start):
            continue  # inside another object
        candidate = text[start : text.rfind("}") + 1]
        for read in (json.loads, ast.literal_eval):
            try:
                return read(candidate)
            except (ValueError, SyntaxError):
                pass
    return None


async def converse(
    model: Model,
    system: str,
    tools: Sequence[dict[str, Any]],
    question: str,
    serve: Serve,
    outcome: Outcome,
    *,
    max_turns: int,
    watch: Watch,
) -> None:
    """Let a model answer a question; ``outcome`` is kept up to date as it goes.

    Every request counts in full, since a model reads its whole history again in every turn.
    """
    messages = [Message("user", question)]
    for _ in range(max_turns):
        begun = time.perf_counter()
        try:
            reply = await model.complete(system, messages, tools)
        except Exception as error:  # a provider's own kinds; a history that has grown too long is one of them
            outcome.stopped = f"{type(error).__name__}: {error}"
            return
        outcome.seconds += time.perf_counter() - begun
        outcome.turns += 1
        outcome.tokens_in += tokens.of_request(system, messages, tools)
        outcome.tokens_out += tokens.of_message(reply)
        watch(outcome)
        messages.append(reply)
        if not reply.calls:
            outcome.answer = answer_in(reply.text)
            outcome.stopped = "" if outcome.answer is not None else "the reply holds no JSON object"
            return
        for call in reply.calls:
            begun = time.perf_counter()
            text = await serve(call)
            outcome.seconds += time.perf_counter() - begun
            messages.append(Message("tool", text, call_id=call.id))
            watch(outcome)
    outcome.stopped = f"no answer after {max_turns} turns"
