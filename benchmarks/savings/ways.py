"""Owns the ways to do a task, each driven through the real `Orchestrator` with tools that really run."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.savings.measure import Cost, Counted
from demo.models import Message, Model
from demo.recorded import RecordedCaller, RecordedProgrammer, Script
from toolchord import CodeSandbox, Limits, Orchestrator, ToolRegistry, create_registry

ONE_A_TURN = "one call a turn"
TOGETHER = "calls together"
PROGRAM = "one program"
FAILED = "first program fails"
WAYS = (ONE_A_TURN, TOGETHER, PROGRAM, FAILED)

LIMITS = Limits(wall_time=120.0)
UNCUT = 10_000_000
"""Characters of a result: nothing is cut, since a cut result would be a cheaper one."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One thing that the user asks, and what a perfect model does with it.

    Attributes:
        text: the user's words.
        script: makes the sequence of plain calls; calls that need not wait for each other are yielded together.
        program: does the same calls; empty: no tool is needed.
        answer: what the model says at the end; None: as JSON, what the script found or the program returned.
    """

    text: str
    script: Callable[[], Script]
    program: str
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A task about to be done in one way: fresh tools, and how to tell whether it was done right.

    Attributes:
        registry: the tools; a way changes nothing that another one sees.
        wrong: counts, from the answers, what is not as the ground truth has it.
    """

    registry: ToolRegistry
    wrong: Callable[[Sequence[str]], int]


@dataclass(frozen=True, slots=True)
class Task:
    """A conversation of one or more exchanges.

    Attributes:
        name: unique in its workload.
        system: instructions about the subject, the same for every way.
        exchanges: what is asked, one after another.
        begin: makes fresh tools.
    """

    name: str
    system: str
    exchanges: Sequence[Exchange]
    begin: Callable[[], Attempt]


class Silent:
    """A model that needs no tool."""

    name = "silent"

    async def complete(self, system: str, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Message:
        """Say the answer."""
        return Message("assistant", "")


def breaking(program: str) -> str:
    """The program with a mistake that shows as late as can be: right before it would return.

    This is the dearest kind of failure: all of it was written, nearly all of it ran, and all of it is written again.
    """
    lines = program.splitlines()
    returns = [node for node in _own_statements(ast.parse(program)) if isinstance(node, ast.Return)]
    for node in sorted(returns, key=lambda node: -node.lineno):
        lines.insert(node.lineno - 1, " " * node.col_offset + '{}["total"]')
    return "\n".join(lines)


def _own_statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements of a program that belong to none of its functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield child
            yield from _own_statements(child)


def speaker(exchange: Exchange, way: str) -> Model:
    """Who plays the model for one exchange."""
    if not exchange.program:
        return Silent()
    if way in (ONE_A_TURN, TOGETHER):
        return RecordedCaller(exchange.script(), together=way == TOGETHER)
    good = exchange.program
    return RecordedProgrammer([breaking(good), good] if way == FAILED else [good])


def without_results(registry: ToolRegistry) -> ToolRegistry:
    """The same tools without the shapes of their results: what plain calls can do without, they need not pay for."""
    bare = create_registry()
    for tool in registry.tools():
        bare.add(tool, result_schema=None)
    return bare


async def run(task: Task, way: str, sandbox: CodeSandbox) -> Cost:
    """Do a task in one way, and count.

    Raises:
        RuntimeError: it came to no end.
    """
    attempt = task.begin()
    plain = way in (ONE_A_TURN, TOGETHER)
    model = Counted()
    orchestrator = Orchestrator(
        model,
        sandbox,
        without_results(attempt.registry) if plain else attempt.registry,
        system=task.system,
        way="plain" if plain else "sandbox",
        max_turns=1_000,
        max_chars=UNCUT,
        limits=LIMITS,
    )
    conversation: list[dict[str, Any]] = []
    answers = []
    for exchange in task.exchanges:
        model.speaker, model.answer = speaker(exchange, way), exchange.answer
        done = await orchestrator.run([*conversation, {"role": "user", "content": exchange.text}])
        if not done.ok:
            raise RuntimeError(f"{task.name}, {way}: {done.stop}, {done.result.error if done.result else ''}")
        conversation = done.messages
        answers.append(done.text)
        made = [call for one in done.attempts for call in one.result.calls]
        model.cost.calls += sum(not call.replayed for call in [*done.plain_calls, *made])
        model.cost.programs += len(done.attempts)
    model.cost.wrong = attempt.wrong(answers)
    return model.cost
