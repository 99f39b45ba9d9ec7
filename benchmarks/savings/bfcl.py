"""BFCL's multi-turn tasks: 200 conversations of the base set, played from their ground-truth calls.

Plain calls are the ground truth itself. A program is made from the calls of one turn without thought: one statement a
call, and all results returned, so it keeps nothing out of the model's sight. That is the least that programs do; what a
loop or a filter would save is not in it. An argument that only an earlier call of the same turn can have told (an id,
a price) is read from that call's result in a program, and makes plain calls wait for a turn of the model's.
"""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.savings.bfcl_backends import HOME, Backends, read
from benchmarks.savings.ways import Attempt, Exchange, Task
from demo.models import Call
from demo.recorded import Script
from toolchord.catalogue import Catalogue

NAME = "BFCL_v4_multi_turn_base.json"
DONE = "Done."
"""What the model says at the end of every turn, in every way; BFCL does not judge its words."""


@dataclass(frozen=True, slots=True)
class Step:
    """A ground-truth call.

    Attributes:
        name, arguments: as it is made.
        result: what it gave when all calls were made directly, one after another.
        written: the arguments as a program writes them.
        waits: it needs the result of a call of the same turn that no turn of the model's lies between.
    """

    name: str
    arguments: dict[str, Any]
    result: Any
    written: dict[str, str]
    waits: bool


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The texts and numbers in a result, each with the expression that reads it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}[{key!r}]")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield path, value


def written(value: Any, known: str, results: Sequence[tuple[int, Any]]) -> tuple[str, set[int]]:
    """An argument as a program writes it, and the calls (by number in the turn) whose results it reads.

    It reads a result only where the value cannot be known otherwise: it is in no words of the user and in no result of
    an earlier turn. What the model works out by itself (a product, a sum) is taken as known.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return repr(value), set()
    for number, result in reversed(results):
        for path, leaf in leaves(result, f"r{number}"):
            if _says(known, leaf):
                continue
            if leaf == value:
                return path, {number}
            text = str(leaf)
            if isinstance(value, str) and len(text) >= 3 and text in value:
                before, _, after = value.partition(text)
                inner = path if isinstance(leaf, str) else f"str({path})"
                parts = [repr(before) if before else "", inner, repr(after) if after else ""]
                return " + ".join(filter(None, parts)), {number}
    return repr(value), set()


def _says(known: str, leaf: Any) -> bool:
    """Whether a text holds a value; numbers as people write them, too."""
    spellings = [str(leaf)]
    if isinstance(leaf, float | int):
        spellings += [f"{leaf:,}", f"{leaf:g}"]
    return any(spelling.lower() in known for spelling in spellings)


def steps(entry: dict[str, Any], truth: Sequence[Sequence[str]]) -> tuple[list[list[Step]], Backends]:
    """The ground-truth calls of each turn, made directly, and the backends that they leave behind."""
    backends = Backends(entry)
    known = ""
    turns: list[list[Step]] = []
    for (message,), texts in zip(entry["question"], truth, strict=True):
        known += message["content"].lower() + "\n"
        made: list[Step] = []
        batch = 1  # the first call since the model's last turn, if it calls together what it can
        for number, text in enumerate(texts, 1):
            name, arguments = made_by(text, backends)
            results = [(at, step.result) for at, step in enumerate(made, 1)]
            spelled = {key: written(value, known, results) for key, value in arguments.items()}
            needs = set().union(*(needed for _, needed in spelled.values()))
            waits = any(needed >= batch for needed in needs)
            batch = number if waits else batch
            result = backends.log[-1][2]
            made.append(Step(name, arguments, result, {key: one for key, (one, _) in spelled.items()}, waits))
        known += "\n".join(str(step.result).lower() for step in made)
        turns.append(made)
    return turns, backends


def made_by(text: str, backends: Backends) -> tuple[str, dict[str, Any]]:
    """Make the call that a text writes; its name, and its arguments by parameter."""
    written_call = ast.parse(text, mode="eval").body
    assert isinstance(written_call, ast.Call)
    assert isinstance(written_call.func, ast.Name)
    positional = [ast.literal_eval(one) for one in written_call.args]
    keywords = {one.arg or "": ast.literal_eval(one.value) for one in written_call.keywords}
    backends.function(written_call.func.id)(*positional, **keywords)
    name, arguments, _ = backends.log[-1]
    return name, arguments


def script(turn: Sequence[Step]) -> Script:
    """The calls of a turn; those that wait begin a new batch."""
    batch: list[Call] = []
    for step in turn:
        if step.waits:
            yield batch
            batch = []
        batch.append(Call("", step.name, step.arguments))
    yield batch
    return DONE


def program(turn: Sequence[Step], names: dict[str, str]) -> str:
    """One statement a call; all results are returned.

    Args:
        turn: the calls.
        names: how programs write the tools.
    """
    lines = [
        f"await {names[step.name]}({', '.join(f'{key}={one}' for key, one in step.written.items())})" for step in turn
    ]
    if len(lines) <= 1:
        return "".join(f"return {line}" for line in lines)
    kept = ", ".join(f"r{number}" for number in range(1, len(lines) + 1))
    return "\n".join([*(f"r{number} = {line}" for number, line in enumerate(lines, 1)), f"return [{kept}]"])


def _wrong(attempted: Backends, right: Backends, answers: Sequence[str]) -> int:
    """Calls with another name, arguments or result than the ground truth's, and differences of the final state."""
    differing = sum(one != other for one, other in zip(attempted.log, right.log, strict=False))
    differing += abs(len(attempted.log) - len(right.log))
    state, expected = attempted.state(), right.state()
    return differing + sum(bool(state[key] != value) for key, value in expected.items())


def _begin(entry: dict[str, Any], right: Backends) -> Attempt:
    backends = Backends(entry)
    return Attempt(backends.registry(), partial(_wrong, backends, right))


def task(entry: dict[str, Any], truth: Sequence[Sequence[str]]) -> Task:
    """One conversation."""
    turns, right = steps(entry, truth)
    catalogue = Catalogue.of(Backends(entry).registry())
    names = {exposed.tool.name: catalogue.path(exposed) for exposed in catalogue.tools}
    exchanges = [
        Exchange(message["content"], partial(script, turn), program(turn, names), DONE)
        for (message,), turn in zip(entry["question"], turns, strict=True)
    ]
    return Task(entry["id"], "", exchanges, partial(_begin, entry, right))


def tasks(names: Container[str] | None = None) -> list[Task]:
    """The conversations of the base set; those of some names only, if given.

    Raises:
        FileNotFoundError: bfcl-eval is not installed; ``make savings`` installs it.
    """
    entries = read(HOME / "data" / NAME)
    truths = {one["id"]: one["ground_truth"] for one in read(HOME / "data" / "possible_answer" / NAME)}
    return [task(one, truths[one["id"]]) for one in entries if names is None or one["id"] in names]
