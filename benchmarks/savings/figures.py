"""Owns the measured figures: made by running the workloads, kept in figures.json beside this module."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmarks.savings import bfcl, expenses, fixed, flights, orders
from benchmarks.savings.fixed import Fixed
from benchmarks.savings.measure import Cost, total
from benchmarks.savings.ways import ONE_A_TURN, WAYS, Task, run
from toolchord import CodeSandbox

KEPT = Path(__file__).with_name("figures.json")
WORKLOADS: dict[str, Callable[[], list[Task]]] = {
    "team expenses": expenses.tasks,
    "flights": flights.tasks,
    "BFCL multi-turn": bfcl.tasks,
    "orders": orders.tasks,
}
COLUMNS = [one.name for one in fields(Cost)]


@dataclass
class Figures:
    """What was measured.

    Attributes:
        costs: by workload, task and way.
        fixed: by workload and task.
    """

    costs: dict[tuple[str, str, str], Cost] = field(default_factory=dict)
    fixed: dict[tuple[str, str], Fixed] = field(default_factory=dict)

    def tasks(self, workload: str) -> list[str]:
        """The names of a workload's tasks, in order."""
        return [task for one, task in self.fixed if one == workload]

    def cost(self, workload: str, way: str, tasks: Iterable[str] | None = None) -> Cost:
        """What all of a workload's tasks, or some, came to in one way."""
        return total(self.costs[workload, task, way] for task in (self.tasks(workload) if tasks is None else tasks))

    def user_turns(self, workload: str, task: str) -> int:
        """How often the user said something: what the model was asked beyond its calls, one a turn."""
        cost = self.costs[workload, task, ONE_A_TURN]
        return cost.requests - cost.calls

    @property
    def wrong(self) -> list[tuple[str, str, str]]:
        """What did not come out as the ground truth has it."""
        return [key for key, cost in self.costs.items() if cost.wrong]

    def dumps(self) -> str:
        """As text, one line a task."""
        lines = []
        for (workload, task), about in self.fixed.items():
            ways = {way: [getattr(self.costs[workload, task, way], one) for one in COLUMNS] for way in WAYS}
            lines.append(json.dumps([workload, task, about.as_json(), ways]))
        return '{"columns": ' + json.dumps(COLUMNS) + ', "tasks": [\n' + ",\n".join(lines) + "\n]}\n"

    @classmethod
    def loads(cls, text: str) -> Figures:
        """From the text that `dumps` makes."""
        kept = json.loads(text)
        figures = cls()
        for workload, task, about, ways in kept["tasks"]:
            figures.fixed[workload, task] = Fixed(**about)
            for way, values in ways.items():
                figures.costs[workload, task, way] = Cost(**dict(zip(kept["columns"], values, strict=True)))
        return figures

    @classmethod
    def kept(cls) -> Figures:
        """Those of the repository."""
        return cls.loads(KEPT.read_text(encoding="utf-8"))


def _ignore(workload: str, task: str) -> None:
    pass


async def measure(
    chosen: Sequence[tuple[str, Task]], ways: Sequence[str] = WAYS, told: Callable[[str, str], Any] = _ignore
) -> Figures:
    """Do tasks in several ways.

    Args:
        chosen: pairs of a workload and one of its tasks.
        ways: which.
        told: is told of each task before it begins.
    """
    figures = Figures()
    async with CodeSandbox() as sandbox:
        for workload, task in chosen:
            told(workload, task.name)
            figures.fixed[workload, task.name] = fixed.of_task(task)
            for way in ways:
                figures.costs[workload, task.name, way] = await run(task, way, sandbox)
    return figures


def chosen(names: Iterable[str] = WORKLOADS, limit: int | None = None) -> list[tuple[str, Task]]:
    """The tasks of some workloads, the first `limit` of each.

    Raises:
        FileNotFoundError: a data package is not installed; ``make savings`` installs it.
    """
    return [(name, task) for name in names for task in WORKLOADS[name]()[:limit]]
