"""From how many calls on a program costs less than plain calls made together, in one formula."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the parts of a conversation measure, in tokens.

    Attributes:
        definitions: of the tools, for plain calls (D).
        instructions: for programs, with the stubs of the tools (P).
        question: the user's words (q).
        call: one call (a).
        result: what it gives (r).
        program: all of it (p).
        value: what it returns (v).
        answer: the model's last words (s).
    """

    definitions: float
    instructions: float
    question: float
    call: float
    result: float
    program: float
    value: float
    answer: float


def together(sizes: Sizes, calls: int, again: float = 1.0, out: float = 1.0) -> float:
    """All calls in one turn: two requests, of which the second repeats the first, and holds calls and results.

    Args:
        sizes: the parts.
        calls: how many.
        again: the price of an input token that the request before sent as well, in new ones.
        out: the price of an output token, in new input tokens.
    """
    repeated = (1 + again) * (sizes.definitions + sizes.question)
    return repeated + calls * ((1 + out) * sizes.call + sizes.result) + out * sizes.answer


def one_a_turn(sizes: Sizes, calls: int, again: float = 1.0, out: float = 1.0) -> float:
    """One call in each turn: every result is read when it comes, and again in every later request."""
    repeated = (1 + calls * again) * (sizes.definitions + sizes.question)
    read = calls + again * calls * (calls - 1) / 2
    return repeated + read * (sizes.call + sizes.result) + out * (calls * sizes.call + sizes.answer)


def one_program(sizes: Sizes, again: float = 1.0, out: float = 1.0) -> float:
    """One program: the number of its calls is of no account."""
    repeated = (1 + again) * (sizes.instructions + sizes.question)
    return repeated + (1 + out) * sizes.program + sizes.value + out * sizes.answer


def break_even(sizes: Sizes, again: float = 1.0, out: float = 1.0) -> float:
    """How many calls made together cost as much as one program; above it, the program is cheaper."""
    extra = (1 + again) * (sizes.instructions - sizes.definitions) + (1 + out) * sizes.program + sizes.value
    return extra / ((1 + out) * sizes.call + sizes.result)
